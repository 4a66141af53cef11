"""`athina-trace relay --setup` and `--status`, and the commands that read refused logs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from athina_trace.cli.main import main
from athina_trace.relay import partitions
from athina_trace.relay.connection import NoAnswerError, api, store
from athina_trace.relay.names import Names
from athina_trace.relay.setup import consumers
from athina_trace.relay.status import moment
from tests.relay.test_working import names_of, publish, status
from tests.support.athina_server import AthinaServer, answer
from tests.support.nats_servers import NatsServers, RunningWorker
from tests.support.ports import free_port
from tests.support.waiting import until

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def relay(nats: NatsServers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `athina-trace` with these arguments; return exit code, output and errors."""
    monkeypatch.setenv("ATHINA_RELAY", nats.url)
    monkeypatch.setenv("ATHINA_RELAY_PREFIX", nats.prefix)
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(arguments)
        except SystemExit as end:
            code = int(str(end.code))
        out, err = capsys.readouterr()
        return code, out, err

    return run


def change(nats: NatsServers, **config: Any) -> None:
    """Create the stream as it might be made without this command."""
    names = nats.address.names
    defaults = {"name": names.stream, "subjects": names.subjects(2), "storage": "file", "discard": "new"}
    nats.ask(lambda client, _: api(client, f"STREAM.CREATE.{names.stream}", {**defaults, **config}))


def config(nats: NatsServers) -> dict[str, Any]:
    names = nats.address.names
    found: dict[str, Any] = nats.ask(lambda client, _: api(client, f"STREAM.INFO.{names.stream}"))["config"]
    return found


def test_setup_creates_the_stream_and_a_second_run_changes_nothing(relay: Run, nats: NatsServers) -> None:
    code, out, err = relay("relay", "--setup", "--partitions", "3", "--max-bytes", "50M")
    assert (code, err) == (0, "")
    assert "made      3 consumers" in out
    assert "sync_interval" in out
    assert "One replica" in out
    made = config(nats)
    assert (made["retention"], made["storage"], made["discard"]) == ("workqueue", "file", "new")
    assert (made["max_bytes"], made["num_replicas"], len(made["subjects"])) == (50_000_000, 1, 3)
    code, out, _ = relay("relay", "--setup")
    assert code == 0
    assert "made" not in out
    assert "partitions         3" in out


def test_setup_applies_changed_options(relay: Run, nats: NatsServers) -> None:
    relay("relay", "--setup", "--partitions", "2")
    relay("relay", "--setup", "--partitions", "4", "--duplicate-window", "300", "--ack-wait", "20", "--max-bytes", "2M")
    made = config(nats)
    assert (len(made["subjects"]), made["duplicate_window"], made["max_bytes"]) == (4, 300 * 10**9, 2_000_000)
    consumer = nats.ask(lambda client, names: api(client, f"CONSUMER.INFO.{names.stream}.partition-0"))
    assert consumer["config"]["ack_wait"] == 20 * 10**9
    relay("relay", "--setup", "--partitions", "1")
    assert len(status(nats).partitions) == 1


def test_partitions_are_not_changed_while_logs_wait(relay: Run, nats: NatsServers) -> None:
    relay("relay", "--setup", "--partitions", "2")
    publish(nats, ("s", "one"))
    code, _, err = relay("relay", "--setup", "--partitions", "4")
    assert code == 1
    assert "the stream holds 1 logs" in err
    assert "let the workers empty it first" in err
    assert len(config(nats)["subjects"]) == 2


@pytest.mark.parametrize(
    ("wrong", "shown"),
    [
        ({"retention": "limits"}, "retention is 'limits' and must be workqueue"),
        ({"retention": "interest"}, "retention is 'interest'"),
        ({"retention": "workqueue", "storage": "memory"}, "storage is 'memory' and must be file"),
        ({"retention": "workqueue", "discard": "old"}, "discard is 'old' and must be new"),
        ({"retention": "workqueue", "max_age": 3600 * 10**9}, "max_age is 3600000000000 and must be 0"),
        ({"retention": "workqueue", "no_ack": True}, "no_ack is True"),
        ({"retention": "workqueue", "max_msgs_per_subject": 10}, "max_msgs_per_subject is 10"),
    ],
)
def test_a_stream_whose_settings_would_lose_logs_is_refused(
    relay: Run, nats: NatsServers, wrong: dict[str, Any], shown: str
) -> None:
    change(nats, **wrong)
    code, _, err = relay("relay", "--setup")
    assert code == 1
    assert shown in err
    assert "would lose logs" in err
    assert any(shown in fault for fault in status(nats).faults)


