"""A call ends when its result does, whatever its type; what the program gets is indistinguishable from the result."""

from __future__ import annotations

import ast
import asyncio
import collections
import concurrent.futures
import contextlib
import contextvars
import copy
import csv
import functools
import gc
import io
import itertools
import logging
import multiprocessing.pool
import operator
import os
import pickle
import sqlite3
import subprocess
import sys
import tempfile
import threading
import types
import unittest.mock
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from typing import Any

import anyio
import django.http
import flask
import httpx
import numpy as np
import pandas as pd
import pytest
import trio
import wrapt
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import StreamingResponse
from typing_extensions import Self
from werkzeug.local import LocalProxy
from werkzeug.test import Client

from athina_trace import athina_session, athina_trace, configure, current_log, recent_logs, wrap
from athina_trace._clock import clock
from athina_trace.context import current_scope
from athina_trace.testing import captured_logs
from tests.production import apps

Logs = Callable[[], list[dict[str, Any]]]
ANSWER = "On its way."
PIECES = ("On", " its", " way.")


class Words:
    """An iterator, sync and async, that notes which log and session its steps see."""

    note = 0

    def __init__(self) -> None:
        self.left = [*PIECES]
        self.seen: list[Any] = []
        self.closed = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.seen.append((bool(current_log()), current_scope().fields.get("session_id")))
        if not self.left:
            raise StopIteration
        return self.left.pop(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.closed += 1


class AsyncWords:
    def __init__(self) -> None:
        self.left = [*PIECES]

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        await asyncio.sleep(0)
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)

    async def aclose(self) -> None:
        self.left.clear()


WORDS = Words()


class Both(Words, AsyncWords):
    """A stream like those of some clients."""


class Deferred:
    def __await__(self) -> Generator[Any, Any, str]:
        return late().__await__()


class Bare:
    """An awaitable whose steps are no generator."""

    def __await__(self) -> Iterator[None]:
        return iter((None, None))


class GenProxy(wrapt.ObjectProxy[Any]):
    """A wrapper like those of other tools around streams."""


async def late() -> str:
    await asyncio.sleep(0)
    assert current_log()
    return ANSWER


def gen() -> Iterator[str]:
    yield from PIECES


def gen_once() -> Iterator[str]:
    yield ANSWER


async def agen() -> AsyncIterator[str]:
    for piece in PIECES:
        yield piece


async def drain(stream: Any) -> str:
    return "".join([piece async for piece in stream])


SYNC: dict[str, Callable[[], Any]] = {
    "class": Words,
    "both kinds": Both,
    "map": lambda: map(str, Words()),
    "filter": lambda: filter(None, Words()),
    "chain": lambda: itertools.chain(Words()),
    "islice": lambda: itertools.islice(PIECES, 3),
    "list iterator": lambda: iter([*PIECES]),
    "generator": gen,
    "proxied generator": lambda: GenProxy(gen()),
    "proxied iterator": lambda: GenProxy(GenProxy(Words())),
}
ASYNC: dict[str, Callable[[], Any]] = {"class": AsyncWords, "both kinds": Both, "async generator": agen}


@pytest.mark.parametrize("kind", SYNC)
def test_iterators(local: Logs, kind: str) -> None:
    result = athina_trace(lambda question: SYNC[kind]())("q")
    assert local() == []
    assert "".join(result) == ANSWER
    (log,) = local()
    assert (log["response"], log["user_query"], log["custom_attributes"]["chunks"]) == (ANSWER, "q", 3)


@pytest.mark.parametrize("kind", ASYNC)
def test_async_iterators(local: Logs, kind: str) -> None:
    async def run() -> list[str]:
        async def answer(question: str) -> Any:
            return ASYNC[kind]()

        class Later:
            def __await__(self) -> Generator[Any, Any, Any]:
                return answer("q").__await__()

        streams = [
            athina_trace(lambda question: ASYNC[kind]())("q"),
            await athina_trace(answer)("q"),
            await athina_trace(lambda question: answer(question))("q"),  # noqa: PLW0108 - no coroutine function
            await athina_trace(lambda question: Later())("q"),
        ]
        assert local() == []
        return [await drain(stream) for stream in streams]

    assert asyncio.run(run()) == [ANSWER] * 4
    assert [log["response"] for log in local()] == [ANSWER] * 4


def in_executor() -> asyncio.Future[str]:
    """Work of a thread that ends once the loop runs again."""
    loop, awaited = asyncio.get_running_loop(), threading.Event()
    loop.call_soon(awaited.set)
    return loop.run_in_executor(None, lambda: ANSWER if awaited.wait(60) else "")


class Call(Deferred):
    """A gRPC client's result for one answer: it can only be awaited."""

    def add_done_callback(self, callback: Any) -> None:
        raise AssertionError(callback)


AWAITED: dict[str, Callable[[], Any]] = {
    "coroutine": late,
    "task": lambda: asyncio.ensure_future(late()),
    "future": in_executor,
    "gathered": lambda: asyncio.gather(late()),
    "awaitable": Deferred,
    "proxied": lambda: GenProxy(Deferred()),
    "bare": Bare,
    "call": Call,
}


@pytest.mark.parametrize("kind", AWAITED)
def test_awaitables(local: Logs, kind: str) -> None:
    async def run() -> Any:
        result = athina_trace(lambda question: AWAITED[kind]())("q")
        assert local() == []
        return await result

    expected: Any = {"gathered": [ANSWER], "bare": None}.get(kind, ANSWER)

    async def at_once() -> Any:  # the program keeps nothing but what it awaits
        return await athina_trace(lambda question: AWAITED[kind]())("q")

    assert asyncio.run(run()) == expected
    (log,) = local()
    assert asyncio.run(at_once()) == expected
    assert [log["response"] for log in local()] == [log["response"]] * 2
    assert log["response"] == {"gathered": f'["{ANSWER}"]', "bare": ""}.get(kind, ANSWER)


def test_a_future_that_is_read_is_a_stream(local: Logs) -> None:
    """As a gRPC client returns it."""
    kind = type("Answers", (Words,), dict.fromkeys(("add_done_callback", "result", "exception", "done")))
    assert "".join(athina_trace(lambda _: kind())("q")) == ANSWER
    assert [log["response"] for log in local()] == [ANSWER]


class Query(Deferred):
    """A list as ORMs and clients return it: awaitable, and iterable with either kind of loop."""

    def __iter__(self) -> Iterator[str]:
        return gen()

    def __aiter__(self) -> AsyncIterator[str]:
        return agen()


