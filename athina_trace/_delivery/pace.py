"""How hard to work: how many senders are worth their cost, and how much of a processor deliveries may take."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

SLOW_SECONDS = 0.005
"""A request that takes longer leaves its thread waiting for the server, if the interpreter is not simply busy."""
VERY_SLOW_SECONDS = 0.04
"""A request that takes longer waits for the server, however busy the interpreter is."""
_STALLED_SECONDS = 0.25
_BUSY = 0.5
_LOOK_SECONDS = 0.05
_REMEMBERED = 8
_CREDIT_SECONDS = 0.1
"""Who rested for so long may work again without a rest."""
_LONGEST_REST = 0.25
"""Seconds; an exit may have to wait for it."""


class Demand:
    """Whether one more sender would help. Few busy threads cost less than many, and in Python they take turns.

    The quickest of the last requests tells how long the server takes: each of the others may have waited for its turn.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, cpu: Callable[[], float] = time.process_time
    ) -> None:
        """`clock`: monotonic seconds. `cpu`: seconds of processor time that this process took."""
        self._clock, self._cpu = clock, cpu
        self._taken: deque[float] = deque(maxlen=_REMEMBERED)
        self._looked = clock(), cpu()
        self._is_busy = False

    def took(self, seconds: float) -> None:
        """Note how long one request took."""
        self._taken.append(seconds)

    def is_unmet(self, oldest: float | None) -> bool:
        """Whether senders mostly wait. `oldest`: since when the oldest request is under way, if one is."""
        if oldest is not None and self._clock() - oldest > _STALLED_SECONDS:
            return True
        self._look()
        return min(self._taken, default=0.0) > (VERY_SLOW_SECONDS if self._is_busy else SLOW_SECONDS)

    def _look(self) -> None:
        """See, now and then, whether this process keeps half of a processor core busy."""
        now, cpu = self._clock(), self._cpu()
        elapsed = now - self._looked[0]
        if elapsed >= _LOOK_SECONDS:
            self._is_busy = cpu - self._looked[1] > _BUSY * elapsed
            self._looked = now, cpu


class Pace:
    """Keeps the threads of an engine, all together, to a share of one processor core (1.0: no bound)."""

    def __init__(
        self,
        share: float = 1.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`clock`: monotonic seconds. `cpu`: seconds of processor time that the thread which asks took."""
        self._share = share
        self._clock, self._cpu, self._sleep = clock, cpu, sleep
        self._lock = threading.Lock()
        self._worked = threading.local()
        self._free_at = 0.0

    def rest(self) -> None:
        """Sleep for as long as this thread should after what it did since it came here last."""
        if self._share < 1.0:
            cpu = self._cpu()
            worked, self._worked.until = cpu - getattr(self._worked, "until", cpu), cpu
            self._sleep(min(self._owed(worked), _LONGEST_REST))

    def _owed(self, worked: float) -> float:
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now - _CREDIT_SECONDS) + worked / self._share
            return max(0.0, self._free_at - now)
