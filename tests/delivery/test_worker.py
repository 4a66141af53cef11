"""The engine's thread survives any error, and no waiting caller is forgotten."""

from __future__ import annotations

import inspect
import logging
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from types import FrameType
from typing import Any

import pytest

from athina_trace import _guard
from athina_trace._clock import clock
from athina_trace._delivery import worker as worker_module
from athina_trace._delivery.delivery import Delivery
from athina_trace._delivery.engine import Engine
from athina_trace._delivery.entry import Entry
from athina_trace._delivery.flush import Flush
from athina_trace._delivery.outbox import MemoryOutbox
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.senders import Senders
from athina_trace._delivery.worker import Worker, _EngineThread
from tests.delivery.test_engine import TAKEN, Athina, Stepped
from tests.support.waiting import until


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.setattr(_guard, "strict", False)
    monkeypatch.setattr(worker_module, "_FAULT_SECONDS", 0.01)
    athina = Athina()
    made = Worker(Engine(MemoryOutbox(), partial(Senders, lambda: athina, clock=clock), clock=clock), clock=clock)
    yield made
    made.close(1)


def put(worker: Worker, name: str) -> None:
    worker.engine.outbox.put(Entry("lane", "log", name, 0.0, b"{}"))
    worker.wake()


def broken(*_: object) -> None:
    raise ValueError("broken")


def failing_once(function: Callable[..., Any], error: BaseException) -> Callable[..., Any]:
    errors = [error]

    def fails(*args: Any, **kwargs: Any) -> Any:
        if errors:
            raise errors.pop()
        return function(*args, **kwargs)

    return fails


