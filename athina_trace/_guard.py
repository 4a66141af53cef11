"""Keeps our own errors out of the program that we run in.

Any error that our code raises while it captures or delivers a call ends here: it is counted, and logged at most once a
minute for each cause, but never raised. Our tests switch on `strict`, so that such an error fails the test.
"""

from __future__ import annotations

import logging
import sys
from time import monotonic  # by name: a program's tests may replace `time.monotonic` with one that raises
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

_logger = logging.getLogger("athina_trace")
strict = False
faults = 0
_QUIET_SECONDS = 60.0
_last_logged: dict[str, float] = {}


class shield:  # noqa: N801 - reads as a verb, like contextlib's
    """Swallow errors of our own code inside the block; `error` is the one that was swallowed.

    The program's exceptions pass through: those that are not an `Exception`, and those for which `is_the_programs`.
    """

    __slots__ = ("_doing", "error")

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self.error: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        if not isinstance(error, Exception) or is_the_programs(error):
            return False
        self.error = error
        _count(self._doing, error)
        return not strict


def swallow(doing: str) -> None:
    """Do what `shield` does, in an `except Exception` block: for the few places where every nanosecond counts."""
    error = sys.exc_info()[1]
    if error is not None:
        raise_if_the_programs(error)
        _count(doing, error)
        if strict:
            raise error


def _count(doing: str, error: BaseException) -> None:
    global faults  # noqa: PLW0603 - one counter for the process
    faults += 1
    if not strict:
        log_throttled(logging.WARNING, doing, "athina_trace: %s failed; your call is unaffected: %r", doing, error)


def raise_if_the_programs(error: BaseException) -> None:
    """Raise `error` if it is the program's."""
    if is_the_programs(error):
        raise error


def is_the_programs(error: BaseException) -> bool:
    """Return whether the program raised `error` in a signal handler, such as a timeout, that interrupted our code.

    Python calls a handler between any two instructions of the main thread and passes it the interrupted frame. So if a
    frame in the traceback received its own caller's frame as an argument, it belongs to a handler, or to a debugger's
    trace function, which may raise in the same way; no other call passes the frame that makes it. Not recognised are
    handlers that delete or replace their argument, and exceptions that another thread injects.
    """
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        if _took(at.tb_next.tb_frame, at.tb_frame):
            return True
        at = at.tb_next
    return False


def _took(frame: FrameType, caller: FrameType) -> bool:
    code, values = frame.f_code, frame.f_locals
    count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4)  # inspect.CO_VARARGS
    given = [values.get(name) for name in code.co_varnames[:count]]
    # Tuples hold the arguments of `*args`, or those that a decorator of the handler passes on.
    parts = [part for each in given for part in (each if type(each) is tuple else (each,))]
    return any(part is caller or _imports(part) for part in parts)


def _imports(frame: object) -> bool:
    """Return whether it is a frame of the import system, most of which Python removes from tracebacks."""
    return type(frame) is FrameType and frame.f_code.co_filename.startswith("<frozen importlib.")


def log_throttled(level: int, cause: str, message: str, *args: object) -> None:
    """Log `message`, unless the same `cause` was logged less than a minute ago.

    Errors of the program's own logging handlers and filters are swallowed.
    """
    now = monotonic()
    if now - _last_logged.get(cause, -_QUIET_SECONDS) < _QUIET_SECONDS:
        return
    _last_logged[cause] = now
    try:
        _logger.log(level, message, *args)
    except Exception as error:  # noqa: BLE001 - a handler or filter of the program may raise anything
        raise_if_the_programs(error)


def reset() -> None:
    """Reset the count and the throttling, for tests."""
    global faults  # noqa: PLW0603 - one counter for the process
    faults = 0
    _last_logged.clear()
