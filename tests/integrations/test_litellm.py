"""LiteLLM with the real package: each request to a provider is one log, and never holds a key."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import litellm
import pytest
from hypothesis import given
from hypothesis import strategies as st
from litellm.integrations.custom_logger import CustomLogger
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
from openai import OpenAI, OpenAIError

import athina_trace
from athina_trace import _guard, _periodic, athina_session, instrument_openai, uninstrument_openai
from athina_trace import athina_trace as traced
from athina_trace.integrations import litellm as litellm_integration
from athina_trace.integrations.litellm import (
    AthinaLogger,
    athina_logger,
    instrument_litellm,
    uninstrument_litellm,
)
from athina_trace.testing import captured_logs
from tests.openai.samples import chat, function_call, output_text, response
from tests.openai.scripts import RAIN, RAIN_CHUNKS, events
from tests.openai.server import Events, Failure, Server
from tests.support.athina_server import AthinaServer
from tests.support.ports import free_port
from tests.support.waiting import until

from .conftest import Logs
from .hostile import values

# LiteLLM's own models cause serializer warnings, and it leaves its clients open.
pytestmark = pytest.mark.filterwarnings("ignore")

KEY = "sk-marker-of-a-providers-key"
MASTER_KEY = "sk-6f0d1c9e4b7a4f2e8d3c5b1a9e7f2d4c"
ASK: Any = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "What is the weather?"}]


@pytest.fixture(autouse=True)
def _instrumented() -> Iterator[None]:
    instrument_litellm()
    yield
    uninstrument_litellm()
    uninstrument_openai()
    litellm_integration._reset()  # objects that LiteLLM releases later must not concern another test


@pytest.fixture
def given_to(server: Server) -> dict[str, Any]:
    return {"api_base": server.base_url, "api_key": KEY, "max_retries": 0, "model": "openai/gpt-4o"}


Soon = Callable[[int], list[dict[str, Any]]]


@pytest.fixture
def soon(logs: Logs) -> Soon:
    """Return a function that waits for so many logs, as LiteLLM calls its loggers after the call."""

    def wait(count: int) -> list[dict[str, Any]]:
        until(lambda: len(logs()) >= count)
        time.sleep(0.05)  # any log too many
        return logs()

    return wait


async def called(awaitable: Any) -> Any:
    """Await a call, read its stream, and let the task that calls loggers finish."""
    try:
        answer = await awaitable
        if hasattr(answer, "__aiter__"):
            return [each async for each in answer]
        return answer
    finally:
        await asyncio.sleep(0.2)
        await GLOBAL_LOGGING_WORKER.flush()


def test_a_completion_is_logged_with_cost_session_and_customer(
    given_to: dict[str, Any], server: Server, soon: Soon
) -> None:
    call = function_call(name="track", arguments='{"parcel":"PX-1"}')
    server.on("POST /chat/completions", chat(content="One moment.", tool_calls=[call]))
    tools = [{"type": "function", "function": {"name": "track", "parameters": {}}}]
    litellm.completion(
        **given_to, messages=ASK, temperature=0.2, tools=tools, user="mickey", metadata={"session_id": "thread-7"}
    )
    (log,) = soon(1)
    assert (log["user_query"], log["response"], log["language_model_id"]) == (
        "What is the weather?", "One moment.", "gpt-4o-mini"
    )  # fmt: skip
    assert [log[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")] == [5, 2, 7]
    assert log["cost"] == pytest.approx(1.95e-06)
    assert (log["session_id"], log["customer_user_id"]) == ("thread-7", "mickey")
    assert (log["tool_calls"], log["tools"]) == ([call], tools)
    assert log["model_options"]["temperature"] == 0.2
    assert log["prompt"][0] == {"role": "system", "content": "Be kind."}
    assert 0 <= log["response_time"] < 20_000


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("kind", ["whole", "stream"])
@pytest.mark.parametrize("also_the_client", [False, True])
def test_completions_are_in_the_session_of_the_scope(
    is_async: bool, kind: str, also_the_client: bool, given_to: dict[str, Any], server: Server, soon: Soon
) -> None:
    if also_the_client:
        instrument_openai()
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS) if kind == "stream" else chat(content=RAIN))
    more = {"stream": True, "stream_options": {"include_usage": True}} if kind == "stream" else {}
    with athina_session("thread-7", customer_id="disney"):
        if is_async:
            asyncio.run(called(litellm.acompletion(**given_to, messages=ASK, **more)))
        else:
            answer = litellm.completion(**given_to, messages=ASK, **more)
            list(answer) if kind == "stream" else None
    (log,) = soon(1)
    assert (log["session_id"], log["customer_id"], log["response"]) == ("thread-7", "disney", RAIN)
    assert (log["total_tokens"], log["language_model_id"]) == (7, "gpt-4o-mini")
    if also_the_client:
        until(lambda: "cost" in soon(1)[0])
        (log,) = soon(1)
    assert log["cost"] > 0


@pytest.mark.parametrize("also_the_client", [False, True])
def test_a_calls_session_overrides_the_scopes(
    also_the_client: bool, given_to: dict[str, Any], server: Server, soon: Soon
) -> None:
    if also_the_client:
        instrument_openai()
    server.on("POST /chat/completions", chat(content=RAIN))
    with athina_session("ours", customer_id="pixar"):
        named = {"session_id": "thread-7", "customer_id": "disney", "customer_user_id": "mickey"}
        litellm.completion(**given_to, messages=ASK, metadata=named)
    (log,) = soon(1)
    assert (log["session_id"], log["customer_id"]) == ("thread-7", "pixar")


@pytest.mark.parametrize("kind", ["whole", "stream", "left"])
def test_another_request_made_meanwhile_is_another_answer_outside_its_session(
    kind: str, given_to: dict[str, Any], server: Server, logs: Logs, soon: Soon
) -> None:
    """LiteLLM reports the end of a call after it has returned, and never that of an abandoned stream."""
    instrument_openai()
    answer = chat("c1", content=RAIN) if kind == "whole" else Events.of_chat(*RAIN_CHUNKS)
    server.on("POST /chat/completions", answer, chat("c2", content="Asked meanwhile."))
    client = OpenAI(base_url=server.base_url, api_key="any", max_retries=0)
    more = {} if kind == "whole" else {"stream": True, "stream_options": {"include_usage": True}}
    given: Any = litellm.completion(**given_to, messages=ASK, metadata={"session_id": "thread-7"}, **more)
    if kind != "whole":
        next(given)
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Is that so?"}])
    if kind == "stream":
        list(given)
    del given
    if (
        kind == "left"
    ):  # the stream is in a reference cycle of LiteLLM's, and one of its threads may hold it for a while
        until(lambda: gc.collect() >= 0 and len(logs()) == 2)
    else:
        until(lambda: any("cost" in log for log in soon(2)))
    found = {log["user_query"]: log for log in soon(2)}
    assert len(found) == 2
    beside, own = found["Is that so?"], found["What is the weather?"]
    assert (beside["response"], beside.get("session_id")) == ("Asked meanwhile.", None)
    if kind == "left":  # as seen by the client
        assert own["custom_attributes"]["outcome"] == "incomplete"
    else:
        assert (own["response"], own["session_id"], own["total_tokens"]) == (RAIN, "thread-7", 7)


@pytest.mark.parametrize("kind", ["whole", "async", "stream"])
@pytest.mark.parametrize("also_the_client", [False, True])
def test_responses_are_identified_by_the_providers_id(
    kind: str, also_the_client: bool, given_to: dict[str, Any], server: Server, soon: Soon
) -> None:
    if also_the_client:
        instrument_openai()
    server.on(
        "POST /responses",
        Events.of_response(*events()) if kind == "stream" else response("resp_1", output_text(RAIN)),
    )
    if kind == "whole":
        litellm.responses(**given_to, input="What is the weather?", instructions="Be kind.")
    else:
        asyncio.run(called(litellm.aresponses(**given_to, input="What is the weather?", stream=kind == "stream")))
    (log,) = soon(1)
    assert (log["user_query"], log["response"], log["total_tokens"]) == ("What is the weather?", RAIN, 26)
    assert log["custom_attributes"]["response_id"] == "resp_1"


def test_a_chain_of_responses_has_one_session_and_its_question(
    given_to: dict[str, Any], server: Server, soon: Soon
) -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "track", "arguments": "{}"}
    answers = response("resp_1", call), response("resp_2", output_text(RAIN), previous_response_id="resp_1")
    server.on("POST /responses", *answers)
    first: Any = litellm.responses(**given_to, input="What is the weather?")
    soon(1)
    found: Any = [{"type": "function_call_output", "call_id": "call_1", "output": "rain"}]
    litellm.responses(**given_to, input=found, previous_response_id=first.id)
    asked, answered = soon(2)
    assert asked["tool_calls"][0]["output"] == "rain"
    assert (answered["session_id"], answered["user_query"]) == ("resp_1", "What is the weather?")


# LiteLLM does not report the following, and OpenAI's client does not see it.
LEFT: Any = {"model": "anthropic/claude-3-5-sonnet-20240620", "mock_response": "It rains in Leipzig.", "stream": True}


@pytest.fixture
def once_left(soon: Soon) -> Soon:
    """Return a function that waits for so many logs while the periodic work of a process runs."""

    def is_all_logged() -> bool:
        gc.collect()  # LiteLLM's threads may have released it only now
        _periodic.tick(time.time())
        return not litellm_integration._requests.values()

    def wait(count: int) -> list[dict[str, Any]]:
        until(is_all_logged)
        return soon(count)

    return wait


def leave(*, is_async: bool, read: int = 2, **more: Any) -> None:
    """Read some of a stream and abandon it; the program continues to change its list of messages."""
    messages = list(ASK)

    async def main() -> None:
        stream = await litellm.acompletion(**LEFT, **more, messages=messages)
        for _ in range(read):
            await anext(stream)
        await stream.aclose()

    if is_async:
        asyncio.run(called(main()))
    else:
        stream: Any = litellm.completion(**LEFT, **more, messages=messages)
        for _ in range(read):
            next(stream)
    messages.append({"role": "user", "content": "Later."})


@pytest.mark.parametrize("is_async", [False, True])
def test_an_abandoned_stream_is_logged_with_what_had_arrived(is_async: bool, once_left: Soon) -> None:
    with athina_session("ours", customer_id="disney"):
        leave(is_async=is_async, metadata={"session_id": "thread-7", "prompt_slug": "support/v2"})
    (log,) = once_left(1)
    assert (log["user_query"], log["session_id"], log["customer_id"]) == ("What is the weather?", "thread-7", "disney")
    assert log["prompt"][0] == {"role": "system", "content": "Be kind."}
    assert "It rains".startswith(log["response"])
    assert log["response"]
    assert (log["prompt_slug"], log["language_model_id"]) == ("support/v2", "claude-3-5-sonnet-20240620")
    assert (log["custom_attributes"]["outcome"], log.get("error")) == ("incomplete", None)


@pytest.fixture
def _cached() -> Iterator[None]:
    litellm.cache = litellm.Cache()
    yield
    litellm.cache = None


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("kind", ["responses", "completion"])
@pytest.mark.usefixtures("_cached")
def test_abandoned_streams_are_logged_whether_from_a_server_or_the_cache(
    kind: str, is_async: bool, given_to: dict[str, Any], server: Server, once_left: Soon
) -> None:
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS))
    server.on("POST /responses", Events.of_response(*events()))
    asked: Any = {**given_to, "caching": True, "stream": True, "metadata": {"session_id": "thread-7"}}
    asked |= {"messages": ASK} if kind == "completion" else {"input": "What is the weather?"}

    async def read(most: int | None) -> None:
        stream = await getattr(litellm, f"a{kind}")(**asked)
        for _ in range(most or 99):
            await anext(stream, None)
        await asyncio.sleep(0.1)

    def leave_after(most: int | None) -> None:
        if is_async:
            asyncio.run(called(read(most)))
        else:
            stream: Any = getattr(litellm, kind)(**asked)
            for _ in range(most or 99):
                next(stream, None)

    leave_after(None)
    until(lambda: once_left(1)[0]["response"] == RAIN)
    # The cache splits the text in its own way.
    leave_after(2 if kind == "completion" else 5)
    whole, left = once_left(2)
    if kind == "responses":  # another question, which is not in the cache
        asked["input"] = "What is the weather? "
        server.on("POST /responses", Events.of_response(*events()))
        leave_after(4)
        asked_again = once_left(3)[2]
        assert "cache_hit" not in asked_again["custom_attributes"]
        assert (asked_again["response"], asked_again["custom_attributes"]["response_id"]) == ("It rains", "resp_1")
    assert (whole["response"], whole["custom_attributes"].get("outcome")) == (RAIN, None)
    assert (left["custom_attributes"]["cache_hit"], left["custom_attributes"]["outcome"]) == ("true", "incomplete")
    assert (left["user_query"], left["session_id"]) == ("What is the weather?", "thread-7")
    assert left["response"]
    assert RAIN.startswith(left["response"])


def test_a_cancelled_request_is_logged(once_left: Soon) -> None:
    async def main(silent: socket.socket) -> None:
        given: Any = {"api_base": f"http://127.0.0.1:{silent.getsockname()[1]}", "api_key": KEY, "max_retries": 0}
        asked = litellm.acompletion(**given, model="anthropic/claude-3-5-sonnet-20240620", messages=ASK)
        task = asyncio.create_task(asked)
        silent.setblocking(False)
        connection, _ = await asyncio.get_running_loop().sock_accept(silent)
        task.cancel()
        await asyncio.wait([task])
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as silent, athina_session("thread-7"):
        asyncio.run(main(silent))
    (log,) = once_left(1)
    assert (log["user_query"], log["session_id"], log["response"]) == ("What is the weather?", "thread-7", "")
    assert (log["custom_attributes"]["outcome"], log.get("error")) == ("incomplete", None)
    assert KEY not in json.dumps(log)


@pytest.mark.parametrize("kind", ["alone", "fallback", "stream", "responses"])
def test_an_answer_is_logged_even_if_its_event_loop_is_closed_at_once(
    kind: str, given_to: dict[str, Any], server: Server, once_left: Soon
) -> None:
    """LiteLLM then calls no logger, and for calls with `fallbacks` it makes its own loop."""
    server.on("POST /chat/completions", *[Failure(500, "Not now.")] * (kind == "fallback"))
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS) if kind == "stream" else chat(content=RAIN))
    server.on("POST /responses", response("resp_1", output_text(RAIN)))

    async def read() -> None:
        async for _ in await litellm.acompletion(**given_to, messages=ASK, stream=True):
            pass

    with athina_session("thread-7"):
        if kind == "stream":
            asyncio.run(read())
        elif kind == "fallback":
            litellm.completion(**given_to, messages=ASK, fallbacks=[{**given_to, "model": "openai/gpt-4.1"}])
        elif kind == "responses":
            asyncio.run(litellm.aresponses(**given_to, input="What is the weather?"))
        else:
            asyncio.run(litellm.acompletion(**given_to, messages=ASK))
    *failed, log = once_left(2 if kind == "fallback" else 1)
    assert [each["error"] for each in failed] == ["Not now."] * (kind == "fallback")
    assert (log["user_query"], log["response"], log["session_id"]) == ("What is the weather?", RAIN, "thread-7")
    assert (log.get("error"), log["custom_attributes"].get("outcome")) == (None, None)
    assert kind == "stream" or log["total_tokens"]


def test_content_and_calls_hidden_from_loggers_are_not_logged_from_abandoned_streams(once_left: Soon) -> None:
    leave(is_async=True, turn_off_message_logging=True)
    (log,) = once_left(1)
    assert (log.get("user_query"), log["response"], log["custom_attributes"]["outcome"]) == (None, "", "incomplete")
    assert "weather" not in json.dumps(log)
    request = {"headers": {"x-litellm-disable-callbacks": "athina"}}
    for more in ({"no-log": True}, {"proxy_server_request": request}):
        leave(is_async=True, **more)
    assert once_left(1) == [log]


def test_an_abandoned_request_is_logged_without_its_credentials(once_left: Soon) -> None:
    keys = {"api_key": KEY, "aws_secret_access_key": KEY, "extra_headers": {"authorization": f"Bearer {KEY}"}}
    kwargs = {"litellm_call_id": "call-1", "call_type": "acompletion", "model": "claude", "messages": ASK, **keys}
    kwargs["optional_params"] = {"temperature": 0.5, "extra_body": keys, **keys}
    kwargs["litellm_params"] = {"metadata": {"session_id": "thread-7", "headers": keys, **keys}, **keys}
    athina_logger.log_pre_api_call("claude", ASK, kwargs)
    del kwargs
    (log,) = once_left(1)
    assert (log["user_query"], log["session_id"], log["model_options"]) == (
        "What is the weather?", "thread-7", {"temperature": 0.5}
    )  # fmt: skip
    assert KEY not in json.dumps(log)


def test_streams_still_open_at_process_exit_are_logged_then(soon: Soon) -> None:
    stream: Any = litellm.completion(**LEFT, messages=ASK)
    next(stream)
    _periodic.finish(ending=True)
    (log,) = soon(1)
    assert log["custom_attributes"]["outcome"] == "incomplete"
    list(stream)  # the process did not end
    until(lambda: soon(1)[0]["response"] == LEFT["mock_response"])


def test_a_request_that_ends_after_uninstrument_is_not_logged_as_incomplete(once_left: Soon) -> None:
    stream: Any = litellm.completion(**LEFT, messages=ASK)
    next(stream)
    uninstrument_litellm()
    list(stream)
    del stream
    assert once_left(0) == []


def test_a_forked_child_logs_none_of_its_parents_streams(soon: Soon) -> None:
    stream: Any = litellm.completion(**LEFT, messages=ASK)
    next(stream)
    litellm_integration._reset()  # as in a child
    del stream
    gc.collect()
    _periodic.finish(ending=True)
    assert soon(0) == []


def test_text_completions_are_logged_and_embeddings_are_not(
    given_to: dict[str, Any], server: Server, soon: Soon
) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    embedding = {"object": "embedding", "index": 0, "embedding": [0.1]}
    server.on(
        "POST /embeddings",
        {"object": "list", "data": [embedding], "model": "text-embedding-3-small", "usage": usage},
    )
    legacy = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "gpt-3.5-turbo-instruct"}
    choice = {"text": RAIN, "index": 0, "finish_reason": "stop"}
    server.on("POST /completions", {**legacy, "choices": [choice], "usage": usage})
    litellm.embedding(**{**given_to, "model": "openai/text-embedding-3-small"}, input=["a"])
    litellm.text_completion(
        **{**given_to, "model": "text-completion-openai/gpt-3.5-turbo-instruct"}, prompt="What is the weather?"
    )
    (log,) = soon(1)
    assert (log["user_query"], log["response"], log["total_tokens"]) == ("What is the weather?", RAIN, 7)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("also_the_client", [False, True])
def test_failures_are_logged_with_message_and_status(
    is_async: bool, also_the_client: bool, given_to: dict[str, Any], server: Server, soon: Soon
) -> None:
    if also_the_client:
        instrument_openai()
    server.on("POST /chat/completions", Failure(400, "No such thing."))
    with athina_session("thread-7"), pytest.raises(litellm.BadRequestError):
        asyncio.run(called(litellm.acompletion(**given_to, messages=ASK))) if is_async else litellm.completion(
            **given_to, messages=ASK
        )
    (log,) = soon(1)
    assert (log["error"], log["status_code"], log["session_id"]) == ("No such thing.", 400, "thread-7")
    assert (log["user_query"], log["language_model_id"]) == ("What is the weather?", "gpt-4o")
    assert not log.get("cost")


@pytest.mark.parametrize("api", ["chat", "responses", "anthropic", "anthropic's stream"])
def test_a_providers_own_message_is_the_error(api: str, given_to: dict[str, Any], server: Server, soon: Soon) -> None:
    message = 'Don\'t "enter": café.'
    server.on("POST /chat/completions", Failure(401, message))
    server.on("POST /responses", Failure(500, message)).on("POST /messages", Failure(500, message))
    asked: Any = {**given_to, "num_retries": 0, "messages": ASK, "input": "Rain?", "stream": "stream" in api}
    if "anthropic" in api:
        asked |= {"model": "anthropic/claude-sonnet-4-5", "api_base": server.base_url.removesuffix("/v1")}
    del asked["messages" if api == "responses" else "input"]
    with pytest.raises(OpenAIError):
        (litellm.responses if api == "responses" else litellm.completion)(**asked)
    (log,) = soon(1)
    assert log["error"] == message


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("route", ["ollama_chat/", "bedrock/converse/"])
def test_a_model_has_its_providers_name_for_it(
    route: str, fails: bool, server: Server, soon: Soon, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, KEY)
    message = {"role": "assistant", "content": [{"text": RAIN}]}
    usage = {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}
    answers: dict[str, dict[str, Any]] = {
        "/api/chat": {"model": "own", "message": {"role": "assistant", "content": RAIN}, "done": True},
        "/model/own/converse": {"output": {"message": message}, "stopReason": "end_turn", "usage": usage},
    }
    base = server.base_url.removesuffix("/v1")
    for path, answer in answers.items():
        server.on(f"POST {path}", Failure(400, "Not so.") if fails else answer)
    model = {"model": f"{route}own", "api_base": base, "aws_bedrock_runtime_endpoint": base, "aws_region_name": "eu"}
    with suppress(OpenAIError):
        litellm.completion(**model, messages=ASK, num_retries=0)
    (log,) = soon(1)
    assert (log["language_model_id"], log["response"]) == ("own", "" if fails else RAIN)


def test_each_attempt_of_a_router_is_a_separate_log(given_to: dict[str, Any], server: Server, soon: Soon) -> None:
    server.on("POST /chat/completions", Failure(500, "Not now."), chat(content=RAIN))
    models = [
        {"model_name": name, "litellm_params": {**given_to, "model": f"openai/{model}"}}
        for name, model in (("large", "gpt-4o"), ("small", "gpt-4o-mini"))
    ]
    router = litellm.Router(model_list=models, fallbacks=[{"large": ["small"]}], num_retries=0)
    metadata = {"session_id": "thread-7"}
    asyncio.run(called(router.acompletion(model="large", messages=ASK, metadata=metadata)))
    failed, answered = soon(2)
    assert [log["session_id"] for log in (failed, answered)] == ["thread-7"] * 2
    assert (failed["error"], failed["language_model_id"]) == ("Not now.", "gpt-4o")
    assert answered["response"] == RAIN
    assert [log["custom_attributes"]["model_group"] for log in (failed, answered)] == ["large", "small"]


@pytest.mark.parametrize("also_the_client", [False, True])
def test_a_fallback_of_a_call_is_a_separate_log(
    also_the_client: bool, given_to: dict[str, Any], server: Server, soon: Soon
) -> None:
    """LiteLLM gives it the id of the failed call, and keeps that call's exception beside its answer."""
    if also_the_client:
        instrument_openai()
    server.on("POST /chat/completions", Failure(500, "Not now."), chat(content=RAIN))
    fallbacks = [{**given_to, "model": "openai/gpt-4.1"}]
    asyncio.run(called(litellm.acompletion(**given_to, messages=ASK, fallbacks=fallbacks)))
    until(lambda: any("cost" in log for log in soon(2)))
    failed, answered = soon(2)
    assert [log.get("error") for log in (failed, answered)] == ["Not now.", None]
    assert (failed["response"], answered["response"], answered["total_tokens"]) == ("", RAIN, 7)
    assert "outcome" not in answered["custom_attributes"]


