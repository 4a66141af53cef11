"""How many senders there are, and how much of a processor they take, under an injected clock."""

from __future__ import annotations

import pytest

from athina_trace._delivery.pace import SLOW_SECONDS, VERY_SLOW_SECONDS, Demand, Pace


class Time:
    """A clock and a processor's counter that move when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.cpu = 0.0
        self.slept: list[float] = []

    def spend(self, seconds: float, *, busy: float) -> None:
        self.now += seconds
        self.cpu += seconds * busy

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


def demand(time: Time, *requests: float, busy: float) -> Demand:
    made = Demand(lambda: time.now, lambda: time.cpu)
    for seconds in requests:
        time.spend(max(seconds, 0.1), busy=busy)
        made.took(seconds)
    return made


def test_a_quick_server_needs_no_second_sender(time: Time) -> None:
    assert not demand(time, 0.0004, 0.0004, busy=0.9).is_unmet(None)


def test_before_the_first_answer_nothing_is_known(time: Time) -> None:
    assert not demand(time, busy=0.0).is_unmet(time.now)


def test_a_server_that_takes_its_time_needs_more(time: Time) -> None:
    assert demand(time, 0.05, 0.06, busy=0.1).is_unmet(None)


def test_one_quick_answer_among_slow_ones_tells_how_quick_the_server_is(time: Time) -> None:
    assert not demand(time, 0.03, 0.0004, 0.03, busy=0.1).is_unmet(None)


def test_slowness_of_a_busy_interpreter_is_not_the_servers(time: Time) -> None:
    between = (SLOW_SECONDS + VERY_SLOW_SECONDS) / 2
    assert demand(time, between, busy=0.1).is_unmet(None)
    assert not demand(time, between, busy=1.0).is_unmet(None)


def test_a_server_too_slow_for_any_interpreter_gets_more_senders_however_busy_it_is(time: Time) -> None:
    assert demand(time, VERY_SLOW_SECONDS * 1.5, busy=1.0).is_unmet(None)


def test_demand_falls_when_the_server_recovers(time: Time) -> None:
    made = demand(time, *[0.2] * 20, busy=0.0)
    assert made.is_unmet(None)
    made.took(0.0004)
    assert not made.is_unmet(None)


def test_a_request_that_hangs_is_demand_enough(time: Time) -> None:
    made = demand(time, 0.0004, busy=0.0)
    began = time.now
    time.spend(0.1, busy=0.0)
    assert not made.is_unmet(began)
    time.spend(1.0, busy=0.0)
    assert made.is_unmet(began)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_work_and_rest_keep_to_the_share(time: Time, share: float) -> None:
    pace = Pace(share, clock=lambda: time.now, cpu=lambda: time.cpu, sleep=time.sleep)
    began = time.now
    for _ in range(5000):
        pace.rest()
        time.spend(0.002, busy=1.0)
    assert time.cpu / (time.now - began) == pytest.approx(share, rel=0.02)


def test_waiting_is_no_work(time: Time) -> None:
    pace = Pace(0.5, clock=lambda: time.now, cpu=lambda: time.cpu, sleep=time.sleep)
    for _ in range(100):
        pace.rest()
        time.spend(0.05, busy=0.01)
    assert sum(time.slept) == 0.0


def test_without_a_bound_nothing_is_asked_and_nobody_rests(time: Time) -> None:
    def unasked() -> float:
        raise AssertionError

    pace = Pace(1.0, clock=unasked, cpu=unasked, sleep=time.sleep)
    pace.rest()
    assert time.slept == []
