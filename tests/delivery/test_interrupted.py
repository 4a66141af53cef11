"""The program runs on top of our code, in a signal handler or a finalizer: it raises there, as a time limit does, or it
calls what it may call anywhere.
"""

from __future__ import annotations

import inspect
import random
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from athina_trace import _guard, _runtime
from athina_trace._clock import clock
from athina_trace._delivery.database import Database, version_of
from athina_trace._delivery.delivery import Delivery
from athina_trace._delivery.engine import Engine
from athina_trace._delivery.entry import Entry, Lease, Stored
from athina_trace._delivery.outbox import MemoryOutbox, OnDemand
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.results import Results
from athina_trace._delivery.senders import Senders
from athina_trace._delivery.sqlite_outbox import SqliteOutbox
from athina_trace._delivery.worker import Worker
from athina_trace._pipeline.hooks import TimeLimited
from tests.delivery.test_engine import Athina, Stepped


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


def seen_by_another_process(path: str) -> list[tuple[str]]:
    """Return the references in the store, read in a transaction that another process could begin at once."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
        other.execute("BEGIN IMMEDIATE")
        found = other.execute("SELECT reference FROM entry").fetchall()
        other.execute("ROLLBACK")
    return found


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
    assert seen_by_another_process(outbox.path) == [("1",)]
    outbox.close()


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk I/O error"), TimeLimitError()])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("failing", [("COMMIT",), ("ROLLBACK",), ("COMMIT", "ROLLBACK"), ("ROLLBACK", "close")])
def test_a_transaction_that_cannot_be_ended_locks_nobody_out(
    failing: tuple[str, ...], when: str, error: Exception, tmp_path: Path
) -> None:
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"))
    outbox.put(Entry("key", "log", "1", 0.0, b"{}"))
    store: Any = outbox.store
    left = list(failing)

    class Failing(Interrupted):
        def _run(self, what: str, work: Callable[[], object]) -> object:
            done = None if what in left and when == "before" and what != "close" else work()
            if what in left:
                left.remove(what)
                raise error
            return done

        def execute(self, sql: str, *args: Any) -> Any:
            return self._run(sql, lambda: self._inner.execute(sql, *args))

        def close(self) -> None:
            self._run("close", self._inner.close)

    store._connection = Failing(store._connection, lambda *_: False)
    with suppress(TimeLimitError, sqlite3.OperationalError, ZeroDivisionError), outbox.transaction():
        outbox.collect()
        if "COMMIT" not in failing:
            raise ZeroDivisionError
    assert len(left) < len(failing)
    left.clear()
    elsewhere(outbox.collect)
    assert seen_by_another_process(outbox.path) == [("1",)]
    assert (outbox.counts().made, outbox.counts().waiting) == (1, 1)
    outbox.close()


def test_a_transaction_that_cannot_be_rolled_back_is_closed_at_once(tmp_path: Path) -> None:
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"))
    store: Any = outbox.store

    class Failing(Interrupted):
        def execute(self, sql: str, *args: Any) -> Any:
            if sql == "ROLLBACK":
                raise sqlite3.OperationalError("disk I/O error")
            return self._inner.execute(sql, *args)

    store._connection = Failing(store._connection, lambda *_: False)
    with pytest.raises(ZeroDivisionError), outbox.transaction():
        raise ZeroDivisionError
    assert seen_by_another_process(outbox.path) == []
    outbox.close()


@pytest.mark.parametrize("ask", ["counts", "version"])
def test_the_lock_of_the_process_is_given_back(ask: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"))
    outbox.counts()
    monkeypatch.setattr(Database, "lock", Interrupted(threading.RLock(), lambda name, *_: name == "acquire"))
    with pytest.raises(TimeLimitError):
        outbox.counts() if ask == "counts" else version_of(tmp_path / "another.db")
    elsewhere(outbox.counts)
    outbox.close()


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_the_lock_of_the_runtime_is_given_back(nth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is acquired to make one, to import what that needs, and to log the calls made meanwhile."""
    acquired = count(1)
    lock = Interrupted(threading.RLock(), lambda name, *_: name == "acquire" and next(acquired) == nth)
    monkeypatch.setattr(_runtime, "_once", lock)
    with pytest.raises(TimeLimitError):
        _runtime.active()
    taken = list[bool]()
    elsewhere(lambda: taken.append(lock.acquire(timeout=60)))
    assert taken == [True]