def test_a_failed_stream_is_logged_with_what_had_arrived(given_to: dict[str, Any], server: Server, soon: Soon) -> None:
    end = {**RAIN_CHUNKS[0], "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS[:2], end))
    server.on("POST /chat/completions", Events(Events.of_chat(*RAIN_CHUNKS[:2]).events[:2], breaks=True))
    for error in (None, litellm.exceptions.MidStreamFallbackError):
        stream: Any = litellm.completion(**given_to, messages=ASK, stream=True)
        if error is None:
            list(stream)
        else:
            with pytest.raises(error):
                list(stream)
    whole, failed = soon(2)
    assert failed["error"]
    assert failed["response"] == whole["response"]


def test_the_model_of_a_failure_is_not_that_of_the_previous_call(
    given_to: dict[str, Any], server: Server, soon: Soon
) -> None:
    """LiteLLM writes data of an answer into the program's own metadata."""
    server.on("POST /chat/completions", chat(content=RAIN), Failure(400, "No such model."))
    metadata = {"session_id": "thread-7"}
    litellm.completion(**given_to, messages=ASK, metadata=metadata)
    soon(1)
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(**{**given_to, "model": "openai/gpt-9"}, messages=ASK, metadata=metadata)
    assert [log["language_model_id"] for log in soon(2)] == ["gpt-4o-mini", "gpt-9"]


def test_an_answer_from_the_cache_is_a_separate_log(given_to: dict[str, Any], server: Server, soon: Soon) -> None:
    server.on("POST /chat/completions", chat(content=RAIN))
    litellm.cache = litellm.Cache()
    try:
        for count in (1, 2):
            with athina_session("thread-7"):
                litellm.completion(**given_to, messages=ASK, caching=True)
            soon(count)  # LiteLLM's threads may process the second one first
    finally:
        litellm.cache = None
    first, again = soon(2)
    assert [(log["response"], log["session_id"]) for log in (first, again)] == [(RAIN, "thread-7")] * 2
    assert (first["cost"] > 0, again["custom_attributes"]["cache_hit"]) == (True, "true")


def test_metadata_fields_of_litellms_own_athina_callback_are_read(
    given_to: dict[str, Any], server: Server, soon: Soon
) -> None:
    server.on("POST /chat/completions", chat(content=RAIN))
    named = {
        "environment": "production",
        "prompt_slug": "support/v2",
        "customer_id": "disney",
        "customer_user_id": "mickey",
        "session_id": "thread-7",
        "external_reference_id": "ours-1",
        "context": {"document": "Weather is local."},
        "expected_response": "It rains.",
        "user_query": "Rain?",
        "user_feedback": 1,
        "model_options": {"temperature": 0.1},
    }
    litellm.completion(
        **given_to, messages=ASK, metadata={**named, "tags": ["a", "b"], "custom_attributes": {"plan": "gold"}}
    )
    (log,) = soon(1)
    assert {name: log[name] for name in named} == named
    assert (log["custom_attributes"]["tags"], log["custom_attributes"]["plan"]) == ("a, b", "gold")


@pytest.mark.parametrize(
    ("kind", "also_the_client"),
    [
        *((kind, False) for kind in ("reported in it", "async", "sync", "stream", "cached", "cached sync")),
        *((kind, True) for kind in ("async", "stream")),
    ],
)
def test_a_completion_in_a_decorated_call_goes_into_its_log(
    kind: str,
    also_the_client: bool,
    given_to: dict[str, Any],
    server: Server,
    soon: Soon,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """LiteLLM usually calls its loggers after such a call has ended."""
    if also_the_client:
        instrument_openai()
    if is_cached := kind.startswith("cached"):
        monkeypatch.setattr(litellm, "cache", litellm.Cache())
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS) if kind == "stream" else chat(content=RAIN))
    asked: Any = {**given_to, "messages": [{"role": "user", "content": "Does it rain?"}]}

    @traced
    async def answer(question: str) -> str:
        if kind == "reported in it":
            await called(litellm.acompletion(**asked))
        elif kind == "stream":
            async for _ in await litellm.acompletion(**asked, stream=True, stream_options={"include_usage": True}):
                pass
        elif kind in ("sync", "cached sync"):
            litellm.completion(**asked, caching=is_cached)
        else:
            await litellm.acompletion(**asked, caching=is_cached)
        return "So it does."

    with athina_session("thread-7"):
        for _ in range(2 if is_cached else 1):
            asyncio.run(called(answer("Does it rain?")))
    until(lambda: all("cost" in log for log in soon(1)))
    for log in soon(1):
        assert (log["response"], log["total_tokens"], log["session_id"]) == ("So it does.", 7, "thread-7")
        assert log["language_model_id"].startswith("gpt-4o")
    assert len(soon(1)) == (2 if is_cached else 1)


