"""Clients against a server with a script, and the instrumentation undone after each test."""

from __future__ import annotations

import asyncio
import importlib
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from openai import VERSION, AsyncOpenAI, OpenAI, OpenAIError

from athina_trace import instrument_openai, uninstrument_openai
from athina_trace.integrations.openai.request_record import memory
from athina_trace.integrations.openai.standalone_logs import standalone_logs

from .scripts import AsyncScript, Script
from .server import Server

_TRANSPORT = importlib.import_module("httpx2" if VERSION.startswith("3.") else "httpx")
ERRORS: tuple[type[Exception], ...] = (OpenAIError, _TRANSPORT.TransportError, RuntimeError)
"""Exceptions that leave the client: its own, its transport's, and that of a helper for a stream that broke off."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # OpenAI has shut down its Assistants API; Azure and compatible servers still have it.
        warnings.filterwarnings("ignore", "(The Assistants API is )?deprecated", DeprecationWarning)
        yield


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    uninstrument_openai()
    standalone_logs.reset()
    memory.reset()


@pytest.fixture
def instrumented(local: Any) -> Any:
    """Instrument every client; calling the fixture returns the logs."""
    instrument_openai()
    return local


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        yield made


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as made:
        yield made


def play(script: Script, server: Server, client: OpenAI) -> list[Any]:
    """Run a script; return what it yielded, and last the client's exception that ended it."""
    seen: list[Any] = []
    try:
        seen.extend(script(server, client))
    except ERRORS as error:
        seen.append(error)
    return seen


def play_async(script: AsyncScript, server: Server, made: Callable[..., Any] = AsyncOpenAI) -> list[Any]:
    """`play` on its own async client."""

    async def main() -> list[Any]:
        async with made(base_url=server.base_url, api_key="any", max_retries=0) as client:
            return await _collected(script(server, client))

    return asyncio.run(main())


async def _collected(given: AsyncIterator[Any]) -> list[Any]:
    seen: list[Any] = []
    try:
        async for each in given:
            seen.append(each)  # noqa: PERF401 - what came before an exception counts
    except ERRORS as error:
        seen.append(error)
    return seen
