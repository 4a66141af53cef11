"""Waiting until everything that was put has been acknowledged: callers wait, the engine's steps wake them."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from athina_trace._delivery.outbox import Outbox
from athina_trace._delivery.stats import Counts, FlushReport


class Flush:
    """One caller, who waits until every entry is acknowledged that was put before."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._done = threading.Event()
        self._last: int | None = None
        self._before: Counts | None = None
        self._after: Counts | None = None
        self._is_complete = False

    def wait(self, timeout: float) -> None:
        """Wait for the engine, at most `timeout` seconds."""
        self._done.wait(timeout)

    def report(self, paused: str | None, *, waiting: int, undelivered: int) -> FlushReport:
        """Return what came of it so far. `waiting`: how many are known to wait, for an engine that could not step."""
        before, after = self._before, self._after
        if self._is_complete:
            waiting = 0
        elif after is not None:
            waiting = max(after.waiting, 1)  # where the store holds nothing, the journal does, which cannot be read
        delivered = after.delivered - before.delivered if before is not None and after is not None else 0
        refused = (after or before or Counts()).refused
        return FlushReport(delivered, waiting, refused, paused, time.monotonic() - self._began, undelivered)

    def begin(self, outbox: Outbox) -> bool:
        """Note that a step begins, which will collect what was put; return whether it is this flush's first."""
        if self._before is not None:
            return False
        self._before = outbox.counts()
        return True

    def is_done(self, outbox: Outbox, *, idle: bool) -> bool:
        """Return whether the step that ends now was the last to wait for. `idle`: nothing is being sent."""
        if self._before is None:
            return False  # it came while the step was under way
        self._after = outbox.counts()
        if self._last is None and not outbox.is_behind:
            self._last = outbox.store.last()
        self._is_complete = self._last is not None and outbox.store.oldest_waiting() > self._last
        return self._is_complete or (self._last is not None and idle)

    def end(self) -> None:
        """Let the caller continue."""
        self._done.set()


class Flushes:
    """The callers who wait: added and ended by any thread, served by the engine's steps. True while there are any."""

    def __init__(self) -> None:
        self._waiting: list[Flush] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, flush: Flush) -> None:
        """Serve a caller from the next step on."""
        self._waiting.append(flush)

    def begin(self, outbox: Outbox) -> bool:
        """Note that a step begins; return whether it is the first of any flush."""
        begun = [flush.begin(outbox) for flush in list(self._waiting)]
        return any(begun)

    def serve(self, outbox: Outbox, *, idle: bool) -> None:
        """Let those continue who waited for nothing but the step that ends now. `idle`: nothing is being sent."""
        for flush in list(self._waiting):
            if flush.is_done(outbox, idle=idle):
                self.end(flush)

    def end(self, flush: Flush) -> None:
        """Let a caller continue, or forget one that waits no longer."""
        with suppress(ValueError):  # the step and the caller may both be done with it
            self._waiting.remove(flush)
        flush.end()

    def end_all(self) -> None:
        """Let every caller continue: there is nothing to wait for."""
        for flush in list(self._waiting):
            self.end(flush)
