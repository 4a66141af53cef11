"""The engine step by step: with an injected clock, scripted connections, and no engine thread."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from athina_trace._delivery import engine as engine_module
from athina_trace._delivery.destination import ATHINA
from athina_trace._delivery.engine import Engine, Pool
from athina_trace._delivery.entry import Entry, Stored
from athina_trace._delivery.flush import Flush
from athina_trace._delivery.outbox import MemoryOutbox, Outbox
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.results import Attempt
from athina_trace._delivery.retry import Verdict
from athina_trace._delivery.retry_policy import FIRST_BACKOFF_SECONDS, RetryPolicy
from athina_trace._delivery.senders import NoSenders, Senders
from athina_trace._delivery.sqlite_outbox import SqliteOutbox

DOWN = Outcome(None, message="ConnectError: connection refused")
TAKEN = Outcome(200, prompt_run_id="run")


class Clock:
    """A clock that only a test advances; its random number is always a half."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.skipped = 0.0

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        self.skipped += seconds

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.skipped + time.monotonic()  # senders are real threads, whose requests take real time

    def uniform(self) -> float:
        return 0.5


@dataclass
class Athina:
    """The server that a test's connections talk to."""

    answer: Callable[[str, bytes], Outcome] = lambda reference, body: TAKEN
    tries: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def deliver(self, kind: str, target: str, body: bytes) -> Outcome:
        with self.lock:
            self.tries.append(target)
            self.bodies.append(body)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return self.answer(target, body)
        finally:
            with self.lock:
                self.in_flight -= 1

    def expire(self, *, now: float | None = None) -> bool:
        return False

    def close(self) -> None: ...


