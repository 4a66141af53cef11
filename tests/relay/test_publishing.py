"""A program that delivers to a relay: what arrives in the stream, also while the broker fails."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

import athina_trace
from athina_trace import _guard, _runtime
from athina_trace._delivery.entry import Stored
from athina_trace._delivery.outbox import MemoryOutbox, Outbox
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.sqlite_outbox import SqliteOutbox
from athina_trace.errors import SettingsError
from athina_trace.relay import stream as stream_module
from athina_trace.relay.connection import Address, api
from athina_trace.relay.names import KIND, MESSAGE_ID, ORDERING_KEY, Names, partition_of
from athina_trace.relay.publisher import Publisher
from athina_trace.relay.stream import Stream
from athina_trace.settings import Settings
from tests.delivery.test_engine import Athina, Stepped
from tests.support.nats_servers import NatsServers
from tests.support.ports import free_port
from tests.support.processes import run
from tests.support.waiting import until


def bodies(nats: NatsServers) -> list[dict[str, object]]:
    return [json.loads(body) for _, _, body in nats.messages(nats.address.names)]


def test_logs_updates_and_feedback_of_a_conversation_are_in_one_partition_in_order(
    nats: NatsServers, tmp_path: Path
) -> None:
    nats.set_up(partitions=8)
    athina_trace.configure(relay=nats.url, relay_prefix=nats.prefix, outbox=str(tmp_path / "o.db"))
    reference = athina_trace.log_inference(response="one", session_id="s")
    athina_trace.update_log(external_reference_id=reference, cost=1.0)
    athina_trace.update_log(external_reference_id=reference, cost=2.0)
    athina_trace.log_feedback(reference, 1)
    athina_trace.log_inference(response="two", session_id="s")
    assert athina_trace.flush(60)
    found = nats.messages(nats.address.names)
    assert [headers[KIND] for _, headers, _ in found] == ["log", "update", "update", "feedback", "log"]
    assert {subject for subject, _, _ in found} == {f"{nats.prefix}.{partition_of('s', 8)}"}
    assert {headers[ORDERING_KEY] for _, headers, _ in found} == {"s"}
    assert found[0][1][MESSAGE_ID] == f"{reference}:log"
    assert athina_trace.status().delivered == 5


def test_athinas_key_is_not_needed_and_never_published(nats: NatsServers, tmp_path: Path) -> None:
    nats.set_up(partitions=1)
    athina_trace.configure(
        relay=nats.url, relay_prefix=nats.prefix, outbox=str(tmp_path / "o.db"), api_key="marker-key-1"
    )
    athina_trace.log_inference(response="one")
    assert athina_trace.flush(60)
    assert "marker-key-1" not in str(nats.messages(nats.address.names))


def test_a_log_that_is_published_twice_is_stored_once(nats: NatsServers) -> None:
    nats.set_up(partitions=1)
    for _ in range(2):
        stepped = Stepped(Athina(), make_pool=partial(Publisher, nats.address))
        stepped.put("key", "the same")
        stepped.settle()
        stepped.engine.finish(1)
    assert len(bodies(nats)) == 1


def test_the_partition_of_a_key_is_the_same_everywhere() -> None:
    assert [partition_of(key, 64) for key in ("", "s", "session-1", "ä🎉", "\ud800")] == [0, 11, 46, 4, 48]


def test_each_relay_has_its_own_outbox_whatever_its_password() -> None:
    paths = {
        Settings.build({}, relay="nats://a:4222").outbox_path({}),
        Settings.build({}, relay="nats://user:one@a:4222").outbox_path({}),
        Settings.build({}, relay="nats://user:two@a:4222").outbox_path({}),
    }
    others = {
        Settings.build({}, relay="nats://b:4222").outbox_path({}),
        Settings.build({}, relay="nats://a:4222", relay_prefix="b").outbox_path({}),
        Settings.build({}, api_key="key").outbox_path({}),
    }
    assert len(paths) == 1
    assert len(paths | others) == 4


@pytest.mark.parametrize("url", ["http://a", "a:4222", "nats://a:4222,b:4222", "redis://:marker-secret@a"])
def test_invalid_addresses_are_refused_without_showing_a_password(url: str) -> None:
    with pytest.raises(SettingsError, match="nats://") as caught:
        Settings.build({"ATHINA_RELAY": url})
    assert "marker-secret" not in str(caught.value)
    assert "marker-secret" not in repr(Settings.build({}, relay="nats://me:marker-secret@a"))


def test_an_address_is_parsed_with_its_credentials() -> None:
    address = Address.parse("nats://me:a%2Fb@one:4222, tls://two:4223", prefix="team.logs")
    assert address.servers == ("nats://one:4222", "tls://two:4223")
    assert (address.user, address.password, address.token) == ("me", "a/b", None)
    assert Address.parse("nats://secret@one").token == "secret"
    assert "a/b" not in f"{address} {address!r}"
    assert address.names.stream == "team-logs"


def test_without_the_nats_package_logs_are_kept_and_the_remedy_is_logged(tmp_path: Path) -> None:
    out, _ = run(
        """
        import sys, logging, time
        sys.modules["nats"] = None
        logging.basicConfig(stream=sys.stdout)
        import athina_trace
        athina_trace.log_inference(response="kept")
        athina_trace.flush(0)
        while athina_trace.status().paused is None:
            time.sleep(0.01)
        print(athina_trace.status().waiting, athina_trace.status().paused)
        """,
        ATHINA_RELAY="nats://127.0.0.1:1",
        ATHINA_OUTBOX=str(tmp_path / "o.db"),
    )
    assert "pip install 'athina-trace[nats]'" in out
    assert "\n1 ATHINA_RELAY" in out


class Counting(Stream):
    """A stream that counts attempts to open it and records the outcome of each log."""

    opened = 0
    outcomes: ClassVar[list[Outcome]] = []

    async def open(self) -> None:
        Counting.opened += 1
        await super().open()

    async def publish(self, ordering_key: str, entry: Stored, body: bytes) -> Outcome:
        Counting.outcomes.append(await super().publish(ordering_key, entry, body))
        return Counting.outcomes[-1]


class Trouble:
    """An engine with an injected clock that publishes to servers in which a test causes failures."""

    def __init__(
        self, servers: NatsServers, outbox: Outbox, caplog: pytest.LogCaptureFixture, address: Address | None = None
    ) -> None:
        self.servers = servers
        self._caplog = caplog
        caplog.set_level(logging.WARNING)
        Counting.opened = 0
        Counting.outcomes.clear()
        pool = partial(Publisher, address or servers.address, stream_type=Counting)
        self.stepped = Stepped(Athina(), outbox=outbox, make_pool=pool)
        self._made = 0

    def put(self, count: int, size: int = 10) -> None:
        for _ in range(count):
            self._made += 1
            body = b'{"n":%d,"x":"%b"}' % (self._made, b"x" * size)
            self.stepped.put(f"key {self._made % 20}", f"log {self._made}", body=body)

    def warnings(self) -> list[str]:
        return [record.getMessage() for record in self._caplog.records if record.levelno >= logging.WARNING]

    def assert_all_arrive(self, earlier: int = 0) -> None:
        """Require that after the next probe everything is in the stream, each conversation in order."""
        self.stepped.wait(400)
        numbers = [int(str(body["n"])) for body in bodies(self.servers)]
        assert sorted(set(numbers)) == list(range(earlier + 1, self._made + 1))
        for key in range(20):
            own = [number for number in numbers if number % 20 == key]
            assert own == sorted(set(own))
        assert self.stepped.outbox.counts().waiting == 0


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[NatsServers]:
    """Start one server in which a test may cause failures."""
    with NatsServers(tmp_path / "broker") as made:
        made.set_up(partitions=4)
        yield made


@pytest.fixture(params=["memory", "disk"])
def trouble(
    request: pytest.FixtureRequest, servers: NatsServers, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Iterator[Trouble]:
    outbox = MemoryOutbox() if request.param == "memory" else SqliteOutbox(str(tmp_path / "o.db"))
    made = Trouble(servers, outbox, caplog)
    yield made
    made.stepped.engine.finish(1)


def test_an_outage_of_an_hour_loses_nothing_and_the_broker_is_rarely_probed(trouble: Trouble) -> None:
    trouble.put(40)
    trouble.stepped.settle()
    trouble.servers.kill()
    trouble.put(100)
    trouble.stepped.wait(3600)
    assert trouble.stepped.outbox.counts().waiting == 100
    (said,) = trouble.warnings()
    assert "The relay cannot be reached" in said
    assert "check ATHINA_RELAY and the network" in said
    # Probes are at most a minute apart, the first ones less.
    assert 50 <= Counting.opened <= 80
    trouble.servers.restart()
    trouble.assert_all_arrive()


def test_a_full_stream_accepts_no_more_and_loses_nothing(trouble: Trouble) -> None:
    trouble.servers.set_up(max_bytes=100_000)
    trouble.put(200, size=1000)
    trouble.stepped.wait(120)
    assert 100 < trouble.stepped.outbox.counts().waiting < 130
    (said,) = trouble.warnings()
    assert "the stream athina is full" in said
    assert "start workers" in said
    assert "raise its max_bytes" in said
    trouble.servers.set_up(max_bytes=1_000_000)
    trouble.assert_all_arrive()


def test_refused_credentials_pause_deliveries_until_they_are_accepted(trouble: Trouble) -> None:
    trouble.put(40)
    trouble.stepped.settle()
    trouble.servers.kill()
    trouble.servers.restart(config='authorization { token: "another" }')
    trouble.put(100)
    trouble.stepped.wait(700)
    assert trouble.stepped.outbox.counts().waiting == 100
    said = [each for each in trouble.warnings() if "refused our credentials" in each]
    assert len(said) == 1
    assert "check ATHINA_RELAY and ATHINA_RELAY_CREDENTIALS" in said[0]
    trouble.servers.kill()
    trouble.servers.restart(config="")
    trouble.assert_all_arrive()


def test_a_broker_that_returns_empty_gets_all_unacknowledged_logs(trouble: Trouble, tmp_path: Path) -> None:
    trouble.put(40)
    trouble.stepped.settle()
    trouble.servers.kill()
    shutil.rmtree(tmp_path / "broker")
    trouble.servers.restart()
    trouble.put(100)
    trouble.stepped.wait(120)
    assert trouble.stepped.outbox.counts().waiting == 100
    assert any("there is no stream athina" in each and "relay --setup" in each for each in trouble.warnings())
    assert len(trouble.warnings()) <= 2
    trouble.servers.set_up(partitions=4)
    trouble.assert_all_arrive(earlier=40)


def test_without_a_leader_logs_wait_without_advice_to_run_setup(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with NatsServers(tmp_path, nodes=3) as cluster:
        cluster.set_up(partitions=4, replicas=3)
        info = cluster.ask(lambda client, names: api(client, f"STREAM.INFO.{names.stream}"))
        leader = int(info["cluster"]["leader"].removeprefix("node-"))
        connected, other = (node for node in range(3) if node != leader)
        address = Address.parse(cluster.url.split(",")[connected])
        trouble = Trouble(cluster, MemoryOutbox(), caplog, address)
        trouble.put(20)
        trouble.assert_all_arrive()
        # The one server that is left cannot elect a leader, however long the test takes.
        cluster.kill(leader)
        cluster.kill(other)
        trouble.put(20)

        def is_without_a_leader() -> bool:
            trouble.stepped.wait(60)  # or longer, since a busy server takes a while to notice what it has lost
            return any("has no leader at the moment" in outcome.message for outcome in Counting.outcomes)

        until(is_without_a_leader)
        assert trouble.stepped.outbox.counts().waiting == 20
        cluster.restart(leader)
        cluster.restart(other)
        cluster.set_up(partitions=4, replicas=3)  # once there is a leader again

        def is_all_published() -> bool:
            trouble.stepped.wait(60)  # or longer, since a busy cluster may elect another leader
            return trouble.stepped.outbox.counts().waiting == 0

        until(is_all_published)
        trouble.assert_all_arrive()
        trouble.stepped.engine.finish(1)
    assert "--setup" not in caplog.text + str(Counting.outcomes)


def test_a_missing_answer_is_given_up_once_another_log_finds_no_stream(
    servers: NatsServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its lease would be held until another log is published, which may be never."""
    monkeypatch.setattr(stream_module, "_LOOK_SECONDS", 0.02)

    async def publish(client: Any, names: Names) -> Outcome:
        stream = Stream(servers.address, patience=0.2)
        await stream.open()
        await api(client, f"STREAM.DELETE.{names.stream}")
        subscriber = await client.subscribe(names.subject(0))  # which never answers
        await client.publish(names.subject(0), b"")  # the client's ping could overtake its subscription, this cannot
        await subscriber.next_msg(60)
        silent, missing = (
            partial(stream.publish, next(key for key in map(str, range(100)) if partition_of(key, 4) == number))
            for number in (0, 1)
        )
        entry = Stored(1, "log", "1", b"{}")
        pending = asyncio.ensure_future(silent(entry, b"{}"))
        while not stream.is_closed:
            await missing(entry, b"{}")
        try:
            return await asyncio.wait_for(pending, 60)
        finally:
            await stream.close()

    assert "did not acknowledge" in servers.ask(publish).message


