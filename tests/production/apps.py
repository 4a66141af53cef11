"""One assistant behind each of the web frameworks, and a client that acts as a hundred concurrent customers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any
from urllib.parse import quote, urlsplit

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi.responses import StreamingResponse
from flask import Flask
from flask import request as flask_request
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from athina_trace import athina_trace, set_customer, set_session
from athina_trace.web import ASGIApp, ASGIMiddleware, Request, WSGIApp, WSGIMiddleware

CUSTOMERS = 100


@athina_trace
def answer(question: str) -> str:
    time.sleep(0.002)  # as long as a model takes, so that requests overlap
    return f"answer to {question}"


@athina_trace
async def answer_later(question: str) -> str:
    await asyncio.sleep(0.01)
    return f"answer to {question}"


@athina_trace
async def stream(question: str) -> AsyncIterator[str]:
    for word in ("answer ", "to ", question):
        await asyncio.sleep(0.001)
        yield word


def identify(request: Request) -> dict[str, object]:
    return {"customer_id": request.headers["x-customer"], "session_id": request.headers.get("x-session")}


def asgi(app: Any) -> ASGIApp:
    return ASGIMiddleware(app, identify=identify)


def wsgi(app: Any) -> WSGIApp:
    return WSGIMiddleware(app, identify=identify)


def starlette_app() -> ASGIApp:

    async def ask(request: StarletteRequest) -> PlainTextResponse:
        return PlainTextResponse(await answer_later(request.query_params["q"]))

    async def streamed(request: StarletteRequest) -> StreamingResponse:
        return StreamingResponse(stream(request.query_params["q"]))

    async def events(request: StarletteRequest) -> StreamingResponse:
        async def each() -> AsyncIterator[str]:
            yield f"data: {await answer_later(request.query_params['q'])}\n\n"

        return StreamingResponse(each(), media_type="text/event-stream")

    async def later(request: StarletteRequest) -> PlainTextResponse:
        task = BackgroundTask(answer_later, request.query_params["q"])
        return PlainTextResponse("soon", background=task)

    async def broken(request: StarletteRequest) -> PlainTextResponse:
        await answer_later(request.query_params["q"])
        raise RuntimeError("the handler's own")

    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        for _ in range(2):
            await socket.send_text(await answer_later(await socket.receive_text()))
        await socket.close()

    async def named(request: StarletteRequest) -> PlainTextResponse:
        set_customer(f"named {request.headers['x-customer']}")
        return PlainTextResponse(await answer_later(request.query_params["q"]))

    routes = [
        *(Route(f"/{each.__name__}", each) for each in (ask, streamed, events, later, broken, named)),
        WebSocketRoute("/talk", talk),
    ]
    return asgi(Starlette(routes=routes))


def fastapi_app() -> Any:

    app = FastAPI()
    app.add_middleware(ASGIMiddleware, identify=identify)

    @app.get("/ask")
    def ask(q: str) -> str:  # FastAPI runs it in a thread
        return answer(q)

    @app.get("/streamed")
    async def streamed(q: str) -> StreamingResponse:
        return StreamingResponse(stream(q))

    @app.get("/later")
    def later(q: str, tasks: BackgroundTasks) -> str:
        tasks.add_task(answer, q)
        return "soon"

    return app


def naming_app() -> Any:
    """Take session and customer from the question only. FastAPI runs `def` in threads, with copies of the context."""
    app = FastAPI()
    app.add_middleware(ASGIMiddleware)

    def known_customer(q: str) -> None:
        set_customer(f"customer {q.rsplit(maxsplit=1)[-1]}")

    @app.get("/ask", dependencies=[Depends(known_customer)])
    async def ask(q: str) -> str:
        set_session(f"session {q.rsplit(maxsplit=1)[-1]}")
        return await answer_later(q)

    @app.get("/streamed", dependencies=[Depends(known_customer)])
    def streamed(q: str) -> StreamingResponse:
        set_session(f"session {q.rsplit(maxsplit=1)[-1]}")
        return StreamingResponse(answer(each) for each in [q])

    @app.get("/later", dependencies=[Depends(known_customer)])
    def later(q: str, tasks: BackgroundTasks) -> str:
        tasks.add_task(answer, q)
        set_session(f"session {q.rsplit(maxsplit=1)[-1]}")
        return "soon"

    return app


def flask_app() -> WSGIApp:

    app = Flask("shop")

    @app.get("/ask")
    def ask() -> str:
        return answer(flask_request.args["q"])

    @app.get("/streamed")
    def streamed() -> Any:
        question = flask_request.args["q"]

        def words() -> Iterator[str]:
            yield "first "
            yield answer(question)

        return app.response_class(words())

    @app.get("/named")
    def named() -> str:
        set_customer(f"named {flask_request.headers['x-customer']}")
        return answer(flask_request.args["q"])

    return wsgi(app)


def django_app() -> WSGIApp:

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF="tests.production.django_urls", SECRET_KEY="of a test")
        django.setup(set_prefix=False)
    return wsgi(WSGIHandler())


async def _get(address: tuple[str, int], path: str, question: str, number: int) -> bytes:
    """Return the status line of a response once all of it has arrived."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(
        f"GET {path}?q={quote(question)} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n"
        f"X-Customer: customer {number}\r\nX-Session: session {number}\r\n\r\n".encode()
    )
    answered = await reader.read(-1)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return answered.partition(b"\r\n")[0]


async def _hundred(url: str, path: str) -> list[bytes]:
    parts = urlsplit(url)
    address = (str(parts.hostname), int(parts.port or 80))

    async def talk(number: int) -> list[bytes]:
        return [await _get(address, path, f"question {turn} of {number}", number) for turn in range(2)]

    return list(chain.from_iterable(await asyncio.gather(*map(talk, range(CUSTOMERS)))))


def ask_as_a_hundred(url: str, path: str) -> None:
    """Ask two questions as each of a hundred concurrent customers."""
    assert set(asyncio.run(_hundred(url, path))) == {b"HTTP/1.1 200 OK"}
