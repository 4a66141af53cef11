"""What senders hand to the engine's thread, and what wakes it."""

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
    """Wakes one thread: soon, so that a burst is served by few steps, or now. From any thread or signal handler."""

    def __init__(self) -> None:
        self.is_set = False
        """Whether the thread was woken since it looked last."""
        # Of the standard library's means to wake a thread the only one that a signal handler may use, which can
        # interrupt its own thread in the middle of the same call.
        self._queue: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def wake(self) -> None:
        """Wake the thread soon."""
        if not self.is_set:
            self.is_set = True
            self._queue.put(_SOON)

    def wake_now(self) -> None:
        """Wake the thread at once."""
        self._queue.put(_NOW)

    def wait(self, seconds: float) -> bool:
        """Wait to be woken, at most `seconds`; return whether that was urgent."""
        try:
            return self._queue.get(timeout=seconds)
        except queue.Empty:
            return False

    def clear(self) -> None:
        """Forget the wake-ups so far, which the caller is about to serve."""
        with suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        self.is_set = False


class Attempt(NamedTuple):
    """One entry that was sent, and what came of it."""

    entry: Stored
    outcome: Outcome
    verdict: Verdict


class Result(NamedTuple):
    """What came of a lease: an entry acknowledged, or the lease's end, with the attempt that ended it if it failed."""

    lease: Lease
    attempt: Attempt | None
    ended: bool


class Results:
    """The reports of senders, in the order in which they came. The engine takes out what it has committed."""

    def __init__(self, delivered: Callable[[Stored], None]) -> None:
        """`delivered` is called at once, by the sender's thread, with each entry that Athina took."""
        self.queue: deque[Result] = deque()
        self.wake_event = WakeEvent()
        self.interpreter = Interpreter()
        self.is_urgent = False
        """Whether senders that run out of work want a step at once: more waits than they have, or a caller does."""
        self._delivered = delivered

    def uncommitted(self) -> list[Result]:
        """Return those that the engine has not taken out, the oldest first."""
        # The copy is one step for senders that put some meanwhile, also where there is no interpreter lock.
        return list(self.queue.copy())

    def discard(self, number: int) -> None:
        """Take out the oldest, which are committed."""
        for _ in range(number):
            self.queue.popleft()

    def put(self, result: Result, *, is_low: bool = False) -> None:
        """Hand over a result. `is_low`: the senders have little left to do."""
        self.queue.append(result)
        if result.attempt is not None and result.attempt.verdict is Verdict.DELIVERED:
            self._delivered(result.attempt.entry)
        if is_low:
            (self.wake_event.wake_now if self.is_urgent else self.wake_event.wake)()
