"""Another process holds SQLite's lock, such as a backup or a stopped process: no thread of the program waits."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import athina_trace
from athina_trace import _runtime
from athina_trace._delivery import database
from athina_trace._delivery.database import Database, is_locked, waiting_at_most
from athina_trace._delivery.entry import Entry
from athina_trace._delivery.sqlite_outbox import SqliteOutbox
from tests.support import backlog
from tests.support.athina_server import AthinaServer
from tests.support.processes import run
from tests.support.waiting import until

# Python 3.12 and newer warn of each fork of a process with threads, which is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

LONG = 20.0
"""Seconds. Two hundred times what anything may take, for a busy machine; without our care it would be 100."""


def seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


@pytest.fixture
def path(tmp_path: Path, athina: AthinaServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(database, "_PATIENT_SECONDS", 5 * LONG)
    made = tmp_path / "outbox.db"
    athina_trace.configure(api_key="key", base_url=athina.url, outbox=str(made))
    athina_trace.log_inference(user_query="first", response="r", session_id="s")
    assert athina_trace.flush(60)
    return made


@pytest.fixture
def holder(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


def fork() -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)


def test_no_thread_of_the_program_waits(holder: sqlite3.Connection, athina: AthinaServer) -> None:
    athina_trace.log_inference(user_query="second", response="r", session_id="s")
    time.sleep(0.2)  # the engine is trying to collect it
    took = {
        "log": seconds(lambda: athina_trace.log_inference(user_query="third", response="r", session_id="s")),
        "status": seconds(athina_trace.status),
        "recent_logs": seconds(athina_trace.recent_logs),
        "fork": max(seconds(fork) for _ in range(3)),
    }
    assert max(took.values()) < LONG, took
    assert athina_trace.status().delivered == 1, "reading needs no lock"
    holder.execute("ROLLBACK")
    assert athina_trace.flush(60)
    assert [request.json["user_query"] for request in athina.accepted] == ["first", "second", "third"]


def test_a_store_that_stays_locked_is_reported(
    holder: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "_PATIENT_SECONDS", 0.1)
    athina_trace.log_inference(user_query="second", response="r", session_id="s")
    until(lambda: athina_trace.status().paused)
    report = athina_trace.flush(0.2)
    assert (bool(report), report.waiting) == (False, 1)
    assert "outbox.db is locked by another process (database is locked)" in str(report.paused)
    now = athina_trace.status()
    assert now.paused == report.paused
    assert now.memory_only is None
    assert (now.made, now.delivered, now.waiting) == (2, 1, 1), "what is in the journal is counted, too"
    assert caplog.text.count("look for a backup") == 1, "once a minute"
    holder.execute("ROLLBACK")
    assert athina_trace.flush(60)
    assert athina_trace.status().paused is None


def test_the_end_of_the_program_does_not_wait(holder: sqlite3.Connection) -> None:
    athina_trace.log_inference(user_query="second", response="r", session_id="s")
    assert seconds(lambda: athina_trace.shutdown(0.2)) < LONG
    holder.execute("ROLLBACK")


def test_a_thread_waits_as_long_as_it_allows(tmp_path: Path) -> None:
    file = Database(str(tmp_path / "file.db"), ["CREATE TABLE t (x)"])
    with closing(sqlite3.connect(tmp_path / "file.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with waiting_at_most(0.05), pytest.raises(sqlite3.OperationalError) as error:
            begin(file)
        assert is_locked(error.value)
        waiting = threading.Thread(target=begin, args=(file,))
        waiting.start()
        # Our own lock is free most of the time, so that others may read, and the program may fork.
        with waiting_at_most(LONG):
            assert file.size() > 0
        assert waiting.is_alive()
        other.execute("ROLLBACK")
        waiting.join(60)
        assert not waiting.is_alive()
    file.close()


def begin(file: Database) -> None:
    with file.transaction():
        pass


@contextmanager
def thread_inside(transaction: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    """Meanwhile another thread is in the middle of a transaction."""
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with transaction():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait(10)
    try:
        yield
    finally:
        leave.set()
        thread.join()


def test_a_thread_inside_sqlite_does_not_keep_others_waiting(tmp_path: Path) -> None:
    file = Database(str(tmp_path / "file.db"), ["CREATE TABLE t (x)"])
    alone = seconds(fork)  # which takes long in a large process
    with thread_inside(file.transaction):
        with waiting_at_most(0.05), pytest.raises(sqlite3.OperationalError, match="locked by another thread"):
            file.size()
        assert seconds(fork) < alone + LONG
    file.close()


def test_what_was_flushed_is_in_the_status_though_a_thread_is_inside(path: Path) -> None:
    runtime: Any = _runtime.active()
    assert runtime is not None
    with thread_inside(runtime.delivery.outbox.transaction):
        assert athina_trace.status().delivered == 1


def test_a_child_forked_while_a_thread_is_inside_sqlite_delivers_from_memory(path: Path, athina: AthinaServer) -> None:
    """SQLite tracks its locks in the process: the child would wait forever for a thread that it does not have."""
    out, _ = run(
        """
        import os, sys, threading
        import athina_trace
        from athina_trace import _runtime
        athina_trace.configure(api_key="key", base_url=sys.argv[1], outbox=sys.argv[2])
        athina_trace.status()
        outbox, inside, leave = _runtime.active().delivery.outbox, threading.Event(), threading.Event()
        def stay():
            with outbox.transaction():
                inside.set()
                leave.wait(60)
        thread = threading.Thread(target=stay)
        thread.start()
        inside.wait()
        if not (child := os.fork()):
            athina_trace.log_inference(user_query="second", response="r", session_id="s")
            print(bool(athina_trace.flush(30)), athina_trace.status().memory_only, flush=True)
            athina_trace.configure(api_key="key", base_url="http://127.0.0.1:9", outbox=sys.argv[2])
            athina_trace.log_inference(user_query="third", response="r", session_id="s")
            athina_trace.shutdown(0)
            os._exit(0)
        os.waitpid(child, 0)
        leave.set()
        thread.join()
        print(bool(athina_trace.flush(30)))
        """,
        athina.url,
        str(path),
        PYTHONWARNINGS="ignore",
    )
    of_child, of_parent = out.splitlines()
    assert of_child.startswith(f"True the outbox {path} was being written to when this process was forked")
    assert of_parent == "True"
    assert [request.json["user_query"] for request in athina.accepted] == ["first", "second", "third"]


def test_status_is_quick_beside_many_waiting_logs(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    backlog.make(path, 20_000).close()
    writer = SqliteOutbox(str(path))
    for number in range(20_000):  # and as many in the journal, which takes longer to collect than a caller may wait
        writer.put(Entry(f"s{number % 100}", "log", f"new-{number}", 1.7e9, backlog.BODY))
    writer.close()
    athina_trace.configure(outbox=str(path))
    assert seconds(athina_trace.status) < LONG
    assert athina_trace.status().waiting >= 20_000
