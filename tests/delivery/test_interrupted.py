"""A signal handler of the program's raises while its thread is inside our code, as a time limit does."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from athina_trace import _guard
from athina_trace._clock import clock
from athina_trace._delivery.database import Database
from athina_trace._delivery.engine import Engine
from athina_trace._delivery.entry import Entry, Lease, Stored
from athina_trace._delivery.outbox import MemoryOutbox
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.results import Results
from athina_trace._delivery.senders import Senders
from athina_trace._delivery.sqlite_outbox import SqliteOutbox
from athina_trace._delivery.worker import Worker
from tests.delivery.test_engine import Athina


class TimeLimitError(Exception):
    """The exception that the program's handler raises."""


class Interrupted:
    """Wraps an object; after a method that `is_met` picks, the handler raises within it."""

    def __init__(self, inner: Any, is_met: Callable[..., bool]) -> None:
        self._inner = inner
        self._is_met = is_met
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            done = found(*args, **kwargs)
            if not self.count and self._is_met(name, *args):
                self.count += 1
                raise TimeLimitError
            return done

        return call if callable(found) else found


def elsewhere(work: Callable[[], object]) -> None:
    """Call it in another thread, which must not have to wait."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "COMMIT"])
def test_no_transaction_stays_open(statement: str, tmp_path: Path) -> None:
    """The engine's next transaction would be part of it: neither we nor other processes could commit any more."""
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"))
    outbox.put(Entry("key", "log", "1", 0.0, b"{}"))
    store: Any = outbox.store
    store._connection = Interrupted(store._connection, lambda _, *sql: sql == (statement,))
    with pytest.raises(TimeLimitError):
        outbox.collect()
    elsewhere(outbox.collect)
    with closing(sqlite3.connect(outbox.path, isolation_level=None, timeout=0)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert other.execute("SELECT reference FROM entry").fetchall() == [("1",)]
        other.execute("ROLLBACK")
    outbox.close()


def test_a_transaction_that_cannot_be_rolled_back_is_closed(tmp_path: Path) -> None:
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"))
    outbox.put(Entry("key", "log", "1", 0.0, b"{}"))
    store: Any = outbox.store

    class Failing(Interrupted):
        def execute(self, sql: str, *args: Any) -> Any:
            if sql == "ROLLBACK":
                raise sqlite3.OperationalError("disk I/O error")
            return self._inner.execute(sql, *args)

    store._connection = Failing(store._connection, lambda *_: False)
    with pytest.raises(TimeLimitError), outbox.transaction():
        raise TimeLimitError
    outbox.collect()
    with closing(sqlite3.connect(outbox.path)) as other:
        assert other.execute("SELECT reference FROM entry").fetchall() == [("1",)]
    outbox.close()


def test_the_lock_of_the_process_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"))
    outbox.counts()
    monkeypatch.setattr(Database, "lock", Interrupted(threading.RLock(), lambda name, *_: name == "acquire"))
    with pytest.raises(TimeLimitError):
        outbox.counts()
    elsewhere(outbox.counts)
    outbox.close()


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.setattr(_guard, "strict", False)
    athina = Athina(answer=lambda _, __: Outcome(None, message="ConnectError"))
    made = Worker(Engine(MemoryOutbox(), partial(Senders, lambda: athina, clock=clock), clock=clock), clock=clock)
    yield made
    made.close(1)


def test_a_thread_that_looks_dead_is_not_started_twice(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the handler raises within it, `Thread.is_alive` of Python 3.11 and 3.12 is False from then on."""
    worker.wake()
    worker.flush(0)
    engine, senders = worker._thread.started, worker.engine.senders.alive
    monkeypatch.setattr(threading.Thread, "is_alive", lambda _: False)
    for _ in range(3):
        worker.flush(0)
    assert worker._thread.started is engine
    assert worker.engine.senders.alive >= senders


def test_of_two_threads_that_were_started_one_ends(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler raises while the program's thread waits for the first to be started."""
    start, run, may_run = threading.Thread.start, worker._thread._run, threading.Event()
    started: list[threading.Thread] = []

    def interrupted(thread: threading.Thread) -> None:
        started.append(thread)
        start(thread)
        if len(started) == 1:
            raise TimeoutError

    with monkeypatch.context() as patched:
        patched.setattr(worker._thread, "_run", lambda: may_run.wait() and run())
        patched.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(TimeoutError):
            worker.wake()
        for _ in range(2):  # one thread more, and no third one while neither has begun to run
            worker.flush(0)
    engines = [thread for thread in started if thread.name == "athina-trace-engine"]
    assert len(engines) == 2
    may_run.set()
    while sum(thread.is_alive() for thread in engines) == 2:
        pass
    assert [worker._thread.started] == [thread for thread in engines if thread.is_alive()]


def test_a_flush_that_nobody_waits_for_is_forgotten(worker: Worker) -> None:
    """Otherwise each step would check each of them as long as an outage lasts."""
    worker.engine.outbox.put(Entry("key", "log", "1", 0.0, b"{}"))
    worker.wake()
    for _ in range(3):
        assert not worker.flush(0.01)
    assert not worker.engine.flushes


def test_a_sender_whose_start_was_interrupted_takes_no_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    athina = Athina()
    senders = Senders(lambda: athina, Results(lambda _: None), clock=clock, limit=4)
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def start_and_raise(thread: threading.Thread) -> None:
        started.append(thread)
        start(thread)
        raise TimeLimitError

    senders.submit(Lease("key", 0, [Stored(1, "log", "1", b"{}")]))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start_and_raise)
        with pytest.raises(TimeLimitError):
            senders.start()
    started[0].join(60)
    assert not started[0].is_alive(), "what nobody lists cannot be looked after"
    assert (senders.alive, athina.tries) == (0, [])
    senders.close(1)
