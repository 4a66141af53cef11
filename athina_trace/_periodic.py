"""Callbacks that the engine's thread calls from time to time, and that a flush or an exit calls for the last time.

A callback is a function of the time now (seconds since the epoch) and of whether the process is ending. It returns the
seconds until it wants to be called again, infinity for never. Called at an infinite time, it does at once what it
would do in time.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from athina_trace import _guard

Callback = Callable[[float, bool], float]
_callbacks: list[Callback] = []


def register(callback: Callback) -> None:
    """Call `callback` from now on; to register it again changes nothing."""
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
    """Call every callback to do at once what it would do in time: for a flush, or the end of the process."""
    tick(math.inf, ending=ending)
