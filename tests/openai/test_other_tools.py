"""Other tools patch the same client, before or after us: each answer is logged once, and their patches stay."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
import wrapt
from openai import AsyncOpenAI, BadRequestError, OpenAI

import athina_trace
from athina_trace import instrument_openai, uninstrument_openai

from .samples import chat
from .scripts import ASK, RAIN, RAIN_CHUNKS
from .server import Events, Failure, Server

NOWHERE = "http://127.0.0.1:9/v1"
"""Where no server listens."""

Logs = Callable[[], list[dict[str, Any]]]


def ask(client: Any, **more: Any) -> Any:
    return client.chat.completions.create(model="gpt-4o", messages=ASK, **more)


class TheirStream:
    """Another tool's stream around the client's."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[Any]:
        yield from self.stream


def around(call: Any, _client: Any, args: Any, kwargs: Any) -> Any:
    answer = call(*args, **kwargs)
    return TheirStream(answer) if kwargs.get("stream") else wrapt.ObjectProxy(answer)


@pytest.fixture
def in_the_subclass() -> Iterator[Callable[[], None]]:
    """Return a function that puts another `request` on `OpenAI`, as OpenInference and Logfire do."""
    made: list[type] = []

    def put() -> None:
        wrapt.wrap_function_wrapper("openai", "OpenAI.request", around)
        made.append(openai.OpenAI)

    yield put
    uninstrument_openai()
    for cls in made:
        assert isinstance(vars(cls)["request"], wrapt.FunctionWrapper), "theirs is gone"
        del cls.request  # type: ignore[attr-defined]


@pytest.mark.parametrize("theirs_first", [True, False], ids=["theirs first", "ours first"])
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
def test_another_tools_request_on_a_subclass_neither_hides_nor_duplicates_answers(
    theirs_first: bool, is_stream: bool, server: Server, local: Logs, in_the_subclass: Callable[[], None]
) -> None:
    for put in (in_the_subclass, instrument_openai) if theirs_first else (instrument_openai, in_the_subclass):
        put()
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS) if is_stream else chat(content=RAIN))
    server.on("POST /chat/completions", Failure(400, "No."))
    with OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        answer = ask(client, stream=is_stream)
        assert isinstance(answer, TheirStream if is_stream else wrapt.ObjectProxy)
        list(answer) if is_stream else None
        with pytest.raises(BadRequestError):
            ask(client)
    first, second = local()
    assert (first["response"], first["total_tokens"]) == (RAIN, 7)
    assert second["error"] == "No."
    uninstrument_openai()
    with OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client, pytest.raises(BadRequestError):
        ask(client)
    assert len(local()) == 2


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
def test_another_tools_request_on_a_client_is_logged_with_a_note_on_its_limits(
    is_stream: bool, server: Server, client: OpenAI, local: Logs, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = client.request

    def request(*args: Any, **kwargs: Any) -> Any:
        return around(theirs, client, args, kwargs)

    client.request = request  # type: ignore[method-assign]
    caplog.set_level(logging.INFO, "athina_trace")
    instrument_openai()
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS) if is_stream else chat(content=RAIN))
    for _ in range(2):
        answer = ask(client, stream=is_stream)
        list(answer) if is_stream else None
    assert [(log["response"], log["total_tokens"]) for log in local()] == [(RAIN, 7), (RAIN, 7)]
    assert all(log["response_time"] < 10_000 for log in local())
    assert [record.message.split(":")[0] for record in caplog.records if "replaced" in record.message] == [
        "the `request` of an OpenAI client was replaced before instrument_openai() was called"
    ]