def test_an_awaitable_that_is_read_with_a_loop(local: Logs) -> None:
    query = athina_trace(lambda _: Query())

    async def run() -> list[str]:
        return [await query("q"), "".join(query("q")), "".join([piece async for piece in query("q")])]

    assert asyncio.run(run()) == [ANSWER] * 3
    assert [log["response"] for log in local()] == [ANSWER] * 3
    one = athina_trace(lambda _: Deferred())("q")
    assert not hasattr(type(one), "__iter__")
    assert not hasattr(type(one), "__aiter__")
    del one


class Pool:
    """Awaiting it returns the object itself, which is a context manager."""

    def __await__(self) -> Generator[Any, Any, Pool]:
        yield from asyncio.sleep(0).__await__()
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def send(self, message: str) -> str:
        return message


def test_an_object_that_returns_itself_when_awaited_or_entered(local: Logs) -> None:
    pool = Pool()

    async def run() -> None:
        assert await athina_trace(lambda: pool)() is pool
        made = athina_trace(lambda: pool)()
        async with made as entered:
            assert entered is made
            assert entered.send("a") == "a"

    asyncio.run(run())
    assert [log["response"] for log in local()] == ["<tests.test_results.Pool>"] * 2


def test_a_future_is_returned_unwrapped(local: Logs) -> None:
    async def run() -> None:
        task = asyncio.ensure_future(asyncio.sleep(0, ANSWER))
        assert athina_trace(lambda: task)() is task
        await task
        assert athina_trace(lambda: task)() is task  # which is done by now

    asyncio.run(run())
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert athina_trace(lambda: pool.submit(lambda: ANSWER))().result() == ANSWER
    assert [log["response"] for log in local()] == [ANSWER] * 3


def test_futures_that_fail_or_are_cancelled(local: Logs, caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise LookupError("no")

    async def run() -> None:
        with pytest.raises(LookupError):
            await athina_trace(lambda: asyncio.ensure_future(fail()))()
        task = athina_trace(lambda: asyncio.ensure_future(asyncio.sleep(60)))()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # Never retrieved: asyncio says so, as it would undecorated.
        athina_trace(lambda: asyncio.ensure_future(fail()))()
        await asyncio.sleep(0.01)

    gc.collect()  # what other tests did not retrieve
    with caplog.at_level(logging.ERROR, "asyncio"):
        asyncio.run(run())
        gc.collect()
    first, second, third = local()
    assert first["error"] == third["error"] == "LookupError: no"
    assert second["custom_attributes"]["outcome"] == "cancelled"
    assert ["never retrieved" in record.message for record in caplog.records] == [True]


def test_results_of_a_pool(local: Logs) -> None:
    begin = threading.Event()

    def work(number: int) -> str:
        assert begin.wait(30)
        return "0123"[number]

    with multiprocessing.pool.ThreadPool(1) as pool:
        one = athina_trace(lambda: pool.apply_async(work, (3,)))()
        many = athina_trace(lambda: pool.map_async(work, range(4)))()
        failed = athina_trace(lambda: pool.apply_async(work, (4,)))()
        assert local() == []
        begin.set()
        assert (type(one), one.get(30), many.get(30)) == (multiprocessing.pool.ApplyResult, "3", [*"0123"])
        with pytest.raises(IndexError):
            failed.get(30)
        ready = pool.apply_async(work, (2,))
        ready.wait(30)
        assert athina_trace(lambda: ready)().get() == "2"
        pool.close()
        pool.join()  # its thread may be about to log what was got
    logs = local()
    assert [log["response"] for log in logs] == ["3", '["0","1","2","3"]', "", "2"]
    assert logs[2]["error"] == "IndexError: string index out of range"


def test_a_result_of_a_pool_that_never_comes(local: Logs) -> None:
    with multiprocessing.pool.ThreadPool(1) as pool:
        go_on = threading.Event()
        pool.apply_async(go_on.wait, (30,))
        made: Any = athina_trace(lambda: pool.apply_async(str))()
        made._cache.clear()
        del made
        gc.collect()
        go_on.set()
    assert [log["response"] for log in local()] == ["<multiprocessing.pool.ApplyResult>"]


def test_futures_as_they_are_completed(local: Logs) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        for done in athina_trace(lambda: concurrent.futures.as_completed([pool.submit(str, 1), pool.submit(str, 2)]))():
            assert done.result() in ("1", "2")
        running = athina_trace(lambda: [pool.submit(str, 3), concurrent.futures.Future()])()
        assert running[0].result() == "3"
        athina_trace(lambda: {"done": running[0], "not done": running[1]})()
    logs = local()
    assert sorted(logs[0]["response"]) == ["1", "2"]
    assert logs[2]["response"] == '{"done":"3","not done":"<concurrent.futures._base.Future>"}'


def test_channels_of_anyio_and_trio_also_by_receive(local: Logs) -> None:
    async def by_anyio() -> str:
        send, receive = anyio.create_memory_object_stream[str](3)
        async with send:
            for piece in PIECES:
                send.send_nowait(piece)
            stream = athina_trace(lambda: receive)()
            got = stream.receive_nowait() + await stream.receive()
            with anyio.move_on_after(0):
                await stream.receive()
            got += await stream.receive()
            with pytest.raises(anyio.WouldBlock):
                stream.receive_nowait()
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()
        stream.close()
        return got

    open_channel: Any = trio.open_memory_channel

    async def by_trio() -> str:
        send, receive = open_channel(3)
        async with send:
            for piece in PIECES:
                send.send_nowait(piece)
            stream = athina_trace(lambda: receive)()
        got: str = await stream.receive() + "".join([piece async for piece in stream])
        with pytest.raises(trio.EndOfChannel):
            stream.receive_nowait()
        return got

    assert asyncio.run(by_anyio()) == trio.run(by_trio) == ANSWER
    assert [(log["response"], log["custom_attributes"].get("outcome")) for log in local()] == [(ANSWER, None)] * 2


def test_an_iterator_that_can_be_called(local: Logs) -> None:
    class Callable(Words):
        def __call__(self, number: int) -> int:
            return number

    stream = athina_trace(Callable)()
    assert callable(stream)
    assert stream(7) == 7
    assert not callable(athina_trace(Words)())
    assert isinstance(stream, contextlib.AbstractContextManager)
    assert not isinstance(stream, contextlib.AbstractAsyncContextManager)
    assert not isinstance(athina_trace(lambda: map(str, ()))(), contextlib.AbstractContextManager)


# ---- context managers


def opened(give: Callable[[], Any]) -> Any:
    @contextlib.contextmanager
    def manager() -> Iterator[Any]:
        assert current_log()
        with athina_session("of the manager"):
            yield give()
        assert current_log()

    return manager()


def opened_async(give: Callable[[], Any]) -> Any:
    @contextlib.asynccontextmanager
    async def manager() -> AsyncIterator[Any]:
        assert current_log()
        with athina_session("of the manager"):
            await asyncio.sleep(0)
            yield give()

    return manager()


@pytest.mark.parametrize("give", [gen, Words, lambda: iter(PIECES)])
def test_the_result_of_a_context_manager_ends_the_call(local: Logs, give: Callable[[], Any]) -> None:
    answer = athina_trace(opened)
    with athina_session("outside"):
        with answer(give) as stream:
            assert local() == []
            assert not current_log()
            assert current_scope().fields["session_id"] == "of the manager"
            assert "".join(stream) == ANSWER
        assert current_scope().fields["session_id"] == "outside"
    with contextlib.ExitStack() as stack:
        assert next(stack.enter_context(answer(give))) == "On"
    with pytest.raises(LookupError), answer(give) as stream:
        raise LookupError
    assert not current_scope().fields
    del stream
    with answer(lambda: "text") as value:
        assert value == "text"
        assert len(local()) == 3
    answer(give)
    whole, begun, unbegun, text, unentered = local()
    assert (whole["response"], begun["response"], text["response"]) == (ANSWER, "On", "text")
    assert (whole["session_id"], begun["session_id"]) == ("of the manager",) * 2
    assert (begun["custom_attributes"]["outcome"], unbegun["response"][0]) == ("incomplete", "<")
    assert unentered["response"] == "<contextlib._GeneratorContextManager>"


def test_the_result_of_an_async_context_manager_ends_the_call(local: Logs) -> None:
    async def run() -> None:
        answer = athina_trace(opened_async)
        async with answer(agen) as stream:
            assert local() == []
            assert current_scope().fields["session_id"] == "of the manager"
            assert await drain(stream) == ANSWER
        assert not current_scope().fields
        async with answer(lambda: 5) as number:
            assert number == 5

    asyncio.run(run())
    assert [log["response"] for log in local()] == [ANSWER, "5"]


def test_a_context_manager_that_fails_to_open(local: Logs) -> None:
    def fail() -> None:
        raise LookupError("closed")

    async def run() -> None:
        async with athina_trace(opened_async)(fail):
            pass

    with pytest.raises(LookupError), athina_trace(opened)(fail):
        pass
    with pytest.raises(LookupError):
        asyncio.run(run())
    assert [log["error"] for log in local()] == ["LookupError: closed"] * 2


def test_a_context_manager_as_a_decorator(local: Logs) -> None:
    @athina_trace(contextlib.contextmanager(gen_once))()
    def work() -> int:
        return 2

    assert (work(), work()) == (2, 2)


def test_httpx_streams_that_a_function_opens(local: Logs) -> None:
    class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield from (piece.encode() for piece in PIECES)

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in PIECES:
                yield piece.encode()

    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Body()))

    async def read() -> str:
        async with (
            httpx.AsyncClient(transport=transport) as client,
            athina_trace(client.stream)("GET", "http://athina.test/") as response,
        ):
            return "".join([piece async for piece in response.aiter_text()])

    with (
        httpx.Client(transport=transport) as client,
        athina_trace(client.stream)("GET", "http://athina.test/") as response,
    ):
        assert "".join(response.iter_text()) == asyncio.run(read()) == ANSWER
    assert [log["response"] for log in local()] == [ANSWER] * 2


