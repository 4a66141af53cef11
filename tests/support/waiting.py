"""Waiting for a condition rather than for a time."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Poll a condition, and fail if it does not become true within `seconds`, which a busy machine may need."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"not so within {seconds:g} s"
        time.sleep(0.005)
