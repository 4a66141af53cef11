"""An outbox on a volume shared by several machines: one uses it, the others notice and keep away."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import athina_trace
from athina_trace._delivery import machine
from athina_trace._delivery.machine import ALIVE_SECONDS, Machine, Presence
from athina_trace.errors import OutboxError
from tests.support.athina_server import AthinaServer

HERE = Machine(boot="boot-1", booted=1000.0, name="web-0 id")
CONTAINER = HERE._replace(name="container id")
ELSEWHERE = Machine(boot="boot-2", booted=2000.0, name="web-1 id")
RESTARTED = HERE._replace(boot="boot-3", booted=time.time() + 3600)
COPY = HERE._replace(boot="boot-4", booted=1500.0)


def be(monkeypatch: pytest.MonkeyPatch, this: Machine) -> None:
    monkeypatch.setattr(machine, "this_machine", lambda: this)


@pytest.mark.parametrize("other", [HERE, CONTAINER, RESTARTED], ids=["itself", "a container", "after a restart"])
def test_a_machine_never_locks_itself_out(other: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    be(monkeypatch, HERE)
    Presence(tmp_path).check()
    be(monkeypatch, other)
    Presence(tmp_path).check()


@pytest.mark.parametrize("other", [ELSEWHERE, COPY], ids=["another", "a copy of this one"])
def test_another_machine_that_is_alive_keeps_its_outbox(
    other: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be(monkeypatch, HERE)
    first = Presence(tmp_path)
    first.beat()
    be(monkeypatch, other)
    with pytest.raises(OutboxError, match=r"used by another machine \(web-0 id\)"):
        Presence(tmp_path).check()
    os.utime(tmp_path / "machine", (time.time(), time.time() - ALIVE_SECONDS - 1))
    Presence(tmp_path).check()
    be(monkeypatch, HERE)
    with pytest.raises(OutboxError, match="web"):
        Presence(tmp_path).check()


def test_a_machine_that_left_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    be(monkeypatch, HERE)
    first = Presence(tmp_path)
    first.check()
    first.leave()
    be(monkeypatch, ELSEWHERE)
    Presence(tmp_path).check()
    be(monkeypatch, HERE)
    first.leave()  # it is the other's by now
    assert (tmp_path / "machine").exists()


def test_a_file_torn_by_a_crash_names_no_machine(tmp_path: Path) -> None:
    for torn in (b"", b'{"boot": ', b"[]", b'{"boot": 1}'):
        (tmp_path / "machine").write_bytes(torn)
        Presence(tmp_path).check()


def test_logs_are_kept_in_memory_while_another_machine_has_the_outbox(
    athina: AthinaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "outbox.db"
    (tmp_path / "outbox.journal").mkdir(mode=0o700)
    be(monkeypatch, ELSEWHERE)
    Presence(tmp_path / "outbox.journal").check()
    be(monkeypatch, HERE)
    athina_trace.configure(api_key="key", base_url=athina.url, outbox=str(path))
    for number in range(3):
        athina_trace.log_inference(user_query=str(number), response="r", session_id="s")
    athina_trace.flush(60)
    assert [request.json["user_query"] for request in athina.accepted] == ["0", "1", "2"]
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["machine", "outbox.journal"]
    warnings = [record.getMessage() for record in caplog.records if "another machine" in record.getMessage()]
    assert len(warnings) <= 2, warnings  # one says so, one what is done instead
    assert any("kept in memory" in each for each in warnings)


def test_the_last_process_of_a_machine_leaves_the_outbox_to_others(
    athina: AthinaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be(monkeypatch, HERE)
    athina_trace.configure(api_key="key", base_url=athina.url, outbox=str(tmp_path / "outbox.db"))
    athina_trace.log_inference(user_query="?", response="r")
    assert athina_trace.flush(60)
    assert (tmp_path / "outbox.journal" / "machine").exists()
    athina_trace.shutdown(60)
    assert not (tmp_path / "outbox.journal" / "machine").exists()