def test_a_decorated_call_that_fails_keeps_its_own_error(given_to: dict[str, Any], server: Server, soon: Soon) -> None:
    server.on("POST /chat/completions", Failure(500, "Not now."))

    @traced
    def answer(question: str) -> str:
        with suppress(litellm.InternalServerError):
            litellm.completion(**given_to, messages=[{"role": "user", "content": question}])
        raise LookupError(question)

    with pytest.raises(LookupError):
        answer("Does it rain?")
    until(lambda: soon(1)[0]["language_model_id"] == "gpt-4o")
    (log,) = soon(1)
    assert log["error"] == "LookupError: Does it rain?"


def test_the_outbox_contains_no_providers_key(given_to: dict[str, Any], server: Server, tmp_path: Path) -> None:
    athina_trace.configure(outbox=str(tmp_path / "outbox"))
    server.on("POST /chat/completions", chat(content=RAIN), Failure(401, f"Incorrect API key provided: {KEY}"))
    headers = {"authorization": f"Bearer {KEY}", "x-more": KEY}
    with athina_session("thread-7"):
        litellm.completion(**given_to, messages=ASK, extra_headers=headers)
        with pytest.raises(litellm.AuthenticationError):
            litellm.completion(**given_to, messages=ASK, extra_headers=headers)
        with pytest.raises(litellm.AuthenticationError):
            asyncio.run(called(litellm.acompletion(**given_to, messages=ASK)))
    until(lambda: len(athina_trace.recent_logs()) >= 3)
    assert len(athina_trace.recent_logs()) == 3
    athina_trace.flush(0.2)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"What is the weather?" in written
    assert KEY.encode() not in written


