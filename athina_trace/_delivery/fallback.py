"""An outbox and its worker, and a second pair in memory for as long as the first cannot take logs."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from athina_trace import _guard
from athina_trace._delivery.database import PROGRAM_SECONDS, waiting_at_most
from athina_trace._delivery.entry import Entry
from athina_trace._delivery.outbox import MemoryOutbox, Outbox
from athina_trace._delivery.stats import Counts, FlushReport
from athina_trace._delivery.worker import Worker
from athina_trace.errors import OutboxError, OutboxFullError

_DISK_SECONDS = 30.0
"""How long to use memory before the disk is tried again."""


class Standing(NamedTuple):
    """What became of entries, when the oldest that waits was made (seconds since the epoch), and their bytes."""

    counts: Counts
    waiting_since: float | None
    bytes: int

    def joined(self, other: Standing) -> Standing:
        """Both together."""
        since = [each.waiting_since for each in (self, other) if each.waiting_since is not None]
        return Standing(self.counts + other.counts, min(since, default=None), self.bytes + other.bytes)


def _standing(outbox: Outbox) -> Standing | None:
    with waiting_at_most():
        _collect(outbox)
        try:
            return Standing(outbox.counts(), outbox.store.waiting_since(), outbox.store.size())
        except (OSError, sqlite3.Error) as error:
            _guard.pass_on(error)
            return None


def _collect(outbox: Outbox) -> None:
    """Take in what was just put, if that can be done at once: a full disk or another process may forbid it."""
    half = PROGRAM_SECONDS / 2  # the other half is for reading, which both allow
    try:
        with waiting_at_most(half):
            outbox.collect_all(seconds=half)
    except (OSError, sqlite3.Error) as error:
        _guard.pass_on(error)


def _newest(outbox: Outbox, limit: int) -> list[bytes]:
    with waiting_at_most():
        _collect(outbox)
        try:
            return outbox.store.newest(limit)
        except (OSError, sqlite3.Error) as error:
            _guard.pass_on(error)
            return []


class Delivery:
    """Puts entries and has them delivered. `work` makes the worker of an outbox."""

    def __init__(
        self, outbox: Outbox, work: Callable[[Outbox], Worker], *, max_bytes: float, seconds: Callable[[], float]
    ) -> None:
        """`max_bytes` is for the memory; `seconds` is a monotonic clock."""
        self.outbox = outbox
        self.worker = work(outbox)
        self._work = work
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._spare: tuple[MemoryOutbox, Worker] | None = None
        self._memory_until = 0.0
        self._known = Standing(Counts(), None, 0)
        """How the outbox stood when it could last be read."""

    @property
    def paused(self) -> str | None:
        """Why nothing is sent now; None where it is."""
        return self.worker.paused

    @property
    def path(self) -> str:
        """Where logs are put now: a file, or ":memory:", which may be because the disk fails."""
        return MemoryOutbox.path if self._memory_until else self.outbox.path

    def put(self, entry: Entry) -> None:
        """Commit an entry, or keep it in memory where the disk fails, or count it as dropped where it is full."""
        try:
            worker = self.worker
            if self._memory_until or worker.stuck:
                self._put_where_it_can_be(entry)
            else:
                self.outbox.put(entry)
                worker.wake()
        except OutboxFullError as error:
            self.outbox.drop()
            self.worker.wake()  # deliveries make room, and a process may have nothing else to put
            _guard.log_throttled(
                logging.ERROR, "full", "%s: new logs are dropped, see `dropped` in athina_trace.status()", error
            )
        except OutboxError as error:
            self._use_memory(entry, error)

    def _put_where_it_can_be(self, entry: Entry) -> None:
        if self._memory_until and self._seconds() < self._memory_until:
            self._put_in_memory(entry)
        else:
            self._put_on_disk(entry)

    def _put_on_disk(self, entry: Entry) -> None:
        if self.worker.stuck:
            raise OutboxError(self.worker.stuck)
        self.outbox.put(entry)
        self.worker.wake()
        if self._memory_until:
            self._memory_until = 0.0
            _guard.log_throttled(logging.WARNING, "disk", "the outbox %s can be written to again", self.outbox.path)

    def _use_memory(self, entry: Entry, error: OutboxError) -> None:
        if not self._memory_until:
            _guard.log_throttled(logging.ERROR, "memory", "%s: logs are kept in memory and delivered from there", error)
        self._memory_until = self._seconds() + _DISK_SECONDS
        try:
            self._put_in_memory(entry)
        except OutboxFullError as full:
            self.outbox.drop()
            _guard.log_throttled(logging.ERROR, "full", "%s: new logs are dropped", full)

    def _put_in_memory(self, entry: Entry) -> None:
        if self._spare is None:
            outbox = MemoryOutbox(max_bytes=self._max_bytes)
            self._spare = outbox, self._work(outbox)
        outbox, worker = self._spare
        outbox.put(entry)
        worker.wake()

    def flush(self, timeout: float) -> FlushReport:
        """Flush disk and memory: see `Worker.flush`. After `close`, say how things stand."""
        if self.worker.has_ended:
            left = self.standing().counts
            return FlushReport(0, left.waiting, left.refused, self.paused, 0.0)
        if self._spare is None:
            return self.worker.flush(timeout)
        ends = time.monotonic() + timeout
        spare = self._spare[1].flush(timeout)
        disk = self.worker.flush(max(0.0, ends - time.monotonic()))
        return replace(
            disk,
            delivered=disk.delivered + spare.delivered,
            waiting=disk.waiting + spare.waiting,
            refused=disk.refused + spare.refused,
            elapsed=disk.elapsed + spare.elapsed,
        )

    def standing(self) -> Standing:
        """How all entries stand, on disk (by all processes) and in this process's memory."""
        self._known = _standing(self.outbox) or self._known
        memory = _standing(self._spare[0]) if self._spare else None
        return self._known.joined(memory) if memory else self._known

    def newest(self, limit: int) -> list[bytes]:
        """The bodies of the newest logs, oldest first, in any state; nothing of a disk that cannot be read."""
        spare = _newest(self._spare[0], limit) if self._spare else []
        return [*_newest(self.outbox, limit - len(spare)), *spare]

    def close(self, timeout: float) -> None:
        """Flush for at most about `timeout` seconds and stop. What waits in memory goes to the disk, if it can."""
        if self.worker.has_ended:
            self.worker.join(timeout)
            return
        ends = time.monotonic() + timeout
        if self._spare is not None:
            outbox, worker = self._spare
            if worker.close(timeout / 2):
                self._rescue(outbox)
        self.worker.close(max(0.0, ends - time.monotonic()))

    def _rescue(self, memory: MemoryOutbox) -> None:
        waiting = list(memory.waiting())
        try:
            while waiting:
                self._put_on_disk(waiting[0])
                del waiting[0]
        except OutboxError as error:
            _guard.log_throttled(
                logging.ERROR, "lost", "%s: %d logs that were only in memory are lost", error, len(waiting)
            )
