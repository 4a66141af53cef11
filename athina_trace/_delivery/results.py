"""Results that senders hand to the engine's thread, and the event that wakes it."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from athina_trace._delivery.entry import Lease, Stored
from athina_trace._delivery.interpreter import Interpreter
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.retry import Verdict

_SOON, _NOW = False, True


class WakeEvent:
    """Wakes one thread, soon (so that a burst takes few steps) or now. For any thread or signal handler."""

    def __init__(self) -> None:
        self._is_set = False  # whether the thread was woken since the last `clear`
        # The only primitive of the standard library that is reentrant: a signal handler may interrupt its own thread
        # in the middle of the same call.
        self._queue: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def wake(self) -> None:
        """Wake the thread soon."""
        if not self._is_set:
            self._is_set = True
            self._queue.put(_SOON)

    def wake_now(self) -> None:
        """Wake the thread at once."""
        self._queue.put(_NOW)

    def wait(self, seconds: float) -> bool:
        """Wait to be woken, at most `seconds`; return whether it was urgent."""
        try:
            return self._queue.get(timeout=seconds)
        except queue.Empty:
            return False

    def clear(self) -> None:
        """Forget past wake-ups, which the caller is about to serve."""
        with suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        self._is_set = False


class Attempt(NamedTuple):
    """One entry that was sent, with its outcome and verdict."""

    entry: Stored
    outcome: Outcome
    verdict: Verdict


class Result(NamedTuple):
    """A sender's report on a lease: the attempt, None if nothing may be sent now, and whether the lease has ended."""

    lease: Lease
    attempt: Attempt | None
    ended: bool


class Results:
    """The senders' reports, oldest first. The engine discards those that it has committed."""

    def __init__(self, delivered: Callable[[Stored], None]) -> None:
        """`delivered` is called at once, in the sender's thread, with each entry that Athina accepted."""
        self.queue: deque[Result] = deque()
        self.wake_event = WakeEvent()
        self.interpreter = Interpreter()
        self.is_urgent = False
        """Whether senders that run out of work request a step at once: more entries wait, or a caller does."""
        self._delivered = delivered

    def uncommitted(self) -> list[Result]:
        """Return the reports that are not discarded, oldest first."""
        # The copy is atomic, also without a GIL, while senders put more.
        return list(self.queue.copy())

    def discard(self, number: int) -> None:
        """Discard the oldest, which are committed."""
        for _ in range(number):
            self.queue.popleft()

    def put(self, result: Result, *, is_low: bool = False) -> None:
        """Hand over a report. `is_low`: the senders have little left to do."""
        self.queue.append(result)
        if result.attempt is not None and result.attempt.verdict is Verdict.DELIVERED:
            self._delivered(result.attempt.entry)
        if is_low:
            (self.wake_event.wake_now if self.is_urgent else self.wake_event.wake)()