def test_steps_see_the_calls_log_and_session_and_the_consumer_does_not(local: Logs) -> None:
    words: list[Words] = []

    @athina_session("inside")
    @athina_trace
    def answer(question: str) -> Any:
        words.append(Words())
        return words[-1]

    with athina_session("outside"):
        for _ in answer("q"):
            assert not current_log()
            assert current_scope().fields["session_id"] == "outside"
    assert words[0].seen == [(True, "inside")] * 4
    assert local()[0]["session_id"] == "inside"


def test_an_abandoned_result_is_logged_once_as_incomplete(local: Logs) -> None:
    stream = athina_trace(Words)()
    assert next(stream) == "On"
    del stream
    with athina_trace(Words)() as left:
        assert next(left) == "On"
    closed = athina_trace(Words)()
    next(closed)
    closed.close()
    closed.close()
    assert left.closed == 1
    assert closed.closed == 2
    assert [(log["response"], log["custom_attributes"]["outcome"]) for log in local()] == [("On", "incomplete")] * 3


def test_a_stream_that_was_never_started_is_logged_as_a_result(local: Logs) -> None:
    athina_trace(Words)()
    (log,) = local()
    assert log["response"] == "<tests.test_results.Words>"
    assert "outcome" not in log["custom_attributes"]


def test_generators_from_a_plain_function_that_nobody_started(local: Logs) -> None:
    @types.coroutine  # which changes what it is given
    def waiting() -> Generator[Any, Any, None]:
        yield

    streams = [athina_trace(lambda make=make: make())() for make in (gen, agen, waiting)]
    assert local() == []
    streams.clear()
    gc.collect()
    assert sorted(log["response"] for log in local()) == ["<async_generator>", "<generator>", "<generator>"]


@pytest.mark.parametrize("decorate", [athina_trace, athina_session("thread_1"), wrap])
def test_a_coroutine_from_a_plain_function_that_nobody_awaited(decorate: Callable[[Any], Any], local: Logs) -> None:
    async def ask() -> str:
        return "On its way."

    def leave_it(give: Callable[[], Any]) -> None:
        give()

    def close_it(give: Callable[[], Any]) -> None:
        give().close()

    def throw_into_it(give: Callable[[], Any]) -> None:
        with pytest.raises(KeyError):
            give().throw(KeyError())

    def warned(give: Callable[[], Any], use: Callable[[Any], None]) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            use(give)
            gc.collect()
        return [str(warning.message) for warning in caught]

    ways = leave_it, close_it, throw_into_it
    decorated = decorate(lambda: ask())  # noqa: PLW0108 - a coroutine function itself is decorated as one
    assert [warned(decorated, use) for use in ways] == [warned(ask, use) for use in ways]
    assert [log["response"] for log in local()] == (["<coroutine>"] * 3 if decorate is athina_trace else [])
    kept = ask()
    warned(decorate(lambda: kept), leave_it)
    assert asyncio.run(kept) == "On its way."


def test_streams_that_are_open_at_the_end_of_the_program(tmp_path: Path) -> None:
    outbox = str(tmp_path / "outbox.db")
    script = """
        from athina_trace import athina_trace

        def words():
            yield "On"
            yield " its way."

        begun, unbegun = athina_trace(words)(), athina_trace(lambda: words())()
        proxied = athina_trace(lambda: map(str, "ab"))()
        next(begun)
        """
    environment = {**os.environ, "ATHINA_OUTBOX": outbox}
    ended = subprocess.run([sys.executable, "-c", dedent(script)], env=environment, capture_output=True, check=True)
    assert ended.stderr == b""
    configure(outbox=outbox, api_key=None)
    assert sorted(log["response"] for log in recent_logs(9)) == ["<generator>", "<map>", "On"]


