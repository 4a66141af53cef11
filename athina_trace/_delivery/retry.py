"""What an answer means for a log, and how long to wait: pure functions, time and chance passed in."""

from __future__ import annotations

import re
from datetime import timezone
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final

__all__ = ["LONGEST_BACKOFF", "LONGEST_WAIT", "Verdict", "backoff", "retry_after", "verdict"]

LONGEST_WAIT: Final = 3600.0
"""Seconds. What a server asks for beyond this is taken as this: one typo in a header must not silence a
service for a year."""

LONGEST_BACKOFF: Final = 60.0
"""Seconds that a log waits at most after it failed, unless the server asks for more."""

_LONGEST_VALUE: Final = 64
"""Characters. The longest HTTP date has 33; a longer value is cut before anything parses it."""

_SECONDS: Final = re.compile(r"\d+(\.\d*)?", re.ASCII)


class Verdict(Enum):
    """What becomes of a log after one try to send it."""

    DELIVERED = "delivered"
    """Athina has it."""
    RETRY = "retry"
    """Nothing is known against the log: try it again later, for as long as it takes."""
    REFUSED = "refused"
    """This log will never be taken as it is: keep it aside with the server's words."""
    PAUSED = "paused"
    """What all logs share is to blame, the key or the address: stop sending, keep everything."""
    UNCERTAIN = "uncertain"
    """Refused for a reason that may be the key's, the address's or the server's as well: ask with another log."""
    TRUNCATE = "truncate"
    """Too large: shorten it and send it again."""


THROTTLED: Final = 429
_VERDICTS: Final[dict[int, Verdict]] = {
    # What is wrong with a log in itself, or with its reference in the path.
    400: Verdict.REFUSED,
    414: Verdict.REFUSED,
    422: Verdict.REFUSED,
    408: Verdict.RETRY,
    # The reference is known already: an earlier try arrived and only its answer was lost.
    409: Verdict.DELIVERED,
    413: Verdict.TRUNCATE,
    425: Verdict.RETRY,
    429: Verdict.RETRY,
}

_VERDICTS_BY_CLASS: Final[dict[int, Verdict]] = {
    2: Verdict.DELIVERED,
    # A redirect is never followed, because the key would go with it.
    3: Verdict.UNCERTAIN,
    4: Verdict.UNCERTAIN,
    5: Verdict.RETRY,
}


def verdict(status: int | None) -> Verdict:
    """Return what an HTTP status means for the log that was sent; None is "no answer".

    The status alone decides, never the body: a proxy in front of Athina answers with whatever it likes.
    A number outside 200 to 599 is no final HTTP answer, so it counts as none.
    """
    if status is None:
        return Verdict.RETRY
    return _VERDICTS.get(status) or _VERDICTS_BY_CLASS.get(status // 100, Verdict.RETRY)


def backoff(
    attempt: int, *, random: float, retry_after: float | None = None, base: float = 1.0, cap: float = LONGEST_BACKOFF
) -> float:
    """Return the seconds to wait after the failed try number `attempt` (1 is the first).

    Full jitter: anything from 0 to `base`, then to twice that, four times, and so on up to `cap` seconds,
    `random` (0 to 1) choosing the place. `retry_after` (seconds, at most `LONGEST_WAIT`) is a lower bound,
    and the jitter comes on top of it: clients that all got "60" must not all come back in the same
    instant. The result is finite and between 0 and `LONGEST_WAIT + cap`.
    """
    # The exponent is bounded because 2.0 ** 1024 overflows, and an outage of weeks gets there.
    ceiling = min(cap, base * 2.0 ** min(max(attempt - 1, 0), 63))
    return _bounded(retry_after or 0.0) + random * ceiling


def retry_after(value: str | None, *, now: float, date: str | None = None) -> float | None:
    """Read a `Retry-After` header as seconds from `now` (Unix time); None where it says nothing.

    `date` is the answer's `Date` header: where it can be read, a date is counted from it rather than from our clock,
    which may be wrong by more than the server asks to wait.

    The result lies between 0 and `LONGEST_WAIT`. Both forms of RFC 9110, section 10.2.3, are read: a number of seconds,
    and an HTTP date, of which a past one gives 0. Anything else (a sign, an exponent, `nan`, words, a list) gives None.
    No value is too long or too large to be read safely.
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
    # In this order NaN becomes 0: every comparison with it is false, and max keeps its first argument.
    return min(max(0.0, seconds), LONGEST_WAIT)


def _http_date(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        # Documented is ValueError; the others were seen for garbage on some of the supported interpreters.
        return None
