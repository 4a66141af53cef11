"""The types of the public names. Checked by mypy and pyright, never run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import Any

from typing_extensions import assert_type

import athina_trace as at
from athina_trace.testing import CapturedLogs, captured_logs
from athina_trace.web import ASGIApp, ASGIMiddleware, Request, WSGIApp, WSGIMiddleware

# -- the decorator preserves types


@at.athina_trace
def bare(question: str, *, limit: int = 3) -> list[str]:
    return [question] * limit


@at.athina_trace(prompt_slug="a/v1", inputs={"user_query": "question"}, capture_response=False, sample_rate=0.5)
async def later(question: str) -> int:
    return len(question)


@at.athina_trace
def items() -> Iterator[bytes]:
    yield b""


@at.athina_trace()
async def items_later() -> AsyncIterator[float]:
    yield 1.0


class Desk:
    @at.athina_trace
    def answer(self, question: str) -> str:
        return question

    @classmethod
    @at.athina_trace
    def default(cls) -> Desk:
        return cls()

    @staticmethod
    @at.athina_trace
    def count() -> int:
        return 1


def decorated() -> None:
    assert_type(bare("q", limit=1), list[str])
    assert_type(items(), Iterator[bytes])
    assert_type(items_later(), AsyncIterator[float])
    assert_type(Desk.default().answer("q"), str)
    assert_type(Desk.count(), int)
    bare(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    bare("q", limits=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    at.athina_trace(promt_slug="x")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


async def awaited() -> None:
    assert_type(await later("q"), int)
    async with at.athina_trace(user_query="q") as log:
        assert_type(log, at.LogDraft)
        log.update(response="a", prompt_tokens=3)
        log.update(respons="a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


# -- scopes preserve types, too


@at.athina_session("thread_1", customer_id=7)
def in_session(number: int) -> str:
    return str(number)


@at.athina_private()
async def in_private(number: int) -> str:
    return str(number)


async def scopes() -> None:
    assert_type(in_session(1), str)
    assert_type(await in_private(1), str)
    with at.athina_session() as session:
        assert_type(session, at.athina_session)
    async with at.athina_private() as private:
        assert_type(private, at.athina_private)
    in_session("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# -- carrying the context


def carried(headers: dict[str, str]) -> None:
    assert_type(at.wrap(in_session)(1), str)
    with at.ContextThreadPoolExecutor(max_workers=1) as pool:
        assert_type(pool.submit(in_session, 1), Future[str])
        assert_type(pool.submit(in_session, 1).result(), str)
        assert_type(list(pool.map(in_session, [1, 2])), list[str])
        pool.submit(in_session, "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(at.inject(headers), dict[str, str])
    with at.extract(headers):
        pass


# -- after the call


def afterwards() -> None:
    assert_type(at.log_inference(response="a", tools=[1]), str)
    at.update_log(external_reference_id="r", response="b")
    at.update_log(prompt_run_id="r", expected_response="b")
    at.log_feedback("r", 1, "good")
    at.log_feedback("r", 2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    at.update_log(external_reference_id="r", respons="b")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(at.flush(), at.FlushReport)
    assert_type(asyncio.run(at.aflush()), at.FlushReport)
    assert_type(at.status(), at.Status)
    assert_type(at.configure(environment="test"), at.Settings)


# -- middleware


def identify(request: Request) -> dict[str, object]:
    return {"customer_id": request.headers["x"]}


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    return []


def middleware() -> None:
    asgi_app = ASGIMiddleware(asgi, identify=identify)
    wsgi_app = WSGIMiddleware(wsgi, headers={"x": "customer_id"}, trusted=["10.0.0.0/8"])
    around: tuple[ASGIApp, WSGIApp] = (asgi_app, wsgi_app)
    ASGIMiddleware(around[0])
    WSGIMiddleware(around[1])
    assert_type(asgi_app, ASGIMiddleware)
    assert_type(wsgi_app, WSGIMiddleware)
    ASGIMiddleware(asgi, identify=identify, header={})  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


# -- tests


def captured(athina_logs: CapturedLogs) -> None:
    with captured_logs(sample_rate=1.0) as logs:
        assert_type(logs, CapturedLogs)
    assert_type(athina_logs[0], at.InferenceLog)
    assert_type(athina_logs.assert_one(response="a"), at.InferenceLog)
    assert_type(athina_logs.wire, list[dict[str, Any]])
