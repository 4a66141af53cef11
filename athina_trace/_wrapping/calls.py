"""What happens around a call, and how what it leaves to be done is done."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from itertools import count
from typing import Protocol

from athina_trace import _guard


class Call(Protocol):
    """One call from its start to its end. What these raise is kept from the program: see `surround`."""

    def enter(self) -> None:
        """Begin: make the call current in this context."""

    def leave(self) -> None:
        """Make current again what was before `enter`, in the same context. Streams end with their context instead."""

    def chunk(self, value: object) -> None:
        """A stream yielded `value`."""

    def done(self, value: object) -> Callable[[], None] | None:
        """The call returned `value`; a stream came to its end. Gives what is left to do before that is told."""

    def failed(self, error: BaseException) -> Callable[[], None] | None:
        """The call raised `error`; `GeneratorExit` where a stream was given up early. Gives what is left to do."""


class NullCall:
    """A call of which no note is taken."""

    __slots__ = ()

    def enter(self) -> None:
        """Take no note."""

    def leave(self) -> None:
        """Take no note."""

    def chunk(self, value: object) -> None:
        """Take no note."""

    def done(self, value: object) -> None:
        """Take no note."""

    def failed(self, error: BaseException) -> None:
        """Take no note."""


Rest = Callable[[], None] | None
"""What takes its time, and is therefore done off the event loop where there is one. Raises nothing."""


def complete(rest: Rest) -> None:
    """Do what is left, here and now."""
    if rest is not None:
        rest()


async def run_in_thread(rest: Callable[[], None], error: BaseException | None = None) -> None:
    """Do what is left in a thread, where this is asyncio's loop and awaiting is still allowed."""
    if isinstance(error, GeneratorExit) or asyncio._get_running_loop() is None:  # noqa: SLF001 - documented, never raises
        rest()
        return
    once = _Once(rest)
    try:
        done = asyncio.get_running_loop().run_in_executor(None, contextvars.copy_context().run, once)
    except Exception as refused:  # noqa: BLE001 - no more threads, or none any more: a loop of the program's may say so in any way
        _guard.pass_on(refused)
        once()
    else:
        # Shielded: who is cancelled now does not wait, but what is left is done all the same.
        await asyncio.shield(done)


class _Once:
    """Does what is left a single time: an executor that refused the work may have kept it, and do it in the end."""

    def __init__(self, rest: Callable[[], None]) -> None:
        self._rest, self._turn = rest, count()

    def __call__(self) -> None:
        if next(self._turn) == 0:
            self._rest()
