"""The charts: totals over time by a dimension, for the page's drawings and tables."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from athina_trace._delivery.sqlite import Connection
from athina_trace.viewer.aggregates import DAY, DIMENSIONS, HOUR, MINUTE, QUANTITIES, percentile
from athina_trace.viewer.filters import parse_moment
from athina_trace.viewer.formatting import exact_time
from athina_trace.viewer.sorting import in_order

PERIODS = ("1h", "24h", "today", "yesterday", "7d", "30d", "all")
"""Periods that can be shown; "all" is from the first log to the last."""
MAX_COLUMNS = 60
_WIDTHS = (
    [MINUTE * n for n in (1, 2, 5, 15)] + [HOUR * n for n in (1, 3, 6)] + [DAY * n for n in (1, 2, 7, 30, 90, 365)]
)
_MAX_LINES = 6
"""Values of a dimension that get their own line; all others share one."""
OTHERS = "others"


class Totals(NamedTuple):
    """Totals of one column, or of the whole period.

    Attributes:
        calls: turns, or all calls; likewise for errors, feedback and latencies.
        tokens: including those of steps; likewise for costs.
        cost: dollars.
        estimated: the part of the cost that was estimated.
        unpriced: calls of a model whose cost is not known.
    """

    calls: int = 0
    errors: int = 0
    tokens: int = 0
    cost: float = 0.0
    estimated: float = 0.0
    unpriced: int = 0
    liked: int = 0
    disliked: int = 0

    @property
    def liked_share(self) -> float | None:
        """The share of positive feedback, 0 to 1; None without feedback."""
        return self.liked / thumbs if (thumbs := self.liked + self.disliked) else None


class Latencies(NamedTuple):
    """Percentiles in milliseconds; None without calls."""

    p50: float | None = None
    p95: float | None = None
    chunk_p50: float | None = None
    chunk_p95: float | None = None

    @classmethod
    def of(cls, bins: dict[str, dict[int, int]]) -> Latencies:
        """Compute them from a histogram of each of `QUANTITIES`."""
        return cls(*(percentile(bins.get(name, {}), share) for name in QUANTITIES for share in (0.5, 0.95)))


class Line(NamedTuple):
    """A value of the dimension: its columns in order, and the whole period."""

    name: str
    columns: list[Totals]
    latencies: list[Latencies]
    total: Totals
    total_latencies: Latencies


@dataclass(frozen=True)
class Charts:
    """Everything that the page shows.

    Attributes:
        by: the dimension, one of `DIMENSIONS`.
        period: one of `PERIODS`.
        steps: whether the steps of turns are counted as calls.
        width: seconds of one column.
        starts: when each column begins, seconds since the epoch.
        lines: the largest values of the dimension, and the rest of the total.
    """

    by: str
    period: str
    steps: bool
    width: int
    starts: list[int]
    lines: list[Line]

    @property
    def span(self) -> dict[str, str]:
        """The filters for all logs of the period."""
        return {} if self.period == "all" else {"since": exact_time(self.starts[0]), "until": self._end(-1)}

    def _end(self, place: int) -> str:
        return exact_time(self.starts[place] + self.width - 0.001)

    def column(self, place: int) -> Totals:
        """Return the totals of one column, over all lines."""
        return _sum(line.columns[place] for line in self.lines)

    @property
    def total(self) -> Totals:
        """The totals of the whole period, over all lines."""
        return _sum(line.total for line in self.lines)

    def busy_columns(self) -> list[tuple[int, Totals]]:
        """Return the non-empty columns, each with its index."""
        columns = ((place, self.column(place)) for place in range(len(self.starts)))
        return [(place, total) for place, total in columns if total.calls or total.tokens]

    def address_of(self, place: int) -> dict[str, str]:
        """Return the filters for the logs in one column."""
        return {"since": exact_time(self.starts[place]), "until": self._end(place)}

    def data(self) -> dict[str, Any]:
        """Return the data for the page's script, as JSON."""
        return {
            "by": self.by,
            "steps": self.steps,
            "width": self.width,
            "starts": self.starts,
            "lines": [
                {
                    "name": line.name,
                    "isOthers": line.name == OTHERS,
                    **{name: [getattr(each, name) for each in line.columns] for name in Totals._fields},
                    **{name: [getattr(each, name) for each in line.latencies] for name in Latencies._fields},
                }
                for line in self.lines
            ],
        }