class Stepped:
    """An engine that is stepped until it has nothing to do before the clock advances."""

    def __init__(
        self,
        athina: Athina,
        *,
        outbox: Outbox | None = None,
        connections: int = 4,
        max_bytes: int = 1_000_000,
        make_pool: Callable[..., Pool] | None = None,
        **options: Any,
    ) -> None:
        self.athina = athina
        self.clock = Clock()
        self.outbox = outbox or MemoryOutbox()
        pool = make_pool or partial(Senders, lambda: athina, limit=connections, max_bytes=max_bytes)
        self.engine = Engine(self.outbox, partial(pool, clock=self.clock), clock=self.clock, **options)
        self.rests = 0

    def put(self, key: str, *names: str, body: bytes = b"{}") -> None:
        for name in names:
            self.outbox.put(Entry(key, "log", name, self.clock.now, body))

    def settle(self) -> float:
        """Step until nothing is in flight; return the seconds that the engine would then sleep."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            wait = self.engine.step(self.clock.now)
            if wait > 0.01 and not self.engine._leases.held and not self.engine.results.queue:
                self.rests += 1
                return wait
            time.sleep(0.0005)
        raise AssertionError("the engine does not come to rest")

    def wait(self, seconds: float) -> None:
        """Let so many seconds pass, sleeping as long as the engine allows."""
        ends = self.clock.now + seconds
        while self.clock.now < ends:
            self.clock.pass_by(min(ends - self.clock.now, self.settle()))
        self.settle()


@pytest.fixture
def athina() -> Athina:
    return Athina()


@pytest.fixture(params=["memory", "disk"])
def stepped(request: pytest.FixtureRequest, athina: Athina, tmp_path: Path) -> Iterator[Stepped]:
    made = Stepped(athina, outbox=SqliteOutbox(str(tmp_path / "outbox.db")) if request.param == "disk" else None)
    yield made
    made.engine.finish(5)


def test_an_outage_of_an_hour_costs_a_probe_a_minute_and_ends_with_the_next_probe(
    stepped: Stepped, athina: Athina
) -> None:
    athina.answer = lambda reference, body: DOWN
    for key in range(200):
        stepped.put(f"key{key}", f"{key}a", f"{key}b")
    stepped.wait(600)
    early, stepped.rests = len(athina.tries), 0
    stepped.wait(3600)
    assert len(athina.tries) - early <= 60
    # An outage costs an idle step every few seconds, and nothing else.
    assert stepped.rests < 3600
    assert stepped.engine.paused is not None
    assert "ConnectError" in stepped.engine.paused
    athina.answer = lambda reference, body: TAKEN
    before = len(athina.tries)
    stepped.wait(76)
    assert sorted(athina.tries[before:]) == sorted(f"{key}{half}" for key in range(200) for half in "ab")
    assert stepped.engine.paused is None


def test_a_recreated_store_notes_why_nothing_is_sent(athina: Athina, tmp_path: Path) -> None:
    def noted() -> list[tuple[str]]:
        return outbox.store._db.execute("SELECT words FROM note WHERE name = 'paused'").fetchall()

    outbox = SqliteOutbox(str(tmp_path / "outbox.db"))
    stepped = Stepped(athina, outbox=outbox)
    athina.answer = lambda reference, body: Outcome(401, message="bad key")
    stepped.put("key", "1")
    stepped.settle()
    before = noted()
    assert outbox.quarantine()
    stepped.engine.store_replaced()
    stepped.settle()
    assert noted() == before == [(stepped.engine.paused,)]
    stepped.engine.finish(5)


def test_once_an_outage_is_over_no_session_waits_for_its_earlier_backoff(stepped: Stepped, athina: Athina) -> None:
    athina.answer = lambda reference, body: Outcome(503)
    for key in range(4):
        stepped.put(f"key{key}", f"{key}a", f"{key}b")
    stepped.wait(600)
    stepped.put("asked to wait", "limited")
    athina.answer = lambda reference, body: Outcome(429, 300.0) if reference == "limited" else TAKEN
    while not stepped.outbox.counts().delivered:
        stepped.wait(1)
    assert stepped.outbox.counts().delivered == 8
    assert athina.tries.count("limited") == 1


@pytest.mark.parametrize(
    ("status", "taken", "least", "most"), [(None, False, 0, 2), (None, True, 25, 60), (503, False, 25, 60)]
)
def test_if_nothing_answers_a_log_waits_two_seconds_at_most_however_often_it_failed(
    status: int | None, taken: bool, least: float, most: float
) -> None:
    """As in an outage, which one process after another notices."""
    policy, entry = RetryPolicy(Clock(), ATHINA, max_attempts=500), Stored(1, "log", "one", b"{}")
    if taken:
        policy.decide(Attempt(entry, TAKEN, Verdict.DELIVERED), 1, 1_000.0)
    attempt, wait = policy.decide(Attempt(entry, Outcome(status), Verdict.RETRY), 100, 1_001.0)
    assert (attempt.verdict, least <= wait <= most) == (Verdict.RETRY, True)


def test_if_requests_fail_at_random_it_takes_more_failures_to_blame_a_log() -> None:
    policy, entry = RetryPolicy(Clock(), ATHINA, max_attempts=10), Stored(1, "log", "one", b"{}")
    policy.decide(Attempt(entry, TAKEN, Verdict.DELIVERED), 1, 1_000.0)
    failed = Attempt(entry, Outcome(500), Verdict.RETRY)
    assert policy.decide(failed, 10, 1_001.0)[0].verdict is Verdict.REFUSED
    waits = [policy.decide(failed, 10, 1_001.0, tries=5.0)[1] for _ in range(20)]
    assert 0.0 < max(waits) <= 2 * FIRST_BACKOFF_SECONDS, "that of the second failure"


@pytest.mark.parametrize("is_outage", [False, True])
def test_a_log_that_fails_often_is_a_warning_unless_the_outage_is_one(
    caplog: pytest.LogCaptureFixture, is_outage: bool
) -> None:
    caplog.set_level(logging.INFO)
    policy, entry = RetryPolicy(Clock(), ATHINA, max_attempts=500), Stored(1, "log", "one", b"{}")
    failed = Attempt(entry, Outcome(507, message="the stream is full"), Verdict.RETRY)
    policy.decide(failed, 100, 1_000.0, is_outage=is_outage)
    (said,) = [record for record in caplog.records if "did not accept a log (507" in record.getMessage()]
    assert said.levelname == ("INFO" if is_outage else "WARNING")


@pytest.mark.parametrize("status", [404, 307])
def test_a_wrong_address_keeps_every_log_and_is_probed_until_it_is_right(
    athina: Athina, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    stepped = Stepped(athina)
    athina.answer = lambda reference, body: Outcome(status, message="a page")
    for key in range(50):
        stepped.put(f"key{key}", f"{key}a", f"{key}b")
    stepped.wait(400)
    assert f"accepts nothing at this address: {status}, a page" in caplog.text
    assert "check ATHINA_BASE_URL" in caplog.text
    before = len(athina.tries)
    stepped.wait(3600)
    assert len(athina.tries) - before <= 60
    assert (stepped.outbox.counts().waiting, stepped.outbox.counts().refused) == (100, 0)
    athina.answer = lambda reference, body: TAKEN
    stepped.wait(76)
    assert (stepped.outbox.counts().delivered, stepped.engine.paused) == (100, None)
    stepped.engine.finish(5)


@pytest.mark.parametrize("sessions", [1, 50])
def test_an_address_that_was_never_reached_is_warned_of_once(
    stepped: Stepped, athina: Athina, caplog: pytest.LogCaptureFixture, sessions: int
) -> None:
    athina.answer = lambda reference, body: Outcome(None, message="ConnectionRefusedError: [Errno 111]")
    for key in range(sessions):
        stepped.put(f"key{key}", f"{key}a", f"{key}b")
    stepped.wait(30)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.startswith("Athina cannot be reached: no answer, ConnectionRefusedError: [Errno 111]: logs are kept")
    assert "check ATHINA_BASE_URL and the network" in warning


@pytest.mark.parametrize("is_right_again", [True, False])
def test_a_server_that_refuses_every_log_is_probed_with_the_newest(
    stepped: Stepped, athina: Athina, is_right_again: bool, caplog: pytest.LogCaptureFixture
) -> None:
    athina.answer = lambda reference, body: Outcome(422, message="a gateway")
    for key in range(50):
        stepped.put(f"key{key}", f"{key}a", f"{key}b")
    stepped.wait(400)
    refused = stepped.outbox.counts().refused
    assert 7 <= refused <= 14  # both of seven sessions, if the first senders were fast
    assert stepped.outbox.counts().waiting == 100 - refused
    assert "refuses every log: 422, a gateway: logs are kept and tried again; check ATHINA_BASE_URL" in caplog.text
    athina.answer = lambda reference, body: TAKEN if reference == "good" or is_right_again else Outcome(422)
    stepped.put("key", "good")
    before = len(athina.tries)
    stepped.wait(76)
    assert athina.tries[before] == "good"
    counts = stepped.outbox.counts()
    assert (counts.waiting, stepped.engine.paused) == (0, None)
    assert counts.delivered == (101 - refused if is_right_again else 1)


def test_a_flood_after_recovery_is_bounded_by_the_connections(athina: Athina) -> None:
    stepped = Stepped(athina, connections=3)
    athina.answer = lambda reference, body: DOWN
    for key in range(100):
        stepped.put(f"key{key}", str(key))
    stepped.wait(300)

    def slow(reference: str, body: bytes) -> Outcome:
        time.sleep(0.01)
        return TAKEN

    athina.answer = slow
    stepped.wait(76)
    assert stepped.outbox.counts().delivered == 100
    assert 1 < athina.most_in_flight <= 3
    stepped.engine.finish(5)


def test_a_log_that_is_never_accepted_blocks_only_its_own_session(stepped: Stepped, athina: Athina) -> None:
    athina.answer = lambda reference, body: Outcome(500) if reference == "poison" else TAKEN
    stepped.put("bad", "poison", "behind it")
    stepped.wait(600)
    stepped.put("good", *map(str, range(20)))
    stepped.settle()
    assert stepped.outbox.counts().delivered == 20
    assert "behind it" not in athina.tries
    assert stepped.engine.paused is None


def test_retry_after_is_honoured_by_its_session_while_others_overtake(stepped: Stepped, athina: Athina) -> None:
    athina.answer = lambda reference, body: Outcome(429, retry_after=120) if len(athina.tries) == 1 else TAKEN
    stepped.put("limited", "1", "2")
    stepped.settle()
    stepped.put("free", "3")
    stepped.wait(119)
    assert athina.tries == ["1", "3"]
    stepped.wait(3)
    assert athina.tries == ["1", "3", "1", "2"]


def test_a_wrong_key_pauses_everything_but_probes(stepped: Stepped, athina: Athina) -> None:
    athina.answer = lambda reference, body: Outcome(401, message="bad key")
    for key in range(100):
        stepped.put(f"key{key}", str(key))
    stepped.wait(1)
    assert len(athina.tries) <= 5  # one for each connection, and one probe
    assert stepped.engine.paused == "status 401: bad key"
    stepped.wait(engine_minutes(10))
    first = len(athina.tries)
    assert first <= 16
    stepped.wait(engine_minutes(10))
    assert len(athina.tries) == first + 2
    athina.answer = lambda reference, body: TAKEN
    stepped.wait(engine_minutes(5))
    assert stepped.outbox.counts().delivered == 100


def engine_minutes(minutes: float) -> float:
    return minutes * 60 + 1


def test_a_clock_set_back_neither_stalls_a_session_nor_an_outage(stepped: Stepped, athina: Athina) -> None:
    athina.answer = lambda reference, body: DOWN
    for key in range(5):
        stepped.put(f"key{key}", str(key))
    stepped.wait(300)
    stepped.clock.now -= 86_400
    athina.answer = lambda reference, body: TAKEN
    stepped.wait(10)
    assert stepped.outbox.counts().waiting == 0


def test_a_clock_that_was_wrong_before_the_start_stalls_nothing(stepped: Stepped, athina: Athina) -> None:
    stepped.put("key", "1")
    with stepped.outbox.transaction():
        stepped.outbox.collect()
        stepped.outbox.lease(stepped.clock.now, keys=1, batch=1)
        stepped.outbox.release("key", due=stepped.clock.now + 30 * 86_400)
    stepped.settle()
    assert athina.tries == ["1"]


def test_a_clock_in_the_future_drops_no_refused_log(athina: Athina) -> None:
    stepped = Stepped(athina)
    athina.answer = lambda reference, body: Outcome(400, message="no")
    stepped.put("key", "1")
    stepped.settle()
    for jump in (400 * 86_400, -400 * 86_400):
        stepped.clock.now += jump
        stepped.wait(60)
        assert stepped.outbox.counts().refused == 1
    stepped.clock.pass_by(31 * 86_400)
    stepped.settle()
    assert (stepped.outbox.counts().refused, stepped.outbox.counts().dropped) == (0, 1)
    stepped.engine.finish(5)


def test_after_a_clock_in_the_future_an_outage_is_not_one_logs_fault(athina: Athina) -> None:
    stepped = Stepped(athina, max_attempts=3)
    stepped.clock.now += 400 * 86_400
    stepped.put("key", "1")
    stepped.settle()
    stepped.clock.now -= 400 * 86_400
    athina.answer = lambda reference, body: DOWN
    stepped.put("key", "2")
    stepped.wait(300)
    assert athina.tries.count("2") > 3
    assert (stepped.outbox.counts().refused, stepped.outbox.counts().waiting) == (0, 1)
    stepped.engine.finish(5)


def test_no_step_is_made_for_logs_that_have_no_room_in_memory(athina: Athina) -> None:
    stepped, is_answered = Stepped(athina), threading.Event()
    athina.answer = lambda reference, body: TAKEN if is_answered.wait(60) else DOWN
    for key in range(5):
        stepped.put(f"key{key}", str(key), body=b'{"response":"%b"}' % (b"x" * 900_000))
    waits = [stepped.engine.step(stepped.clock.now) for _ in range(3)]
    assert waits[-1] > 0
    is_answered.set()
    stepped.settle()
    assert stepped.outbox.counts().delivered == 5
    stepped.engine.finish(5)


def test_large_logs_are_taken_into_memory_a_few_at_a_time(athina: Athina) -> None:
    stepped = Stepped(athina)
    most = 0

    def slow(reference: str, body: bytes) -> Outcome:
        nonlocal most
        held = sum(len(entry.body) for lease in [*stepped.engine._leases.held.values()] for entry in lease.entries)
        most = max(most, held)
        return TAKEN

    athina.answer = slow
    for key in range(40):
        stepped.put(f"key{key}", str(key), body=b'{"response":"%b"}' % (b"x" * 900_000))
    stepped.settle()
    assert len(athina.tries) == 40
    assert most <= engine_module.WINDOW_BYTES + 1_000_000
    stepped.engine.finish(5)


def test_a_log_over_the_limit_or_answered_413_is_truncated(athina: Athina) -> None:
    stepped = Stepped(athina, max_bytes=10_000)
    athina.answer = lambda reference, body: Outcome(413) if len(body) > 4_000 else TAKEN
    body = b'{"prompt":"short","response":"%b"}' % (b"x" * 100_000)
    stepped.put("key", "large", body=body)
    stepped.put("key", "next")
    stepped.settle()
    assert athina.tries[-2:] == ["large", "next"]
    assert len(athina.bodies[0]) <= 10_000
    assert len(athina.bodies[-2]) <= 4_000
    assert b'"truncated.response":100000' in athina.bodies[-2].replace(b" ", b"")
    assert b'"prompt":"short"' in athina.bodies[-2].replace(b": ", b":")
    stepped.engine.finish(5)


def test_a_server_that_calls_everything_too_large_refuses_the_log_and_not_the_next(athina: Athina) -> None:
    stepped = Stepped(athina)
    athina.answer = lambda reference, body: Outcome(413) if reference == "large" else TAKEN
    stepped.put("key", "large", "next", body=b'{"response":"%b"}' % (b"x" * 50_000))
    stepped.settle()
    counts = stepped.outbox.counts()
    assert (counts.refused, counts.delivered) == (1, 1)
    stepped.engine.finish(5)


def test_a_flush_waits_for_what_was_put_before_it_and_probes_an_outage(stepped: Stepped, athina: Athina) -> None:
    athina.answer = lambda reference, body: DOWN
    for key in range(5):
        stepped.put(f"key{key}", str(key))
    stepped.wait(400)
    athina.answer = lambda reference, body: TAKEN
    flush = Flush()
    stepped.engine.flushes.add(flush)
    stepped.settle()
    report = flush.report(None, waiting=9, undelivered=0)
    assert report.delivered == 5
    assert report


def test_what_a_failing_step_leased_is_leased_again(
    stepped: Stepped, athina: Athina, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped.put("key", "1", "2")
    stepped.engine.step(stepped.clock.now)
    while not any(result.ended for result in stepped.engine.results.queue):
        time.sleep(0.001)

    def no_space(ordering_key: str, **_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(stepped.outbox, "release", no_space)
        with pytest.raises(OSError, match="No space"):
            stepped.engine.step(stepped.clock.now)
    stepped.settle()
    counts = stepped.outbox.counts()
    assert (counts.made, counts.delivered, counts.waiting) == (2, 2, 0)
    assert athina.tries == ["1", "2"]


def test_without_senders_nothing_is_leased_and_no_step_is_made_for_waiting_logs(athina: Athina, tmp_path: Path) -> None:
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"))
    stepped = Stepped(athina, outbox=outbox, make_pool=lambda results, clock: NoSenders("there is no key"))
    stepped.put("key", "1")
    flush = Flush()
    stepped.engine.flushes.add(flush)
    assert stepped.settle() >= engine_module.COMPACT_SECONDS
    assert not stepped.engine.flushes
    assert not flush.report(None, waiting=0, undelivered=0)
    assert outbox.store.next_due() == 0.0
    assert (outbox.counts().waiting, stepped.engine.paused, athina.tries) == (1, None, [])
    stepped.engine.finish(5)


def test_delivered_logs_are_kept_for_as_long_as_asked(athina: Athina) -> None:
    stepped = Stepped(athina, keep=3600)
    stepped.put("key", "1")
    stepped.settle()
    assert len(stepped.outbox.store.newest(9)) == 1
    stepped.wait(3700)
    assert stepped.outbox.store.newest(9) == []
    stepped.engine.finish(5)
