"""Workers between a stream and Athina: order, sharing, refusals, wrong keys, kills, stops and ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from athina_trace._delivery.entry import Entry
from athina_trace._delivery.outbox import MemoryOutbox
from athina_trace._delivery.routes import Kind
from athina_trace.relay import partitions
from athina_trace.relay.connection import NoAnswerError, store
from athina_trace.relay.publisher import Publisher
from athina_trace.relay.status import RelayStatus, read
from tests.delivery.test_engine import Athina, Stepped
from tests.support.athina_server import AthinaServer, Request, answer, busy, delay, lose_answer
from tests.support.nats_servers import NatsServers, RunningWorker
from tests.support.waiting import until


def publish(nats: NatsServers, *entries: tuple[str, str], kind: Kind = "log", **more: Any) -> None:
    """Publish (session, name) pairs in order, with `more` fields."""
    stepped = Stepped(Athina(), outbox=MemoryOutbox(), make_pool=partial(Publisher, nats.address))
    for session, name in entries:
        fields = {"external_reference_id": name, "session_id": session, "response": name, **more}
        stepped.outbox.put(Entry(session, kind, name, stepped.clock.now, json.dumps(fields).encode()))
    stepped.settle()
    stepped.engine.finish(5)
    assert stepped.outbox.counts().waiting == 0


def names_of(athina: AthinaServer) -> list[str]:
    return [request.json["response"] for request in athina.accepted]


def status(nats: NatsServers) -> RelayStatus:
    return nats.ask(read)


def test_published_logs_are_delivered_in_order(nats: NatsServers, athina: AthinaServer) -> None:
    nats.set_up(partitions=4)
    publish(nats, *((f"s{number % 10}", f"{number}") for number in range(100)))
    with RunningWorker(nats, athina.url) as running:
        athina.wait_for(100)
        until(lambda: running.worker.counters.delivered == 100)
    for session in range(10):
        own = [int(name) for name in names_of(athina) if int(name) % 10 == session]
        assert own == sorted(own)
    assert len(set(names_of(athina))) == len(names_of(athina)) == 100
    assert status(nats).waiting == 0


def test_every_kind_is_sent_to_its_own_endpoint(nats: NatsServers, athina: AthinaServer) -> None:
    nats.set_up(partitions=1)
    kinds: tuple[Kind, ...] = ("log", "update", "update_by_id", "feedback")
    for kind in kinds:
        publish(nats, ("s", "a/b"), kind=kind)
    with RunningWorker(nats, athina.url):
        athina.wait_for(4)
    assert [(request.method, request.path) for request in athina.accepted] == [
        ("POST", "/api/v1/log/inference"),
        ("PATCH", "/api/v1/log/inference/update-by-external-reference-id/a%2Fb"),
        ("PATCH", "/api/v1/log/inference/a%2Fb"),
        ("PATCH", "/api/v1/prompt_run/user-feedback"),
    ]


def test_a_delayed_log_keeps_its_place_while_other_partitions_overtake(nats: NatsServers, athina: AthinaServer) -> None:
    nats.set_up(partitions=8)
    failures = Counter[str]()

    def fails_at_first(request: Request) -> bool:
        failures[request.json["response"]] += 1
        return request.json["response"] == "stuck" and failures["stuck"] <= 4

    athina.when(fails_at_first, busy(0))
    publish(nats, ("stuck session", "stuck"), ("stuck session", "behind"), *((f"s{n}", f"{n}") for n in range(20)))
    with RunningWorker(nats, athina.url):
        athina.wait_for(22)
    assert names_of(athina).index("stuck") < names_of(athina).index("behind")
    assert failures["stuck"] == 5
    assert len(names_of(athina)) == 22


def test_a_worker_continues_while_the_list_of_consumers_is_unavailable(
    nats: NatsServers, athina: AthinaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    nats.set_up(partitions=2)
    asked: list[object] = []

    async def silent(*given: object) -> None:
        asked.append(given)
        raise NoAnswerError("no server answered")

    with RunningWorker(nats, athina.url) as running:
        until(lambda: running.worker.obstacle is None)
        monkeypatch.setattr(partitions, "consumers", silent)
        monkeypatch.setattr(partitions, "_LEARN_SECONDS", 0.0)
        until(lambda: len(asked) > 2)
        publish(nats, ("s", "one"), ("t", "two"))
        athina.wait_for(2)


def test_two_workers_share_the_work_and_one_takes_over_when_the_other_stops(
    nats: NatsServers, athina: AthinaServer
) -> None:
    nats.set_up(partitions=16)
    begin = threading.Event()
    athina.when(lambda _: True, lambda exchange: delay(0.01)(exchange) if begin.wait(60) else None)
    publish(nats, *((f"s{number % 40}", f"{number}") for number in range(400)))
    with RunningWorker(nats, athina.url) as one, RunningWorker(nats, athina.url) as other:
        until(lambda: one.worker.obstacle is None and other.worker.obstacle is None)
        begin.set()
        until(lambda: one.worker.counters.delivered > 20 and other.worker.counters.delivered > 20)
        one.stop()
        athina.wait_for(400)
        until(lambda: one.worker.counters.delivered + other.worker.counters.delivered == 400)
    for session in range(40):
        own = [int(name) for name in names_of(athina) if int(name) % 40 == session]
        assert own == sorted(own)
    assert len(names_of(athina)) == 400


def test_a_wrong_key_pauses_and_loses_nothing(nats: NatsServers, athina: AthinaServer) -> None:
    nats.set_up(partitions=4)
    athina.when(lambda request: request.headers["athina-api-key"] == "wrong", answer(401))
    publish(nats, *((f"s{number}", f"{number}") for number in range(40)))
    with RunningWorker(nats, athina.url, api_key="wrong") as running:
        until(lambda: running.worker.report()["paused"])
        time.sleep(0.5)
        assert len(athina.requests) < 10
        assert status(nats).waiting == 40
        # A worker that does not answer in time, as on a busy machine, is not shown.
        until(lambda: [each["paused"] for each in status(nats).workers] == [running.worker.report()["paused"]])
        # It holds no logs, so that a worker with the right key could deliver them.
        with RunningWorker(nats, athina.url):
            athina.wait_for(40)
    assert sorted(map(int, names_of(athina))) == list(range(40))


def test_refused_logs_are_kept_with_athinas_message_and_the_next_is_sent(
    nats: NatsServers, athina: AthinaServer
) -> None:
    nats.set_up(partitions=1)
    athina.when(lambda request: request.json["response"] == "bad", answer(400, b'{"error": "n\xc3\xb6"}'))
    publish(nats, ("s", "good"), ("s", "bad"), ("s", "better"))
    with RunningWorker(nats, athina.url):
        athina.wait_for(2)
        until(lambda: status(nats).refused == 1)
    names = nats.address.names
    (found,) = nats.messages(names, names.refused_stream)
    assert found[1]["Athina-Status"] == "400"
    assert found[1]["Athina-Reason"] == "n\\xf6"
    assert json.loads(found[2])["response"] == "bad"
    assert names_of(athina) == ["good", "better"]


def test_a_log_that_fails_forever_is_refused_while_others_are_accepted(nats: NatsServers, athina: AthinaServer) -> None:
    nats.set_up(partitions=2)
    athina.when(lambda request: request.json["response"] == "poison", answer(500))
    publish(nats, ("s", "before"), ("s", "poison"), ("s", "behind"))
    with RunningWorker(nats, athina.url, max_attempts=4):
        athina.wait_for(2)
    assert names_of(athina) == ["before", "behind"]
    assert status(nats).refused == 1


def test_a_message_of_an_unknown_kind_is_set_aside_unsent(nats: NatsServers, athina: AthinaServer) -> None:
    nats.set_up(partitions=1)
    nats.ask(lambda client, names: store(client, names.subject(0), b"\xff not json", {"Athina-Kind": "from later"}))
    publish(nats, ("s", "known"))
    with RunningWorker(nats, athina.url):
        athina.wait_for(1)
    assert names_of(athina) == ["known"]
    assert status(nats).refused == 1


def test_a_stopping_worker_returns_unsent_logs_at_once(nats: NatsServers, athina: AthinaServer) -> None:
    nats.set_up(partitions=8, ack_wait_seconds=60)
    publish(nats, *((f"s{number}", f"{number}") for number in range(40)))
    athina.when(lambda _: True, delay(30))
    running = RunningWorker(nats, athina.url, exit_timeout=1.0)
    with running:
        until(lambda: running.worker.report()["held"] >= 4)
        began = time.monotonic()
        running.stop()
        assert time.monotonic() - began < 15  # a request takes 30 seconds
    athina.clear()
    with RunningWorker(nats, athina.url):
        # Sooner than the server would redeliver them. Those in flight may arrive twice.
        until(lambda: set(map(int, names_of(athina))) == set(range(40)), 45)


def test_delivered_logs_are_acknowledged_after_a_server_restart_and_not_sent_again(
    tmp_path: Path, athina: AthinaServer
) -> None:
    with NatsServers(tmp_path) as nats:
        nats.set_up(partitions=4, ack_wait_seconds=2)
        publish(nats, *((f"s{number}", f"{number}") for number in range(8)))
        athina.when(lambda _: True, delay(0.4))
        with RunningWorker(nats, athina.url):
            until(lambda: len(athina.requests) >= 3)
            nats.kill()  # while it is in flight
            until(lambda: len(athina.accepted) == len(athina.requests))
            nats.restart()
            athina.wait_for(8)
            until(lambda: status(nats).waiting == 0)
        assert sorted(map(int, names_of(athina))) == list(range(8))


def test_a_connection_lost_during_maintenance_is_reopened(
    nats: NatsServers, athina: AthinaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    nats.set_up(partitions=2)
    learn, looked = partitions.Partitions.learn, []

    async def lose(self: partitions.Partitions, client: Any, now: float) -> None:
        await learn(self, client, now)
        looked.append(client)
        if len(looked) == 2:  # after the first check of a new connection, and before the next logs are fetched
            await client.close()

    monkeypatch.setattr(partitions.Partitions, "learn", lose)
    monkeypatch.setattr(partitions, "_LEARN_SECONDS", 0.0)
    publish(nats, ("s", "one"), ("t", "two"))
    with RunningWorker(nats, athina.url):
        athina.wait_for(2)
    assert sorted(names_of(athina)) == ["one", "two"]


def test_a_lost_answer_causes_a_duplicate_with_the_same_reference(nats: NatsServers, athina: AthinaServer) -> None:
    nats.set_up(partitions=1)
    athina.script(lose_answer)
    publish(nats, ("s", "one"), ("s", "two"))
    with RunningWorker(nats, athina.url):
        athina.wait_for(3)
    assert [request.json["external_reference_id"] for request in athina.accepted] == ["one", "one", "two"]


@pytest.fixture
def worker_processes(
    nats: NatsServers, athina: AthinaServer, tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(**settings: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "athina_trace", "relay"],
            env={
                **os.environ,
                "ATHINA_RELAY": nats.url,
                "ATHINA_RELAY_PREFIX": nats.prefix,
                "ATHINA_API_KEY": "key",
                "ATHINA_BASE_URL": athina.url,
                **settings,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


def test_a_worker_process_ends_on_sigterm_and_reports_its_counts(
    nats: NatsServers, athina: AthinaServer, worker_processes: Callable[..., subprocess.Popen[str]]
) -> None:
    nats.set_up(partitions=4)
    publish(nats, *((f"s{number}", f"{number}") for number in range(20)))
    process = worker_processes()
    athina.wait_for(20)
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.splitlines()[0].startswith(f"Delivering from {nats.address} to {athina.url}")
    assert "20 delivered, 0 refused" in out


def test_a_worker_process_adds_estimated_costs_if_configured(
    nats: NatsServers,
    athina: AthinaServer,
    worker_processes: Callable[..., subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ATHINA_ESTIMATE_COST", "1")
    nats.set_up(partitions=1)
    publish(nats, ("s", "one"), language_model_id="gpt-4o-mini", prompt_tokens=1000, completion_tokens=100)
    worker_processes()
    athina.wait_for(1)
    assert athina.accepted[0].json["cost"] == pytest.approx(0.00021)


def test_logs_held_by_a_killed_worker_are_delivered_by_another(
    nats: NatsServers, athina: AthinaServer, worker_processes: Callable[..., subprocess.Popen[str]]
) -> None:
    nats.set_up(partitions=4, ack_wait_seconds=6)
    athina.when(lambda _: True, delay(0.2))
    publish(nats, *((f"s{number % 4}", f"{number}") for number in range(24)))
    process = worker_processes()
    until(lambda: len(athina.requests) > 4)
    process.kill()
    athina.clear()
    with RunningWorker(nats, athina.url):
        until(lambda: len(set(names_of(athina))) == 24)
    first = list(dict.fromkeys(names_of(athina)))
    for session in range(4):
        own = [int(name) for name in first if int(name) % 4 == session]
        assert own == sorted(own)
    assert len(names_of(athina)) <= 24 + 4  # those in flight


def test_a_worker_suspended_for_long_sends_nothing_that_it_held(
    nats: NatsServers, athina: AthinaServer, worker_processes: Callable[..., subprocess.Popen[str]]
) -> None:
    nats.set_up(partitions=8, ack_wait_seconds=3)
    # The first is in flight when the worker is suspended; the others wait: one request at a time.
    process = worker_processes(ATHINA_CONNECTIONS="1")
    athina.script(delay(1.5))
    publish(nats, *((f"s{number}", f"{number}") for number in range(40)))
    until(lambda: len(athina.requests) >= 1)
    process.send_signal(signal.SIGSTOP)
    with RunningWorker(nats, athina.url):
        until(lambda: len(set(names_of(athina))) == 40)
        taken = len(names_of(athina))
        process.send_signal(signal.SIGCONT)
        time.sleep(1.0)
    assert len(names_of(athina)) <= taken + 1  # the one in flight


def test_held_logs_stay_claimed_while_athina_is_slow(nats: NatsServers, athina: AthinaServer) -> None:
    nats.set_up(partitions=2, ack_wait_seconds=5)
    athina.script(delay(8.0))
    publish(nats, ("s", "slow"), ("s", "next"))
    with RunningWorker(nats, athina.url), RunningWorker(nats, athina.url):
        athina.wait_for(2)
    assert names_of(athina) == ["slow", "next"]
    assert len(athina.requests) == 2
