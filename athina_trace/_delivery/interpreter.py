"""Measures how much of the interpreter (GIL) our threads take from a compute-bound program."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque

LOOK_SECONDS = 0.15
_LOOKS = 5
"""The share is averaged over so many looks, three quarters of a second: the engine works in bursts."""
_BUSY = 0.2
"""The CPUs that a compute-bound program uses at least, even on a busy machine."""
_PROBE_SECONDS = 0.0002
_BEGINS, _STILL = 1 / 2, 1 / 4
"""Average waits for the interpreter, relative to the longest: thresholds to consider the program compute-bound, and to
keep considering it so."""


class Interpreter:
    """Measures our threads' share of CPU time; they call `spent` after each piece of work, and `look` regularly.

    A program is compute-bound if a thread of ours that releases the interpreter mostly waits the whole switch interval
    to get it back. A program that waits for requests or files, such as a server, lets us in much sooner, however busy
    it is.
    """

    def __init__(self) -> None:
        self.share = 0.0
        """Our threads' share of this process's CPU time; 0 if the program is not compute-bound."""
        self._ours = 0.0
        self._thread = threading.local()
        self._looked: deque[tuple[float, float, float]] = deque(maxlen=_LOOKS + 1)
        """For each look: when it was, and the CPU time of our threads and of all threads until then, in seconds."""
        self._waits: deque[float] = deque(maxlen=2 * _LOOKS)
        """Waits for the interpreter, in seconds."""

    def spent(self) -> None:
        """Count the CPU time that this thread has taken since its last call."""
        now = time.thread_time()
        self._ours += now - getattr(self._thread, "taken", 0.0)
        self._thread.taken = now

    def look(self) -> None:
        """Measure, unless that was just done. May wait for the interpreter, so hold no lock."""
        now = time.perf_counter()
        if self._looked and now - self._looked[-1][0] < LOOK_SECONDS:
            return
        self._looked.append((now, self._ours, time.process_time()))
        elapsed, ours, taken = (last - first for first, last in zip(self._looked[0], self._looked[-1], strict=True))
        waited = 0.0
        if taken - ours > _BUSY * elapsed:
            time.sleep(_PROBE_SECONDS)
            waited = time.perf_counter() - now
        # Our threads also let each other in, so that some waits are short although the program computes.
        longest = sys.getswitchinterval()
        self._waits.append(min(waited, longest))
        computes = sum(self._waits) > (_STILL if self.share else _BEGINS) * longest * len(self._waits)
        self.share = ours / taken if computes else 0.0