def test_a_stream_that_fails(local: Logs) -> None:
    def pieces() -> Iterator[str]:
        yield "On"
        raise LookupError("broken off")

    stream = athina_trace(lambda: map(str, pieces()))()
    with pytest.raises(LookupError):
        list(stream)
    (log,) = local()
    assert (log["response"], log["error"]) == ("On", "LookupError: broken off")


def test_the_proxy_is_indistinguishable(local: Logs) -> None:
    words = Both()
    stream = athina_trace(lambda: words)()
    assert isinstance(stream, Both)
    assert isinstance(stream, Iterator)
    assert isinstance(stream, AsyncIterator)
    assert not isinstance(stream, Awaitable)
    assert isinstance(athina_trace(lambda: map(str, ()))(), map)
    assert not isinstance(athina_trace(lambda: map(str, ()))(), AsyncIterator)
    assert stream.left is words.left
    stream.note = 1
    assert words.note == 1
    assert (stream == words, hash(stream) == hash(words), repr(stream) == repr(words)) == (True, True, True)
    assert weakref.ref(stream)() is stream
    counted = athina_trace(lambda: iter([1, 2, 3]))()
    assert next(counted) == 1
    assert list(pickle.loads(pickle.dumps(counted))) == [2, 3]  # noqa: S301 - ours
    assert counted.__reduce__()[0] is iter
    assert list(copy.copy(counted)) == list(copy.deepcopy(counted)) == [2, 3]
    with stream as entered:
        assert entered is stream
    assert not hasattr(stream, "send")


@contextlib.contextmanager
def one_block() -> Iterator[None]:
    yield


@contextlib.asynccontextmanager
async def one_async_block() -> AsyncIterator[None]:
    yield


_METHODS = ("__len__", "__getitem__", "__enter__", "__aenter__", "__next__", "__anext__", "__await__", "__call__")


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(
    "make",
    [
        functools.partial(map, str, ()),
        Both,
        one_block,
        one_async_block,
    ],
)
def test_the_proxy_offers_what_the_object_inside_offers(make: Callable[[], Any], times: int, local: Logs) -> None:
    decorated: Any = functools.reduce(lambda function, _: athina_trace(function), range(times), lambda: make())  # noqa: PLW0108 - of a function

    def offers(result: Any) -> list[object]:
        async def enter() -> None:
            async with result:
                pass

        def fails_as_it_should(use: Callable[[], object]) -> bool:
            try:
                use()
            except (AttributeError, TypeError):  # of `with`, before Python 3.11, it is the former
                return True
            return False

        def enter_by_with() -> None:
            with result:
                pass

        kinds = contextlib.AbstractContextManager, contextlib.AbstractAsyncContextManager
        uses = lambda: len(result), lambda: result[0], enter_by_with, lambda: asyncio.run(enter())
        return [
            *(hasattr(result, name) for name in _METHODS),
            *(isinstance(result, kind) for kind in kinds),
            *map(fails_as_it_should, uses),
        ]

    assert offers(decorated()) == offers(make())


def test_the_generator_protocol_through_other_tools_proxies(local: Logs) -> None:
    def asked() -> Generator[str, str, str]:
        got = yield "a"
        try:
            yield got
        except LookupError:
            yield "caught"
        return "returned"

    stream: Any = iter(athina_trace(lambda: GenProxy(asked()))())
    assert (next(stream), stream.send("b"), stream.throw(LookupError())) == ("a", "b", "caught")
    with pytest.raises(StopIteration) as stop:
        next(stream)
    assert stop.value.value == "returned"
    assert local()[0]["response"] == "abcaught"


def test_an_async_stream_that_is_closed(local: Logs) -> None:
    async def run() -> None:
        assert await anext(athina_trace(AsyncWords)()) == "On"
        stream = athina_trace(AsyncWords)()
        assert await anext(stream) == "On"
        await stream.aclose()
        assert stream.left == []

    asyncio.run(run())
    assert [(log["response"], log["custom_attributes"]["outcome"]) for log in local()] == [("On", "incomplete")] * 2


# ---- iterators of any class, whatever is done to them

VARIABLE: contextvars.ContextVar[Any] = contextvars.ContextVar("VARIABLE", default="nothing")


class Poke(BaseException):
    """An exception that no code catches."""


EVENTS = st.sampled_from(["a", "b", 1, None, LookupError, StopIteration, StopAsyncIteration, Poke])
OPERATIONS = st.sampled_from(["next", "iter", "for", "close", "hint", "elsewhere", "set", "attribute", "in"])


class Tape:
    """An iterator, sync and async, that gives or raises what is on it, and goes on after that as generators do not."""

    def __init__(self, events: list[Any], *, waits: bool) -> None:
        self.events, self.waits = [*events], waits
        self.log: list[Any] = []

    def __iter__(self) -> Self:
        self.log.append(("iter", VARIABLE.get()))
        return self

    __aiter__ = __iter__

    def __next__(self) -> Any:
        self.log.append(VARIABLE.get())
        VARIABLE.set(len(self.events))
        event = self.events.pop(0) if self.events else StopIteration
        if isinstance(event, type):
            raise event
        return event

    async def __anext__(self) -> Any:
        if self.waits:
            await asyncio.sleep(0)
        try:
            return next(self)
        except StopIteration:
            raise StopAsyncIteration from None

    def __length_hint__(self) -> int:
        return len(self.events)

    def close(self) -> str:
        self.log.append("close")
        return "closed"


async def operate(tape: Any, operations: list[str]) -> list[Any]:
    seen: list[Any] = []
    for number, operation in enumerate(operations):
        try:
            if operation == "next":
                seen.append(await anext(tape))
            elif operation == "for":
                seen.extend([each async for each in tape])
            elif operation == "elsewhere":
                seen.append(await asyncio.ensure_future(anext(tape)))
            else:
                seen.append(operated(tape, operation, number))
        except BaseException as error:  # noqa: BLE001 - they are the result
            seen.append(repr(error))
        seen.append((VARIABLE.get(), bool(current_log()), current_scope().fields.get("session_id")))
    return [*seen, tape.log]


def operated(tape: Any, operation: str, number: int) -> Any:
    if operation == "set":
        VARIABLE.set(f"consumer {number}")
    if operation == "attribute":
        tape.extra = number
    simple: dict[str, Callable[[], Any]] = {
        "next": lambda: next(tape),
        "iter": lambda: iter(tape) is tape,
        "for": lambda: [*tape],
        "close": tape.close,
        "hint": lambda: (operator.length_hint(tape), bool(tape), isinstance(tape, Tape)),
        "elsewhere": lambda: contextvars.copy_context().run(next, tape),
        "attribute": lambda: vars(tape).keys(),
        "in": lambda: "b" in tape,
    }
    return simple[operation]() if operation in simple else None


