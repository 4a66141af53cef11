"use strict";

// Draws the charts of the page with uPlot 1.6.32, which is kept as npm has it, beside its licence.
// What they show is in the page as JSON, and in its tables as text.

const charts = [
  { name: "calls", kind: "bars", format: integer },
  { name: "errors", kind: "bars", format: integer, filter: { errors: "1" } },
  { name: "tokens", kind: "bars", format: integer },
  { name: "cost", kind: "bars", format: money },
  { name: "latency", kind: "lines", quantiles: ["p50", "p95"], format: duration },
  { name: "chunk", kind: "lines", quantiles: ["chunk_p50", "chunk_p95"], format: duration },
  { name: "feedback", kind: "feedback", format: integer, filter: { feedback: "any" } },
];
const HEIGHT = 168;
let drawn = [];

const wholeSteps = Array.from({ length: 16 }, (_, power) => [1, 2, 5].map((step) => step * 10 ** power)).flat();

function integer(value) {
  return new Intl.NumberFormat(undefined, { notation: Math.abs(value) >= 10000 ? "compact" : "standard" }).format(value);
}

function money(value) {
  return `$${value === 0 ? "0" : value < 1 ? value.toPrecision(2) : value.toFixed(value < 10 ? 2 : 0)}`;
}

function duration(value) {
  return value < 1000 ? `${Math.round(value)} ms` : `${+(value / 1000).toFixed(1)} s`;
}

// A custom property as a colour: only a computed `color` has light and dark resolved.
function colour(name) {
  const probe = document.getElementById("chart-colour");
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

function translucent(value, alpha) {
  return value.replace(/^rgba?\(([^,)]+),([^,)]+),([^,)]+).*\)$/, `rgba($1,$2,$3,${alpha})`);
}

// What one chart draws: series with a label, a colour, the values as they are, and the values as they are drawn.
function seriesOf(chart, data) {
  const label = (line) => line.name || (data.by === "all" ? "all" : "(none)");
  if (chart.kind === "feedback") {
    const sums = (name) => data.starts.map((_, place) => data.lines.reduce((sum, line) => sum + line[name][place], 0));
    const [liked, disliked] = [sums("liked"), sums("disliked")];
    return [
      { label: "liked", colour: "--good", values: liked, drawn: liked },
      { label: "disliked", colour: "--bad", values: disliked, drawn: disliked.map((value) => -value) },
    ];
  }
  if (chart.kind === "bars") {
    let below = data.starts.map(() => 0);
    return data.lines.map((line, place) => {
      below = below.map((sum, column) => sum + line[chart.name][column]);
      return { label: label(line), line, colour: `--s${place}`, values: line[chart.name], drawn: below };
    });
  }
  // Both percentiles of one line; of several, the one that hurts.
  const [median, tail] = chart.quantiles;
  if (data.lines.length === 1) {
    const [line] = data.lines;
    return [
      { label: "p50", line, colour: "--s5", values: line[median], drawn: line[median] },
      { label: "p95", line, colour: "--s0", values: line[tail], drawn: line[tail] },
    ];
  }
  return data.lines.map((line, place) => {
    return { label: label(line), line, colour: `--s${place}`, values: line[tail], drawn: line[tail] };
  });
}

// The label of a time below a chart: days of several, else the hour, with the day at midnight.
function moment(data) {
  const days = (data.starts[data.starts.length - 1] - data.starts[0]) / 86400;
  return (seconds) => {
    const when = new Date(seconds * 1000);
    const isMidnight = when.getHours() === 0 && when.getMinutes() === 0;
    if (isMidnight || days > 4) return when.toLocaleDateString(undefined, { day: "numeric", month: "short" });
    return when.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  };
}

function span(data, place) {
  const [begin, end] = [data.starts[place], data.starts[place] + data.width].map((when) => new Date(when * 1000));
  const day = { day: "numeric", month: "short" };
  const time = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  const first = begin.toLocaleString(undefined, { ...day, ...time });
  return data.width >= 86400 ? begin.toLocaleDateString(undefined, day) : `${first} – ${end.toLocaleTimeString(undefined, time)}`;
}

// The logs behind a point: its column, and its line where one was hit.
function addressOf(chart, data, place, series) {
  const query = new URLSearchParams(chart.filter ?? {});
  query.set("since", new Date(data.starts[place] * 1000).toISOString());
  query.set("until", new Date((data.starts[place] + data.width) * 1000 - 1).toISOString());
  if (data.by === "tool" && chart.name === "errors") {
    query.delete("errors");
    query.set("tool_errors", "1");
  }
  if (!data.steps && data.by !== "tool") query.set("kind", "turns");
  if (data.by !== "all" && series?.line?.name && !series.line.isOthers) query.set(data.by, series.line.name);
  if (chart.kind === "feedback" && series) query.set("feedback", series.label);
  return `/logs?${query}`;
}

