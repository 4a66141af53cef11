"""Verdicts, backoff and `Retry-After`, for any numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athina_trace._delivery.retry import LONGEST_WAIT, Verdict, backoff, retry_after, verdict

TABLE: dict[Verdict, list[int | None]] = {
    Verdict.DELIVERED: [200, 201, 202, 204, 299, 409],
    Verdict.RETRY: [None, 408, 425, 429, 500, 502, 503, 504, 599, 100, 101, 0, 600, 999, -1],
    Verdict.UNCERTAIN: [401, 403, 300, 301, 302, 307, 308, 402, 404, 405, 410, 451, 499],
    Verdict.TRUNCATE: [413],
    Verdict.REFUSED: [400, 414, 422],
}


@pytest.mark.parametrize(
    ("status", "expected"), [(status, expected) for expected, row in TABLE.items() for status in row]
)
def test_the_status_alone_decides(status: int | None, expected: Verdict) -> None:
    assert verdict(status) is expected


@given(st.integers())
def test_every_status_has_a_verdict(status: int) -> None:
    assert isinstance(verdict(status), Verdict)


def test_backoff_doubles_up_to_its_cap() -> None:
    assert [backoff(attempt, random=1.0) for attempt in (1, 2, 3, 6, 7, 8)] == [
        1.0,
        2.0,
        4.0,
        32.0,
        60.0,
        60.0,
    ]


def test_backoff_uses_the_whole_range() -> None:
    assert backoff(5, random=0.0) == 0.0
    assert backoff(5, random=0.5, base=2.0, cap=10.0) == 5.0


def test_retry_after_is_the_minimum_with_jitter_on_top() -> None:
    assert backoff(1, random=0.0, retry_after=120.0) == 120.0
    assert backoff(2, random=0.5, retry_after=120.0) == 121.0


@given(
    st.integers(),
    st.floats(0, 1),
    st.none() | st.floats(),
)
def test_backoff_is_bounded(attempt: int, random: float, asked: float | None) -> None:
    seconds = backoff(attempt, random=random, retry_after=asked)
    least = min(asked, LONGEST_WAIT) if asked and not math.isnan(asked) else 0.0
    assert max(0.0, least) <= seconds <= LONGEST_WAIT + 60.0


NOON = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 2.5 ", 2.5),
        ("7200", LONGEST_WAIT),
        ("9" * 1_000_000, LONGEST_WAIT),
        ("Sun, 06 Nov 1994 08:50:07 GMT", 30.0),
        ("Sunday, 06-Nov-94 08:50:07 GMT", 30.0),
        ("Sun Nov  6 08:50:07 1994", 30.0),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_WAIT),
        (None, None),
        ("", None),
        ("-5", None),
        ("+5", None),
        ("nan", None),
        ("inf", None),
        ("1e9", None),
        ("٣", None),
        ("5, 5", None),
        ("soon", None),
        ("Sun, 99 Nov 1994 99:99:99 GMT", None),
    ],
)
def test_retry_after_is_read(value: str | None, expected: float | None) -> None:
    assert retry_after(value, now=NOON) == expected


@pytest.mark.parametrize("now", [0.0, NOON - 86_400, NOON + 86_400])
def test_a_date_in_retry_after_counts_from_the_servers_clock(now: float) -> None:
    value = "Sun, 06 Nov 1994 08:50:07 GMT"
    assert retry_after(value, now=now, date="Sun, 06 Nov 1994 08:49:37 GMT") == 30.0
    assert retry_after(value, now=NOON, date="soon") == 30.0


@given(st.text() | st.from_regex(r"\w{3}, \d+ \w{3} -?\d+ \d+:\d+:\d+ (GMT|[+-]\d+)"), st.floats(0, 1e11))
def test_any_retry_after_is_handled(value: str, now: float) -> None:
    seconds = retry_after(value, now=now)
    assert seconds is None or 0.0 <= seconds <= LONGEST_WAIT