def operate_sync(tape: Any, operations: list[str]) -> list[Any]:
    seen: list[Any] = []
    for number, operation in enumerate(operations):
        try:
            seen.append(operated(tape, operation, number))
        except BaseException as error:  # noqa: BLE001 - they are the result
            seen.append(repr(error))
        seen.append((VARIABLE.get(), bool(current_log()), current_scope().fields.get("session_id")))
    return [*seen, tape.log]


@given(events=st.lists(EVENTS, max_size=6), operations=st.lists(OPERATIONS, max_size=8), waits=st.booleans())
def test_iterators_behave_as_undecorated(events: list[Any], operations: list[str], waits: bool) -> None:
    def make() -> Tape:
        return Tape(events, waits=waits)

    async def played(decorate: Callable[[Any], Any]) -> list[Any]:
        return await operate(decorate(make)(), [each for each in operations if each != "iter"])

    for decorate in (athina_trace, athina_session("s")):
        sync = [contextvars.copy_context().run(operate_sync, made, operations) for made in (decorate(make)(), make())]
        assert sync[0] == sync[1]
        assert asyncio.run(played(decorate)) == asyncio.run(played(lambda function: function))


@given(events=st.lists(EVENTS, min_size=1, max_size=6), asynchronous=st.booleans())
def test_iterators_are_logged_once(events: list[Any], asynchronous: bool) -> None:
    operations = ["next"] * (len(events) + 2)
    with captured_logs() as logs:
        tape = athina_trace(lambda: Tape(events, waits=True))()
        if asynchronous:
            asyncio.run(operate(tape, operations))
        else:
            operate_sync(tape, operations)
        del tape
    (log,) = logs
    given = [*itertools.takewhile(lambda event: not isinstance(event, type), events)]
    assert log.response == "".join(str(each) for each in given if each is not None)


# ---- what is a result as it is


class Repeated:
    def __iter__(self) -> Iterator[str]:
        return iter(PIECES)


def cursor() -> Any:
    return sqlite3.connect(":memory:", check_same_thread=False).execute("select 1")


class AsyncCursor(AsyncWords):
    """As drivers of databases call theirs."""


def sent_file() -> Any:
    with flask.Flask("app").test_request_context():
        return flask.send_file(__file__)


RESULTS: dict[str, Callable[[], Any]] = {
    "list": lambda: [*PIECES],
    "dict": lambda: dict.fromkeys(PIECES),
    "tuple": lambda: PIECES,
    "set": lambda: {*PIECES},
    "range": lambda: range(3),
    "bytes": lambda: b"bytes",
    "deque": lambda: collections.deque(PIECES),
    "iterable": Repeated,
    "no iterator": type("NoIterator", (Words,), {"__next__": None, "__anext__": None}),
    "file": lambda: io.StringIO(ANSWER),
    "temporary file": lambda: tempfile.SpooledTemporaryFile(mode="w+"),  # noqa: SIM115 - closed by the test
    "array": lambda: np.zeros(3),
    "frame": lambda: pd.DataFrame({"a": [1]}),
    "series": lambda: pd.Series([1]),
    "cursor": cursor,
    "async cursor": AsyncCursor,
    "response": lambda: flask.Response(ANSWER),
    "django response": lambda: django.http.HttpResponse(ANSWER),
    "mock": unittest.mock.MagicMock,
    "weak proxy": lambda: weakref.proxy(WORDS),
    "local proxy": lambda: LocalProxy(lambda: WORDS),
    "rows": type("Rows", (Words,), {"fetchmany": None}),
    "reference of Ray": type("ObjectRef", (Bare,), {"__module__": "ray._raylet"}),
    "file of Flask": sent_file,
    "proxied text": lambda: GenProxy(ANSWER),
    "proxied list": lambda: GenProxy([ANSWER]),
}


@pytest.fixture(scope="module", autouse=True)
def _django() -> None:
    apps.django_app()  # there is one configuration for a process


@pytest.mark.parametrize("kind", RESULTS)
def test_complete_results_end_the_call_at_once_and_are_returned_unchanged(local: Logs, kind: str) -> None:
    result = RESULTS[kind]()
    got = athina_trace(lambda: result)()
    assert got is result
    assert len(local()) == 1
    if isinstance(close := getattr(type(result), "close", None), types.FunctionType | types.MethodDescriptorType):
        close(result)
    if kind == "cursor":
        result.connection.close()


def test_a_csv_reader_is_a_stream(local: Logs) -> None:
    assert list(athina_trace(lambda: csv.reader(["a,b"]))()) == [["a", "b"]]
    assert local()[0]["response"] == '["a","b"]'


class Weird(type):
    def __hash__(cls) -> int:
        raise TypeError("no")


class Unhashable(metaclass=Weird):
    """Cannot be looked up in any table."""


def test_classes_that_refuse_to_be_looked_up(local: Logs) -> None:
    for result in (Unhashable(), (Unhashable(), 1)):
        assert athina_trace(lambda result=result: result)() is result
    assert len(local()) == 2