// The series under the pointer: the bar that it is in, or the nearest line.
function hit(plot, chart, series, place) {
  const value = plot.posToVal(plot.cursor.top, "y");
  if (chart.kind === "lines") {
    const known = series.filter((each) => each.drawn[place] !== null);
    return known.sort((a, b) => Math.abs(a.drawn[place] - value) - Math.abs(b.drawn[place] - value))[0];
  }
  if (chart.kind === "feedback") return series[value < 0 ? 1 : 0];
  return series.find((each) => each.values[place] > 0 && value <= each.drawn[place]);
}

function tooltip(chart, data, series) {
  const box = document.createElement("div");
  box.className = "tooltip";
  box.hidden = true;
  return {
    hooks: {
      init: (plot) => plot.over.append(box),
      setCursor: (plot) => {
        const place = plot.cursor.idx;
        const known = place === null || place === undefined ? [] : series.filter((each) => each.values[place]);
        box.hidden = plot.cursor.left < 0 || known.length === 0;
        if (box.hidden) return;
        const title = document.createElement("strong");
        title.textContent = span(data, place);
        const rows = known.map((each) => {
          const row = document.createElement("span");
          const key = document.createElement("i");
          key.style.background = each.css;
          const value = document.createElement("b");
          value.textContent = chart.format(each.values[place]);
          row.append(key, each.label, value);
          return row;
        });
        box.replaceChildren(title, ...rows);
        // On the side of the pointer where there is room.
        const left = plot.cursor.left > plot.over.clientWidth / 2;
        box.style.insetInlineStart = "auto";
        box.style.left = left ? "auto" : `${plot.cursor.left + 14}px`;
        box.style.right = left ? `${plot.over.clientWidth - plot.cursor.left + 14}px` : "auto";
      },
    },
  };
}

function draw(place, chart, data) {
  const series = seriesOf(chart, data);
  place.textContent = "";
  // No calls and no errors are a figure; a latency that nothing names, and a cost, are none.
  const isKnown = (value) => value !== null && (value !== 0 || chart.name !== "cost");
  const isEmpty = (chart.kind === "lines" || chart.name === "cost") && !series.some((each) => each.values.some(isKnown));
  place.classList.toggle("empty-plot", isEmpty);
  if (isEmpty) {
    place.textContent = "Not known for any of these calls";
    return [];
  }
  for (const each of series) each.css = colour(each.colour);
  const isBars = chart.kind !== "lines";
  const bars = uPlot.paths.bars({ size: [0.82, 46], radius: 0.08 });
  const middles = data.starts.map((start) => start + data.width / 2);
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  const font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const options = {
    width: place.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    padding: [10, 20, 0, 0],
    cursor: { y: false, drag: { x: false, y: false }, points: { show: !isBars } },
    scales: {
      x: { range: () => [data.starts[0], data.starts[data.starts.length - 1] + data.width] },
      y: { range: (plot, low, high) => [Math.min(0, (low ?? 0) * 1.1), Math.max((high ?? 0) * 1.1, isBars && chart.name !== "cost" ? 1 : 0) || 1] },
    },
    axes: [
      { ...axis, font, size: 26, grid: { show: false }, space: 92, values: (plot, values) => values.map(moment(data)) },
      {
        ...axis,
        font,
        size: 62,
        incrs: chart.format === money ? undefined : wholeSteps,
        values: (plot, values) => values.map((value) => chart.format(Math.abs(value))),
      },
    ],
    // Stacked bars are sums: the tallest is drawn first, so that each of the others covers a part of it.
    series: [
      {},
      ...[...series].reverse().map((each) => ({
        label: each.label,
        stroke: each.css,
        width: isBars ? 0 : 2,
        fill: isBars ? each.css : series.length === 1 ? translucent(each.css, 0.1) : undefined,
        paths: isBars ? bars : undefined,
        points: { show: !isBars, size: 4, fill: each.css },
        spanGaps: false,
      })),
    ],
    plugins: [tooltip(chart, data, series)],
  };
  const plot = new uPlot(options, [middles, ...[...series].reverse().map((each) => each.drawn)], place);
  plot.over.addEventListener("click", () => {
    if (plot.cursor.idx !== null) location.href = addressOf(chart, data, plot.cursor.idx, hit(plot, chart, series, plot.cursor.idx));
  });
  return [plot];
}

function drawAll() {
  for (const plot of drawn) plot.destroy();
  const data = JSON.parse(document.getElementById("chart-data").textContent);
  drawn = charts.flatMap((chart) => {
    const place = document.querySelector(`[data-chart="${chart.name}"]`);
    return place ? draw(place, chart, data) : [];
  });
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  for (const each of document.querySelectorAll(".zone")) each.textContent = zone;
}

drawAll();
addEventListener("renewed", drawAll); // new data
addEventListener("themed", drawAll); // new colours
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
let resized;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => {
    for (const plot of drawn) plot.setSize({ width: plot.root.parentElement.clientWidth, height: HEIGHT });
  }, 100);
});