def test_each_attempt_of_a_subclass_that_retries_by_itself_is_logged_once(server: Server, local: Logs) -> None:
    class Persistent(OpenAI):
        def request(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().request(*args, **kwargs)
            except BadRequestError:
                return super().request(*args, **kwargs)

    instrument_openai()
    server.on("POST /chat/completions", Failure(400, "Not yet."), chat(content=RAIN))
    with Persistent(base_url=server.base_url, api_key="any", max_retries=0) as client:
        ask(client)
    assert [log.get("error") or log["response"] for log in local()] == ["Not yet.", RAIN]


def test_a_result_that_a_subclass_returns_without_a_request_is_not_logged(server: Server, local: Logs) -> None:
    class Cached(OpenAI):
        def request(self, *_args: Any, **_kwargs: Any) -> Any:
            return chat(content="Remembered.")

    instrument_openai()
    with Cached(base_url=server.base_url, api_key="any", max_retries=0) as client:
        ask(client)
    assert local() == []


def test_async_clients_with_another_tools_request_are_logged_too(server: Server, local: Logs) -> None:
    class Theirs(AsyncOpenAI):
        request: Any = wrapt.FunctionWrapper(
            AsyncOpenAI.request, lambda call, _client, args, given: call(*args, **given)
        )

    instrument_openai()
    server.on("POST /chat/completions", chat(content=RAIN))

    async def main() -> None:
        async with Theirs(base_url=server.base_url, api_key="any", max_retries=0) as client:
            await asyncio.gather(*(ask(client) for _ in range(5)))
        with athina_trace.athina_trace():
            async with Theirs(base_url=server.base_url, api_key="any", max_retries=0) as client:
                await ask(client)

    asyncio.run(main())
    assert [log["response"] for log in local()] == [RAIN] * 6


def test_a_failed_request_of_a_client_with_its_own_request_is_logged_once(
    server: Server, client: OpenAI, local: Logs
) -> None:
    client.request = functools.partial(client.request)  # type: ignore[method-assign]
    instrument_openai()
    server.on("POST /chat/completions", Failure(400, "No."))
    with pytest.raises(BadRequestError):
        ask(client)
    with athina_trace.athina_trace(user_query="mine"), pytest.raises(BadRequestError):
        ask(client, stream=True)
    alone, inside = local()
    assert (alone["error"], alone["status_code"], alone["user_query"]) == ("No.", 400, ASK[0]["content"])
    assert (inside["error"], inside["user_query"]) == ("No.", "mine")


def test_a_failed_request_of_an_async_client_with_its_own_request_is_logged_once(server: Server, local: Logs) -> None:
    async def main() -> None:
        async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            theirs = client.request

            async def request(*args: Any, **kwargs: Any) -> Any:
                return await theirs(*args, **kwargs)

            client.request = request  # type: ignore[method-assign]
            instrument_openai()
            with pytest.raises(BadRequestError):
                await client.embeddings.create(model="m", input="q")  # no question
            with pytest.raises(BadRequestError):
                await ask(client)

    server.on("POST /chat/completions", Failure(400, "No."))
    server.on("POST /embeddings", Failure(400, "No."))
    asyncio.run(main())
    (log,) = local()
    assert (log["error"], log["status_code"]) == ("No.", 400)


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
def test_a_tool_that_sends_from_its_own_thread_hides_nothing(
    is_stream: bool, server: Server, client: OpenAI, local: Logs
) -> None:
    theirs = client.request
    with ThreadPoolExecutor(1) as pool:  # its thread does not see our context
        client.request = lambda *args, **kwargs: pool.submit(theirs, *args, **kwargs).result()  # type: ignore[method-assign]
        instrument_openai()
        server.on("POST /chat/completions", Failure(400, "No."))
        server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS) if is_stream else chat(content=RAIN))
        with pytest.raises(BadRequestError):
            ask(client, stream=is_stream)
        answer = ask(client, stream=is_stream)
        list(answer) if is_stream else None
    refused, whole = local()
    assert (refused["error"], refused["user_query"]) == ("No.", ASK[0]["content"])
    assert (whole["response"], whole["user_query"], whole["total_tokens"]) == (RAIN, ASK[0]["content"], 7)


def test_an_unanswered_request_of_a_client_with_its_own_request_is_logged_once(local: Logs) -> None:
    with OpenAI(base_url=NOWHERE, api_key="any", max_retries=0) as client:
        client.request = functools.partial(client.request)  # type: ignore[method-assign]
        instrument_openai()
        with athina_trace.athina_trace(user_query="mine"), pytest.raises(openai.APIConnectionError):
            ask(client)
        with pytest.raises(openai.APIConnectionError):
            client.embeddings.create(model="m", input="q")  # no question
        client.max_retries = 1
        with pytest.raises(openai.APIConnectionError):
            ask(client)
    inside, alone = local()
    assert inside["error"] == alone["error"] == "APIConnectionError: Connection error."
    assert (inside["user_query"], alone["user_query"]) == ("mine", ASK[0]["content"])
    assert alone["response_time"] >= 300  # including the pause before the retry


def test_an_unanswered_request_of_an_async_client_with_its_own_request_is_logged_once(local: Logs) -> None:
    async def main() -> None:
        async with AsyncOpenAI(base_url=NOWHERE, api_key="any", max_retries=0) as client:
            client.request = functools.partial(client.request)  # type: ignore[method-assign]
            instrument_openai()
            with pytest.raises(openai.APIConnectionError):
                await ask(client)

    asyncio.run(main())
    (log,) = local()
    assert (log["error"], log["user_query"]) == ("APIConnectionError: Connection error.", ASK[0]["content"])


def test_an_unobserved_stream_ends_the_call_that_returns_it(server: Server, client: OpenAI, local: Logs) -> None:
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS))
    stream = ask(client, stream=True)
    instrument_openai()
    returned = athina_trace.athina_trace(lambda question: stream)("q")
    assert isinstance(returned, openai.Stream)
    assert local() == []
    list(returned)
    (log,) = local()
    assert (log["user_query"], log["response"], log["total_tokens"]) == ("q", RAIN, 7)
