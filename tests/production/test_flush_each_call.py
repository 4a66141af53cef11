"""`flush_each_call`: for functions as a service, which are frozen as soon as they have answered."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest

import athina_trace as at
from tests.support.athina_server import AthinaServer, Exchange, accept


@at.athina_trace
def inner(question: str) -> str:
    return question


@at.athina_trace
def outer(question: str) -> str:
    inner(question)
    inner(question)
    return question


@at.athina_trace
async def later(question: str) -> str:
    return inner(question)


@at.athina_trace
async def stream(question: str) -> AsyncIterator[str]:
    yield question


@pytest.fixture
def frozen(athina: AthinaServer) -> AthinaServer:
    at.configure(api_key="key", base_url=athina.url, flush_each_call=True, flush_timeout=60)
    return athina


def test_when_the_outermost_call_ends_everything_is_delivered(frozen: AthinaServer) -> None:
    for number in range(3):
        outer("q")
        assert len(frozen.accepted) == 3 * (number + 1)


def test_failed_calls_and_log_inference_flush_too(frozen: AthinaServer) -> None:
    @at.athina_trace
    def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        fail()
    at.log_inference(response="a")
    with at.athina_trace(user_query="q"):
        pass
    assert len(frozen.accepted) == 3


def test_a_flush_does_not_block_the_event_loop(frozen: AthinaServer) -> None:
    arrived, turned, in_time = threading.Event(), threading.Event(), []

    def answer_once_the_loop_has_turned(exchange: Exchange) -> None:
        arrived.set()
        in_time.append(turned.wait(50))  # a call waits for up to a minute
        accept(exchange)

    frozen.when(lambda _: True, answer_once_the_loop_has_turned)

    async def ask() -> str:
        task = asyncio.create_task(later("q"))
        while not task.done():
            await asyncio.sleep(0.005)
            if arrived.is_set():
                turned.set()
        return await task

    assert asyncio.run(ask()) == "q"
    assert in_time == [True, True]
    assert len(frozen.accepted) == 2


def test_streams_and_async_blocks_flush_when_they_end(frozen: AthinaServer) -> None:
    async def run() -> None:
        assert [item async for item in stream("q")] == ["q"]
        assert len(frozen.accepted) == 1
        async with at.athina_trace(user_query="q"):
            pass
        assert len(frozen.accepted) == 2

    asyncio.run(run())


def test_a_cancelled_call_is_still_logged(frozen: AthinaServer) -> None:
    cancelled = threading.Event()
    frozen.when(lambda _: True, lambda exchange: accept(exchange) if cancelled.wait(60) else None)

    async def run() -> None:
        with pytest.raises(TimeoutError if hasattr(asyncio, "timeout") else asyncio.TimeoutError):
            await asyncio.wait_for(later("q"), 0.01)
        cancelled.set()

    asyncio.run(run())
    at.flush(60)
    assert len(frozen.accepted) == 2


def test_if_athina_is_down_a_flush_takes_its_timeout_at_most() -> None:
    at.configure(api_key="key", base_url="http://127.0.0.1:9", flush_each_call=True, flush_timeout=0.2)
    took = []
    for _ in range(3):
        began = time.monotonic()
        assert outer("q") == "q"
        took.append(time.monotonic() - began)
    assert min(took) < 4.5  # the default is five seconds
    assert at.status().waiting == 9


def test_the_environment_can_enable_flush_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHINA_FLUSH_EACH_CALL", "1")
    assert at.Settings.build().flush_each_call
