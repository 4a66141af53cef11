"""Totals for the charts: calls, errors, tokens, cost, feedback and latencies by minute, hour and day, and by dimension.

Steps and turns are counted separately. Latencies are counted in a histogram whose bins are each a tenth wider than the
one before: percentiles of any period are then a sum of histograms, and within five per cent of the exact value.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable

from athina_trace._delivery.sqlite import Connection
from athina_trace.viewer.log_fields import LogRow

_Key = tuple[int, str, str, int, int]
ToolsOf = Callable[[int], Iterable[tuple[str, int, int]]]

SCHEMA = """
CREATE TABLE totals (
    level INTEGER, by TEXT, value TEXT, bucket INTEGER, step INTEGER, calls INTEGER, errors INTEGER, tokens INTEGER,
    cost REAL, estimated REAL, unpriced INTEGER, liked INTEGER, disliked INTEGER,
    PRIMARY KEY (level, by, value, bucket, step)
) WITHOUT ROWID;
CREATE TABLE histogram (
    level INTEGER, by TEXT, value TEXT, bucket INTEGER, step INTEGER, quantity TEXT, bin INTEGER, calls INTEGER,
    PRIMARY KEY (level, by, value, bucket, step, quantity, bin)
) WITHOUT ROWID;
"""
MINUTE, HOUR, DAY = 60, 3600, 86_400
LEVELS = (MINUTE, HOUR, DAY)
"""Widths of buckets, seconds."""
DIMENSIONS = ("all", "customer", "slug", "model", "environment", "tool")
"""Totals are kept by these. A log counts once in each except the last, in which each of its tool calls counts."""
QUANTITIES = ("latency", "first_chunk")
"""Percentiles are kept for these columns of the table `log`."""
_BIN_GROWTH = math.log(1.1)

_ADD_TOTALS = """
INSERT INTO totals VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    calls = calls + excluded.calls, errors = errors + excluded.errors, tokens = tokens + excluded.tokens,
    cost = cost + excluded.cost, estimated = estimated + excluded.estimated, unpriced = unpriced + excluded.unpriced,
    liked = liked + excluded.liked, disliked = disliked + excluded.disliked
"""
_ADD_LATENCIES = (
    "INSERT INTO histogram VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET calls = calls + excluded.calls"
)


def bin_of(milliseconds: int) -> int:
    """Return the bin of a latency."""
    return 0 if milliseconds < 1 else 1 + round(math.log(milliseconds) / _BIN_GROWTH)


def latency_of(bin_number: int) -> float:
    """Return the latency in the middle of a bin, milliseconds."""
    return 0.0 if bin_number == 0 else math.exp((bin_number - 1) * _BIN_GROWTH)


def percentile(bins: dict[int, int], share: float) -> float | None:
    """Return the latency, in milliseconds, that a `share` (0 to 1) of all calls do not exceed; None without calls."""
    wanted = share * sum(bins.values())
    reached = 0
    for number in sorted(bins):
        reached += bins[number]
        if reached >= wanted and reached:
            return latency_of(number)
    return None


def add_rows(db: Connection, rows: Iterable[LogRow], tools: ToolsOf, *, sign: int = 1) -> None:
    """Add `rows` to the totals; with the sign -1, subtract them.

    Args:
        db: the index.
        rows: logs, with their place in a conversation known.
        tools: returns the name, the calls and the failures of each tool of a log, by its id.
        sign: 1 or -1.
    """
    totals: dict[_Key, list[float]] = defaultdict(lambda: [0.0] * 8)
    latencies: dict[tuple[_Key, str, int], int] = defaultdict(int)
    for row in rows:
        feedback = row.feedback or 0
        cost = row.cost or 0.0
        numbers = (
            1, row.error is not None, row.tokens or 0, cost, cost * row.is_estimate, row.is_unpriced,
            feedback > 0, feedback < 0,
        )  # fmt: skip
        bins = [(name, bin_of(value)) for name in QUANTITIES if (value := getattr(row, name)) is not None]
        bucket, is_step = int(row.made // MINUTE) * MINUTE, int(row.root is not None)
        for by in DIMENSIONS[:-1]:
            key = (MINUTE, by, getattr(row, by, None) or "", bucket, is_step)
            totals[key] = [total + sign * number for total, number in zip(totals[key], numbers, strict=True)]
            for quantity, number in bins:
                latencies[key, quantity, number] += sign
        for name, calls, failures in tools(row.id):
            total = totals[MINUTE, "tool", name, bucket, is_step]
            total[0] += sign * calls
            total[1] += sign * failures
    # Hours and days are sums of minutes.
    for (_, by, value, bucket, is_step), sums in list(totals.items()):
        for level in LEVELS[1:]:
            key = (level, by, value, bucket // level * level, is_step)
            totals[key] = [total + number for total, number in zip(totals[key], sums, strict=True)]
    for ((_, by, value, bucket, is_step), quantity, number), calls in list(latencies.items()):
        for level in LEVELS[1:]:
            latencies[(level, by, value, bucket // level * level, is_step), quantity, number] += calls
    db.executemany(_ADD_TOTALS, ((*key, *sums) for key, sums in totals.items()))
    db.executemany(
        _ADD_LATENCIES, ((*key, quantity, number, calls) for (key, quantity, number), calls in latencies.items())
    )
    if sign < 0:
        # Otherwise a customer whose logs are all deleted would stay in the legends of the charts.
        db.execute("DELETE FROM totals WHERE calls <= 0")
        db.execute("DELETE FROM histogram WHERE calls <= 0")
