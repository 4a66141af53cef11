"""The charts: totals over time, and the SVG shapes that draw them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from sqlite3 import Connection
from typing import NamedTuple

from athina_trace.viewer.aggregates import DAY, DIMENSIONS, HOUR, MINUTE, percentile
from athina_trace.viewer.formatting import readable_time

PERIODS = {"1h": HOUR, "24h": 24 * HOUR, "7d": 168 * HOUR, "30d": 720 * HOUR, "all": 0}
"""Name → seconds; 0: from the first log to the last."""
MAX_COLUMNS = 60
_WIDTHS = (
    [MINUTE * n for n in (1, 2, 5, 15)] + [HOUR * n for n in (1, 3, 6)] + [DAY * n for n in (1, 2, 7, 30, 90, 365)]
)
_MAX_LINES = 6
"""Values of a dimension that have a line of their own; all others share one."""
OTHERS = "others"


class Totals(NamedTuple):
    """What happened in one column."""

    calls: int = 0
    errors: int = 0
    tokens: int = 0
    liked: int = 0
    disliked: int = 0


class Line(NamedTuple):
    """One value of the dimension: its columns in order, with percentiles of their latencies in milliseconds."""

    name: str
    columns: list[Totals]
    p50: list[float | None]
    p95: list[float | None]
    total: Totals
    total_p50: float | None
    total_p95: float | None


@dataclass(frozen=True)
class Charts:
    """Everything that the page draws.

    Attributes:
        by: the dimension, one of `DIMENSIONS`.
        period: one of `PERIODS`.
        width: seconds of one column.
        starts: when each column begins, seconds since the epoch.
        lines: the largest values of the dimension, and what is left of the total.
    """

    by: str
    period: str
    width: int
    starts: list[int]
    lines: list[Line]


def load_charts(db: Connection, *, by: str = "all", period: str = "all", now: float | None = None) -> Charts:
    """Sum up calls over time by a dimension; an unknown dimension or period means "all"."""
    by = by if by in DIMENSIONS else "all"
    period = period if period in PERIODS else "all"
    end = int(time.time() if now is None else now)
    begin = end - (PERIODS[period] or HOUR)
    if period == "all":
        first, last = db.execute(
            "SELECT min(bucket), max(bucket) FROM totals WHERE level = ? AND by = 'all'", (MINUTE,)
        ).fetchone()
        # At least ten minutes, so that a first log is a column rather than the whole chart.
        begin, end = (begin, end) if first is None else (min(first, last - 9 * MINUTE), last)
    width = next((width for width in _WIDTHS if (end - begin) / width <= MAX_COLUMNS - 1), _WIDTHS[-1])
    starts = list(range(begin // width * width, end + 1, width))[-MAX_COLUMNS:]
    where = (next(level for level in (DAY, HOUR, MINUTE) if width >= level), by, starts[0])
    largest = db.execute(
        "SELECT value FROM totals WHERE level = ? AND by = ? AND bucket >= ? "
        "GROUP BY value ORDER BY sum(calls) DESC, value LIMIT ?",
        (*where, _MAX_LINES),
    ).fetchall()
    lines = [_load_line(db, where, value, width, starts) for (value,) in largest]
    if by != "all":
        whole = _load_line(db, (where[0], "all", where[2]), "", width, starts)
        rest = [
            Totals(*(total - sum(parts) for total, *parts in zip(*column, strict=True)))
            for column in zip(whole.columns, *(line.columns for line in lines), strict=True)
        ]
        total = _sum(rest)
        if total.calls:
            # No percentiles: histograms of the rest would have to be read for every value.
            unknown: list[float | None] = [None] * len(rest)
            lines.append(Line(OTHERS, rest, unknown, unknown, total, None, None))
    return Charts(by, period, width, starts, lines)


def _load_line(db: Connection, where: tuple[int, str, int], value: str, width: int, starts: Sequence[int]) -> Line:
    """Read the buckets of one value, and add them up into columns of `width` seconds."""
    totals: dict[int, list[int]] = defaultdict(lambda: [0] * len(Totals._fields))
    for bucket, *numbers in db.execute(
        f"SELECT bucket, {', '.join(Totals._fields)} FROM totals "
        "WHERE level = ? AND by = ? AND bucket >= ? AND value = ?",
        (*where, value),
    ):
        column = totals[(bucket - starts[0]) // width]
        column[:] = map(sum, zip(column, numbers, strict=True))
    bins: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    all_bins: dict[int, int] = defaultdict(int)
    for bucket, bin_number, calls in db.execute(
        "SELECT bucket, bin, calls FROM histogram WHERE level = ? AND by = ? AND bucket >= ? AND value = ?",
        (*where, value),
    ):
        bins[(bucket - starts[0]) // width][bin_number] += calls
        all_bins[bin_number] += calls
    columns = [Totals(*totals[place]) for place in range(len(starts))]
    p50, p95 = ([percentile(bins[place], share) for place in range(len(starts))] for share in (0.5, 0.95))
    return Line(value, columns, p50, p95, _sum(columns), percentile(all_bins, 0.5), percentile(all_bins, 0.95))


def _sum(columns: list[Totals]) -> Totals:
    return Totals(*map(sum, zip(*columns, strict=True))) if columns else Totals()


# -- shapes, in a box of 1000 by 100 with its origin at the top


class Bar(NamedTuple):
    """A rectangle, the number of its line, and its tooltip."""

    x: float
    y: float
    width: float
    height: float
    line: int
    title: str


class Curve(NamedTuple):
    """A percentile of one line over time; each piece is an SVG path through neighbouring values."""

    line: int
    percentile: str
    name: str
    pieces: list[str]


def stack_bars(charts: Charts, name: str) -> tuple[list[Bar], int]:
    """Return the stacked columns of one of the fields of `Totals`, and the value of the largest column."""
    stacks = [[getattr(line.columns[place], name) for line in charts.lines] for place in range(len(charts.starts))]
    top = max((sum(stack) for stack in stacks), default=0)
    step = 1000 / max(1, len(stacks))
    bars: list[Bar] = []
    for place, stack in enumerate(stacks):
        height = 0
        for line, value in enumerate(stack):
            height += value
            if value > 0:
                when = f"{readable_time(charts.starts[place])[:16]} UTC"
                title = f"{when}: {value} {name} {charts.lines[line].name}".rstrip()
                y = 100 - 100 * height / top
                bars.append(Bar(place * step + step * 0.1, y, step * 0.8, 100 * value / top, line, title))
    return bars, top


def latency_curves(charts: Charts) -> tuple[list[Curve], float]:
    """Return the latency curves and the longest latency, milliseconds.

    Both percentiles of a single line, the 95th alone of several.
    """
    kinds = ("p50", "p95") if len(charts.lines) == 1 else ("p95",)
    series = [
        (place, kind, line.name, getattr(line, kind)) for place, line in enumerate(charts.lines) for kind in kinds
    ]
    top = max((value for *_, values in series for value in values if value is not None), default=0.0)
    step = 1000 / max(1, len(charts.starts))
    curves: list[Curve] = []
    for line, kind, name, values in series:
        pieces: list[list[str]] = [[]]
        for place, value in enumerate(values):
            if value is None:
                pieces.append([])
            else:
                pieces[-1].append(f"{(place + 0.5) * step:.1f},{100 - 96 * value / top if top else 100:.1f}")
        # A path through one point draws nothing: a lone value becomes a short stroke.
        paths = [f"M{' L'.join(piece)}" + (" h4" if len(piece) == 1 else "") for piece in pieces if piece]
        curves.append(Curve(line, kind, name, paths))
    return curves, top
