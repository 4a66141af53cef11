"""The controller of concurrency against simulated servers: time is counted, nothing waits."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable
from itertools import count
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athina_trace._delivery.concurrency import LONGEST_PROBE_SECONDS, TRIP, Concurrency, Request
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.retry import Verdict

TAKEN = Outcome(200)
Server = Callable[["Simulation"], tuple[float, Outcome]]


class Simulation:
    """Senders that always have more to send, in simulated time: a server gives seconds and an outcome per request."""

    def __init__(self, server: Server, *, most: int = 64, seed: int = 1) -> None:
        self.controller = Concurrency(most)
        self.server = server
        self.random = Random(seed)
        self.now = 1000.0
        self.in_flight = 0
        self.taken_by_each = 0.0
        """Seconds that each request takes from a program that computes."""
        self.most_in_flight = 0
        self.statuses = Counter[int | None]()
        self.taken: list[float] = []
        self._numbers = count()
        self._events: list[tuple[float, int, Request, Outcome]] = []

    def run(self, seconds: float) -> None:
        ends = self.now + seconds
        while True:
            self._begin()
            at = self._events[0][0] if self._events else self.now + max(self.controller.gate.wait(self.now), 0.001)
            if at > ends:
                self.now = ends
                return
            self.now = max(self.now, at)
            if self._events:
                self._end()

    def _begin(self) -> None:
        while self.in_flight < min(self.controller.limit, self.controller.room(self.now, 64)):
            number = next(self._numbers)
            request = self.controller.begin(self.now, f"key{number}", f"log{number}")
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            now, self.now = self.now, request.begins
            seconds, outcome = self.server(self)
            self.now = now
            heapq.heappush(self._events, (request.begins + seconds, number, request, outcome))

    def _end(self) -> None:
        _, _, request, outcome = heapq.heappop(self._events)
        self.in_flight -= 1
        self.statuses[outcome.status] += 1
        if outcome is TAKEN:
            self.taken.append(self.now)
        chance = self.random.random()
        self.controller.end(request, outcome, self.now, waiting=True, chance=chance, share=self.share)

    @property
    def share(self) -> float:
        """What senders took of the time of a program that computes, in the last second."""
        return min(1.0, (len(self.taken) - bisect_left(self.taken, self.now - 1)) * self.taken_by_each)

    def rate(self, seconds: float) -> float:
        """Logs a second that Athina took in the last `seconds`."""
        return sum(1 for at in self.taken if at > self.now - seconds) / seconds


def slow(seconds: float) -> Server:
    return lambda _: (seconds, TAKEN)


def unreliable(seconds: float, share: float, *bad: Outcome) -> Server:
    return lambda sim: (seconds, sim.random.choice(bad) if sim.random.random() < share else TAKEN)


def taking_turns(seconds: float, server: float) -> Server:
    """Each request keeps the one interpreter of all senders for `seconds`, and waits for `server` seconds."""
    return lambda sim: (seconds * sim.in_flight + server, TAKEN)


def computing(server: float) -> Server:
    """The program computes: twice in each request a thread of ours waits for the interpreter.

    The program gives it up every 5 ms, and then all of ours that wait take their turns of 0.2 ms.
    """

    def serve(sim: Simulation) -> tuple[float, Outcome]:
        sim.taken_by_each = 0.0004
        return 2 * (0.005 + 0.0002 * sim.in_flight * 0.01 / (0.01 + server)) + server, TAKEN

    return serve


def allowed(number: int, seconds: float = 0.0005) -> Server:
    """A number of requests in each second that the clock counts; 429 beyond."""
    used = Counter[int]()

    def server(sim: Simulation) -> tuple[float, Outcome]:
        used[int(sim.now)] += 1
        return seconds, TAKEN if used[int(sim.now)] <= number else Outcome(429)

    return server


def bucket(rate: float, burst: int, seconds: float = 0.0005) -> Server:
    """A token bucket, full at first; 429 where it is empty."""
    tokens, filled = float(burst), 0.0

    def server(sim: Simulation) -> tuple[float, Outcome]:
        nonlocal tokens, filled
        tokens, filled = min(burst, tokens + max(0.0, sim.now - filled) * rate), max(filled, sim.now)
        if tokens < 1:
            return seconds, Outcome(429)
        tokens -= 1
        return seconds, TAKEN

    return server


def run(server: Server, seconds: float = 20.0, **options: int) -> Simulation:
    sim = Simulation(server, **options)
    sim.run(seconds)
    return sim


@pytest.mark.parametrize("own", [0.0, 0.0003])
@pytest.mark.parametrize("server", [0.0001, 0.001, 0.003])
def test_a_quick_server_gets_one_connection(own: float, server: float) -> None:
    assert run(taking_turns(own, server)).most_in_flight == 1


def test_a_slow_server_gets_as_many_as_may_be_within_seconds() -> None:
    sim = run(slow(0.3), 3)
    assert sim.controller.limit == 64
    sim.run(17)
    assert sim.rate(17) > 150


@pytest.mark.parametrize(("server", "least"), [(0.0, 300), (0.003, 270), (0.02, 300)])
def test_a_program_that_computes_keeps_most_of_its_speed(server: float, least: float) -> None:
    sim = run(computing(server))
    assert sim.rate(15) > least
    assert sim.rate(15) * sim.taken_by_each < 0.15
    assert sim.most_in_flight <= 16


def test_a_slow_server_gets_as_many_all_the_same() -> None:
    assert run(computing(0.3)).controller.limit == 64


def test_a_slow_server_without_more_to_give_is_not_asked_for_more_by_a_program_that_computes() -> None:
    def server(sim: Simulation) -> tuple[float, Outcome]:
        sim.taken_by_each = 0.0004
        return 0.05 * max(1.0, sim.in_flight / 2), TAKEN

    assert run(server).most_in_flight <= 16


@pytest.mark.parametrize("before", [0.02, 0.3])
def test_those_in_flight_become_fewer_when_the_program_begins_to_compute(before: float) -> None:
    sim = run(slow(before), 10)
    assert sim.controller.limit == 64
    sim.server = computing(0.0)
    sim.run(5)
    assert sim.controller.limit <= 8


@pytest.mark.parametrize("most", [1, 3, 8, 100])
def test_there_are_never_more_than_may_be(most: int) -> None:
    assert run(slow(0.3), most=most).most_in_flight == most


def test_a_server_of_mixed_latency_is_as_quick_as_one_of_its_mean() -> None:
    mixed = run(lambda sim: (0.0 if sim.random.random() < 0.2 else 0.06, TAKEN))
    assert mixed.rate(15) > 0.8 * run(slow(0.048)).rate(15)


def test_a_server_without_more_to_give_is_not_asked_for_more() -> None:
    def server(sim: Simulation) -> tuple[float, Outcome]:
        return 0.05 * max(1.0, sim.in_flight / 10), TAKEN

    sim = run(server)
    assert sim.rate(10) > 150
    assert sim.most_in_flight <= 32


def test_senders_that_take_turns_stay_few_once_a_slow_server_is_quick_again() -> None:
    sim = run(slow(0.1), 5)
    assert sim.controller.limit >= 32
    sim.server = taking_turns(0.0005, 0.001)
    sim.run(40)
    assert sim.controller.limit <= 4


@pytest.mark.parametrize("most", [3, 10])
def test_a_server_that_sheds_load_is_asked_for_what_it_takes(most: int) -> None:
    sim = run(lambda sim: (0.05, TAKEN) if sim.in_flight <= most else (0.001, Outcome(503)))
    assert sim.rate(10) > 0.6 * most / 0.05
    assert sim.statuses[503] < 0.1 * sim.statuses[200]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("seconds", "share"), [(0.001, 0.6), (0.05, 0.3)])  # of what the server would take
def test_random_failures_stop_nobody(seconds: float, share: float, seed: int) -> None:
    bad = (Outcome(None, message="reset"), Outcome(None, message="lost"), Outcome(500), Outcome(429))
    sim = run(unreliable(seconds, 1 / 3, *bad), 40, seed=seed)
    takes = 2 / 3 * (1 / seconds if seconds < 0.01 else 64 / seconds)
    assert sim.rate(20) > share * takes


@pytest.mark.parametrize("bad", [Outcome(500), Outcome(429), Outcome(None)], ids=lambda bad: str(bad.status))
def test_a_round_of_bad_answers_halves_what_is_in_flight_once(bad: Outcome) -> None:
    controller, now = Concurrency(64), 0.0
    for outcome, level in ((TAKEN, 64), (bad, 32)):
        while controller.limit < level or outcome is bad:
            now += 0.3
            flying = [begin(controller, str(number), now - 0.3) for number in range(controller.limit)]
            for request in flying:
                controller.end(request, outcome, now, waiting=True, chance=0.0)
            if outcome is bad:
                break
        assert controller.limit == level


@pytest.mark.parametrize(("seconds", "most_429"), [(0.0005, 100), (0.02, 250)])
@pytest.mark.parametrize(
    "server", [allowed, lambda number, seconds: bucket(number, number, seconds)], ids=["each second", "bucket"]
)
def test_a_rate_limit_is_met_and_not_fought(
    server: Callable[[int, float], Server], seconds: float, most_429: int
) -> None:
    sim = run(server(100, seconds))
    assert sim.rate(20) > 95
    assert sim.statuses[429] < most_429


def test_a_small_bucket_is_emptied_as_it_fills() -> None:
    assert run(bucket(100, 10)).rate(20) > 95


@pytest.mark.parametrize("seed", range(3))
def test_answers_of_429_at_any_rate_are_no_limit(seed: int) -> None:
    assert run(unreliable(0.001, 0.15, Outcome(429)), 40, seed=seed).rate(30) > 150


def test_answers_that_nothing_waits_for_say_nothing() -> None:
    controller = Concurrency(64)
    for number in range(100):
        controller.end(begin(controller, "one"), TAKEN, number * 0.3, waiting=False, chance=0.0)
    assert controller.limit == 1


def test_a_rate_limit_that_is_lifted_is_forgotten() -> None:
    sim = run(allowed(100), 10)
    sim.server = slow(0.001)
    sim.run(60)
    assert sim.rate(5) > 900


def test_where_most_answers_are_429_all_wait_for_as_long_as_is_asked() -> None:
    sim = run(lambda _: (0.001, Outcome(429, retry_after=30.0)), 10)
    before = sim.statuses[429]
    sim.run(20)
    assert sim.statuses[429] == before < 40
    assert "asks to wait" in str(sim.controller.gate.outage)


def test_an_outage_is_asked_about_less_and_less_often() -> None:
    sim = run(slow(0.1), 5)
    sim.server = lambda _: (0.01, Outcome(None, message="refused"))
    sim.run(300)
    assert "refused" in str(sim.controller.gate.outage)
    before = sim.statuses[None]
    sim.run(3600)
    assert 3600 / (1.25 * LONGEST_PROBE_SECONDS) - 1 <= sim.statuses[None] - before <= 60
    sim.server = slow(0.1)
    sim.run(LONGEST_PROBE_SECONDS * 1.25 + 5)
    assert sim.controller.gate.outage is None
    assert sim.rate(1) > 500


def begin(controller: Concurrency, name: str, now: float = 0.0) -> Request:
    return controller.begin(now, name, name)


def end(controller: Concurrency, name: str, outcome: Outcome, now: float = 0.0) -> Verdict:
    return controller.end(begin(controller, name, now), outcome, now, waiting=True, chance=0.0)


def test_one_entry_that_fails_for_ever_is_no_outage_and_no_answer_for_one_is() -> None:
    controller = Concurrency(8)
    for _ in range(3 * TRIP):
        end(controller, "one", Outcome(500))
    assert not controller.gate.is_shut
    for _ in range(TRIP):
        end(controller, "one", Outcome(None))
    assert controller.gate.is_shut


def test_403_for_one_log_among_others_is_that_logs() -> None:
    controller = Concurrency(8)
    assert end(controller, "bad", Outcome(403)) is Verdict.RETRY
    assert end(controller, "good", TAKEN) is Verdict.DELIVERED
    assert end(controller, "bad", Outcome(403)) is Verdict.REFUSED
    assert not controller.gate.is_shut


def test_403_for_a_second_log_is_the_keys() -> None:
    controller = Concurrency(8)
    assert end(controller, "one", TAKEN) is Verdict.DELIVERED
    assert end(controller, "two", Outcome(403)) is Verdict.RETRY
    assert end(controller, "three", Outcome(403)) is Verdict.PAUSED
    assert controller.gate.paused
    assert end(controller, "four", TAKEN, now=400.0) is Verdict.DELIVERED
    assert not controller.gate.is_shut
    assert end(controller, "three", TAKEN) is Verdict.DELIVERED


def test_403_for_the_only_log_twice_is_the_keys() -> None:
    controller = Concurrency(8)
    assert end(controller, "one", Outcome(403)) is Verdict.RETRY
    assert end(controller, "one", Outcome(403)) is Verdict.PAUSED


def test_a_server_of_which_nothing_comes_back_is_asked_for_a_little_more() -> None:
    controller = Concurrency(64)
    for _ in range(10):
        controller.stalled()
    assert controller.limit == 8


OUTCOMES = st.sampled_from(
    [TAKEN, Outcome(503, 3600.0), Outcome(429, 5.0), *map(Outcome, [400, 401, 403, 413, 429, 500, 999, None])]
)
EVENTS = st.tuples(OUTCOMES, st.floats(0, 100), st.sampled_from("abc"), st.booleans(), st.floats(0, 1))


@given(st.integers(1, 64), st.lists(EVENTS, max_size=200))
def test_whatever_comes_some_may_be_in_flight_and_a_probe_is_never_far(
    most: int, events: list[tuple[Outcome, float, str, bool, float]]
) -> None:
    controller, now, flying = Concurrency(most), 0.0, deque[Request]()
    for outcome, passed, key, waiting, chance in events:
        flying.append(controller.begin(now, key, key))
        now += passed
        if waiting or len(flying) > controller.limit:
            controller.end(flying.popleft(), outcome, now, waiting=waiting, chance=chance)
        assert 1 <= controller.limit <= most
        assert 0 <= controller.gate.wait(now) <= 1.25 * 3600
        assert controller.room(now, 64) == 0 or not controller.gate.wait(now)
    controller.end(controller.begin(now, "d", "d"), TAKEN, now + 1, waiting=True, chance=0.0)
    assert not controller.gate.is_shut