def _make_nothing() -> None:
    with _runtime._making():
        pass


@pytest.mark.parametrize("work", [_make_nothing, _runtime._catch_up])
def test_the_lock_of_the_runtime_is_given_back_before_each_function(
    work: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler may come at the start of any function, also of one that gives the lock back."""
    _runtime.configure(outbox=":memory:")  # without a runtime, nothing is caught up on
    nth, is_done, before, taken = 0, False, sys.gettrace(), list[bool]()
    while not is_done:
        nth = remaining = nth + 1
        monkeypatch.setattr(_runtime, "_once", threading.RLock())
        monkeypatch.setattr(_runtime, "_afterwards", [int])

        def trace(frame: FrameType, event: str, _argument: object) -> None:
            nonlocal remaining
            # Before Python 3.11, an exception of a tracer skips a generator's handlers, unlike one of a signal handler.
            remaining -= event == "call" and not frame.f_code.co_flags & inspect.CO_GENERATOR
            if not remaining:
                sys.settrace(None)
                raise TimeLimitError

        try:
            sys.settrace(trace)
            work()
            is_done = True
        except TimeLimitError:
            pass
        finally:
            sys.settrace(before)
        elsewhere(lambda: taken.append(_runtime._once.acquire(timeout=0)))
        assert (taken, _runtime._maker) == ([True] * nth, None)
    assert nth > 2


def test_what_is_opened_on_top_of_being_opened_is_the_only_one() -> None:
    numbers, closed = count(1), list[int]()

    def open_() -> int:
        number = next(numbers)
        if number < 3:
            resource.get()
        return number

    resource = OnDemand(open_, closed.append)
    assert (resource.get(), resource.opened, sorted(closed)) == (3, 3, [1, 2])
    assert (resource.take(), resource.take()) == (3, None)


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
            handler(sys._getframe())

    def handler(_frame: FrameType) -> None:
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


@pytest.mark.parametrize("place", ["memory", "disk"])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_asked_on_top_of_a_step_takes_nothing_in_twice(place: str, seed: int, tmp_path: Path) -> None:
    outbox = MemoryOutbox() if place == "memory" else SqliteOutbox(str(tmp_path / "outbox.db"))
    stepped = Stepped(Athina(), outbox=outbox)
    asking = Delivery(outbox, lambda _: Worker(stepped.engine, clock=clock), max_bytes=1e6, seconds=clock.monotonic)
    chance = random.Random(seed)

    def trace(frame: Any, event: str, _: object) -> Any:
        if "_delivery" in frame.f_code.co_filename and event == "line" and chance.random() < 0.02:
            asking.snapshot()
            asking.newest(10)
        return trace

    names = [str(number) for number in range(30)]
    for name in names:
        stepped.put(f"key {int(name) % 3}", name)
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            stepped.engine.step(stepped.clock.now)
        finally:
            sys.settrace(before)
    stepped.settle()
    assert sorted(stepped.athina.tries, key=int) == names
    assert (outbox.counts().made, outbox.counts().delivered) == (30, 30)
    stepped.engine.finish(1)


@pytest.mark.parametrize("ask", [Worker.flush, Worker.close, Worker.join])
def test_what_would_wait_for_the_engine_returns_in_its_own_thread(
    ask: Callable[..., object], worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()
    step = worker.engine.step

    def step_and_ask(now: float) -> float:
        if not asked.is_set():
            ask(worker, threading.TIMEOUT_MAX / 4)
            asked.set()
        return step(now)

    monkeypatch.setattr(worker.engine, "step", step_and_ask)
    worker.engine.outbox.put(Entry("key", "log", "1", 0.0, b"{}"))
    worker.wake()
    assert asked.wait(60)
    assert worker.stuck is None


def test_a_hook_is_called_on_top_of_another_call_of_it() -> None:
    limited = TimeLimited(lambda argument: argument, 60.0)
    inner, results = limited._lock, list[object]()

    class Interrupted:
        """The program is interrupted as soon as it has the lock, and logs."""

        def __enter__(self) -> None:
            inner.acquire()
            if not results:
                results.append("began")
                results.append(limited("on top"))

        def __exit__(self, *_: object) -> None:
            inner.release()

    limited._lock = Interrupted()  # type: ignore[assignment]
    elsewhere(lambda: results.append(limited("below")))
    assert results == ["began", "on top", "below"]
