"""The one wall between our faults and the program that we live in.

Whatever our own code raises while a user's call is being captured or delivered ends here: counted, logged at most
once a minute for each cause, never raised. Tests switch `strict` on, so that a fault of ours fails the test.
"""

from __future__ import annotations

import logging
import sys
import time

logger = logging.getLogger("athina_trace")
strict = False
faults = 0
_QUIET_SECONDS = 60.0
_last_said: dict[str, float] = {}


def fault(where: str) -> None:
    """Swallow the exception being handled, which arose in our own code while doing `where` (a few words)."""
    global faults  # noqa: PLW0603 - one counter for the process
    faults += 1
    error = sys.exc_info()[1]
    if strict and error is not None:
        raise error
    say(logging.WARNING, where, "athina_trace failed in %s and left your call alone: %r", where, error)


def say(level: int, cause: str, message: str, *args: object) -> None:
    """Log `message`, unless the same `cause` was logged less than a minute ago."""
    now = time.monotonic()
    if now - _last_said.get(cause, -_QUIET_SECONDS) < _QUIET_SECONDS:
        return
    _last_said[cause] = now
    logger.log(level, message, *args)


def forget() -> None:
    """Start afresh: nothing was said, no fault was counted. For tests and for a forked child."""
    global faults  # noqa: PLW0603 - one counter for the process
    faults = 0
    _last_said.clear()
