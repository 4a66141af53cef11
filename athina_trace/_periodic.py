"""Periodic callbacks, called by the engine's thread, and a last time by a flush or an exit.

A callback takes the current time (seconds since the epoch) and whether the process is ending. It returns the number of
seconds until it should be called again, infinity for never. If the time is infinite, all its pending work is due.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from athina_trace import _guard

Callback = Callable[[float, bool], float]
_callbacks: list[Callback] = []


def register(callback: Callback) -> None:
    """Call `callback` from now on; registering it again has no effect."""
    if callback not in _callbacks:
        _callbacks.append(callback)


def tick(now: float, *, ending: bool = False) -> float:
    """Call every callback; return the seconds until the next tick, infinity for never. Never raises."""
    waits = [math.inf]
    for callback in tuple(_callbacks):
        with _guard.shield("calling a periodic callback"):
            waits.append(callback(now, ending))
    return min(waits)


def finish(*, ending: bool = False) -> None:
    """Have every callback do its pending work now: for a flush, or the end of the process."""
    tick(math.inf, ending=ending)