def test_instrumenting_twice_adds_nothing_and_uninstrumenting_keeps_other_loggers(
    given_to: dict[str, Any], server: Server, soon: Soon
) -> None:
    class Other(CustomLogger):
        pass

    other = Other()
    litellm.callbacks.append(other)
    instrument_litellm()
    assert litellm.callbacks.count(athina_logger) == 1
    server.on("POST /chat/completions", chat(content=RAIN))
    litellm.completion(**given_to, messages=ASK)
    assert len(soon(1)) == 1
    uninstrument_litellm()
    litellm.completion(**given_to, messages=ASK)
    time.sleep(0.5)
    assert len(soon(1)) == 1
    assert litellm.callbacks == [other]
    litellm.callbacks.clear()


def test_concurrent_tasks_log_under_their_own_sessions(logs: Logs) -> None:
    async def one(number: int) -> None:
        asked = [{"role": "user", "content": f"Question {number}"}]
        mock = {"model": "gpt-4o", "messages": asked, "mock_response": f"Answer {number}"}
        if number % 2:
            with athina_session(f"session {number}", customer_id=f"customer {number}"):
                await litellm.acompletion(**mock)
        else:
            metadata = {"session_id": f"session {number}", "customer_id": f"customer {number}"}
            await litellm.acompletion(**mock, metadata=metadata)

    async def main() -> None:
        await asyncio.gather(*map(one, range(300)))
        for _ in range(100):  # LiteLLM calls its loggers in a task of this loop
            if len(logs()) < 300:
                await asyncio.sleep(0.2)

    asyncio.run(main())
    seen = {int(log["user_query"].split()[1]): log for log in logs()}
    assert sorted(seen) == list(range(300))
    for number, log in seen.items():
        assert (log["session_id"], log["customer_id"]) == (f"session {number}", f"customer {number}")
        assert log["response"] == f"Answer {number}"


