"""The concurrency controller against simulated servers, in simulated time."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable
from itertools import count
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athina_trace._delivery.concurrency import LONGEST_PROBE_SECONDS, SHARE_SECONDS, TRIP, Concurrency, InFlight
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.retry import Verdict
from athina_trace._delivery.routes import Kind

TAKEN = Outcome(200)
Server = Callable[["Simulation"], tuple[float, Outcome]]


class Simulation:
    """Senders that always have more to send, in simulated time: a server returns seconds and an outcome per request."""

    def __init__(self, server: Server, *, most: int = 64, seed: int = 1) -> None:
        self.controller = Concurrency(most)
        self.server = server
        self.random = Random(seed)
        self.now = 1000.0
        self.in_flight = 0
        self.taken_by_each = 0.0
        """Seconds that each request takes from a compute-bound program."""
        self.most_in_flight = 0
        self.statuses = Counter[int | None]()
        self.taken: list[float] = []
        self._numbers = count()
        self._events: list[tuple[float, int, InFlight, Outcome]] = []

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
        controller = self.controller
        while not controller.gate.wait(self.now) and self.in_flight < min(controller.limit, controller.window(64)):
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
        """The senders' share of a compute-bound program's time, as `Interpreter` measures it."""
        taken = len(self.taken) - bisect_left(self.taken, self.now - SHARE_SECONDS)
        return min(1.0, taken * self.taken_by_each / SHARE_SECONDS)

    def rate(self, seconds: float) -> float:
        """Return how many logs per second Athina accepted in the last `seconds`."""
        return sum(1 for at in self.taken if at > self.now - seconds) / seconds


def slow(seconds: float) -> Server:
    return lambda _: (seconds, TAKEN)


def unreliable(seconds: float, share: float, *bad: Outcome) -> Server:
    return lambda sim: (seconds, sim.random.choice(bad) if sim.random.random() < share else TAKEN)


def taking_turns(seconds: float, server: float) -> Server:
    """Each request holds the senders' shared interpreter for `seconds`, and waits for `server` seconds."""
    return lambda sim: (seconds * sim.in_flight + server, TAKEN)


def computing(server: float) -> Server:
    """The program computes: twice in each request one of our threads waits for the interpreter.

    The program releases it every 5 ms, and then each of our waiting threads runs for 0.2 ms.
    """

    def serve(sim: Simulation) -> tuple[float, Outcome]:
        sim.taken_by_each = 0.0004
        return 2 * (0.005 + 0.0002 * sim.in_flight * 0.01 / (0.01 + server)) + server, TAKEN

    return serve


def allowed(number: int, seconds: float = 0.0005) -> Server:
    """Accepts so many requests in each second of the clock; answers 429 beyond."""
    used = Counter[int]()

    def server(sim: Simulation) -> tuple[float, Outcome]:
        used[int(sim.now)] += 1
        return seconds, TAKEN if used[int(sim.now)] <= number else Outcome(429)

    return server


def bucket(rate: float, burst: int, seconds: float = 0.0005) -> Server:
    """A token bucket, full at first; 429 if it is empty."""
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
    assert run(taking_turns(own, server), 5).most_in_flight == 1  # twice the pause before a trial


def test_a_slow_server_gets_the_maximum_within_seconds() -> None:
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


def test_a_slow_server_gets_the_maximum_beside_a_compute_bound_program() -> None:
    assert run(computing(0.3)).controller.limit == 64


def test_a_saturated_slow_server_gets_no_more_requests_from_a_compute_bound_program() -> None:
    def server(sim: Simulation) -> tuple[float, Outcome]:
        sim.taken_by_each = 0.0004
        return 0.05 * max(1.0, sim.in_flight / 2), TAKEN

    assert run(server).most_in_flight <= 16


@pytest.mark.parametrize("before", [0.02, 0.3])
def test_requests_in_flight_decrease_when_the_program_begins_to_compute(before: float) -> None:
    sim = run(slow(before), 10)
    assert sim.controller.limit == 64
    sim.server = computing(0.0)
    sim.run(5)
    assert sim.controller.limit <= 8


@pytest.mark.parametrize("most", [1, 3, 8, 100])
def test_the_limit_is_never_exceeded(most: int) -> None:
    assert run(slow(0.3), most=most).most_in_flight == most


def mixed(sim: Simulation) -> tuple[float, Outcome]:
    return 0.0 if sim.random.random() < 0.2 else 0.06, TAKEN


def exponential(sim: Simulation) -> tuple[float, Outcome]:
    return sim.random.expovariate(1 / 0.048), TAKEN


