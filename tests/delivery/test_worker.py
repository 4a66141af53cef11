"""The engine's thread lives through whatever goes wrong in it, and nobody who waits is forgotten."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from athina_trace import _guard
from athina_trace._clock import clock
from athina_trace._delivery import worker as worker_module
from athina_trace._delivery.engine import Engine
from athina_trace._delivery.entry import Entry
from athina_trace._delivery.outbox import MemoryOutbox
from athina_trace._delivery.worker import Worker
from tests.delivery.test_engine import Athina, Stepped


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.setattr(_guard, "strict", False)
    monkeypatch.setattr(worker_module, "_FAULT_SECONDS", 0.01)
    athina = Athina()
    made = Worker(Engine(MemoryOutbox(), lambda: athina, clock=clock), clock=clock)
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
    "place", ["_event.wait", "_linger", "_event.clear", "_step", "engine.step", "engine.senders.tend"]
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
    assert worker.flush(10)
    put(worker, "2")
    report = worker.flush(10)
    assert (report.delivered, report.waiting) == (1, 0)
    assert _guard.faults == 1


def test_an_error_at_the_end_lets_go_of_the_outbox_and_of_who_waits(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(worker, "1")
    assert worker.flush(10)
    closed = threading.Event()
    monkeypatch.setattr(worker.engine.outbox, "close", closed.set)
    monkeypatch.setattr(worker.engine, "_commit", broken)
    ended = threading.Event()
    monkeypatch.setattr(worker.engine, "end_flushes", ended.set)
    assert worker.close(0)
    assert closed.is_set()
    assert ended.is_set()
    assert "ending deliveries" in caplog.text


def test_what_fails_once_a_step_is_committed_costs_no_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_guard, "strict", False)
    stepped = Stepped(Athina())
    asked: list[str] = []

    def settled(*args: Any) -> None:
        asked.append(args[1].reference)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(stepped.engine, "_on_result", settled)
    stepped.put("one", "1", "2")
    stepped.put("two", "3")
    stepped.settle()
    counts = stepped.outbox.counts()
    assert (counts.made, counts.delivered, counts.waiting) == (3, 3, 0)
    assert sorted(asked) == ["1", "2", "3"]
    stepped.engine.finish(5)
