"""Time and identifiers, behind one object that tests replace."""

from __future__ import annotations

import random
import time

from athina_trace import _fork

_VERSION_7 = 0x7000_8000_0000_0000_0000
_RANDOM_BITS = 0x0FFF_3FFF_FFFF_FFFF_FFFF


class Clock:
    """The system's clocks, and UUIDs of version 7 (RFC 9562: sortable by the time they were made)."""

    def __init__(self) -> None:
        # Our own generator: a program that seeds the global one would give the same ids in every process.
        self._random = random.Random()  # noqa: S311 - identifiers, not secrets
        self.forks = 0
        """Number of forks between the process that imported athina_trace and this one."""

    # Not wrapped in methods: every call reads them several times.
    perf_ns = staticmethod(time.perf_counter_ns)
    """Monotonic time for durations, nanoseconds."""
    monotonic = staticmethod(time.monotonic)
    """Monotonic time in seconds, which changes of the system clock do not affect."""
    time = staticmethod(time.time)
    """Wall-clock time, seconds since the epoch."""

    def reference(self, made: float | None = None) -> str:
        """Return a new UUIDv7, a canonical string of 36 characters; `made`: seconds since the epoch (default: now)."""
        milliseconds = time.time_ns() // 1_000_000 if made is None else int(made * 1000)
        number = milliseconds << 80 | self._random.getrandbits(76) & _RANDOM_BITS | _VERSION_7
        text = number.to_bytes(16, "big").hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def uniform(self) -> float:
        """Return a random number in [0, 1)."""
        return self._random.random()

    def after_fork(self) -> None:
        """Reseed: a forked child starts with a copy of its parent's generator."""
        self._random.seed()
        self.forks += 1


clock = Clock()
_fork.register("clock", after_in_child=clock.after_fork)