@pytest.mark.parametrize(
    ("wrong", "shown"),
    [({"max_ack_pending": 10}, "max_ack_pending is 10 and must be 1"), ({"max_deliver": 5}, "max_deliver is 5")],
)
def test_a_consumer_that_would_lose_order_or_logs_is_refused_by_setup_and_workers(
    relay: Run, nats: NatsServers, athina: AthinaServer, wrong: dict[str, Any], shown: str
) -> None:
    change(nats, retention="workqueue")
    names = nats.address.names
    consumer = {"durable_name": "partition-0", "filter_subject": names.subject(0), "ack_policy": "explicit", **wrong}
    request = {"stream_name": names.stream, "config": consumer}
    nats.ask(lambda client, _: api(client, f"CONSUMER.DURABLE.CREATE.{names.stream}.partition-0", request))
    code, _, err = relay("relay", "--setup")
    assert code == 1
    assert shown in err
    nats.ask(lambda client, _: store(client, names.subject(0), b"{}", {"Athina-Kind": "log"}))
    with RunningWorker(nats, athina.url) as running:
        until(lambda: running.worker.counters.began)
        assert running.worker.report()["held"] == 0
    assert athina.requests == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("--partitions", "0"),
        ("--partitions", "1025"),
        ("--replicas", "x"),
        ("--max-bytes", "10X"),
        ("--max-bytes", "-1"),
        ("--ack-wait", "0"),
        ("--status",),
    ],
)
def test_invalid_options_are_explained(relay: Run, arguments: tuple[str, ...]) -> None:
    code, _, err = relay("relay", "--setup", *arguments)
    assert code == 2
    assert "usage" in err or "must be" in err