class Mute:
    """Answers no question, not even that for its class."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


def test_no_attribute_is_read(local: Logs) -> None:
    asked: list[str] = []

    class Asked:
        __slots__ = ()

        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            raise AttributeError(name)

    result = Asked()
    assert athina_trace(lambda _: result)(result) is result
    assert next(athina_trace(lambda: iter([result]))()) is result
    assert asked == []


def test_objects_on_which_every_lookup_fails(local: Logs) -> None:
    mute = Mute()
    assert athina_trace(lambda: mute)() is mute
    assert next(athina_trace(lambda: (each for each in [mute]))()) is mute
    assert athina_trace(lambda _: "")(mute) == ""
    athina_trace(lambda: (mute, mute))()
    assert len(local()) == 4


def test_objects_of_classes_that_answer_for_their_dictionary_or_their_equality(local: Logs) -> None:
    def refuse(*_: object) -> Any:
        raise RuntimeError("out of context")

    unequal = type("Unequal", (type,), {"__eq__": refuse, "__hash__": type.__hash__})
    for kind in (type("Lying", (), {"__dict__": property(refuse)}), unequal("Kind", (), {})):
        one = kind()
        assert athina_trace(lambda query, one=one: one)(one) is one
    assert [log["user_query"].rpartition(".")[2] for log in local()] == ["Lying>", "Kind>"]


# ---- responses


def test_starlettes_streaming_response_also_of_fastapi(local: Logs) -> None:
    app = FastAPI()

    @app.get("/")
    @athina_trace
    async def chat(question: str) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            for piece in PIECES:
                await asyncio.sleep(0)
                current_log().update(total_tokens=9)
                yield piece

        return StreamingResponse(body())

    @app.get("/sync")
    @athina_trace
    def sync(question: str) -> StreamingResponse:
        assert current_log()
        return StreamingResponse(gen(), status_code=201)

    client = TestClient(app)
    assert client.get("/?question=q").text == ANSWER
    assert client.get("/sync?question=q").status_code == 201
    assert [(log["response"], log.get("total_tokens")) for log in local()] == [(ANSWER, 9), (ANSWER, None)]


def test_flasks_and_djangos_streaming_responses(local: Logs) -> None:
    app = flask.Flask("app")

    @app.get("/")
    @athina_trace
    def chat() -> flask.Response:
        return flask.Response(gen())

    @app.get("/context")
    @athina_trace
    def with_context() -> flask.Response:
        def body() -> Iterator[str]:
            current_log().update(total_tokens=len(flask.request.path))
            yield from PIECES

        return flask.Response(flask.stream_with_context(body()))

    client = Client(app)
    assert client.get("/").text == ANSWER
    assert client.get("/context").text == ANSWER
    made = athina_trace(lambda: django.http.StreamingHttpResponse(gen()))()
    assert b"".join(made) == ANSWER.encode()

    async def read() -> bytes:
        made = athina_trace(lambda: django.http.StreamingHttpResponse(agen()))()
        return b"".join([piece async for piece in made])

    assert asyncio.run(read()) == ANSWER.encode()
    assert [log["response"] for log in local()] == [ANSWER] * 4
    assert local()[1]["total_tokens"] == len("/context")


def response_class(name: str, **attributes: Any) -> Any:
    """An object as a framework's that is not installed here: known by the name of its class."""
    module, _, qualname = name.rpartition(".")
    response = type(qualname, (), {"__module__": module})()
    vars(response).update(attributes)
    return response


@pytest.mark.parametrize("subclass", [False, True])
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("quart.wrappers.response.Response", ("response", "iter")),
        ("litestar.response.streaming.Stream", ("iterator",)),
        ("litestar.response.sse.ServerSentEvent", ("iterator", "content_async_iterator")),
        ("aiohttp.web_response.Response", ("_body", "_iter")),
        ("bottle.BaseResponse", ("body",)),
    ],
)
def test_streaming_responses_of_other_frameworks(local: Logs, name: str, path: tuple[str, ...], subclass: bool) -> None:
    *outer, attribute = path
    holder: Any = types.SimpleNamespace(**{attribute: gen()})
    response = response_class(name, **({outer[0]: holder} if outer else vars(holder)))
    if subclass:
        response.__class__ = type("Mine", (type(response),), {})
    got = athina_trace(lambda: response)()
    assert got is response
    assert local() == []
    body: Any = getattr(holder if outer else response, attribute)
    assert list(body) == [*PIECES]
    assert [log["response"] for log in local()] == [ANSWER]


def test_a_response_whose_stream_is_created_on_demand(local: Logs) -> None:
    seen: list[bool] = []

    def body() -> Iterator[str]:
        seen.append(bool(current_log()))
        yield from PIECES

    def fail() -> Iterator[str]:
        raise LookupError("no body")

    def litestar(iterator: Any) -> Any:
        response = response_class("litestar.response.streaming.Stream", iterator=iterator)
        assert athina_trace(lambda: response)() is response
        return response.iterator

    make = litestar(body)
    assert local() == []
    assert ("".join(make()), "".join(make())) == (ANSWER, ANSWER)
    make = litestar(functools.partial(agen))
    assert asyncio.run(drain(make())) == ANSWER
    assert litestar(lambda: [ANSWER])() == [ANSWER]
    with pytest.raises(LookupError):
        litestar(fail)()
    litestar(body)
    gc.collect()
    responses = [log["response"] for log in local()]
    assert responses == [ANSWER, ANSWER, f'["{ANSWER}"]', "", "<litestar.response.streaming.Stream>"]
    assert local()[3]["error"] == "LookupError: no body"
    assert seen == [True, False]


def test_a_streamed_run_of_the_agents_sdk(local: Logs) -> None:
    class Run:
        __module__, __qualname__ = "agents.result", "RunResultStreaming"
        final_output = None

        async def stream_events(self) -> AsyncIterator[Any]:
            calls = [{"type": "function_call", "id": "f", "call_id": "c", "name": "find", "arguments": "{}"}]
            said = [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": ANSWER}]}]
            usage = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
            yield {"type": "agent_updated_stream_event"}
            for own, output in (("r1", calls), ("r2", said)):
                response = {"id": own, "object": "response", "model": "m", "usage": usage, "output": output}
                yield {"type": "raw_response_event", "data": {"type": "response.completed", "response": response}}
                yield {"type": "run_item_stream_event", "name": "any"}

    async def read() -> int:
        return len([event async for event in run.stream_events()])

    run = Run()
    assert athina_trace(lambda: run)() is run
    assert local() == []
    assert asyncio.run(read()) == 5
    (log,) = local()
    assert (log["response"], log["total_tokens"]) == (ANSWER, 14)
    assert [call["function"]["name"] for call in log["tool_calls"]] == ["find"]


@pytest.mark.parametrize("read", ["texts", "events", "whole", "part", "nothing"])
def test_anthropics_helper_however_it_is_read(local: Logs, read: str) -> None:
    deltas = [{"type": "content_block_delta", "index": 0, "delta": {"text": piece}} for piece in PIECES]

    class MessageStream:
        __module__, __qualname__ = "anthropic.lib.streaming._messages", "MessageStream"

        def __init__(self) -> None:
            self.text_stream = (event["delta"]["text"] for event in self if "delta" in event)
            self._iterator = iter([*deltas, {"type": "message_stop"}])

        def __iter__(self) -> Iterator[Any]:
            yield from self._iterator

        def until_done(self) -> None:
            assert len([*self]) == len(PIECES) + 1

    class MessageStreamManager:
        def __enter__(self) -> MessageStream:
            return MessageStream()

        def __exit__(self, *_: object) -> None: ...

    with athina_trace(MessageStreamManager)() as stream:
        assert type(stream) is MessageStream
        if read == "texts":
            assert "".join(stream.text_stream) == ANSWER
        elif read == "events":
            assert [*stream][:-1] == deltas
        elif read == "whole":
            stream.until_done()
        elif read == "part":
            assert next(stream.text_stream) == PIECES[0]
    (log,) = local()
    ends = {"part": (PIECES[0], "incomplete"), "nothing": ("<anthropic.lib.streaming._messages.MessageStream>", None)}
    assert (log["response"], log["custom_attributes"].get("outcome")) == ends.get(read, (ANSWER, None))


def test_a_streamed_response_of_requests(local: Logs) -> None:
    class Response:
        __module__, __qualname__ = "requests.models", "Response"

        def __init__(self) -> None:
            self._content: Any = False

        def iter_content(self, size: int = 1) -> Iterator[bytes]:
            return (piece.encode() for piece in PIECES)

        @property
        def content(self) -> bytes:
            self._content = self._content or b"".join(self.iter_content(9))
            return self._content  # type: ignore[no-any-return]

    streamed, read = Response(), Response()
    assert read.content.decode() == ANSWER
    assert athina_trace(lambda: read)() is read
    assert athina_trace(lambda: streamed)() is streamed
    assert len(local()) == 1
    assert streamed.content.decode() == ANSWER
    assert [log["response"] for log in local()] == [ANSWER] * 2


def test_a_streamed_response_of_httpx(local: Logs) -> None:
    class Body(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield from (piece.encode() for piece in PIECES)

    class AsyncBody(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in PIECES:
                yield piece.encode()

    @athina_trace
    def ask(client: httpx.Client, *, stream: bool) -> httpx.Response:
        return client.send(client.build_request("GET", "http://athina.test/"), stream=stream)

    @athina_trace
    async def ask_async(client: httpx.AsyncClient) -> httpx.Response:
        return await client.send(client.build_request("GET", "http://athina.test/"), stream=True)

    async def read() -> str:
        async with httpx.AsyncClient(
            transport=httpx.MockTransport(lambda _: httpx.Response(200, stream=AsyncBody()))
        ) as client:
            response = await ask_async(client)
            return "".join([piece async for piece in response.aiter_text()])

    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, stream=Body()))) as client:
        response = ask(client, stream=True)
        assert local() == []
        assert "".join(response.iter_text()) == ANSWER
        assert ask(client, stream=True).read() == ask(client, stream=False).content == ANSWER.encode()
    assert asyncio.run(read()) == ANSWER
    assert [log["response"] for log in local()] == [ANSWER] * 4


