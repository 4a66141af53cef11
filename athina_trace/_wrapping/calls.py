"""What happens around a call, and how the work that it defers is done."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from itertools import count
from typing import Any, TypeVar

from athina_trace import _guard

T = TypeVar("T")


DeferredWork = Callable[[], None] | None
"""What takes its time, and is therefore done off the event loop where there is one. Raises nothing."""


class Call:
    """One call from its start to its end; this base class notes nothing.

    What a subclass raises is kept from the program: see `attempt`.
    """

    __slots__ = ()

    def enter(self) -> None:
        """Make the call current in this context. Called again, from outside, before the first step of its result."""

    def leave(self) -> None:
        """Make current again what was before `enter`, in the same context. Streams restore that around each step."""

    def begun(self) -> None:
        """Note that a stream yielded its first chunk, where that is a text; `chunks` reads it later."""

    def chunks(self, values: list[Any]) -> None:
        """Read what a stream yielded since the last time, at least one thing; the list is reused.

        The last may be any object; those before it are texts, which nothing can change.
        """

    def done(self, value: object) -> DeferredWork:  # noqa: ARG002 - for subclasses
        """End the call with the `value` that it returned, or its stream. Returns deferred work."""
        return None

    def failed(self, error: BaseException) -> DeferredWork:  # noqa: ARG002 - for subclasses
        """End the call with what it raised; `GeneratorExit` where a stream was abandoned. Returns deferred work."""
        return None

    def collected(self, stream: object) -> None:
        """End the call, unless it has ended or never began: its `stream` is collected without having run to its end."""


def attempt(step: Callable[..., T], *given: Any) -> T | None:
    """Take a step of ours, which must not fail in the program's call; None where it does."""
    try:
        return step(*given)
    except RecursionError:
        # The program's own call may be the last that there is room for: even a log message would take another one.
        return None
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.swallow("surrounding a call")
        return None


def run_now(work: DeferredWork) -> None:
    """Do deferred work here and now."""
    if work is not None:
        work()


async def run_in_thread(work: Callable[[], None], error: BaseException | None = None) -> None:
    """Do deferred work in a thread, where this is asyncio's loop and awaiting is still allowed."""
    if isinstance(error, GeneratorExit) or asyncio._get_running_loop() is None:  # noqa: SLF001 - documented, never raises
        work()
        return
    turn = count()

    def once() -> None:
        # An executor that refused the work may have kept it, and do it in the end.
        if next(turn) == 0:
            work()

    try:
        done = asyncio.get_running_loop().run_in_executor(None, contextvars.copy_context().run, once)
    except Exception as refused:  # noqa: BLE001 - no more threads, or none any more: a loop of the program's may refuse in any way
        _guard.raise_if_the_programs(refused)
        once()
    else:
        # Shielded: a task that is cancelled now does not wait, but the work is done all the same.
        await asyncio.shield(done)
