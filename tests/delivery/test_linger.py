"""While calls are being made, deliveries wait, and check less and less often whether the calls have paused."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from athina_trace._clock import clock
from athina_trace._delivery.engine import Engine
from athina_trace._delivery.outbox import MemoryOutbox
from athina_trace._delivery.senders import NoSenders
from athina_trace._delivery.worker import Worker

Lingered = Callable[..., list[float]]


@pytest.fixture
def lingered(monkeypatch: pytest.MonkeyPatch) -> Lingered:
    """Return the naps of a wait while calls continue for `seconds`; `hurry`: the nap that is interrupted."""

    def linger(seconds: float, *, hurry: int = 0, rate: float = 100.0, behind: bool = False) -> list[float]:
        worker = Worker(Engine(MemoryOutbox(), lambda _: NoSenders("no key"), clock=clock), clock=clock)
        worker.engine.outbox.is_behind = behind
        naps: list[float] = []

        def sleep(nap: float) -> bool:
            naps.append(nap)
            worker._puts += round(rate * nap) if sum(naps) <= seconds else 0
            return len(naps) == hurry

        now: Any = SimpleNamespace(monotonic=lambda: sum(naps), sleep=time.sleep)
        monkeypatch.setattr("athina_trace._delivery.worker.time", now)
        monkeypatch.setattr(worker._event, "wait", sleep)
        worker._linger(0.02)
        return [round(nap, 3) for nap in naps]

    return linger


def test_a_single_call_is_served_after_one_short_nap(lingered: Lingered) -> None:
    assert lingered(0.0) == [0.02]


def test_continuing_calls_are_checked_less_and_less_often_for_half_a_second(lingered: Lingered) -> None:
    assert lingered(60.0) == [0.02, 0.04, 0.08, 0.1, 0.1, 0.1, 0.1]


def test_results_of_deliveries_do_not_count_as_calls() -> None:
    worker = Worker(Engine(MemoryOutbox(), lambda _: NoSenders("no key"), clock=clock), clock=clock)
    worker._thread.is_woken = True
    worker.engine.results.wake_event.wake()
    assert worker._puts == 0
    worker.wake()
    assert worker._puts == 1


def test_an_engine_that_is_behind_waits_for_no_pause(lingered: Lingered) -> None:
    assert lingered(60.0, rate=900.0, behind=True) == [0.02]


def test_a_pause_is_noticed_by_the_next_check(lingered: Lingered) -> None:
    assert lingered(0.05) == [0.02, 0.04]
    assert lingered(0.07) == [0.02, 0.04, 0.08]


def test_a_flush_ends_the_wait(lingered: Lingered) -> None:
    assert lingered(60.0, hurry=3) == [0.02, 0.04, 0.08]