def test_a_stream_beside_its_metadata(local: Logs) -> None:
    app, headers = flask.Flask("app"), {"x-model": "gpt"}

    @app.get("/")
    @athina_trace
    def chat() -> Any:
        return gen(), 201, headers

    @app.get("/response")
    @athina_trace
    def response() -> Any:
        return flask.Response(gen()), 201

    client = Client(app)
    for path in ("/", "/response"):
        answer = client.get(path)
        assert (answer.status_code, answer.text) == (201, ANSWER)

    sources, stream = athina_trace(lambda: (["a"], Words()))()
    assert (sources, isinstance(stream, Words), "".join(stream)) == (["a"], True, ANSWER)

    async def read() -> str:
        stream, status = athina_trace(lambda: (agen(), 200))()
        return "".join([piece async for piece in stream]) + str(status)

    assert asyncio.run(read()) == f"{ANSWER}200"
    assert [log["response"] for log in local()] == [ANSWER] * 4


def test_a_stream_in_a_dictionary(local: Logs) -> None:
    result = {"sources": ["a"], "answer": gen(), "status": 200}
    assert athina_trace(lambda: result)() is result
    assert local() == []
    assert "".join(result["answer"]) == ANSWER  # type: ignore[arg-type]
    assert {**result, "answer": 0} == {"sources": ["a"], "answer": 0, "status": 200}
    assert [log["response"] for log in local()] == [ANSWER]


@pytest.mark.parametrize(
    "give", [lambda *streams: streams, lambda a, b: {"a": a, "n": 3, "b": b}], ids=["tuple", "dictionary"]
)
def test_several_streams_beside_one_another(local: Logs, give: Callable[[Any, Any], Any]) -> None:
    @athina_trace
    def answer(question: str) -> Any:
        return give(gen(), Words())

    def both() -> tuple[Any, Any]:
        streams = answer("q")
        return streams if isinstance(streams, tuple) else (streams["a"], streams["b"])

    first, second = both()
    assert [*zip(first, second, strict=False)] == [*zip(PIECES, PIECES, strict=False)]
    assert local() == []
    assert [*first, *second] == []
    both()
    gc.collect()
    first, second = both()
    next(first)
    del first
    list(second)
    gc.collect()
    whole, unread, abandoned = local()
    assert (whole["response"], whole["user_query"], whole["custom_attributes"]["chunks"]) == (ANSWER * 2, "q", 6)
    assert unread["response"] in ("<generator>", "<tests.test_results.Words>")
    assert (abandoned["response"], abandoned["custom_attributes"]["outcome"]) == (PIECES[0] + ANSWER, "incomplete")