@pytest.mark.timeout(500)  # the proxy takes half a minute to start even on an idle machine
def test_the_proxy_logs_answers_streams_and_failures(server: Server, athina: AthinaServer, tmp_path: Path) -> None:
    """It is asked for a whole answer, a stream, and an answer that its model fails to give."""
    failure = Failure(400, f"Incorrect API key provided: {KEY}")
    server.on("POST /chat/completions", chat(content=RAIN), Events.of_chat(*RAIN_CHUNKS), failure)
    config = tmp_path / "config.yaml"
    settings = {
        "model_list": [
            {
                "model_name": "desk",
                "litellm_params": {"model": "openai/gpt-4o", "api_base": server.base_url, "api_key": KEY},
            }
        ],
        "litellm_settings": {"callbacks": "athina_trace.integrations.litellm.athina_logger"},
    }
    config.write_text(json.dumps(settings), encoding="utf-8")  # JSON is valid YAML
    port = free_port()
    environment = {
        **os.environ,
        "ATHINA_API_KEY": "any",
        "ATHINA_BASE_URL": athina.url,
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MASTER_KEY": MASTER_KEY,
    }
    command = ["-c", "from litellm.proxy.proxy_cli import run_server; run_server()"]
    arguments = ["--config", str(config), "--port", str(port), "--host", "127.0.0.1"]
    with (tmp_path / "output").open("wb") as output:
        proxy = subprocess.Popen(
            [sys.executable, *command, *arguments], env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        body = {"model": "desk", "messages": ASK, "user": "mickey", "metadata": {"session_id": "thread-7"}}
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {MASTER_KEY}"},
        )
        # Asked separately: a question that times out while the proxy starts may have been answered all the same.
        ends = time.monotonic() + 400
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=60).close()
                break
            except OSError:
                said = (tmp_path / "output").read_text()[-2000:]
                assert proxy.poll() is None, said
                assert time.monotonic() < ends, said
                time.sleep(0.3)
        with urllib.request.urlopen(asked, timeout=300) as answer:  # noqa: S310 - the loopback
            assert json.load(answer)["choices"][0]["message"]["content"] == RAIN
        athina.wait_for(1)
        asked.data = json.dumps({**body, "stream": True}).encode()
        with urllib.request.urlopen(asked, timeout=300) as answer:  # noqa: S310 - the loopback
            assert b"[DONE]" in answer.read()
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(asked, timeout=300)  # noqa: S310 - the loopback
        athina.wait_for(3)
    finally:
        proxy.terminate()
        proxy.wait(60)
    log, streamed, failed = (sent.json for sent in athina.accepted)
    for each in (log, streamed, failed):
        assert (each["user_query"], each["session_id"], each["customer_user_id"]) == (
            ASK[1]["content"],
            "thread-7",
            "mickey",
        )
        assert KEY not in json.dumps(each)
    assert (log["response"], streamed["response"], failed["response"]) == (RAIN, RAIN, "")
    assert failed["status_code"] == 400
    assert (log["user_query"], log["total_tokens"]) == ("What is the weather?", 7)
    assert KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.rglob("state/**/*") if path.is_file())


