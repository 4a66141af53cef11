"""The charts: sums over time, and the shapes that draw them."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from sqlite3 import Connection
from typing import NamedTuple

from athina_trace.viewer.tallies import DAY, DIMENSIONS, HOUR, MINUTE, percentile

PERIODS = {"1h": HOUR, "24h": 24 * HOUR, "7d": 168 * HOUR, "30d": 720 * HOUR, "all": 0}
"""Name → seconds; 0: everything there is."""
COLUMNS = 60
"""Most columns in a chart."""
_WIDTHS = (
    [MINUTE * n for n in (1, 2, 5, 15)] + [HOUR * n for n in (1, 3, 6)] + [DAY * n for n in (1, 2, 7, 30, 90, 365)]
)
_SERIES = 6
"""Values that are told apart; the rest is summed up as one."""
OTHERS = "others"


class Sums(NamedTuple):
    """What happened in one column."""

    calls: int = 0
    errors: int = 0
    tokens: int = 0


class Line(NamedTuple):
    """One value of the dimension: its columns, in order, and its totals."""

    name: str
    columns: list[Sums]
    p50: list[float | None]
    p95: list[float | None]
    total: Sums
    total_p50: float | None
    total_p95: float | None


@dataclass(frozen=True)
class Charts:
    """Everything that the page draws. `starts`: when each column begins, seconds since the epoch."""

    by: str
    period: str
    width: int
    starts: list[int]
    lines: list[Line]


def charts(db: Connection, *, by: str = "all", period: str = "all", now: float | None = None) -> Charts:
    """Sum up calls by time and by one of `DIMENSIONS`; an unknown dimension or period means "all"."""
    by = by if by in DIMENSIONS else "all"
    period = period if period in PERIODS else "all"
    begin, end = _span(db, PERIODS[period], time.time() if now is None else now)
    width = next((width for width in _WIDTHS if (end - begin) / width <= COLUMNS - 1), _WIDTHS[-1])
    level = next(level for level in (DAY, HOUR, MINUTE) if width >= level)
    grid = _Grid(by, level, width, begin // width * width, end)
    lines = [_line(db, grid, value) for value in _largest(db, grid)]
    if by != "all":
        lines = [*lines, *_others(db, grid, lines)]
    return Charts(by, period, width, grid.starts, lines)


class _Grid(NamedTuple):
    by: str
    level: int
    width: int
    begin: int
    end: int

    @property
    def starts(self) -> list[int]:
        return list(range(self.begin, self.end + 1, self.width))[-COLUMNS:]

    @property
    def where(self) -> tuple[int, str, int]:
        return self.level, self.by, self.starts[0] if self.starts else self.begin


def _span(db: Connection, seconds: int, now: float) -> tuple[int, int]:
    """From when to when the chart goes: a period that ends now, or from the first log to the last."""
    if seconds:
        return int(now) - seconds, int(now)
    first, last = db.execute(
        "SELECT min(bucket), max(bucket) FROM tally WHERE level = ? AND by = 'all'", (MINUTE,)
    ).fetchone()
    return (int(now) - HOUR, int(now)) if first is None else (min(first, last - 9 * MINUTE), last)


def _largest(db: Connection, grid: _Grid) -> list[str]:
    rows = db.execute(
        "SELECT value FROM tally WHERE level = ? AND by = ? AND bucket >= ? "
        "GROUP BY value ORDER BY sum(calls) DESC, value LIMIT ?",
        (*grid.where, _SERIES),
    )
    return [row[0] for row in rows]


def _line(db: Connection, grid: _Grid, value: str) -> Line:
    rows = db.execute(
        "SELECT bucket, calls, errors, tokens FROM tally WHERE level = ? AND by = ? AND bucket >= ? AND value = ?",
        (*grid.where, value),
    )
    columns: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
    for bucket, *sums in rows:
        for place, number in enumerate(sums):
            columns[_column(grid, bucket)][place] += number
    return _with_latencies(db, grid, value, [Sums(*columns[start]) for start in grid.starts])


def _with_latencies(db: Connection, grid: _Grid, value: str, columns: list[Sums]) -> Line:
    rows = db.execute(
        "SELECT bucket, bin, calls FROM spread WHERE level = ? AND by = ? AND bucket >= ? AND value = ?",
        (*grid.where, value),
    )
    bins: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    total: dict[int, int] = defaultdict(int)
    for bucket, number, calls in rows:
        bins[_column(grid, bucket)][number] += calls
        total[number] += calls
    p50, p95 = ([percentile(bins[start], share) for start in grid.starts] for share in (0.5, 0.95))
    return Line(value, columns, p50, p95, _sum(columns), percentile(total, 0.5), percentile(total, 0.95))


def _column(grid: _Grid, bucket: int) -> int:
    return grid.begin + (bucket - grid.begin) // grid.width * grid.width


def _sum(columns: list[Sums]) -> Sums:
    return Sums(*(sum(each) for each in zip(*columns, strict=True))) if columns else Sums()


def _others(db: Connection, grid: _Grid, lines: list[Line]) -> list[Line]:
    """What the largest values leave of the whole."""
    whole = _line(db, grid._replace(by="all"), "")
    rest = [
        Sums(*(all_ - sum(parts) for all_, *parts in zip(*each, strict=True)))
        for each in zip(whole.columns, *(line.columns for line in lines), strict=True)
    ]
    total = _sum(rest)
    nothing: list[float | None] = [None] * len(rest)
    return [Line(OTHERS, rest, nothing, nothing, total, None, None)] if total.calls else []


# -- shapes, in a box of 1000 by 100 with its origin at the top


class Bar(NamedTuple):
    """A rectangle and what it stands for."""

    x: float
    y: float
    width: float
    height: float
    series: int
    title: str


def bars(drawn: Charts, name: str) -> tuple[list[Bar], int]:
    """The stacked columns of one of the fields of `Sums`, and the largest column's value."""
    stacks = [[getattr(line.columns[place], name) for line in drawn.lines] for place in range(len(drawn.starts))]
    top = max((sum(stack) for stack in stacks), default=0)
    step = 1000 / max(1, len(stacks))
    shapes: list[Bar] = []
    for place, stack in enumerate(stacks):
        under = 0
        for series, value in enumerate(stack):
            under += value
            if value > 0:
                y, height = 100 - 100 * under / top, 100 * value / top
                title = f"{_when(drawn.starts[place])}: {value} {name} {drawn.lines[series].name}".rstrip()
                shapes.append(Bar(place * step + step * 0.1, y, step * 0.8, height, series, title))
    return shapes, top


def _when(start: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(start))


def curves(drawn: Charts) -> tuple[list[tuple[int, str, str, list[str]]], float]:
    """Latency lines as (series, kind, name, pieces) with each piece a path, and the longest latency, milliseconds.

    Of one line both percentiles are drawn, of several the 95th alone.
    """
    kinds = ("p50", "p95") if len(drawn.lines) == 1 else ("p95",)
    points = [(s, kind, line.name, getattr(line, kind)) for s, line in enumerate(drawn.lines) for kind in kinds]
    top = max((value for *_, values in points for value in values if value is not None), default=0.0)
    step = 1000 / max(1, len(drawn.starts))
    return [(s, kind, name, _pieces(values, step, top)) for s, kind, name, values in points], top


def _pieces(values: list[float | None], step: float, top: float) -> list[str]:
    """Paths through neighbouring values; a value alone becomes a short stroke."""
    pieces: list[list[str]] = [[]]
    for place, value in enumerate(values):
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append(f"{(place + 0.5) * step:.1f},{100 - 96 * value / top if top else 100:.1f}")
    return [f"M{' L'.join(piece)}" + (" h4" if len(piece) == 1 else "") for piece in pieces if piece]
