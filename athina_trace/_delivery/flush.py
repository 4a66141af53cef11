"""Waiting until everything that was put has been settled: callers wait, the engine's steps tell them when."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

from athina_trace._delivery.outbox import Outbox
from athina_trace._delivery.stats import Counts, FlushReport


class Flush:
    """One caller, who waits until every entry is settled that was put before."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._done = threading.Event()
        self._last: int | None = None
        self._before: Counts | None = None
        self._after = Counts(waiting=1)  # until the engine knows better

    def wait(self, timeout: float) -> None:
        """Wait for the engine, at most `timeout` seconds."""
        self._done.wait(timeout)

    def report(self, paused: str | None) -> FlushReport:
        """What came of it so far."""
        delivered = self._after.delivered - self._before.delivered if self._before else 0
        elapsed = time.monotonic() - self._began
        return FlushReport(delivered, self._after.waiting, self._after.refused, paused, elapsed)

    def begin(self, outbox: Outbox) -> bool:
        """A step begins, which will collect what was put; True where it is this flush's first."""
        if self._before is not None:
            return False
        self._before = outbox.counts()
        return True

    def is_done(self, outbox: Outbox, *, idle: bool) -> bool:
        """Whether the step that ends now was the last to wait for. `idle`: nothing is being sent."""
        if self._before is None:
            return False  # it came while the step was under way
        self._after = outbox.counts()
        if self._last is None and not outbox.is_behind:
            self._last = outbox.store.last()
        if self._last is None or idle:
            return self._last is not None
        if outbox.store.oldest_waiting() <= self._last:
            return False
        self._after = replace(self._after, waiting=0)
        return True

    def end(self) -> None:
        """Let the caller go on."""
        self._done.set()
