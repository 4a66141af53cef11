"""What a status means for a log, and how long to back off: pure functions; time and random numbers are passed in."""

from __future__ import annotations

import re
from datetime import timezone
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final

__all__ = ["LONGEST_BACKOFF", "LONGEST_WAIT", "Verdict", "backoff", "retry_after", "verdict"]

LONGEST_WAIT: Final = 3600.0
"""The cap, in seconds, on what a server asks for: one typo in a header must not silence a service for a year."""

LONGEST_BACKOFF: Final = 60.0
"""The longest backoff of a failed log, in seconds, unless the server asks for more."""

_LONGEST_VALUE: Final = 64
"""In characters. The longest HTTP date has 33; a longer value is truncated before it is parsed."""

_SECONDS: Final = re.compile(r"\d+(\.\d*)?", re.ASCII)


class Verdict(Enum):
    """What happens to a log after an attempt to send it."""

    DELIVERED = "delivered"
    """Athina has it."""
    RETRY = "retry"
    """The log is not known to be at fault: retry it later, for as long as it takes."""
    REFUSED = "refused"
    """Athina will never accept this log as it is: quarantine it, with the server's message."""
    PAUSED = "paused"
    """The key or the address, which all logs share, is at fault: stop sending, and keep everything."""
    UNCERTAIN = "uncertain"
    """The log, the key, the address or the server may be at fault: try another log."""
    TRUNCATE = "truncate"
    """Too large: shorten it and send it again."""


THROTTLED: Final = 429
_VERDICTS: Final[dict[int, Verdict]] = {
    # The fault is in the log, or in its reference in the path.
    400: Verdict.REFUSED,
    414: Verdict.REFUSED,
    422: Verdict.REFUSED,
    408: Verdict.RETRY,
    # The reference is known already: an earlier attempt arrived, and only its answer was lost.
    409: Verdict.DELIVERED,
    413: Verdict.TRUNCATE,
    425: Verdict.RETRY,
    429: Verdict.RETRY,
}

_VERDICTS_BY_CLASS: Final[dict[int, Verdict]] = {
    2: Verdict.DELIVERED,
    # A redirect is never followed, because the key would be sent along.
    3: Verdict.UNCERTAIN,
    4: Verdict.UNCERTAIN,
    5: Verdict.RETRY,
}


def verdict(status: int | None) -> Verdict:
    """Return what an HTTP status means for the log that was sent; None is "no answer".

    Only the status decides, never the body: a proxy in front of Athina may send any body.
    A status outside 200 to 599 is not a final HTTP status, so it counts as no answer.
    """
    if status is None:
        return Verdict.RETRY
    return _VERDICTS.get(status) or _VERDICTS_BY_CLASS.get(status // 100, Verdict.RETRY)


def backoff(
    attempt: int, *, random: float, retry_after: float | None = None, base: float = 1.0, cap: float = LONGEST_BACKOFF
) -> float:
    """Return the seconds to wait after the failed attempt number `attempt` (1 is the first).

    Exponential backoff with full jitter: from 0 to `base` seconds, then twice that, four times, and so on up to `cap`;
    `random` (0 to 1) chooses. `retry_after` (seconds, at most `LONGEST_WAIT`) is a lower bound, to which the jitter is
    added: clients that all got "60" must not all come back at the same instant. The result is finite and between 0 and
    `LONGEST_WAIT + cap`.
    """
    # The exponent is bounded because 2.0 ** 1024 overflows, and an outage of weeks gets there.
    ceiling = min(cap, base * 2.0 ** min(max(attempt - 1, 0), 63))
    return _bounded(retry_after or 0.0) + random * ceiling


def retry_after(value: str | None, *, now: float, date: str | None = None) -> float | None:
    """Read a `Retry-After` header as seconds from `now` (Unix time); None if it is missing or invalid.

    `date` is the response's `Date` header: if valid, a date in `Retry-After` counts from it rather than from our clock,
    which may be wrong by more than the requested wait.

    The result is between 0 and `LONGEST_WAIT`. Both forms of RFC 9110, section 10.2.3, are read: a number of seconds,
    and an HTTP date; a past date gives 0. Anything else (a sign, an exponent, `nan`, words, a list) gives None.
    Values of any length and size are safe.
    """
    text = (value or "")[: _LONGEST_VALUE * 2].strip()[:_LONGEST_VALUE]
    if _SECONDS.fullmatch(text):
        return _bounded(float(text))
    moment = _http_date(text)
    if moment is None:
        return None
    server = _http_date((date or "")[:_LONGEST_VALUE])
    return _bounded(moment - (now if server is None else server))


def _bounded(seconds: float) -> float:
    # In this order, NaN becomes 0: every comparison with it is false, and max keeps its first argument.
    return min(max(0.0, seconds), LONGEST_WAIT)


def _http_date(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        # Only ValueError is documented; some of the supported interpreters raise the others for garbage.
        return None