def test_more_partitions_are_used_without_a_restart_and_fewer_at_once(trouble: Trouble) -> None:
    trouble.put(20)
    trouble.stepped.settle()
    trouble.servers.ask(lambda client, names: purge(client, names.stream))
    trouble.servers.set_up(partitions=1)
    trouble.put(20)
    trouble.assert_all_arrive(earlier=20)
    assert {subject for subject, _, _ in trouble.servers.messages(trouble.servers.address.names)} == {"athina.0"}


async def purge(client: object, stream: str) -> None:
    await api(client, f"STREAM.PURGE.{stream}")  # type: ignore[arg-type]


def test_calls_do_not_wait_for_an_unreachable_broker(tmp_path: Path) -> None:
    athina_trace.configure(relay=f"nats://127.0.0.1:{free_port()}", outbox=str(tmp_path / "o.db"))
    athina_trace.log_inference(response="the first one loads everything")
    began = time.monotonic()
    for number in range(200):
        athina_trace.log_inference(response=str(number))
    assert time.monotonic() - began < 10  # an attempt to connect may take two seconds
    report = athina_trace.flush(1.0)
    assert report.waiting == 201
    assert _runtime._runtime is not None
    athina_trace.shutdown(1)


def seconds_of_calls(**settings: str) -> float:
    """Return the CPU time of the calling thread for 300 calls."""
    athina_trace.configure(**settings)

    @athina_trace.athina_trace
    def answer(question: str) -> str:
        return question

    answer("the first one loads everything")
    time.sleep(0.1)  # the broker's state is known by now
    began = time.thread_time()
    for number in range(300):
        answer(f"question {number}")
    seconds = time.thread_time() - began
    athina_trace.shutdown(0)
    return seconds


