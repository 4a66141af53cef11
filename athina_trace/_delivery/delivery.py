"""`Delivery`: an outbox and its worker, and a second pair in memory while the disk is full or unusable."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from athina_trace import _guard
from athina_trace._delivery import sqlite
from athina_trace._delivery.database import PROGRAM_SECONDS, waiting_at_most
from athina_trace._delivery.entry import Entry
from athina_trace._delivery.metrics import Histogram, Traffic
from athina_trace._delivery.outbox import MemoryOutbox, Outbox
from athina_trace._delivery.sqlite import sqlite3
from athina_trace._delivery.stats import Counts, FlushReport
from athina_trace._delivery.worker import Worker
from athina_trace.errors import OutboxError, OutboxFullError

_READ_SECONDS = 1.0
"""How long a caller waits for our engine's step when reading recent logs, or counts for the first time.

Reading never waits for other processes, but on a busy machine a step may take long, and returning nothing would be
wrong.
"""
_DISK_SECONDS = 30.0
"""How long memory is used before the disk is tried again."""


class Snapshot(NamedTuple):
    """The counts of an outbox, when its oldest waiting entry was made (seconds since the epoch), and its bytes."""

    counts: Counts
    waiting_since: float | None
    bytes: int

    def joined(self, other: Snapshot) -> Snapshot:
        """Add the counts of both."""
        since = [each.waiting_since for each in (self, other) if each.waiting_since is not None]
        return Snapshot(self.counts + other.counts, min(since, default=None), self.bytes + other.bytes)


def _snapshot(outbox: Outbox, seconds: float) -> Snapshot | None:
    with waiting_at_most(seconds):
        _collect(outbox)
        try:
            return Snapshot(outbox.counts(), outbox.store.waiting_since(), outbox.store.size())
        except (OSError, sqlite3.Error) as error:
            _guard.raise_if_the_programs(error)
            return None


def _collect(outbox: Outbox) -> None:
    """Collect what was just put, if that is possible at once: a full disk or another process may prevent it.

    Not in the middle of a step, which has read its position and would collect the same again: a finalizer of the
    program may call this in the engine's thread, and a signal handler while another call is running.
    """
    half = PROGRAM_SECONDS / 2  # the other half is for reading, which is still possible then
    try:
        with waiting_at_most(half):
            if not outbox.store.is_inside():
                outbox.collect_all(seconds=half)
    except (OSError, sqlite3.Error) as error:
        _guard.raise_if_the_programs(error)


def _newest(outbox: Outbox, limit: int) -> list[bytes]:
    with waiting_at_most(_READ_SECONDS):
        _collect(outbox)
        try:
            return outbox.store.newest(limit)
        except (OSError, sqlite3.Error) as error:
            _guard.raise_if_the_programs(error)
            return []


class Delivery:
    """Puts entries, and lets workers deliver them. `make_worker` makes the worker of an outbox."""

    def __init__(
        self, outbox: Outbox, make_worker: Callable[[Outbox], Worker], *, max_bytes: float, seconds: Callable[[], float]
    ) -> None:
        """`max_bytes` limits the outbox in memory; `seconds` is a monotonic clock."""
        self.outbox = outbox
        self.worker = make_worker(outbox)
        self._make_worker = make_worker
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._fallback: tuple[MemoryOutbox, Worker] | None = None
        self._memory_until = 0.0
        self._known: Snapshot | None = None
        """The last snapshot of the outbox that could be read."""
        self._dropped = 0
        self.memory_only: str | None = None
        """Why new logs are kept only in memory; None if they are on disk."""
        if outbox.path == MemoryOutbox.path:
            self.memory_only = sqlite.missing or "the outbox is `:memory:`"
        if outbox.unusable is not None:
            self._use_memory(outbox.unusable, seconds=math.inf)

    @property
    def paused(self) -> str | None:
        """Why nothing is sent now; None otherwise."""
        return self.worker.paused

    @property
    def path(self) -> str:
        """Where logs are put now: a file, or ":memory:", perhaps because the disk fails."""
        return MemoryOutbox.path if self._memory_until else self.outbox.path

    def put(self, entry: Entry) -> None:
        """Commit an entry; if the disk is full or fails, keep it in memory; if the outbox is full, count it as dropped.

        Never raises an `Exception`.
        """
        try:
            if not self._memory_until and not self.worker.stuck:
                self.outbox.put(entry)
                self.worker.wake()
            elif self._memory_until and self._seconds() < self._memory_until:
                self._put_in_memory(entry)
            else:
                self.put_on_disk(entry)
        except OutboxFullError as error:
            self._drop(error)
            self.worker.wake()  # deliveries make room, and nothing else may ever wake it
        except Exception as error:  # noqa: BLE001 - no bug of ours may lose a log that fits into memory
            if not isinstance(error, OutboxError):
                _guard.swallow("putting a log into the outbox")
            self._use_memory(str(error) or repr(error), seconds=_DISK_SECONDS)
            try:
                self._put_in_memory(entry)
            except OutboxFullError as full:
                self._drop(full)

    def _use_memory(self, why: str, *, seconds: float) -> None:
        if not self._memory_until:
            _guard.log_throttled(logging.ERROR, "memory", "%s: logs are kept in memory and delivered from there", why)
        self._memory_until = self._seconds() + seconds
        self.memory_only = why

    def put_on_disk(self, entry: Entry) -> None:
        """Commit an entry to the outbox itself. Raises `OutboxError` if it is full or cannot be written to."""
        if self.worker.stuck:
            raise OutboxError(self.worker.stuck)
        self.outbox.put(entry)
        self.worker.wake()
        if self._memory_until:
            self._memory_until, self.memory_only = 0.0, None
            _guard.log_throttled(logging.WARNING, "disk", "the outbox %s can be written to again", self.outbox.path)

    def _drop(self, error: OutboxFullError) -> None:
        self.outbox.drop()
        self._dropped += 1
        _guard.log_throttled(
            logging.ERROR, "full", "%s: new logs are dropped, see `dropped` in athina_trace.status()", error
        )

    def _put_in_memory(self, entry: Entry) -> None:
        if self._fallback is None:
            outbox = MemoryOutbox(max_bytes=self._max_bytes)
            self._fallback = outbox, self._make_worker(outbox)
        outbox, worker = self._fallback
        outbox.put(entry)
        worker.wake()

    def flush(self, timeout: float) -> FlushReport:
        """Flush disk and memory: see `Worker.flush`. After `close`, report what is left."""
        if self.worker.has_ended:
            left = self.snapshot().counts
            return FlushReport(0, left.waiting, left.refused, self.paused, 0.0)
        ends = time.monotonic() + timeout
        nothing = FlushReport(0, 0, 0, None, 0.0)
        memory = self._fallback[1].flush(timeout) if self._fallback is not None else nothing
        # If this process cannot use the outbox, it does not wait for what others still have to deliver from it.
        disk = nothing if self.outbox.unusable else self.worker.flush(max(0.0, ends - time.monotonic()))
        # A caller who has waited this long calls `status()` next, which itself waits for less on a busy machine.
        patience = max(PROGRAM_SECONDS, min(_READ_SECONDS, ends - time.monotonic()))
        self._known = _snapshot(self.outbox, patience) or self._known
        dropped, self._dropped = self._dropped, 0
        return replace(
            disk,
            delivered=disk.delivered + memory.delivered,
            waiting=disk.waiting + memory.waiting,
            refused=disk.refused + memory.refused,
            elapsed=disk.elapsed + memory.elapsed,
            undelivered=disk.undelivered + memory.undelivered + dropped,
        )

    def traffic(self) -> Traffic:
        """Return this process's requests in flight and their latencies."""
        workers = [self.worker, *([self._fallback[1]] if self._fallback else [])]
        controllers = [worker.engine.senders.controller for worker in workers]
        latency = sum((each.latency for each in controllers), Histogram())
        return Traffic(sum(each.in_flight for each in controllers), latency)

    def snapshot(self) -> Snapshot:
        """Return the counts of all entries, on disk (of all processes) and in this process's memory."""
        self._known = _snapshot(self.outbox, _READ_SECONDS if self._known is None else PROGRAM_SECONDS) or self._known
        known = self._known or Snapshot(Counts(), None, 0)
        if self.worker.stuck or self.worker.locked:
            known = known._replace(counts=known.counts + self.outbox.uncollected())
        memory = _snapshot(self._fallback[0], PROGRAM_SECONDS) if self._fallback else None
        return known.joined(memory) if memory else known

    def newest(self, limit: int) -> list[bytes]:
        """Return the bodies of the newest logs in any state, oldest first; none of a disk that cannot be read."""
        memory = _newest(self._fallback[0], limit) if self._fallback else []
        return [*_newest(self.outbox, limit - len(memory)), *memory]

    def close(self, timeout: float) -> None:
        """Flush for at most about `timeout` seconds and stop. What waits in memory is written to disk, if possible."""
        if self.worker.has_ended:
            self.worker.join(timeout)
            return
        ends = time.monotonic() + timeout
        if self._fallback is not None:
            outbox, worker = self._fallback
            worker.close(timeout / 2)
            # Even if its thread has not ended: sending an entry twice is better than losing it.
            self._rescue(outbox)
        self.worker.close(max(0.0, ends - time.monotonic()))

    def _rescue(self, memory: MemoryOutbox) -> None:
        waiting = list(memory.waiting())
        try:
            while waiting:
                (self.outbox.put if self.outbox.unusable else self.put_on_disk)(waiting[0])
                del waiting[0]
        except OutboxError as error:
            _guard.log_throttled(
                logging.ERROR, "lost", "%s: %d logs that were only in memory are lost", error, len(waiting)
            )
