"""Waiting for what is to become true, rather than for a time."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Ask again and again, and fail once it was not so for `seconds`, which a busy machine may need."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"not so within {seconds:g} s"
        time.sleep(0.005)