def test_calls_cost_the_same_while_the_broker_is_down_full_or_refuses_credentials(
    servers: NatsServers, tmp_path: Path
) -> None:
    servers.set_up(max_bytes=20_000)
    with NatsServers(tmp_path / "shut", config='authorization { token: "another" }') as shut:
        relays = {"away": f"nats://127.0.0.1:{free_port()}", "full": servers.url, "shut": shut.url}
        best = dict.fromkeys(["none", *relays], 9.0)
        for _ in range(20):  # alternately, since the machine may be busy for a while
            best["none"] = min(best["none"], seconds_of_calls(outbox=str(tmp_path / "none.db")))
            for name, url in relays.items():
                spent = seconds_of_calls(relay=url, outbox=str(tmp_path / f"{name}.db"))
                best[name] = min(best[name], spent)
            if max(best.values()) < 1.5 * best["none"]:
                break
    assert max(best.values()) < 1.5 * best["none"], best


def test_with_a_memory_outbox_and_flush_each_call_logs_are_durable_in_the_stream(nats: NatsServers) -> None:
    nats.set_up(partitions=4)
    run(
        """
        import os, athina_trace

        @athina_trace.athina_trace
        def answer(question):
            return question

        answer("durable")
        os._exit(0)  # as a function that is frozen, and never thawed
        """,
        ATHINA_RELAY=nats.url,
        ATHINA_RELAY_PREFIX=nats.prefix,
        ATHINA_OUTBOX=":memory:",
        ATHINA_FLUSH_EACH_CALL="1",
        ATHINA_FLUSH_TIMEOUT="60",
    )
    assert [body["response"] for body in bodies(nats)] == ["durable"]


