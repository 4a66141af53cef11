"""Totals for the charts: calls, errors, tokens, cost, feedback and latencies by minute, hour and day, and by dimension.

Latencies are counted in a histogram whose bins are each a tenth wider than the one before: percentiles of any period
are then a sum of histograms, and within five per cent of the exact value.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable
from sqlite3 import Connection

from athina_trace.viewer.log_fields import LogRow

SCHEMA = """
CREATE TABLE totals (
    level INTEGER, by TEXT, bucket INTEGER, value TEXT, calls INTEGER, errors INTEGER, tokens INTEGER, cost REAL,
    liked INTEGER, disliked INTEGER,
    PRIMARY KEY (level, by, bucket, value)
) WITHOUT ROWID;
CREATE TABLE histogram (
    level INTEGER, by TEXT, bucket INTEGER, value TEXT, bin INTEGER, calls INTEGER,
    PRIMARY KEY (level, by, bucket, value, bin)
) WITHOUT ROWID;
"""
MINUTE, HOUR, DAY = 60, 3600, 86_400
LEVELS = (MINUTE, HOUR, DAY)
"""Widths of a bucket, seconds."""
DIMENSIONS = ("all", "customer", "slug", "model")
_BIN_GROWTH = math.log(1.1)

_ADD_TOTALS = """
INSERT INTO totals VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    calls = calls + excluded.calls, errors = errors + excluded.errors,
    tokens = tokens + excluded.tokens, cost = cost + excluded.cost,
    liked = liked + excluded.liked, disliked = disliked + excluded.disliked
"""
_ADD_LATENCIES = (
    "INSERT INTO histogram VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET calls = calls + excluded.calls"
)


def bin_of(milliseconds: int) -> int:
    """Return the bin that counts a latency."""
    return 0 if milliseconds < 1 else 1 + round(math.log(milliseconds) / _BIN_GROWTH)


def latency_of(bin_number: int) -> float:
    """Return the latency in the middle of a bin, milliseconds."""
    return 0.0 if bin_number == 0 else math.exp((bin_number - 1) * _BIN_GROWTH)


def percentile(bins: dict[int, int], share: float) -> float | None:
    """Return the latency that `share` (0 to 1) of all calls do not exceed, milliseconds; None without calls."""
    wanted = share * sum(bins.values())
    reached = 0
    for number in sorted(bins):
        reached += bins[number]
        if reached >= wanted and reached:
            return latency_of(number)
    return None


def add_rows(db: Connection, rows: Iterable[LogRow], *, sign: int = 1) -> None:
    """Add `rows` to the totals; with the sign -1, take them out again."""
    totals: dict[tuple[int, str, int, str], list[float]] = defaultdict(lambda: [0, 0, 0, 0.0, 0, 0])
    latencies: dict[tuple[int, str, int, str, int], int] = defaultdict(int)
    for row in rows:
        values = (("all", ""), ("customer", row.customer), ("slug", row.slug), ("model", row.model))
        feedback = row.feedback or 0
        numbers = (1, row.error is not None, row.tokens or 0, row.cost or 0.0, feedback > 0, feedback < 0)
        for level, (by, value) in itertools.product(LEVELS, values):
            key = (level, by, int(row.made // level) * level, value or "")
            totals[key] = [total + sign * number for total, number in zip(totals[key], numbers, strict=True)]
            if row.latency is not None:
                where = (*key, bin_of(row.latency))
                latencies[where] += sign
    db.executemany(_ADD_TOTALS, ((*key, *sums) for key, sums in totals.items()))
    db.executemany(_ADD_LATENCIES, ((*key, calls) for key, calls in latencies.items()))
    if sign < 0:
        # Otherwise a customer whose logs are all deleted would stay in the charts' legends with no calls.
        db.execute("DELETE FROM totals WHERE calls <= 0")
        db.execute("DELETE FROM histogram WHERE calls <= 0")
