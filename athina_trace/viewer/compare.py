"""Two sessions, or two values of a dimension such as the prompt slug, side by side."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from athina_trace._delivery.sqlite import Connection, Row
from athina_trace.viewer import queries
from athina_trace.viewer.aggregates import DAY, DIMENSIONS, QUANTITIES, bin_of
from athina_trace.viewer.charts import PERIODS, Latencies, Totals, load_line
from athina_trace.viewer.filters import Filters

KINDS = {"slug": "Prompt slugs", "model": "Models", "customer": "Customers", "environment": "Environments",
         "session": "Sessions"}  # fmt: skip
"""Things that can be compared → their names on a page."""
ORDERS = {"": "newest", "errors": "failed ones first", "feedback": "disliked ones first", "latency": "slowest first",
          "chunk": "slowest to begin first", "tokens": "most tokens first", "cost": "most expensive first"}  # fmt: skip
"""Orders of the answers of both sides, by a column of the list of logs → their names on a page."""
_ANSWERS = 5
_MAX_LATENCIES = 20_000


class Side(NamedTuple):
    """One side of a comparison, with some of its answers, and the address of all its logs."""

    name: str
    title: str
    total: Totals
    latencies: Latencies
    answers: list[Row]
    address: str

    def per_call(self, value: float) -> float | None:
        """Return an amount for each call; None without calls."""
        return value / self.total.calls if self.total.calls else None


class Comparison(NamedTuple):
    """A comparison, and the values to choose from.

    Attributes:
        by: one of `KINDS`.
        sort: one of `ORDERS`.
        names: the values to choose from.
        sides: zero, one or two.
    """

    by: str
    period: str
    sort: str
    names: list[tuple[str, str]]
    sides: list[Side]


def load(db: Connection, *, by: str, picked: list[str], period: str, sort: str = "") -> Comparison:
    """Read two sides; if fewer are picked, add the largest values, or the newest sessions."""
    by = by if by in KINDS else "slug"
    period = period if period in PERIODS else "all"
    sort = sort if sort in ORDERS else ""
    if by == "session":
        recent = queries.sessions(db, Filters()).rows
        names = [(row["name"], row["question"] or row["name"]) for row in recent]
    else:
        rows = db.execute(
            "SELECT value FROM totals WHERE level = ? AND by = ? AND value != '' GROUP BY value "
            "ORDER BY sum(calls) DESC, value LIMIT 100",
            (DAY, by),
        )
        names = [(value, value) for (value,) in rows]
    chosen = list(dict.fromkeys([*picked, *(name for name, _ in names)]))
    if len(picked) < 2 and by in ("slug", "model"):  # noqa: PLR2004 - a pair
        # Add the value with the most similar name: another version of a prompt, a smaller model of a family.
        chosen[1:] = sorted(chosen[1:], key=lambda other: -_common(chosen[0], other))
    chosen = chosen[:2]
    sides = [side for name in chosen if (side := _side(db, by, name, period, sort)) is not None]
    # A picked session may not be among the newest.
    names += [(side.name, side.title) for side in sides if side.name not in dict(names)]
    return Comparison(by, period, sort, names, sides)


def _common(one: str, other: str) -> int:
    """Return the length of the common prefix."""
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _side(db: Connection, by: str, name: str, period: str, sort: str) -> Side | None:
    filters = Filters.of({by: name, "kind": "turns"})
    answers = queries.logs(db, filters, limit=_ANSWERS, sort=queries.Sort.of(sort, queries.LOG_COLUMNS)).rows
    address = f"/logs?{Filters.of({by: name}).query(sort=sort)}"
    if by in DIMENSIONS:
        line = load_line(db, by=by, value=name, period=period)
        return Side(name, name, line.total, line.total_latencies, answers, address)
    row = queries.session(db, name)
    if row is None:
        return None
    total = Totals(
        calls=row["turns"], errors=row["errors"], tokens=row["tokens"], cost=row["cost"] or 0.0,
        estimated=row["estimated"], unpriced=row["unpriced"], liked=row["liked"], disliked=row["disliked"],
    )  # fmt: skip
    bins: dict[str, dict[int, int]] = {quantity: defaultdict(int) for quantity in QUANTITIES}
    for latency in db.execute(
        f"SELECT {', '.join(QUANTITIES)} FROM log WHERE session = ? AND root IS NULL ORDER BY id DESC LIMIT ?",
        (name, _MAX_LATENCIES),
    ):
        for quantity in QUANTITIES:
            if latency[quantity] is not None:
                bins[quantity][bin_of(latency[quantity])] += 1
    return Side(name, row["question"] or name, total, Latencies.of(bins), answers, address)
