"""What is to be done later: rooms leave an errand, the engine's thread runs it, and a flush or an exit finishes it.

An errand is a function of the time now (seconds since the epoch) and of whether the process is ending. It says in how
many seconds it wants to be called again, infinity for never. Called with infinity, it does at once what it would do
in time.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from athina_trace import _guard

Errand = Callable[[float, bool], float]
_errands: list[Errand] = []


def leave(errand: Errand) -> None:
    """Have `errand` run from now on; leaving it again changes nothing."""
    if errand not in _errands:
        _errands.append(errand)


def run(now: float, *, ending: bool = False) -> float:
    """Run every errand; in how many seconds to come again, infinity for never. Never raises."""
    return min((_run(errand, now, ending=ending) for errand in tuple(_errands)), default=math.inf)


def finish(*, ending: bool = False) -> None:
    """Have every errand do at once what it would do in time: a flush, or the end of the process."""
    run(math.inf, ending=ending)


def _run(errand: Errand, now: float, *, ending: bool) -> float:
    try:
        return errand(now, ending)
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.swallow("finishing what was left for later")
        return math.inf
