"""Senders: threads that do nothing but requests. Leases go in at one end, reports come out at the other.

Few busy threads cost less than many: one sender serves a fast server, and more are started only while leases wait and
requests take long. Each has a connection of its own.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from athina_trace._delivery.answer import Outcome
from athina_trace._delivery.entry import Lease, Stored
from athina_trace._delivery.policy import Verdict, verdict
from athina_trace._delivery.routes import Kind
from athina_trace._delivery.shrink import shrink

SLOW_SECONDS = 0.005
"""A request that takes longer than this leaves its thread waiting rather than working: a second one is worth it."""
_FEW = 16
"""Leases in the queue below which the engine is asked for more."""


class Connection(Protocol):
    """What a sender speaks through; see `api.Api`."""

    def deliver(self, kind: Kind, target: str, body: bytes) -> Outcome: ...

    def expire(self) -> bool: ...

    def close(self) -> None: ...


class Report(NamedTuple):
    """What came of a lease: an outcome for each entry that was tried, in order."""

    lease: Lease
    tried: list[tuple[Stored, Outcome, Verdict]]


def send(lease: Lease, connection: Connection, *, max_bytes: int) -> Report:
    """Send a lane's entries in order, up to the first that has to wait. A refused one does not stop the next."""
    tried: list[tuple[Stored, Outcome, Verdict]] = []
    for entry in lease.entries:
        outcome, told = _send_fitting(entry, connection, max_bytes)
        tried.append((entry, outcome, told))
        if told in (Verdict.RETRY, Verdict.PAUSED):
            break
    return Report(lease, tried)


def _send_fitting(entry: Stored, connection: Connection, max_bytes: int) -> tuple[Outcome, Verdict]:
    """Send one entry, shortened to `max_bytes`, and halved for as long as the server calls it too large."""
    body = shrink(entry.body, limit=max_bytes) if len(entry.body) > max_bytes else entry.body
    while True:
        outcome = connection.deliver(entry.kind, entry.reference, body)
        told = verdict(outcome.status)
        if told is not Verdict.SHRINK:
            return outcome, told
        smaller = shrink(body, limit=len(body) // 2)
        if len(smaller) >= len(body):
            return outcome, Verdict.REFUSED
        body = smaller


class Senders:
    """The threads and their queue. `submit`, `tend` and `close` are the engine's; `reported` is called by senders."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        limit: int,
        max_bytes: int,
        reported: Callable[[Report, bool], None],
    ) -> None:
        """`reported(report, urgent)`: urgent where the queue runs low."""
        self._connect = connect
        self._limit = limit
        self._max_bytes = max_bytes
        self._reported = reported
        self._queue: queue.SimpleQueue[Lease | None] = queue.SimpleQueue()
        self._connections: list[Connection] = []
        self._busy_since: dict[Connection, float] = {}
        self._slow = False

    def submit(self, leases: list[Lease]) -> None:
        """Queue leases; the first ones start the first sender."""
        for lease in leases:
            self._queue.put(lease)
        if leases and not self._connections:
            self._start()

    def tend(self) -> float | None:
        """Cut overdue requests and start one more sender where that helps; when to look again, seconds."""
        for connection in list(self._connections):
            connection.expire()
        if self._queue.empty():
            return 1.0 if self._busy_since else None
        if len(self._connections) < self._limit and self._are_slow():
            self._start()
        return SLOW_SECONDS

    def _are_slow(self) -> bool:
        oldest = min(self._busy_since.values(), default=None)
        return self._slow or (oldest is not None and time.monotonic() - oldest > SLOW_SECONDS)

    def _start(self) -> None:
        connection = self._connect()
        self._connections.append(connection)
        name = f"athina-trace-sender-{len(self._connections)}"
        threading.Thread(target=self._work, args=(connection,), name=name, daemon=True).start()

    def _work(self, connection: Connection) -> None:
        while (lease := self._queue.get()) is not None:
            began = self._busy_since[connection] = time.monotonic()
            report = send(lease, connection, max_bytes=self._max_bytes)
            del self._busy_since[connection]
            self._slow = time.monotonic() - began > SLOW_SECONDS * len(report.tried)
            self._reported(report, self._queue.qsize() < _FEW)
        connection.close()

    def close(self) -> None:
        """Let every sender end after what it is doing."""
        for _ in self._connections:
            self._queue.put(None)
