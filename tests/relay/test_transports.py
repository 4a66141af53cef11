"""The guarantees of every pool, shown with Athina over HTTP, in memory, and with a NATS stream."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from athina_trace._clock import clock
from athina_trace._delivery.client import Client
from athina_trace._delivery.engine import Pool
from athina_trace._delivery.entry import Lease, Stored
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.results import Result, Results
from athina_trace._delivery.retry import Verdict
from athina_trace._delivery.routes import Kind
from athina_trace._delivery.senders import Senders
from athina_trace.relay.connection import Address
from athina_trace.relay.names import REFERENCE, read
from athina_trace.relay.publisher import Publisher
from tests.support.athina_server import AthinaServer, answer
from tests.support.nats_servers import NatsServers
from tests.support.ports import free_port

LARGE = b'{"response":"%b"}' % (b"x" * 20_000)


@dataclass
class Memory:
    """A connection that keeps bodies in memory."""

    arrived: list[bytes] = field(default_factory=list)
    answer: Outcome = field(default_factory=lambda: Outcome(200))
    most: int = 10**9

    def deliver(self, kind: Kind, target: str, body: bytes) -> Outcome:
        if len(body) > self.most:
            return Outcome(413, message="too large")
        if self.answer.status == 200:
            self.arrived.append(body)
        return self.answer

    def expire(self, *, now: float | None = None) -> bool:
        return False

    def close(self) -> None: ...


@dataclass
class Way:
    """A pool and its destination.

    Attributes:
        pool: makes one, for a destination in this condition: "well", "away", "denying", or "narrow", which accepts
            10,000 bytes at most.
        arrived: the bodies that came through, in order.
    """

    pool: Callable[[str, Results], Pool]
    arrived: Callable[[], list[bytes]]


def _http(athina: AthinaServer) -> Way:
    def pool(condition: str, results: Results) -> Pool:
        if condition == "denying":
            athina.when(lambda _: True, answer(401))
        if condition == "narrow":
            athina.when(lambda request: len(request.body) > 10_000, answer(413))
        url = f"http://127.0.0.1:{free_port()}" if condition == "away" else athina.url
        return Senders(partial(Client, base_url=url, key="key"), results, clock=clock)

    return Way(pool, lambda: [request.body for request in athina.accepted])


def _memory() -> Way:
    memory = Memory()
    answers = {"away": Outcome(None, message="nothing is there"), "denying": Outcome(401, message="no")}

    def pool(condition: str, results: Results) -> Pool:
        memory.answer = answers.get(condition, Outcome(200))
        memory.most = 10_000 if condition == "narrow" else 10**9
        return Senders(lambda: memory, results, clock=clock)

    return Way(pool, lambda: memory.arrived)


def _nats(folder: Path) -> Iterator[Way]:
    users = 'authorization { user: relay, password: "right/@" }'
    with NatsServers(folder, config=users, url_user="relay:right%2F%40@") as servers:
        servers.set_up(partitions=4)

        def pool(condition: str, results: Results) -> Pool:
            if condition == "narrow":
                servers.kill()
                servers.restart(config=f"{users}\nmax_payload: 10000")
            address = servers.address
            if condition == "away":
                address = Address.parse(f"nats://127.0.0.1:{free_port()}")
            if condition == "denying":
                address = Address.parse(servers.url.replace("right", "wrong"))
            return Publisher(address, results, clock=clock)

        yield Way(pool, lambda: [body for _, _, body in servers.messages(servers.address.names)])


@pytest.fixture(params=["athina", "memory", "nats"])
def way(request: pytest.FixtureRequest, athina: AthinaServer, tmp_path: Path) -> Iterator[Way]:
    if request.param == "nats":
        yield from _nats(tmp_path)
    else:
        yield _http(athina) if request.param == "athina" else _memory()


class Driver:
    """Submits leases, and collects their results."""

    def __init__(self, way: Way, condition: str) -> None:
        self.results = Results(lambda _: None)
        self.pool = way.pool(condition, self.results)
        self.pool.start()

    def send(self, *leases: Lease) -> list[Result]:
        """Submit leases and wait until each has ended; return their results, in order."""
        for lease in leases:
            self.pool.submit(lease)
        ends, taken = time.monotonic() + 60, 0
        while taken < len(leases):
            assert time.monotonic() < ends, "not every lease ended"
            self.pool.supervise()
            time.sleep(0.005)
            taken = sum(result.ended for result in self.results.uncommitted())
        found = self.results.uncommitted()
        self.results.discard(len(found))
        return found


@pytest.fixture
def drive(way: Way) -> Iterator[Callable[[str], Driver]]:
    made: list[Driver] = []

    def start(condition: str) -> Driver:
        made.append(Driver(way, condition))
        return made[-1]

    yield start
    for driver in made:
        driver.pool.close(5)


def lease(key: str, *names: str, body: bytes = b"") -> Lease:
    entries = [Stored(number, "log", name, body or b'{"n":"%b"}' % name.encode()) for number, name in enumerate(names)]
    return Lease(key, 0, entries)


def verdicts(results: list[Result]) -> list[Verdict]:
    return [result.attempt.verdict for result in results if result.attempt is not None]


def test_the_entries_of_a_key_arrive_in_order_and_each_gets_a_result(way: Way, drive: Callable[[str], Driver]) -> None:
    driver = drive("well")
    names = [str(number) for number in range(16)]
    results = driver.send(lease("key", *names))
    assert [result.attempt.entry.reference for result in results if result.attempt] == names
    assert set(verdicts(results)) == {Verdict.DELIVERED}
    assert [result.ended for result in results] == [False] * 15 + [True]
    assert way.arrived() == [b'{"n":"%b"}' % name.encode() for name in names]


def test_many_keys_are_delivered_concurrently(way: Way, drive: Callable[[str], Driver]) -> None:
    driver = drive("well")
    results = driver.send(*(lease(f"key {number}", f"{number}-a", f"{number}-b") for number in range(64)))
    assert len(verdicts(results)) == 128
    arrived = way.arrived()
    for number in range(64):
        first, second = (b'{"n":"%d-%b"}' % (number, part) for part in (b"a", b"b"))
        assert arrived.index(first) < arrived.index(second)


def test_an_unreachable_destination_is_retried(way: Way, drive: Callable[[str], Driver]) -> None:
    driver = drive("away")
    results = driver.send(lease("key", "first", "second"))
    assert verdicts(results) == [Verdict.RETRY]
    assert results[-1].attempt is not None
    assert results[-1].attempt.outcome.message
    assert not results[-1].attempt.outcome.possible_duplicate
    assert way.arrived() == []
    assert verdicts(drive("well").send(lease("key", "first", "second"))) == [Verdict.DELIVERED] * 2


def test_during_an_outage_nothing_more_is_sent(drive: Callable[[str], Driver]) -> None:
    driver = drive("away")
    driver.send(*(lease(f"key {number}", str(number)) for number in range(64)))
    assert driver.pool.controller.gate.outage is not None
    assert driver.pool.destination.name in driver.pool.controller.gate.outage
    assert verdicts(driver.send(lease("another", "more"))) == []


def test_refused_credentials_stop_everything(way: Way, drive: Callable[[str], Driver]) -> None:
    driver = drive("denying")
    assert verdicts(driver.send(lease("key", "first"))) == [Verdict.PAUSED]
    assert driver.pool.controller.gate.paused is not None
    assert verdicts(driver.send(lease("another", "second"))) == []
    assert way.arrived() == []


def test_an_entry_that_is_too_large_is_truncated_until_it_is_accepted(way: Way, drive: Callable[[str], Driver]) -> None:
    results = drive("narrow").send(lease("key", "large", body=LARGE))
    assert verdicts(results) == [Verdict.DELIVERED]
    assert len(way.arrived()[0]) < 10_000
    assert b'"truncated.response": 20000' in way.arrived()[0].replace(b'":2', b'": 2')


def test_a_closed_pool_ends_soon_and_reports_only_what_arrived(way: Way, drive: Callable[[str], Driver]) -> None:
    driver = drive("well")
    for number in range(50):
        driver.pool.submit(lease(f"key {number}", f"{number}"))
    began = time.monotonic()
    driver.pool.close(60)
    assert time.monotonic() - began < 60
    assert driver.pool.alive == 0
    reported = [result.attempt.entry.body for result in driver.results.queue if result.attempt is not None]
    assert set(reported) <= set(way.arrived())


def test_no_thread_is_left_after_close(drive: Callable[[str], Driver]) -> None:
    before = set(threading.enumerate())
    driver = drive("well")
    driver.send(lease("key", "one"))
    driver.pool.close(60)
    left = [each for each in set(threading.enumerate()) - before if "sender" in each.name or "publisher" in each.name]
    assert not left


@pytest.mark.parametrize("reference", ["a b", "äöü 🎉", "line\r\nbreak: x", "", " spaces ", "%2F/..", "x" * 2000])
def test_any_reference_survives_message_headers(nats: NatsServers, reference: str) -> None:
    nats.set_up(partitions=1)
    results = Results(lambda _: None)
    pool = Publisher(nats.address, results, clock=clock)
    pool.start()
    pool.submit(Lease(reference or "key", 0, [Stored(1, "log", reference, b"{}")]))
    ends = time.monotonic() + 60
    while not results.queue and time.monotonic() < ends:
        time.sleep(0.005)
    pool.close(5)

    (_, headers, body), *more = nats.messages(nats.address.names)
    assert not more
    assert headers[REFERENCE].isascii()
    assert read(headers, body)[2:] == (reference, b"{}")