@pytest.mark.parametrize("server", [mixed, exponential])
def test_mixed_latency_is_as_fast_as_its_mean_from_the_beginning(server: Server) -> None:
    of_mean = run(slow(0.048), 3.5).rate(3.5)
    rates = sorted(run(server, 3.5, seed=seed).rate(3.5) for seed in range(20))
    assert rates[1] > 0.6 * of_mean, "no trial that did not pay by chance keeps it from more for long"
    assert rates[10] > 0.8 * of_mean


def test_a_saturated_server_gets_no_more_requests() -> None:
    def server(sim: Simulation) -> tuple[float, Outcome]:
        return 0.05 * max(1.0, sim.in_flight / 10), TAKEN

    sim = run(server)
    assert sim.rate(10) > 150
    assert sim.most_in_flight <= 32


def test_a_server_that_answers_few_connections_gets_no_more_requests() -> None:
    """Beyond so many, requests are not answered until they time out."""
    sim = run(lambda sim: (0.1, TAKEN) if sim.in_flight <= 8 else (10.0, Outcome(None, possible_duplicate=True)), 5)
    assert sim.most_in_flight <= 16


@pytest.mark.parametrize(("seconds", "longest"), [(0.01, 0.25), (0.4, 1.2)])
def test_a_request_hangs_if_it_takes_much_longer_than_others(seconds: float, longest: float) -> None:
    controller = Concurrency(4)
    for _ in range(20):
        controller.end(controller.begin(0.0, "key", "log"), TAKEN, seconds, waiting=False, chance=0.5)
    lost = Outcome(None, possible_duplicate=True)
    controller.end(controller.begin(0.0, "key", "lost"), lost, 10.0, waiting=False, chance=0.5)
    request = controller.begin(100.0, "key", "log")
    assert not controller.is_any_hanging(100.0 + longest - 0.01)
    assert controller.is_any_hanging(100.0 + longest + 0.01)
    controller.abandon(request)
    assert not controller.is_any_hanging(200.0)


def test_senders_that_take_turns_stay_few_once_a_slow_server_is_quick_again() -> None:
    sim = run(slow(0.1), 5)
    assert sim.controller.limit >= 32
    sim.server = taking_turns(0.0005, 0.001)
    sim.run(40)
    assert sim.controller.limit <= 4


@pytest.mark.parametrize("most", [3, 10])
def test_a_server_that_sheds_load_gets_what_it_can_take(most: int) -> None:
    sim = run(lambda sim: (0.05, TAKEN) if sim.in_flight <= most else (0.001, Outcome(503)))
    assert sim.rate(10) > 0.6 * most / 0.05
    assert sim.statuses[503] < 0.1 * sim.statuses[200]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("seconds", "share"), [(0.001, 0.6), (0.05, 0.3)])  # of what the server would accept
