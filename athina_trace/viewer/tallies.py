"""Sums for the charts: calls, errors, tokens and latencies by minute, hour and day, and by customer, slug and model.

Latencies are counted in bins, each a tenth wider than the one before, so that percentiles of any period are a sum away
and within five per cent of the truth.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from sqlite3 import Connection

from athina_trace.viewer.facts import Facts

SCHEMA = """
CREATE TABLE tally (
    level INTEGER, by TEXT, bucket INTEGER, value TEXT, calls INTEGER, errors INTEGER, tokens INTEGER, cost REAL,
    PRIMARY KEY (level, by, bucket, value)
) WITHOUT ROWID;
CREATE TABLE spread (
    level INTEGER, by TEXT, bucket INTEGER, value TEXT, bin INTEGER, calls INTEGER,
    PRIMARY KEY (level, by, bucket, value, bin)
) WITHOUT ROWID;
"""
MINUTE, HOUR, DAY = 60, 3600, 86_400
LEVELS = (MINUTE, HOUR, DAY)
"""Widths of a bucket, seconds."""
DIMENSIONS = ("all", "customer", "slug", "model")
_WIDER = math.log(1.1)

_TALLY = """
INSERT INTO tally VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    calls = calls + excluded.calls, errors = errors + excluded.errors,
    tokens = tokens + excluded.tokens, cost = cost + excluded.cost
"""
_SPREAD = "INSERT INTO spread VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET calls = calls + excluded.calls"


def bin_of(milliseconds: int) -> int:
    """The bin that counts a latency."""
    return 0 if milliseconds < 1 else 1 + round(math.log(milliseconds) / _WIDER)


def middle_of(number: int) -> float:
    """The latency that stands for a bin, milliseconds."""
    return 0.0 if number == 0 else math.exp((number - 1) * _WIDER)


def percentile(bins: dict[int, int], share: float) -> float | None:
    """The latency that `share` (0 to 1) of all calls stay within, milliseconds; None without calls."""
    wanted = share * sum(bins.values())
    reached = 0
    for number in sorted(bins):
        reached += bins[number]
        if reached >= wanted and reached:
            return middle_of(number)
    return None


def count(db: Connection, rows: Iterable[Facts], *, sign: int = 1) -> None:
    """Add `rows` to the sums, or take them out again with the sign -1."""
    tallies: dict[tuple[int, str, int, str], list[float]] = defaultdict(lambda: [0, 0, 0, 0.0])
    spreads: dict[tuple[int, str, int, str, int], int] = defaultdict(int)
    for row in rows:
        for key in _keys(row):
            sums = tallies[key]
            for place, value in enumerate((1, row.error is not None, row.tokens or 0, row.cost or 0.0)):
                sums[place] += sign * value
            if row.latency is not None:
                where = (*key, bin_of(row.latency))
                spreads[where] += sign
    db.executemany(_TALLY, ((*key, *sums) for key, sums in tallies.items()))
    db.executemany(_SPREAD, ((*key, calls) for key, calls in spreads.items()))
    if sign < 0:
        db.execute("DELETE FROM tally WHERE calls <= 0")
        db.execute("DELETE FROM spread WHERE calls <= 0")


def _keys(row: Facts) -> Iterator[tuple[int, str, int, str]]:
    values = (("all", ""), ("customer", row.customer), ("slug", row.slug), ("model", row.model))
    for level in LEVELS:
        for by, value in values:
            yield level, by, int(row.made // level) * level, value or ""
