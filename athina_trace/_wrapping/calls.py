"""`Call`: the hooks around a call; and how its deferred work is done."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from itertools import count
from typing import Any, TypeVar

from athina_trace import _guard

T = TypeVar("T")


DeferredWork = Callable[[], None] | None
"""Slow work, done off the event loop if there is one. Never raises."""


class Call:
    """One call from its start to its end; this base class does nothing.

    Errors of subclasses do not reach the program: see `attempt`.
    """

    __slots__ = ()

    def enter(self) -> None:
        """Make the call current in this context. A stream or coroutine does so again before its first step."""

    def leave(self) -> None:
        """Restore what was current before `enter`, in the same context. Streams do so themselves around each step."""

    def begun(self) -> None:
        """Note that a stream yielded its first chunk, if that is a text, which `chunks` gets later."""

    def chunks(self, values: list[Any]) -> None:
        """Read the chunks that a stream yielded since the last time, at least one; the list is reused.

        The last chunk may be any object; those before it are texts, which are immutable.
        """

    def done(self, value: object) -> DeferredWork:  # noqa: ARG002 - for subclasses
        """End the call with the `value` that it or its stream returned. Returns deferred work."""
        return None

    def failed(self, error: BaseException) -> DeferredWork:  # noqa: ARG002 - for subclasses
        """End the call with its exception; `GeneratorExit` for an abandoned stream. Returns deferred work."""
        return None

    def collected(self, stream: object) -> None:
        """End the call, unless it has ended or never began: its `stream` is collected before it came to its end."""


def attempt(step: Callable[..., T], *given: Any) -> T | None:
    """Run a step of our code, whose errors must not reach the program; return None if it fails."""
    try:
        return step(*given)
    except RecursionError:
        # The stack is full: even a log message could fail.
        return None
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.swallow("surrounding a call")
        return None


def run_now(work: DeferredWork) -> None:
    """Do deferred work in this thread."""
    if work is not None:
        work()


async def run_in_thread(work: Callable[[], None], error: BaseException | None = None) -> None:
    """Do deferred work in another thread, if asyncio runs and awaiting is still allowed; otherwise in this one."""
    if isinstance(error, GeneratorExit) or asyncio._get_running_loop() is None:  # noqa: SLF001 - documented, never raises
        work()
        return
    turn = count()

    def once() -> None:
        # An executor that refused the work may still do it later.
        if next(turn) == 0:
            work()

    try:
        done = asyncio.get_running_loop().run_in_executor(None, contextvars.copy_context().run, once)
    except Exception as refused:  # noqa: BLE001 - no threads left, or at exit: the program's loop may raise anything
        _guard.raise_if_the_programs(refused)
        once()
    else:
        # Shielded: if the task is cancelled, it stops waiting, but the work is still done.
        await asyncio.shield(done)