def test_random_failures_do_not_stop_deliveries(seconds: float, share: float, seed: int) -> None:
    bad = (Outcome(None, message="reset"), Outcome(None, message="lost"), Outcome(500), Outcome(429))
    sim = run(unreliable(seconds, 1 / 3, *bad), seed=seed)
    takes = 2 / 3 * (1 / seconds if seconds < 0.01 else 64 / seconds)
    assert sim.rate(10) > share * takes


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
def test_a_rate_limit_is_used_and_rarely_exceeded(
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


def test_answers_while_nothing_waits_change_nothing() -> None:
    controller = Concurrency(64)
    for number in range(100):
        controller.end(begin(controller, "one"), TAKEN, number * 0.3, waiting=False, chance=0.0)
    assert controller.limit == 1


def test_a_rate_limit_that_is_lifted_is_forgotten() -> None:
    sim = run(allowed(100), 10)
    sim.server = slow(0.001)
    sim.run(60)
    assert sim.rate(5) > 900


def test_if_most_answers_are_429_all_keys_wait_for_retry_after() -> None:
    sim = run(lambda _: (0.001, Outcome(429, retry_after=30.0)), 10)
    before = sim.statuses[429]
    sim.run(20)
    assert sim.statuses[429] == before < 40
    assert "asks to wait" in str(sim.controller.gate.outage)


@pytest.mark.parametrize("share", [0.75, 0.9])
@pytest.mark.parametrize("seed", range(2))
def test_a_server_that_fails_nearly_always_is_no_outage(share: float, seed: int) -> None:
    """It accepts one request of four or ten: after a few false outages, one connection gets all that it can."""
    sim = run(unreliable(0.05, share, Outcome(500), Outcome(None)), 2400, seed=seed)
    assert sim.rate(600) > 0.8 * (1 - share) / 0.05
    sim.server = lambda _: (0.05, Outcome(None, message="refused"))
    sim.run(120)
    assert sim.controller.gate.outage is not None
    before = sim.statuses[None]
    sim.run(3600)
    assert sim.statuses[None] - before <= 62


def test_an_outage_is_probed_less_and_less_often() -> None:
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


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("share", [0.95, 0.97])
def test_a_server_that_accepts_one_request_of_thirty_is_no_outage(share: float, seed: int) -> None:
    """Also from the first request on: an unknown server is probed often for minutes."""
    sim = run(unreliable(0.05, share, Outcome(500), Outcome(None)), 1800, seed=seed)
    assert sim.rate(1200) > 0.7 * (1 - share) / 0.05


@pytest.mark.parametrize(("share", "most"), [(0.99, 3), (0.995, 12)])
def test_a_server_that_accepts_one_request_of_hundreds_is_learned_from_the_start(share: float, most: int) -> None:
    """Of 50 processes, at most `most` have no success within 20 minutes; a server that is gone costs 600 requests."""

    def lasts(seed: int) -> Simulation:
        sim = Simulation(unreliable(0.05, share, Outcome(500), Outcome(None)), seed=seed)
        while not sim.taken and sim.now < 1000.0 + 1200:
            sim.run(10)
        return sim

    assert sum(not lasts(seed).taken for seed in range(50)) <= most


def test_a_server_that_was_never_up_is_probed_often_only_while_it_may_be_chance() -> None:
    for status, most in ((503, 700), (None, 120)):
        sim = run(lambda _, status=status: (0.05, Outcome(status)), 1200)  # type: ignore[misc]
        assert sim.statuses[status] < most
        before = sim.statuses[status]
        sim.run(3600)
        assert sim.statuses[status] - before <= 60


def test_a_server_that_accepted_one_request_of_a_hundred_is_rarely_probed_once_it_is_down() -> None:
    sim = run(unreliable(0.05, 0.5, Outcome(500)), 10)
    sim.server = unreliable(0.05, 0.99, Outcome(500))
    sim.controller.gate._failures.tries = 100.0  # it takes hours to learn this
    sim.run(600)
    assert sim.rate(600) > 0.1
    sim.server = lambda _: (0.05, Outcome(503))
    sim.run(1800)
    before = sim.statuses[503]
    sim.run(3600)
    assert before < 4000
    assert sim.statuses[503] - before <= 60


def begin(controller: Concurrency, name: str, now: float = 0.0, kind: Kind = "log") -> InFlight:
    return controller.begin(now, name, name, kind)


def end(controller: Concurrency, name: str, outcome: Outcome, now: float = 0.0, kind: Kind = "log") -> Verdict:
    return controller.end(begin(controller, name, now, kind), outcome, now, waiting=True, chance=0.0)


def test_one_entry_that_fails_forever_is_no_outage_unless_it_gets_no_answer() -> None:
    controller = Concurrency(8)
    for _ in range(3 * TRIP):
        end(controller, "one", Outcome(500))
    assert not controller.gate.is_shut
    for _ in range(TRIP):
        end(controller, "one", Outcome(None))
    assert controller.gate.is_shut


def test_403_for_one_log_among_others_is_that_logs_fault() -> None:
    controller = Concurrency(8)
    assert end(controller, "bad", Outcome(403)) is Verdict.RETRY
    assert end(controller, "good", TAKEN) is Verdict.DELIVERED
    verdicts = [end(controller, "bad", Outcome(403)) for _ in range(6)]
    assert verdicts == [Verdict.RETRY] * 5 + [Verdict.REFUSED]
    assert not controller.gate.is_shut


@pytest.mark.parametrize("status", [401, 403])
def test_the_key_is_blamed_for_the_first_two_answers_or_for_many_later_ones(status: int) -> None:
    controller, bad = Concurrency(8), Outcome(status, message="no such key")
    assert end(controller, "one", bad) is (Verdict.PAUSED if status == 401 else Verdict.RETRY)
    assert end(controller, "one", bad) is Verdict.PAUSED
    assert "no such key" in str(controller.gate.paused)
    now, probes = 0.0, 0
    while now < 3600:
        now += controller.gate.wait(now)
        probes += 1
        assert end(controller, f"log {probes}", bad, now) is Verdict.PAUSED
    assert 12 <= probes <= 24, "soon at first, then every five minutes"
    assert end(controller, "one", TAKEN, now) is Verdict.DELIVERED
    assert not controller.gate.is_shut
    for number in range(100):
        end(controller, str(number), TAKEN, now)
    verdicts = [end(controller, str(number), bad, now) for number in range(12)]
    assert Verdict.PAUSED in verdicts
    assert verdicts.index(Verdict.PAUSED) >= 7
    assert controller.gate.wait(now) > 30


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("status", [401, 403, 404])
def test_one_misconfigured_server_of_three_does_not_stop_deliveries(status: int, seed: int) -> None:
    sim = run(unreliable(0.05, 1 / 3, Outcome(status)), 60, most=4, seed=seed)
    assert sim.rate(60) > 0.5 * 2 / 3 * 4 / 0.05
    assert not sim.controller.gate.is_shut


MISSING = Outcome(404, message="Not Found")


@pytest.mark.parametrize("status", [301, 302, 307, 308, 404, 405, 410])
def test_an_answer_that_every_log_gets_is_the_addresss_fault(status: int) -> None:
    controller, bad = Concurrency(8), Outcome(status, message="a page")
    assert end(controller, "first", bad) is Verdict.RETRY
    assert end(controller, "first", bad) is Verdict.PAUSED
    assert f"accepts nothing at this address: {status}, a page" in str(controller.gate.outage)
    now, probes = 0.0, 0
    while now < 3600:
        now += controller.gate.wait(now)
        probes += 1
        assert end(controller, f"log {probes % 5}", bad, now) is Verdict.PAUSED
    assert 100 < probes < 300
    assert end(controller, "first", TAKEN, now) is Verdict.DELIVERED
    assert not controller.gate.is_shut


def test_the_only_log_that_gets_404_is_refused_after_a_few_tries() -> None:
    controller = Concurrency(8)
    verdicts = [end(controller, "bad", MISSING)]
    assert end(controller, "good", TAKEN) is Verdict.DELIVERED
    while verdicts[-1] is Verdict.RETRY:
        verdicts.append(end(controller, "bad", MISSING))
    assert verdicts == [Verdict.RETRY] * 4 + [Verdict.REFUSED]
    assert not controller.gate.is_shut


@pytest.mark.parametrize("kind", ["feedback", "update", "update_by_id"])
def test_feedback_on_an_unknown_log_is_refused_and_stops_nothing_else(kind: Kind) -> None:
    controller = Concurrency(8)
    verdicts = [end(controller, "unknown", MISSING, kind=kind) for _ in range(5)]
    assert verdicts == [Verdict.RETRY] * 4 + [Verdict.REFUSED]
    for number in range(20):  # an endpoint that is closed to feedback alone
        verdicts = []
        while Verdict.REFUSED not in verdicts:
            assert end(controller, f"log {number}", TAKEN) is Verdict.DELIVERED
            verdicts.append(end(controller, f"log {number}", MISSING, kind=kind))
        assert len(verdicts) <= 5
    assert not controller.gate.is_shut


def test_feedback_alone_under_a_wrong_address_waits_and_a_log_shows_whose_fault_it_was() -> None:
    controller = Concurrency(8)
    assert Verdict.PAUSED in [end(controller, name, MISSING, kind="feedback") for name in "abc"]
    assert controller.gate.outage
    assert end(controller, "log", TAKEN) is Verdict.DELIVERED
    assert not controller.gate.is_shut
    assert Verdict.REFUSED in [end(controller, "a", MISSING, kind="feedback") for _ in range(4)]


def test_accepted_feedback_does_not_open_the_gate_for_logs() -> None:
    controller = Concurrency(8)
    for name in "ab":
        end(controller, name, MISSING)
    assert end(controller, "a", TAKEN, 10.0, kind="feedback") is Verdict.DELIVERED
    assert controller.gate.wait(10.0) > 0
    assert end(controller, "a", MISSING, 20.0) is Verdict.PAUSED
    assert end(controller, "a", TAKEN, 30.0) is Verdict.DELIVERED
    assert not controller.gate.is_shut


def test_a_probe_that_gets_403_neither_blames_the_key_nor_is_repeated_at_once() -> None:
    controller = Concurrency(8)
    for number in range(TRIP):
        end(controller, str(number), Outcome(503))
    assert controller.gate.outage
    assert end(controller, "bad", Outcome(403), 10.0) is Verdict.PAUSED
    assert not controller.gate.paused
    assert 0 < controller.gate.wait(10.0) <= LONGEST_PROBE_SECONDS


def refuse(controller: Concurrency, names: Iterable[object], status: int = 400) -> list[Verdict]:
    return [end(controller, f"bad {name}", Outcome(status, message="no")) for name in names]


@pytest.mark.parametrize("status", [400, 413, 414, 422])
def test_if_the_logs_of_all_sessions_are_refused_they_are_kept_and_probes_are_sent(status: int) -> None:
    controller = Concurrency(8)
    assert refuse(controller, range(12), status) == [Verdict.REFUSED] * 7 + [Verdict.PAUSED] * 5
    assert f"refuses every log: {status}, no" in str(controller.gate.outage)
    now, probes = 0.0, 0
    while now < 3600:
        now += controller.gate.wait(now)
        probes += 1
        assert end(controller, f"log {probes}", Outcome(status), now) is Verdict.PAUSED
    assert 100 < probes < 300
    assert end(controller, "first", TAKEN, now) is Verdict.DELIVERED
    assert not controller.gate.is_shut
    assert refuse(controller, range(20), status) == [Verdict.REFUSED] * 20  # it is theirs, after all


def test_bad_logs_are_refused_at_once_even_the_first_ever_and_all_of_one_session() -> None:
    controller = Concurrency(8)
    assert refuse(controller, [1] * 50) == [Verdict.REFUSED] * 50
    for number in range(30):
        assert end(controller, "good", TAKEN) is Verdict.DELIVERED
        assert refuse(controller, [number, number + 1]) == [Verdict.REFUSED] * 2
    assert not controller.gate.is_shut


@pytest.mark.parametrize("seed", range(2))
def test_a_program_with_mostly_bad_logs_is_held_up_a_few_times_at_most(seed: int) -> None:
    sim = run(unreliable(0.05, 0.9, Outcome(422)), 60, most=1, seed=seed)
    assert sim.rate(30) > 0.5 * 0.1 / 0.05


def test_accepted_feedback_says_nothing_about_refused_logs() -> None:
    controller = Concurrency(8)
    refuse(controller, range(7))
    assert end(controller, "one", TAKEN, kind="feedback") is Verdict.DELIVERED
    assert refuse(controller, range(7, 9)) == [Verdict.PAUSED] * 2
    assert end(controller, "one", TAKEN, 10.0, kind="feedback") is Verdict.DELIVERED
    assert controller.gate.wait(10.0) > 0
    assert end(controller, "one", Outcome(400), 20.0, kind="feedback") is Verdict.REFUSED
    assert controller.gate.outage


def test_in_a_queue_where_a_kept_log_would_block_others_each_is_refused() -> None:
    controller = Concurrency(8, is_queue=True)
    assert refuse(controller, range(20)) == [Verdict.REFUSED] * 20


def test_a_probe_that_fails_otherwise_is_not_repeated_at_once() -> None:
    controller = Concurrency(8)
    refuse(controller, range(8))
    assert end(controller, "one", Outcome(503), 10.0) is Verdict.RETRY
    assert controller.gate.wait(10.0) > 0


def test_a_server_that_answers_nothing_gets_a_few_more_requests() -> None:
    controller = Concurrency(64)
    for _ in range(10):
        controller.stalled()
    assert controller.limit == 8


OUTCOMES = st.sampled_from(
    [TAKEN, Outcome(503, 3600.0), Outcome(429, 5.0), *map(Outcome, [400, 401, 403, 404, 413, 429, 500, 999, None])]
)
KINDS = st.sampled_from(["log", "feedback"])
KEYS = st.sampled_from("abc" * 3 + "efghijkl")
EVENTS = st.tuples(OUTCOMES, st.floats(0, 100), KEYS, st.booleans(), st.floats(0, 1), KINDS)


@given(st.integers(1, 64), st.lists(EVENTS, max_size=200))
def test_whatever_happens_requests_may_be_sent_and_the_next_probe_is_near(
    most: int, events: list[tuple[Outcome, float, str, bool, float, Kind]]
) -> None:
    controller, now, flying = Concurrency(most), 0.0, deque[InFlight]()
    for outcome, passed, key, waiting, chance, kind in events:
        flying.append(controller.begin(now, key, key, kind))
        now += passed
        if waiting or len(flying) > controller.limit:
            controller.end(flying.popleft(), outcome, now, waiting=waiting, chance=chance)
        assert 1 <= controller.limit <= most
        assert 0 <= controller.gate.wait(now) <= 1.25 * 3600
        assert controller.window(64) == 1 or not controller.gate.wait(now)
    controller.end(controller.begin(now, "d", "d"), TAKEN, now + 1, waiting=True, chance=0.0)
    assert not controller.gate.is_shut
