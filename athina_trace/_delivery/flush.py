"""Flushes: callers wait until everything that was put is acknowledged, and the engine's steps wake them."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from athina_trace._delivery.outbox import Outbox
from athina_trace._delivery.stats import Counts, FlushReport


class Flush:
    """A caller who waits until all entries that were put before are acknowledged."""

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
        """Return the result so far. `waiting`: the known number of waiting entries, if the engine could not step."""
        before, after = self._before, self._after
        if self._is_complete:
            waiting = 0
        elif after is not None:
            waiting = max(after.waiting, 1)  # if none wait in the store, the journal holds some but cannot be read
        delivered = after.delivered - before.delivered if before is not None and after is not None else 0
        refused = (after or before or Counts()).refused
        return FlushReport(delivered, waiting, refused, paused, time.monotonic() - self._began, undelivered)

    def begin(self, outbox: Outbox) -> bool:
        """Note that a step begins, which will collect what was put; return whether it is the first of this flush."""
        if self._before is not None:
            return False
        self._before = outbox.counts()
        return True

    def is_done(self, outbox: Outbox, *, idle: bool) -> bool:
        """Return whether the flush is done with the step that ends now. `idle`: nothing is being sent."""
        if self._before is None:
            return False  # the flush was added during the step
        self._after = outbox.counts()
        if self._last is None and not outbox.is_behind:
            self._last = outbox.store.last()
        self._is_complete = self._last is not None and outbox.store.oldest_waiting() > self._last
        return self._is_complete or (self._last is not None and idle)

    def end(self) -> None:
        """Let the caller continue."""
        self._done.set()


class Flushes:
    """The waiting callers: any thread adds and ends them, the engine's steps serve them. True if there are any."""

    def __init__(self) -> None:
        self._waiting: list[Flush] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, flush: Flush) -> None:
        """Add a caller, to be served from the next step on."""
        self._waiting.append(flush)

    def begin(self, outbox: Outbox) -> bool:
        """Note that a step begins; return whether it is the first for any flush."""
        begun = [flush.begin(outbox) for flush in list(self._waiting)]
        return any(begun)

    def serve(self, outbox: Outbox, *, idle: bool) -> None:
        """Release the callers whose flush is done with the step that ends now. `idle`: nothing is being sent."""
        for flush in list(self._waiting):
            if flush.is_done(outbox, idle=idle):
                self.end(flush)

    def end(self, flush: Flush) -> None:
        """Release a caller, or forget one that no longer waits."""
        with suppress(ValueError):  # the step and the caller may both end it
            self._waiting.remove(flush)
        flush.end()

    def end_all(self) -> None:
        """Release all callers: there is nothing to wait for."""
        for flush in list(self._waiting):
            self.end(flush)
