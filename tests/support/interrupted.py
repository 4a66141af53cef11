"""Code of the program's that runs in the middle of ours, as a finalizer does whenever Python collects garbage."""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable


def run_interrupted(nth: int, work: Callable[[], None], meanwhile: Callable[[], None]) -> bool:
    """Run `work` in a thread, and `meanwhile` as it begins its `nth` function; return whether it came to that."""
    remaining = nth

    def trace(_frame: object, event: str, _argument: object) -> None:
        nonlocal remaining
        remaining -= event == "call"
        if not remaining:
            sys.settrace(None)
            meanwhile()

    def traced() -> None:
        sys.settrace(trace)
        work()
        sys.settrace(None)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(traced,), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), f"it waits for itself when interrupted in its function number {nth}"
    return remaining <= 0