def load_charts(
    db: Connection, *, by: str = "all", period: str = "all", steps: bool = False, now: float | None = None
) -> Charts:
    """Sum up calls over time by a dimension; an unknown dimension or period means "all"."""
    by = by if by in DIMENSIONS else "all"
    period = period if period in PERIODS else "all"
    begin, end = _span(db, period, time.time() if now is None else now)
    width = next((width for width in _WIDTHS if (end - begin) / width <= MAX_COLUMNS - 1), _WIDTHS[-1])
    starts = list(range(begin // width * width, end + 1, width))[-MAX_COLUMNS:]
    reader = _Reader(db, steps=steps, width=width, starts=starts)
    # A model of steps without tokens only has nothing to show among the turns.
    lines = [line for value in reader.largest(by) if any((line := reader.line(by, value)).total)]
    if by not in ("all", "tool"):
        whole = reader.line("all", "")
        rest = [
            Totals(*(total - sum(parts) for total, *parts in zip(*column, strict=True)))
            for column in zip(whole.columns, *(line.columns for line in lines), strict=True)
        ]
        total = _sum(rest)
        if total.calls or total.tokens:
            # No percentiles: they would need the histograms of all other values.
            lines.append(Line(OTHERS, rest, [Latencies()] * len(rest), total, Latencies()))
    return Charts(by, period, steps, width, starts, lines)


def load_line(db: Connection, *, by: str, value: str, period: str, now: float | None = None) -> Line:
    """Sum up one value of a dimension over a period."""
    begin, end = _span(db, period, time.time() if now is None else now)
    level = DAY if end - begin > 7 * DAY else HOUR if end - begin > 2 * HOUR else MINUTE
    starts = [begin // level * level]
    return _Reader(db, steps=False, width=end - starts[0] + 1, starts=starts, level=level).line(by, value)


def _span(db: Connection, period: str, now: float) -> tuple[int, int]:
    """Return when a period begins and ends, seconds since the epoch."""
    end = int(now)
    if period == "all":
        first, last = db.execute(
            "SELECT min(bucket), max(bucket) FROM totals WHERE level = ? AND by = 'all'", (MINUTE,)
        ).fetchone()
        # At least ten minutes, so that a single log is a column rather than the whole chart.
        return (end - HOUR, end) if first is None else (min(first, last - 9 * MINUTE), last)
    moment = datetime.fromtimestamp(now).astimezone()
    begin = int(parse_moment(period, now=moment) or end)
    return begin, int(parse_moment("today", now=moment) or end) - 1 if period == "yesterday" else end


class _Reader:
    """Reads buckets of the totals, and adds them up into columns."""

    def __init__(self, db: Connection, *, steps: bool, width: int, starts: list[int], level: int | None = None) -> None:
        self._db = db
        self._width = width
        self._starts = starts
        self._level = level or next(level for level in (DAY, HOUR, MINUTE) if width >= level)
        # Steps also spend tokens and money; feedback and latency belong to turns.
        self._steps = int(steps)
        self._end = starts[-1] + width

    def largest(self, by: str) -> list[str]:
        """Return the values of a dimension with the most calls."""
        rows = self._db.execute(
            "SELECT value FROM totals WHERE level = ? AND by = ? AND bucket >= ? AND bucket < ? "
            "GROUP BY value ORDER BY sum(calls) DESC, value LIMIT ?",
            (self._level, by, self._starts[0], self._end, _MAX_LINES),
        )
        return [value for (value,) in rows]

    def line(self, by: str, value: str) -> Line:
        """Read the buckets of one value."""
        # Both steps and turns call tools.
        values = {"steps": 1 if by == "tool" else self._steps, "level": self._level, "by": by, "value": value}
        values |= {"first": self._starts[0], "end": self._end}
        where = "WHERE level = :level AND by = :by AND bucket >= :first AND bucket < :end AND value = :value"
        totals: dict[int, list[float]] = defaultdict(lambda: [0] * len(Totals._fields))
        for bucket, *numbers in self._db.execute(
            "SELECT bucket, calls * (step <= :steps), errors * (step <= :steps), tokens, cost, estimated, unpriced, "
            f"liked * (step <= :steps), disliked * (step <= :steps) FROM totals {where}",
            values,
        ):
            column = totals[(bucket - self._starts[0]) // self._width]
            column[:] = map(sum, zip(column, numbers, strict=True))
        bins: dict[int, dict[str, dict[int, int]]] = defaultdict(_histograms)
        all_bins = _histograms()
        for bucket, quantity, bin_number, calls in self._db.execute(
            f"SELECT bucket, quantity, bin, calls FROM histogram {where} AND step <= :steps", values
        ):
            bins[(bucket - self._starts[0]) // self._width][quantity][bin_number] += calls
            all_bins[quantity][bin_number] += calls
        places = range(len(self._starts))
        columns = [Totals._make(totals[place]) for place in places]
        return Line(
            value, columns, [Latencies.of(bins[place]) for place in places], _sum(columns), Latencies.of(all_bins)
        )


def _histograms() -> dict[str, dict[int, int]]:
    return {name: defaultdict(int) for name in QUANTITIES}


def _sum(columns: Iterable[Totals]) -> Totals:
    return Totals(*map(sum, zip(Totals(), *columns, strict=True)))


LINE_COLUMNS: dict[str, Callable[[Line], float | str | None]] = {
    "name": lambda line: line.name,
    "calls": lambda line: line.total.calls,
    "errors": lambda line: line.total.errors,
    "share": lambda line: line.total.errors / line.total.calls if line.total.calls else None,
    "p50": lambda line: line.total_latencies.p50,
    "p95": lambda line: line.total_latencies.p95,
    "chunk": lambda line: line.total_latencies.chunk_p50,
    "tokens": lambda line: line.total.tokens,
    "cost": lambda line: line.total.cost,
    "liked": lambda line: line.total.liked,
    "disliked": lambda line: line.total.disliked,
}
"""Columns by which the table below the charts can be sorted."""
TIME_COLUMNS: dict[str, Callable[[tuple[int, Totals]], float]] = {
    "start": lambda column: column[0],
    "calls": lambda column: column[1].calls,
    "errors": lambda column: column[1].errors,
    "tokens": lambda column: column[1].tokens,
    "cost": lambda column: column[1].cost,
    "liked": lambda column: column[1].liked,
    "disliked": lambda column: column[1].disliked,
}
"""Columns by which the table over time can be sorted."""


def sorted_lines(lines: list[Line], column: str) -> list[Line]:
    """Return lines in the order of one of `LINE_COLUMNS`; the line for all others comes last."""
    own = in_order((line for line in lines if line.name != OTHERS), column, LINE_COLUMNS)
    return [*own, *(line for line in lines if line.name == OTHERS)]