PAYLOAD = (
    *("call_type", "litellm_call_id", "status", "model", "messages", "response", "model_parameters", "end_user"),
    *("response_cost", "session_id", "model_group", "cache_hit", "error_str"),
)
payloads = st.one_of(
    values,
    st.builds(
        lambda kind, fields: {"call_type": kind, **fields},
        st.sampled_from(["completion", "aresponses", "embedding"]),
        st.dictionaries(st.sampled_from(PAYLOAD), values),
    ),
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["log_pre_api_call", "log_success_event", "log_failure_event"]),
            payloads,
            st.dictionaries(st.sampled_from(["litellm_params", "exception", "api_key", "litellm_call_id"]), values),
            values,
        ),
        max_size=6,
    )
)
def test_hostile_callbacks_raise_nothing_and_lose_no_later_log(
    callbacks: list[tuple[str, Any, dict[str, Any], Any]],
) -> None:
    _guard.strict = False  # values may raise when they are read: the program must not see it
    logger = AthinaLogger()
    for name, payload, kwargs, odd in callbacks:
        kwargs["standard_logging_object"] = payload
        if name == "log_pre_api_call":
            logger.log_pre_api_call(odd, odd, kwargs)
        else:
            getattr(logger, name)(kwargs=kwargs, response_obj=odd, start_time=odd, end_time=odd)
    _guard.strict = True
    with captured_logs() as captured:
        payload = {"call_type": "completion", "response": chat(content="Here."), "messages": ASK}
        now = datetime.now().astimezone()
        logger.log_success_event(
            kwargs={"standard_logging_object": {**payload, "cache_hit": True}}, response_obj=None, start_time=now,
            end_time=now,
        )  # fmt: skip
    assert [log.response for log in captured] == ["Here."]
