"""The one wall between our faults and the program that we live in.

Whatever our own code raises while a user's call is being captured or delivered ends here: counted, logged at most
once a minute for each cause, never raised. Tests switch `strict` on, so that a fault of ours fails the test.
"""

from __future__ import annotations

import logging
import sys
import time
from types import FrameType

_logger = logging.getLogger("athina_trace")
strict = False
faults = 0
_QUIET_SECONDS = 60.0
_last_logged: dict[str, float] = {}


def swallow(where: str) -> None:
    """Swallow the exception being handled, which arose in our own code while doing `where` (a few words).

    What is the program's is raised on: see `pass_on`.
    """
    global faults  # noqa: PLW0603 - one counter for the process
    error = sys.exc_info()[1]
    if error is not None:
        pass_on(error)
    faults += 1
    if strict and error is not None:
        raise error
    log_throttled(logging.WARNING, where, "athina_trace failed in %s and left your call alone: %r", where, error)


def pass_on(error: BaseException) -> None:
    """Raise `error` where the program raised it in a signal handler, such as a time limit, that ran on top of our code.

    Python calls a handler between any two instructions of the main thread and gives it the frame that it interrupts.
    So a frame of the traceback which took its own caller as an argument belongs to a handler, or to the trace function
    of a debugger, which may raise into us in the same way; no other call hands over the frame that makes it. A handler
    that deletes or replaces its argument is not seen, nor is an exception that another thread injects.
    """
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        if _took(at.tb_next.tb_frame, at.tb_frame):
            raise error
        at = at.tb_next


def _took(frame: FrameType, caller: FrameType) -> bool:
    code, values = frame.f_code, frame.f_locals
    count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4)  # inspect.CO_VARARGS
    given = [values.get(name) for name in code.co_varnames[:count]]
    # In a tuple: the arguments of `*args`, or those that a decorator of the handler passes on.
    return any(each is caller or (type(each) is tuple and any(part is caller for part in each)) for each in given)


def log_throttled(level: int, cause: str, message: str, *args: object) -> None:
    """Log `message`, unless the same `cause` was logged less than a minute ago.

    What the program's own logging handlers and filters raise stays here.
    """
    now = time.monotonic()
    if now - _last_logged.get(cause, -_QUIET_SECONDS) < _QUIET_SECONDS:
        return
    _last_logged[cause] = now
    try:
        _logger.log(level, message, *args)
    except Exception as error:  # noqa: BLE001 - a handler or filter of the program may raise anything
        pass_on(error)


def reset() -> None:
    """Start afresh: nothing was said, no fault was counted. For tests and for a forked child."""
    global faults  # noqa: PLW0603 - one counter for the process
    faults = 0
    _last_logged.clear()
