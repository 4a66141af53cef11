"""A decorated function returns a client's stream: its call ends when the stream is read."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

from athina_trace import _periodic, athina_trace

from .scripts import ASK, RAIN, RAIN_CHUNKS, events
from .server import Events, Server

Logs = Callable[[], list[dict[str, Any]]]


def asked(of: Any) -> Any:
    return of(model="gpt-4o-mini", messages=ASK)


def streaming(of: Any) -> Any:
    return of(model="gpt-4o-mini", messages=ASK, stream=True)


RETURNED: dict[str, Callable[[Any], Any]] = {
    "stream": lambda chat: streaming(chat.create),
    "manager": lambda chat: asked(chat.stream),
    "raw": lambda chat: streaming(chat.with_raw_response.create),
    "raw manager": lambda chat: streaming(chat.with_streaming_response.create),
}


def read_up(result: Any) -> None:
    for _ in result:
        pass


def enter_and_read(manager: Any) -> None:
    with manager as stream:
        read_up(stream)


def enter_and_take_the_end(manager: Any) -> None:
    with manager as stream:
        assert stream.get_final_completion().choices[0].message.content == RAIN


def enter_and_read_lines(manager: Any) -> None:
    with manager as response:
        read_up(response.iter_lines())


def enter_and_parse(manager: Any) -> None:
    with manager as response:
        read_up(response.parse())


READ: list[tuple[str, Callable[[Any], None]]] = [
    ("stream", read_up),
    ("manager", enter_and_read),
    ("manager", enter_and_take_the_end),
    ("raw", lambda response: read_up(response.parse())),
    ("raw manager", enter_and_read_lines),
    ("raw manager", enter_and_parse),
]


@pytest.mark.parametrize(("kind", "read"), READ)
def test_a_call_ends_when_its_returned_stream_is_read(
    kind: str, read: Callable[[Any], None], server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS))
    result = athina_trace(lambda question: RETURNED[kind](client.chat.completions))("q")
    assert instrumented() == []
    read(result)
    (log,) = instrumented()
    assert (log["user_query"], log["response"], log["total_tokens"]) == ("q", RAIN, 7)


def test_a_call_that_returns_a_stream_in_a_dictionary_ends_with_the_stream(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS))
    result = athina_trace(lambda: {"answer": streaming(client.chat.completions.create), "sources": ["a"]})()
    assert instrumented() == []
    read_up(result["answer"])
    assert [log["response"] for log in instrumented()] == [RAIN]


@pytest.mark.parametrize("kind", RETURNED)
def test_a_call_is_incomplete_if_its_returned_stream_is_abandoned(
    kind: str, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS))
    result = athina_trace(lambda question: RETURNED[kind](client.chat.completions))("q")
    if hasattr(result, "__enter__"):
        with result as entered, suppress(TypeError):  # an unparsed response
            next(iter(entered))
    del result
    gc.collect()
    _periodic.finish(ending=True)
    (log,) = instrumented()
    assert (log["custom_attributes"]["outcome"], log["user_query"]) == ("incomplete", "q")


def test_calls_with_async_clients_end_when_their_streams_are_read(server: Server, instrumented: Logs) -> None:
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS))

    async def run() -> None:
        async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            chat = client.chat.completions
            async for _ in await athina_trace(lambda: streaming(chat.create))():
                pass
            async with athina_trace(lambda: asked(chat.stream))() as stream:
                async for _ in stream:
                    pass
            async with athina_trace(lambda: streaming(chat.with_streaming_response.create))() as response:
                async for _ in response.iter_lines():
                    pass

    asyncio.run(run())
    assert [(log["response"], log["total_tokens"]) for log in instrumented()] == [(RAIN, 7)] * 3


def test_a_returned_responses_stream_helper_ends_the_call(server: Server, client: OpenAI, instrumented: Logs) -> None:
    server.on("POST /responses", Events.of_response(*events()))
    if not hasattr(client, "responses") or not hasattr(client.responses, "stream"):
        pytest.skip("this version of the client has no such helper")
    enter_and_read(athina_trace(lambda: client.responses.stream(model="gpt-4.1", input="q"))())
    assert [log["response"] for log in instrumented()] == [RAIN]


def test_stream_helper_events_are_read_without_instrumentation(server: Server, client: OpenAI, local: Logs) -> None:
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS))
    enter_and_read(athina_trace(lambda: asked(client.chat.completions.stream))())
    (log,) = local()
    assert (log["response"], log["total_tokens"]) == (RAIN, 7)


class Answer:
    """A program's own result type."""


def test_the_models_answer_wins_over_a_result_that_is_not_data(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS))

    @athina_trace
    def ask(question: str) -> Answer:
        read_up(streaming(client.chat.completions.create))
        return Answer()

    ask("q")
    athina_trace(Answer)()
    assert [log["response"] for log in instrumented()] == [RAIN, f"<{Answer.__module__}.Answer>"]