@pytest.mark.parametrize("error", [ValueError("broken"), MemoryError(), SystemExit(1)])
@pytest.mark.parametrize(
    "place", ["_event.wait", "_linger", "_event.clear", "_step", "engine.step", "engine.senders.supervise"]
)
def test_the_thread_outlives_an_error_in_any_of_its_steps(
    place: str, error: BaseException, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    *path, name = place.split(".")
    owner: Any = worker
    for part in path:
        owner = getattr(owner, part)
    monkeypatch.setattr(owner, name, failing_once(getattr(owner, name), error))
    put(worker, "1")
    assert worker.flush(60)
    put(worker, "2")
    assert worker.flush(60)
    assert worker.engine.outbox.counts().delivered == 2
    assert _guard.faults == 1


def test_a_thread_that_dies_nevertheless_is_replaced_with_the_next_log(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with monkeypatch.context() as patched:
        patched.setattr(worker, "_step", broken)
        patched.setattr(_guard, "swallow", broken)
        put(worker, "1")
        thread = worker._thread.started
        assert thread is not None
        thread.join(60)
        assert not thread.is_alive()
    put(worker, "2")
    assert worker.flush(60).waiting == 0


class Tripwire:
    """Raises at the start of one line of the engine's thread, like an exception that the program injects there."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_met = False

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code not in (Worker._step_until_closed.__code__, _EngineThread._run.__code__):
            return None
        if event == "line" and frame.f_lineno == self.number and not self.is_met:
            self.is_met = True
            raise SystemExit
        return self


def lines_of(*functions: Callable[..., None]) -> Iterator[int]:
    """Return the lines at which Python checks for exceptions: not those after `finally:`, nor the leaving of `with`."""
    for function in functions:
        source, first = inspect.getsourcelines(function)
        for before, line, number in zip(source, source[1:], count(first + 1), strict=False):
            if "ending deliveries" in line:
                break
            if "with " not in line and "finally:" not in (before.strip(), line.strip()):
                yield number


@pytest.mark.parametrize("number", list(lines_of(Worker._step_until_closed, _EngineThread._run)))
def test_deliveries_outlive_an_exception_that_is_injected_in_any_line(
    number: int, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    wire, before, goal = Tripwire(number), threading.gettrace(), 0
    threading.settrace(wire)
    try:
        for name in count():
            put(worker, str(name))  # without a flush, which would start a thread
            delivered = worker.engine.outbox.counts().delivered
            if not goal and (wire.is_met or name > 30):
                goal = delivered + 2
            elif goal and delivered >= goal:
                break
            time.sleep(0.001)
    finally:
        threading.settrace(before)


def test_a_thread_that_dies_while_it_is_woken_is_replaced(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    put(worker, "1")
    assert worker.flush(60)
    wake = worker._event.wake

    def die_and_wake() -> None:
        thread = worker._thread.started
        assert thread is not None
        worker._event.wake_now()
        thread.join(60)
        wake()

    with monkeypatch.context() as patched:
        patched.setattr(worker, "_step", broken)
        patched.setattr(_guard, "swallow", broken)
        patched.setattr(worker._event, "wake", die_and_wake)
        until(lambda: not worker._thread.is_woken)
        put(worker, "2")

    def is_delivering() -> bool:
        put(worker, "more")
        return worker.engine.outbox.counts().delivered > 2

    until(is_delivering)


@pytest.mark.parametrize("method", ["start", "run"])
def test_a_thread_that_did_not_come_to_run_is_tried_again_by_later_logs(
    method: str, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system has none left for now, or what a tool put before every thread's work raises.

    Another thread's log, which comes while it is being started, does not keep the later ones from trying again.
    """
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    error = RuntimeError("can't start new thread") if method == "start" else ValueError("broken")
    failed: list[str] = []
    original = getattr(threading.Thread, method)

    def fails(thread: threading.Thread) -> None:
        if thread.name.startswith("athina-trace") and len(failed) < 2:
            failed.append(thread.name)
            raise error
        original(thread)

    monkeypatch.setattr(threading.Thread, method, fails)
    put(worker, "0")
    assert failed
    assert worker.engine.waiting is None

    def is_delivering() -> bool:
        put(worker, "more")
        return worker.engine.outbox.counts().delivered > 0

    until(is_delivering)
    assert worker.flush(60)


def test_a_log_that_comes_while_the_thread_fails_to_start_does_not_keep_later_ones_from_trying_again(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, failed = threading.Thread.start, threading.Event()

    def fails(thread: threading.Thread) -> None:
        if thread.name == "athina-trace-engine" and not failed.is_set():
            failed.set()
            other = threading.Thread(target=put, args=(worker, "meanwhile"))
            start(other)
            other.join(60)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fails)

    def is_delivering() -> bool:
        put(worker, "more")
        return worker.engine.outbox.counts().delivered > 0

    until(is_delivering)


@pytest.mark.parametrize("place", ["Thread", "_start_sender", "wake"])
def test_a_log_whose_wake_up_fails_is_delivered_once_and_wakes_nobody_else_in_vain(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_guard, "strict", False)
    athina = Athina()
    delivery = Delivery(
        MemoryOutbox(),
        lambda outbox: Worker(Engine(outbox, partial(Senders, lambda: athina, clock=clock), clock=clock), clock=clock),
        max_bytes=1e6,
        seconds=clock.monotonic,
    )
    owners: dict[str, Any] = {
        "Thread": threading,
        "_start_sender": delivery.worker._thread,
        "wake": delivery.worker._event,
    }
    monkeypatch.setattr(owners[place], place, failing_once(getattr(owners[place], place), MemoryError()))
    delivery.put(Entry("lane", "log", "1", 0.0, b"{}"))
    assert _guard.faults == 1

    def is_delivering() -> bool:
        delivery.put(Entry("lane", "log", "more", 0.0, b"{}"))
        return delivery.outbox.counts().delivered > 0

    until(is_delivering)
    assert delivery.flush(60)
    assert athina.tries.count("1") == 1
    assert delivery.memory_only == "the outbox is `:memory:`"
    delivery.close(60)


def test_an_error_at_the_end_lets_go_of_the_outbox_and_of_who_waits(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(worker, "1")
    assert worker.flush(60)
    closed = threading.Event()
    monkeypatch.setattr(worker.engine.outbox, "close", closed.set)
    monkeypatch.setattr(worker.engine._acknowledger, "commit", broken)
    ended = threading.Event()
    monkeypatch.setattr(worker.engine.flushes, "end_all", ended.set)
    worker.close(0)
    worker.join(60)
    assert closed.is_set()
    assert ended.is_set()
    assert "ending deliveries" in caplog.text


def test_no_thread_is_started_while_the_interpreter_ends(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Python 3.12, starting one waits forever: an object may log something when it is finalized."""
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    put(worker, "late")
    assert worker._thread.started is None
    monkeypatch.undo()
    put(worker, "later")
    assert worker.flush(60)


def test_an_error_after_the_commit_of_a_step_costs_no_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_guard, "strict", False)
    stepped = Stepped(Athina())
    asked: list[str] = []

    def settled(*args: Any) -> None:
        asked.append(args[1].reference)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(stepped.engine._acknowledger, "_on_result", settled)
    stepped.put("one", "1", "2")
    stepped.put("two", "3")
    stepped.settle()
    counts = stepped.outbox.counts()
    assert (counts.made, counts.delivered, counts.waiting) == (3, 3, 0)
    assert sorted(asked) == ["1", "2", "3"]
    stepped.engine.finish(5)


@pytest.mark.parametrize(("words", "level"), [("refused", logging.WARNING), ("later", logging.INFO)])
def test_an_address_that_never_answers_is_a_warning_at_once(
    words: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    athina = Athina()
    stepped = Stepped(athina)
    if words == "later":  # it was reached before
        stepped.put("first", "first")
        stepped.settle()
    athina.answer = lambda *_: Outcome(None, message=words)
    stepped.put("one", "1")
    stepped.wait(0.5)
    assert {record.levelno for record in caplog.records if words in record.getMessage()} >= {level}
    assert ("check ATHINA_BASE_URL" in caplog.text) == (level == logging.WARNING)
    assert stepped.engine.last_error == f"no answer: {words}"
    stepped.engine.finish(5)


@pytest.mark.parametrize("are_others_taken", [False, True])
def test_a_server_that_rejects_the_only_session_is_a_warning_within_seconds(
    are_others_taken: bool, caplog: pytest.LogCaptureFixture
) -> None:
    athina = Athina()
    athina.answer = lambda reference, _: Outcome(503, message="down") if reference == "1" else TAKEN
    stepped = Stepped(athina)
    stepped.put("one", "1")
    if are_others_taken:
        stepped.put("other", "2")
    stepped.wait(20)
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [("503: down" in record.getMessage()) for record in warned] == [True] * (not are_others_taken)
    stepped.engine.finish(5)


def test_a_log_that_fails_forever_is_refused_once_others_are_accepted(caplog: pytest.LogCaptureFixture) -> None:
    athina = Athina()
    stepped = Stepped(athina, max_attempts=20)
    athina.answer = lambda reference, _: Outcome(500, message="boom" if reference == "poison" else "")
    stepped.put("bad", "poison", "behind it")
    stepped.wait(3600)
    assert athina.tries.count("poison") > 20
    assert stepped.outbox.counts().refused == 0  # it may be an outage
    athina.answer = lambda reference, _: Outcome(500, message="boom") if reference == "poison" else Outcome(200)
    stepped.put("good", "good")
    stepped.wait(120)
    counts = stepped.outbox.counts()
    assert (counts.delivered, counts.refused, counts.waiting) == (2, 1, 0)
    assert "boom (it failed" in caplog.text
    assert athina.tries[-1] == "behind it"
    stepped.engine.finish(5)


def test_a_flush_is_true_only_if_everything_was_delivered(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = Outcome(400, message="no")
    monkeypatch.setattr(Athina, "deliver", lambda *args: refused if args[2] == "bad" else Outcome(200))
    for name in ("good", "bad"):
        put(worker, name)
    report = worker.flush(60)
    assert (report.waiting, report.refused, report.undelivered) == (0, 1, 1)
    assert worker.engine.outbox.counts().delivered == 1  # which may have been so before the flush began
    assert not report
    put(worker, "better")
    assert worker.flush(60)


def test_a_flush_is_not_true_if_the_journal_cannot_be_read() -> None:
    outbox, flush = MemoryOutbox(), Flush()
    flush.begin(outbox)
    outbox.is_behind = True
    assert not flush.is_done(outbox, idle=True)
    assert flush.report(None, waiting=0, undelivered=0).waiting == 1


def test_a_flush_without_a_step_reports_what_waits(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    put(worker, "1")
    assert worker.flush(60)

    def locked(_: float) -> float:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(worker.engine, "step", locked)
    for number in range(7):
        put(worker, str(number))
    report = worker.flush(0.1)
    assert (report.delivered, report.waiting) == (0, 7)
