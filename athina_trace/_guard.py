"""The one wall between our faults and the program that we live in.

Whatever our own code raises while a call of the program is captured or delivered ends here: counted, logged at most
once a minute for each cause, never raised. Tests switch `strict` on, so that a fault of ours fails the test.
"""

from __future__ import annotations

import logging
import sys
from time import monotonic  # now: a test of the program's may replace it in its module, by one that raises
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
    """Keep what our own code raises inside from the program; `error` is what that was.

    What is the program's passes on: whatever is no `Exception`, and what `is_the_programs`.
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
    """Do what `shield` does, in an `except Exception` block: for the few places where nanoseconds of a call count."""
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
        log_throttled(logging.WARNING, doing, "athina_trace failed in %s and left your call alone: %r", doing, error)


def raise_if_the_programs(error: BaseException) -> None:
    """Raise `error` where it is the program's."""
    if is_the_programs(error):
        raise error


def is_the_programs(error: BaseException) -> bool:
    """Return whether the program raised `error` in a signal handler, such as a time limit, that ran on top of our code.

    Python calls a handler between any two instructions of the main thread and gives it the frame that it interrupts.
    So a frame of the traceback which took its own caller as an argument belongs to a handler, or to the trace function
    of a debugger, which may raise into us in the same way; no other call hands over the frame that makes it. A handler
    that deletes or replaces its argument is not seen, nor is an exception that another thread injects.
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
    # In a tuple: the arguments of `*args`, or those that a decorator of the handler passes on.
    parts = [part for each in given for part in (each if type(each) is tuple else (each,))]
    return any(part is caller or _imports(part) for part in parts)


def _imports(frame: object) -> bool:
    """Return whether it is a frame of an import, most of which Python takes out of tracebacks."""
    return type(frame) is FrameType and frame.f_code.co_filename.startswith("<frozen importlib.")


def log_throttled(level: int, cause: str, message: str, *args: object) -> None:
    """Log `message`, unless the same `cause` was logged less than a minute ago.

    What the program's own logging handlers and filters raise is swallowed.
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
    """Start again: nothing was logged, no fault was counted. For tests."""
    global faults  # noqa: PLW0603 - one counter for the process
    faults = 0
    _last_logged.clear()