def test_a_missing_address_or_key_is_reported(relay: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = relay("relay")
    assert (code, "there is no ATHINA_API_KEY" in err) == (2, True)
    monkeypatch.delenv("ATHINA_RELAY")
    code, _, err = relay("relay", "--status")
    assert (code, "there is no ATHINA_RELAY" in err) == (2, True)


def test_unreachable_or_empty_servers_are_explained(relay: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = relay("relay", "--status")
    assert (code, "run `athina-trace relay --setup`" in err) == (1, True)
    monkeypatch.setenv("ATHINA_RELAY", f"nats://127.0.0.1:{free_port()}")
    code, _, err = relay("relay", "--status")
    assert (code, "check ATHINA_RELAY" in err) == (1, True)


def test_partitions_without_a_leader_are_reported_without_advice_to_run_setup(
    tmp_path: Path, athina: AthinaServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with NatsServers(tmp_path, nodes=3) as cluster:
        cluster.set_up(partitions=24, replicas=3)
        info = cluster.ask(lambda client, names: api(client, f"STREAM.INFO.{names.stream}"))
        led = Counter(each["cluster"]["leader"] for each in cluster.ask(consumers).known.values())
        # Without a leader of the stream or the cluster, no server answers requests about them.
        del led[info["cluster"]["leader"]]
        elections = [
            (line.partition(" ")[2], log.parent.name)  # its time, and whom it made leader
            for log in tmp_path.glob("*/log")
            for line in log.read_text().splitlines()
            if line.endswith("Self is new JetStream cluster metadata leader")
        ]
        del led[max(elections)[1]]
        ((node, count),) = led.most_common(1)
        monkeypatch.setattr(partitions, "_LEARN_SECONDS", 0.0)
        with RunningWorker(cluster, athina.url) as running:
            until(lambda: running.worker.obstacle is None)
            cluster.kill(int(node.removeprefix("node-")))
            shown = status(cluster)
            until(lambda: running.worker.obstacle is None)  # the program may have been connected to the killed server
        (fault,) = shown.faults
        assert "no NATS server leads partition-" in fault
        assert "start the server that is down" in fault
        assert "--setup" not in fault + caplog.text
        assert len(shown.partitions) == 24 - count
        # Setup waits for the election: a stream without a leader must not be created again with other settings.
        assert cluster.set_up(ack_wait_seconds=20.0).made == ["24 consumers"]
        assert status(cluster).faults == []
        assert len(status(cluster).partitions) == 24


def test_the_status_shows_lag_workers_and_refused_logs(relay: Run, nats: NatsServers, athina: AthinaServer) -> None:
    nats.set_up(partitions=2)
    athina.when(lambda request: request.json["response"] == "bad", answer(400))
    publish(nats, ("s", "bad"))
    with RunningWorker(nats, athina.url) as running:
        until(lambda: running.worker.counters.refused == 1)

        def is_shown() -> bool:
            code, out, err = relay("relay", "--status")
            assert code == 0
            assert "refused      1: see `athina-trace logs --relay`" in out
            return f"{running.worker.name}\t0\t1\t0\t0" in out and err == ""

        until(is_shown)  # a worker that does not answer in time, as on a busy machine, is not shown
    publish(nats, ("s", "one"), ("s", "two"))
    _, out, err = relay("relay", "--status", "--json")
    shown = json.loads(out)
    assert shown["waiting"] == 2
    assert [each["lag"] for each in shown["partitions"]] in ([2, 0], [0, 2])
    assert shown["at"] - 60 < shown["waiting_since"] <= shown["at"] + 1
    assert shown["workers"] == []
    _, out, err = relay("relay", "--status")
    assert "no worker answers" in err
    assert "2, 1 with waiting logs" in out


def test_the_status_reports_a_stream_without_a_leader(tmp_path: Path) -> None:
    # A server without JetStream does not answer these requests, like servers without a leader of the stream.
    with NatsServers(tmp_path / "nats", config="jetstream: false") as servers, pytest.raises(NoAnswerError) as raised:
        status(servers)
    assert "although a server accepted the connection: the stream athina has no leader" in str(raised.value)


def test_refused_logs_are_listed_shown_exported_and_retried(
    relay: Run, nats: NatsServers, athina: AthinaServer
) -> None:
    nats.set_up(partitions=2)
    athina.when(lambda request: request.json["response"].startswith("bad"), answer(422, b'{"error": "no"}'))
    publish(nats, ("s", "bad one"), ("s", "bad two"), ("s", "good"))
    with RunningWorker(nats, athina.url) as running:
        until(lambda: running.worker.counters.refused == 2)
    code, out, _ = relay("logs", "--relay", "--state", "refused", "--json")
    assert code == 0
    listed = [json.loads(line) for line in out.splitlines()]
    assert [each["external_reference_id"] for each in listed] == ["bad one", "bad two"]
    assert "no" in relay("show", "--relay", "bad one")[1]
    code, out, _ = relay("export", "--relay", "--format", "jsonl")
    assert [json.loads(line)["external_reference_id"] for line in out.splitlines()] == ["bad one", "bad two"]
    code, out, _ = relay("retry", "--relay", "bad two")
    assert (code, out) == (0, "1 published again\n")
    assert status(nats).refused == 1
    athina.clear()
    assert relay("retry", "--relay", "--all")[1] == "1 published again\n"
    assert relay("retry", "--relay", "--all")[0] == 1
    with RunningWorker(nats, athina.url):
        athina.wait_for(3)
    assert names_of(athina) == ["good", "bad two", "bad one"]
    assert status(nats).refused == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-26T17:00:00Z", 1795712400.0),
        ("2026-11-26T17:00:00.123456789Z", 1795712400.123456),
        ("2026-11-26T18:00:00.5+01:00", 1795712400.5),
    ],
)
def test_jetstream_timestamps_are_parsed(text: str, seconds: float) -> None:
    assert moment(text) == pytest.approx(seconds)


def test_names_follow_the_prefix() -> None:
    names = Names("team.logs")
    assert (names.stream, names.refused_stream) == ("team-logs", "team-logs-refused")
    assert names.subjects(2) == ["team.logs.0", "team.logs.1"]


def test_check_looks_at_the_relay_instead_of_athina(relay: Run, nats: NatsServers) -> None:
    code, out, _ = relay("check")
    assert (code, "run `athina-trace relay --setup`" in out) == (1, True)
    nats.set_up(partitions=1)
    code, out, _ = relay("check")
    assert code == 0
    assert f"the stream {nats.prefix} holds 0 logs, no worker answers" in out
    assert "ATHINA_API_KEY" not in out