def test_of_several_streams_the_first_chunk_of_any_is_the_first(local: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1
    monkeypatch.setattr(clock, "perf_ns", lambda: now * 10**9)
    first, second = athina_trace(lambda: (gen(), gen()))()
    now = 2
    next(second)
    now = 9
    next(first)
    assert "".join([*second, *first]) == "".join([*PIECES[1:], *PIECES[1:]])
    (log,) = local()
    assert log["custom_attributes"]["time_to_first_chunk_ms"] == 1000


@pytest.mark.parametrize("order", [*itertools.permutations(["fails", "fails later", "is closed", "ends"], 3)])
def test_a_call_fails_if_one_of_its_streams_does(local: Logs, order: tuple[str, ...]) -> None:
    def some(how: str) -> Generator[str, None, None]:
        yield how
        if how.startswith("fails"):
            raise ValueError(how)

    for stream in athina_trace(lambda: {how: some(how) for how in order})().values():
        for piece in stream:
            if piece == "is closed":
                stream.close()
                break
            with suppress(ValueError, StopIteration):
                next(stream)
    failed = next((f"ValueError: {how}" for how in order if how.startswith("fails")), None)
    (log,) = local()
    assert log.get("error") == failed
    assert (log["custom_attributes"].get("outcome") == "incomplete") is (failed is None and "is closed" in order)


def test_a_stream_that_is_returned_again_and_again_stays_one_step_away(local: Logs) -> None:
    class Body(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield ANSWER.encode()

    state: dict[str, Any] = {"number": itertools.count(), "name": "a"}
    unread = httpx.Response(200, stream=Body())
    count, response = athina_trace(lambda: state), athina_trace(lambda: unread)
    assert [next(count()["number"]) for _ in range(1500)] == [*range(1500)]
    for _ in range(1500):
        assert response() is unread
    assert unread.read() == ANSWER.encode()
    # What one function gave another one may pass on, and both calls end with it.
    passed_on = athina_trace(functools.partial(athina_trace(lambda: {"answer": gen(), "status": "200"})))()
    assert "".join(passed_on["answer"]) == ANSWER
    assert [log["response"] for log in local()[-2:]] == [ANSWER] * 2
    state.clear()
    gc.collect()  # what was not read ends here, and in no other test


def test_greenlets(local: Logs) -> None:
    """In a process of its own, since gevent has one loop for each thread."""
    script = """
import gevent, gevent.event
from athina_trace import athina_trace, configure, recent_logs
configure(outbox=":memory:")
answer, promised = (lambda: (gevent.sleep(), "On its way.")[1]), gevent.event.AsyncResult()
given = [athina_trace(lambda: gevent.spawn(each))() for each in (answer, lambda: int('x'), lambda: gevent.sleep(60))]
given.append(athina_trace(lambda: promised)())
assert recent_logs() == [] and given[-1] is promised
gevent.sleep()
given[2].kill()
promised.set("Promised.")
gevent.wait(given)
while len(recent_logs()) < 4:
    gevent.sleep(0.001)
athina_trace(lambda: given[0])()
for log in recent_logs():
    print([log["response"], log.get("error"), log["custom_attributes"].get("outcome")])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    logged = [*map(ast.literal_eval, done.stdout.splitlines())]
    failed = "ValueError: invalid literal for int() with base 10: 'x'"
    expected = [["", failed, None], ["", None, "cancelled"], [ANSWER, None, None], ["Promised.", None, None]]
    assert sorted(logged[:4], key=str) == sorted(expected, key=str)
    assert logged[4] == [ANSWER, None, None]


def test_tuples_that_are_returned_unchanged(local: Logs) -> None:
    loop = asyncio.new_event_loop()
    try:
        # Which of two copies would be the answer? And a future is no stream: it may be anybody's.
        copies, future = itertools.tee(gen()), loop.create_future()
        for result in (copies, (1, 2), (future, 1), (gen(), *range(8)), (flask.Response("a"), 1)):
            assert athina_trace(lambda result=result: result)() is result
    finally:
        loop.close()
    assert len(local()) == 5


def test_a_streaming_response_whose_body_is_not_read(local: Logs) -> None:
    response = athina_trace(lambda: StreamingResponse(gen()))()
    del response
    gc.collect()
    (log,) = local()
    assert log["response"] == "<starlette.responses.StreamingResponse>"


# ---- what the chunks were


def answered(chunks: Callable[[], Iterator[Any]]) -> str:
    with captured_logs() as logs:
        list(athina_trace(chunks)())
    return logs[0].response


def test_chunks_are_read_when_they_are_yielded() -> None:
    def deltas() -> Iterator[Any]:
        event = {}
        for event["delta"] in PIECES:
            yield event

    assert answered(deltas) == '{"delta":"On"}{"delta":" its"}{"delta":" way."}'


def test_the_same_piece_in_the_same_object_counts_each_time() -> None:
    def deltas() -> Iterator[Any]:
        event = {"delta": "na"}
        yield event
        yield event

    assert answered(deltas) == '{"delta":"na"}{"delta":"na"}'


@pytest.mark.parametrize("again", [1, 3])
def test_a_history_that_is_yielded_again_and_again_is_logged_in_its_last_state(again: int) -> None:
    def gradio() -> Iterator[Any]:
        history = [{"role": "assistant", "content": "", "metadata": None}]
        for piece in PIECES[:again]:
            history[-1]["content"] += piece  # type: ignore[operator]
            yield history
        yield history

    content = "".join(PIECES[:again])
    assert answered(gradio) == f'[{{"role":"assistant","content":"{content}","metadata":null}}]'


def test_new_histories_count_once_too() -> None:
    def gradio() -> Iterator[Any]:
        for end in range(4):
            yield [{"role": "user", "content": "q"}, {"role": "assistant", "content": ANSWER[: end * 4]}]

    assert answered(gradio) == f'[{{"role":"user","content":"q"}},{{"role":"assistant","content":"{ANSWER}"}}]'


@given(st.lists(st.sampled_from(["a", "1", " ", "na", "ab", "e", "longer"]), min_size=1, max_size=6))
def test_pieces_and_states_are_distinguished(pieces: list[str]) -> None:
    states = ["".join(pieces[:end]) for end in range(1, len(pieces) + 1)]
    if len(pieces) > 2:
        assert answered(lambda: iter(states)) == states[-1]
    if not all(after.startswith(before) for before, after in itertools.pairwise(pieces)):
        assert answered(lambda: iter(pieces)) == states[-1]


@pytest.mark.parametrize("pieces", [["na", "na", "na"], ["", "1", "10"], ["ha", "haha"], ["", "", ""]])
def test_pieces_that_look_like_states(pieces: list[str]) -> None:
    assert answered(lambda: iter(pieces)) == "".join(pieces)


def test_a_long_cumulative_stream_is_logged_whole() -> None:
    words = "word " * 1000

    def states() -> Iterator[str]:
        for end in range(5, len(words) + 1, 5):
            yield words[:end]

    assert answered(states) == words


def test_bytes_split_within_a_character() -> None:
    data = "Größe 5 €".encode()
    assert answered(lambda: (data[at : at + 3] for at in range(0, len(data), 3))) == "Größe 5 €"
    assert answered(lambda: iter([b"\xff\xd8\xff", bytearray(b"\x00" * 9)])) == "<12 bytes of image/jpeg>"
    assert answered(lambda: iter(["text ", data[:4], "!"])) == "text Grö!"
    with captured_logs() as logs:
        athina_trace(lambda: data)()
    assert logs[0].response == "Größe 5 €"


# ---- at the end of the loop


@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.parametrize("decorate", [athina_trace, athina_session("s")])
def test_async_generators_that_are_suspended_when_their_loop_ends(
    local: Logs, caplog: pytest.LogCaptureFixture, decorate: Any, awaits: bool
) -> None:
    finished = 0

    @decorate  # type: ignore[untyped-decorator]
    async def stream(question: str) -> AsyncIterator[str]:
        nonlocal finished
        try:
            yield "a"
            yield "b"
        finally:
            if awaits:
                await asyncio.sleep(0)
            finished += 1

    async def main(kept: list[Any]) -> None:
        for number in range(40):
            kept.append(stream(str(number)))
            await anext(kept[-1])

    kept: list[Any] = []
    with caplog.at_level(logging.WARNING, "asyncio"):
        asyncio.run(main(kept))
    assert finished == 40
    assert caplog.records == []
    if decorate is athina_trace:
        outcomes = [(log["custom_attributes"].get("outcome"), log.get("error")) for log in local()]
        assert outcomes == [("incomplete", None)] * 40
