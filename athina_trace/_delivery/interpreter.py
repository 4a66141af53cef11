"""What our threads take of the interpreter from a program that computes without a pause."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque

LOOK_SECONDS = 0.15
_LOOKS = 5
"""How many are looked back, three quarters of a second: what the engine takes comes in lumps."""
_BUSY = 0.2
"""Processors that the program takes at least which computes all the time, on a busy machine, too."""
_PROBE_SECONDS = 0.0002
_BEGINS, _STILL = 1 / 2, 1 / 4
"""What waits for the interpreter come to, in parts of the longest, once a program computes, and while it does."""


class Interpreter:
    """Measures the share of our threads, which call `spent` after what they did, and `look` now and then.

    The program computes without a pause where a thread of ours that lets go of the interpreter mostly waits as long as
    the interpreter allows to have it back. One that waits for requests or files, such as a server, lets us in much
    sooner, however busy it is.
    """

    def __init__(self) -> None:
        self.share = 0.0
        """Of the processor time of this process, what our threads take; 0 where the program does not compute."""
        self._ours = 0.0
        self._thread = threading.local()
        self._looked: deque[tuple[float, float, float]] = deque(maxlen=_LOOKS + 1)
        """When, what we and what all threads had taken by then, all in seconds."""
        self._waits: deque[float] = deque(maxlen=2 * _LOOKS)
        """For the interpreter, seconds."""

    def spent(self) -> None:
        """Count the processor time that this thread took since it last called this."""
        now = time.thread_time()
        self._ours += now - getattr(self._thread, "taken", 0.0)
        self._thread.taken = now

    def look(self) -> None:
        """Measure, unless that was just done. May wait for the interpreter, so not with a lock held."""
        now = time.perf_counter()
        if self._looked and now - self._looked[-1][0] < LOOK_SECONDS:
            return
        self._looked.append((now, self._ours, time.process_time()))
        elapsed, ours, taken = (last - first for first, last in zip(self._looked[0], self._looked[-1], strict=True))
        waited = 0.0
        if taken - ours > _BUSY * elapsed:
            time.sleep(_PROBE_SECONDS)
            waited = time.perf_counter() - now
        # Our threads let in each other, too, so that some waits are short where the program computes all the same.
        longest = sys.getswitchinterval()
        self._waits.append(min(waited, longest))
        computes = sum(self._waits) > (_STILL if self.share else _BEGINS) * longest * len(self._waits)
        self.share = ours / taken if computes else 0.0