def test_a_short_program_and_its_forked_child_publish_their_logs_before_they_end(
    nats: NatsServers, tmp_path: Path
) -> None:
    nats.set_up(partitions=4)
    run(
        """
        import os, athina_trace
        athina_trace.log_inference(response="parent")
        athina_trace.flush(60)
        if os.fork() == 0:
            athina_trace.log_inference(response="child")
            athina_trace.flush(60)
            os._exit(0)
        os.wait()
        athina_trace.log_inference(response="parent's last")
        """,
        ATHINA_RELAY=nats.url.replace("127.0.0.1", "localhost"),
        ATHINA_RELAY_PREFIX=nats.prefix,
        ATHINA_OUTBOX=str(tmp_path / "o.db"),
    )
    assert [body["response"] for body in bodies(nats)] == ["parent", "child", "parent's last"]


def test_a_publisher_thread_that_dies_is_replaced(
    nats: NatsServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_guard, "strict", False)
    nats.set_up(partitions=4)
    athina_trace.configure(relay=nats.url, relay_prefix=nats.prefix, outbox=str(tmp_path / "o.db"))
    athina_trace.log_inference(response="one")
    assert athina_trace.flush(60)
    runtime = _runtime._runtime
    assert runtime is not None
    pool = runtime.delivery.worker.engine.senders
    assert isinstance(pool, Publisher)
    assert pool._thread is not None

    def die() -> None:
        raise KeyboardInterrupt

    pool._thread.loop.call_soon_threadsafe(die)
    ends = time.monotonic() + 60
    while pool.alive and time.monotonic() < ends:
        time.sleep(0.01)
    assert not pool.alive
    athina_trace.log_inference(response="two")
    assert athina_trace.flush(60)
    assert [body["response"] for body in bodies(nats)] == ["one", "two"]
