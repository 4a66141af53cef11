"""The logs of an instrumented client, outside and inside decorated calls."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import re
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wrapt
from openai import AsyncOpenAI, AzureOpenAI, OpenAI

import athina_trace
from athina_trace import (
    _guard,
    _periodic,
    athina_session,
    current_log,
    flush,
    instrument_openai,
    status,
    uninstrument_openai,
)
from athina_trace._capture import emission
from athina_trace._capture.answer_logs import Origin
from athina_trace._clock import clock
from athina_trace._wrapping import callables
from athina_trace.integrations.openai import normalise, patches, request_record
from athina_trace.integrations.openai import standalone_logs as standalone
from athina_trace.integrations.openai.instrument import _is_patch
from athina_trace.integrations.openai.routes import route
from athina_trace.integrations.openai.standalone_logs import PATIENCE, standalone_logs
from tests.support import processes
from tests.support.forked import ForkedPrograms

from .conftest import play, play_async
from .samples import Wire, chat, message, output_text, page, question, response, run, step
from .scripts import (
    ASK,
    ASKED,
    ASYNC_SCRIPTS,
    RAIN,
    RAIN_CHUNKS,
    RUN,
    SAID,
    SCRIPTS,
    THREAD,
    chat_read_in_pieces,
    run_events,
)
from .server import Events, Server

Logs = Callable[[], list[dict[str, Any]]]
ROOT = Path(__file__).parents[2]

QUERY = "What is the weather?"
CHAT: Wire = {"language_model_id": "gpt-4o-mini", "user_query": QUERY, "response": RAIN, "total_tokens": 7}
RESPONSE: Wire = {"language_model_id": "gpt-4.1", "user_query": QUERY, "response": RAIN, "total_tokens": 26}
ANSWERED: Wire = {"language_model_id": "gpt-4o", "response": RAIN, "session_id": "thread_1", "total_tokens": 37}
RUN_LOG: Wire = {**ANSWERED, "user_query": QUERY}
BROKEN: Wire = {**CHAT, "response": "It rains", "total_tokens": None}

EXPECTED: dict[str, list[Wire]] = {
    "chat_plain": [{**CHAT, "model_options": {"temperature": 0.2}}],
    "chat_refused": [{**CHAT, "response": "I cannot say."}],
    "chat_tools": [{**CHAT, "response": "", "called": ["weather"]}, CHAT],
    "chat_failed": [
        {"language_model_id": "gpt-4o", "user_query": QUERY, "error": "Slow down.", "status_code": 429, "response": ""}
    ],
    "chat_parsed": [{**CHAT, "response": '{"city": "Oslo", "rain": true}'}],
    "chat_parsed_too_long": [{**CHAT, "response": '{"city": "Os', "status": "length"}],
    "chat_streamed": [CHAT],
    "chat_streamed_by_next": [CHAT],
    "chat_stream_closed": [{**BROKEN, "outcome": "incomplete", "error": None}],
    "chat_stream_breaks": [{**BROKEN, "status": "failed"}],
    "chat_stream_fails": [{**BROKEN, "error": "The model is gone."}],
    "chat_stream_helper": [CHAT],
    "chat_raw": [CHAT, CHAT],
    "chat_streaming_response": [CHAT, {**CHAT, "response": "Hello."}, CHAT],
    "chat_read_in_pieces": [CHAT, {**CHAT, "response": "Hello."}, CHAT],
    "response_plain": [{**RESPONSE, "session_id": None, "cached_tokens": 8, "reasoning_tokens": 4}],
    "response_chain": [
        {**RESPONSE, "response": "", "session_id": None, "called": ["weather"]},
        {**RESPONSE, "session_id": "resp_1"},
        {**RESPONSE, "session_id": "resp_1", "user_query": "Thanks.", "response": "You are welcome."},
    ],
    "conversation": [{**RESPONSE, "session_id": "conv_1"}],
    "response_ends_otherwise": [
        {**RESPONSE, "response": "No."},
        {**RESPONSE, "response": "It ra", "error": "response incomplete: max_output_tokens"},
        {**RESPONSE, "response": "", "error": "server_error: It broke."},
        {"user_query": QUERY, "error": "Unknown model.", "status_code": 400},
    ],
    "response_in_background": [RESPONSE],
    "response_streamed": [{**RESPONSE, "chunks": 7}],
    "response_stream_ends_otherwise": [
        {**RESPONSE, "error": "response incomplete: max_output_tokens"},
        {**RESPONSE, "total_tokens": None, "outcome": "incomplete"},
    ],
    "response_stream_helper": [RESPONSE],
    "response_read_in_pieces": [RESPONSE, RESPONSE, {**RESPONSE, "total_tokens": None, "outcome": "incomplete"}],
    "response_parsed": [{**RESPONSE, "response": '{"city": "Oslo", "rain": true}'}],
    "run_polled": [
        {
            **RUN_LOG,
            "called": ["weather"],
            "prompt": [
                {"role": "system", "content": "Be brief.\nBe exact."},
                {"role": "user", "content": QUERY},
            ],
        }
    ],
    "run_with_tools": [{**RUN_LOG, "outputs": ["rain"]}],
    "run_over_pages": [
        {**RUN_LOG, "response": f"{RAIN}\nTake an umbrella.[1]", "files": "file-1", "citations": "file-2"}
    ],
    "runs_that_end_otherwise": [
        {"session_id": "thread_1", "error": "rate_limit_exceeded: Too much.", "status": "failed"},
        {"error": "run expired", "run_id": "run_2"},
        {"error": "run cancelled", "run_id": "run_3"},
        {"error": "No thread found.", "status_code": 404, "session_id": "thread_1"},
        {"error": "run incomplete: max_completion_tokens", "run_id": "run_4"},
    ],
    "run_streamed": [RUN_LOG],
    "run_stream_helper": [ANSWERED],
    "run_read_in_pieces": [ANSWERED],
    "run_stream_that_waits": [{**ANSWERED, "outputs": ["rain"]}],
    "other_requests": [],
    "chats_async": [CHAT, CHAT, {"error": "No.", "status_code": 400, "user_query": QUERY}],
    "chat_helpers_async": [CHAT, CHAT, CHAT],
    "chat_stream_closed_async": [{**BROKEN, "outcome": "incomplete"}],
    "responses_async": [RESPONSE, RESPONSE],
    "runs_async": [RUN_LOG, RUN_LOG],
    "read_in_pieces_async": [CHAT, CHAT, {"user_query": QUERY, "response": "", "outcome": "incomplete"}],
}


def only(log: dict[str, Any], names: Wire) -> Wire:
    """Return these fields of a log, which may be custom attributes, names of called tools, or their outputs."""
    calls = log.get("tool_calls") or []
    facts = {
        "called": [call["function"]["name"] for call in calls],
        "outputs": [call.get("output") for call in calls],
        **log["custom_attributes"],
        **log,
    }
    return {name: facts.get(name) for name in names}


def check(logs: list[dict[str, Any]], expected: list[Wire]) -> None:
    assert [only(log, wanted) for log, wanted in zip(logs, expected, strict=False)] == expected
    assert len(logs) == len(expected)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_each_answer_is_a_separate_log(script: Any, server: Server, client: OpenAI, instrumented: Logs) -> None:
    play(script, server, client)
    flush(0)
    check(instrumented(), EXPECTED[script.__name__])


def test_a_body_too_long_to_be_copied_is_logged_as_incomplete(
    server: Server, client: OpenAI, instrumented: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("athina_trace.integrations.openai.response_tee._MOST_BYTES", 20)
    play(chat_read_in_pieces, server, client)
    flush(0)
    check(instrumented(), [{"user_query": QUERY, "response": "", "outcome": "incomplete"}] * 3)


@pytest.mark.parametrize("script", ASYNC_SCRIPTS, ids=lambda script: script.__name__)
def test_each_answer_on_an_async_client_is_a_separate_log(script: Any, server: Server, instrumented: Logs) -> None:
    play_async(script, server)
    flush(0)
    check(instrumented(), EXPECTED[script.__name__])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_inside_a_decorated_call_all_answers_are_one_log(
    script: Any, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    with athina_trace.athina_trace(prompt_slug="s"):
        play(script, server, client)
    flush(0)
    (log,) = instrumented()
    expected = EXPECTED[script.__name__]
    assert log["prompt_slug"] == "s"
    assert "parent_reference" not in log["custom_attributes"]
    if expected:
        assert log.get("user_query") == expected[0].get("user_query")
        last = [each["response"] for each in expected if each.get("response")]
        assert log["response"] == (last[-1] if last else "")


def test_tokens_are_summed_and_tool_calls_collected(server: Server, client: OpenAI, instrumented: Logs) -> None:
    by_name = {script.__name__: script for script in SCRIPTS}
    with athina_trace.athina_trace():
        play(by_name["chat_tools"], server, client)
        play(by_name["response_chain"], server, client)
        play(by_name["run_polled"], server, client)
    (log,) = instrumented()
    assert (log["prompt_tokens"], log["completion_tokens"], log["total_tokens"]) == (30 + 60 + 10, 7 + 18 + 4, 129)
    assert [call["function"]["name"] for call in log["tool_calls"]] == ["weather", "weather", "weather"]
    assert log["tool_calls"][0]["output"] == "rain"


# Runs wait for their messages ------------------------------------------------------------------------------------


def test_a_run_is_logged_once_its_messages_are_listed(server: Server, client: OpenAI, instrumented: Logs) -> None:
    server.on(f"POST {THREAD}/runs", run()).on(f"GET {THREAD}/messages", page(SAID, ASKED))
    client.beta.threads.runs.create("thread_1", assistant_id="asst_1")
    assert instrumented() == []
    client.beta.threads.messages.list("thread_1")
    check(instrumented(), [RUN_LOG])


def test_a_run_followed_by_another_is_logged_without_text(server: Server, client: OpenAI, instrumented: Logs) -> None:
    server.on(f"POST {THREAD}/runs", run(), run("run_2", at=20))
    for _ in range(2):
        client.beta.threads.runs.create("thread_1", assistant_id="asst_1")
    check(instrumented(), [{**ANSWERED, "response": "", "run_id": "run_1"}])
    flush(0)
    assert [log["custom_attributes"]["run_id"] for log in instrumented()] == ["run_1", "run_2"]


def test_a_run_waits_for_its_messages_for_a_limited_time(
    server: Server, client: OpenAI, instrumented: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on(f"POST {THREAD}/runs", run())
    client.beta.threads.runs.create("thread_1", assistant_id="asst_1")
    now = clock.time()
    left = _periodic.tick(now)
    assert left is not None
    assert PATIENCE / 2 < left <= PATIENCE
    assert instrumented() == []
    assert _periodic.tick(now + PATIENCE) == math.inf
    check(instrumented(), [{"response": "", "session_id": "thread_1"}])


def test_the_engine_logs_runs_that_waited_too_long(
    server: Server, client: OpenAI, instrumented: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standalone, "PATIENCE", 0.05)
    server.on(f"POST {THREAD}/runs", run())
    client.beta.threads.runs.create("thread_1", assistant_id="asst_1")
    deadline = clock.time() + 60
    while not instrumented() and clock.time() < deadline:
        threading.Event().wait(0.01)
    assert len(instrumented()) == 1


def test_messages_of_other_runs_do_not_end_the_wait(server: Server, client: OpenAI, instrumented: Logs) -> None:
    other = message("msg_9", "Not this.", at=30, run_id="run_9")
    server.on(f"POST {THREAD}/runs", run()).on(
        f"GET {THREAD}/messages", page(other), {**page(other), "has_more": True}, page(other, SAID, ASKED)
    )
    client.beta.threads.runs.create("thread_1", assistant_id="asst_1")
    client.beta.threads.messages.list("thread_1", run_id="run_9")
    client.beta.threads.messages.list("thread_1", limit=1)
    assert instrumented() == []
    client.beta.threads.messages.list("thread_1")
    check(instrumented(), [RUN_LOG])


def test_with_fetching_enabled_a_run_needs_no_listed_messages(server: Server, client: OpenAI, local: Logs) -> None:
    instrument_openai(fetch_details=True)
    weather = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}", "output": "rain"}}
    server.on(f"POST {THREAD}/runs", run(status="queued")).on(f"GET {RUN}", run())
    server.on(f"GET {RUN}/steps", page(step("step_1", weather, at=11)))
    second = message("msg_3", "Take an umbrella.", at=13)
    server.on(f"POST {THREAD}/messages", ASKED)
    server.on(f"GET {THREAD}/messages", {**page(SAID), "has_more": True}, page(second))
    client.beta.threads.messages.create("thread_1", role="user", content=QUERY)
    client.beta.threads.runs.create("thread_1", assistant_id="asst_1")
    for _ in range(2):
        client.beta.threads.runs.retrieve("run_1", thread_id="thread_1")
    check(local(), [{**RUN_LOG, "response": f"{RAIN}\nTake an umbrella.", "outputs": ["rain"]}])
    asked = [path for method, path, _ in server.requests if method == "GET" and "limit" in path]
    assert len(asked) == 3


def test_details_of_a_run_are_fetched_on_an_async_client(server: Server, local: Logs) -> None:
    instrument_openai(fetch_details=True)
    server.on(f"POST {THREAD}/runs", run("run_async")).on(f"GET {THREAD}/runs/run_async/steps", page())
    server.on(f"GET {THREAD}/messages", page(message("msg_2", RAIN, at=12, run_id="run_async")))

    async def main() -> None:
        async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            await client.beta.threads.runs.create("thread_1", assistant_id="asst_1")

    asyncio.run(main())
    check(local(), [ANSWERED])


def test_a_failed_fetch_changes_nothing(
    server: Server, client: OpenAI, local: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_guard, "strict", False)
    instrument_openai(fetch_details=True)
    server.on(f"POST {THREAD}/runs", run("run_x"))
    assert client.beta.threads.runs.create("thread_1", assistant_id="asst_1").id == "run_x"
    assert status().faults == 1


# Threads, tasks, processes ---------------------------------------------------------------------------------------


def test_interleaved_threads_on_one_async_client_are_not_mixed(server: Server, instrumented: Logs) -> None:
    names = [f"thread_{n}" for n in range(10)]
    for n, name in enumerate(names):
        where: Wire = {"thread_id": name}
        server.on(f"POST /threads/{name}/messages", question(f"msg_q{n}", f"Question {n}?", at=5, **where))
        server.on(f"POST /threads/{name}/runs", run(f"run_{n}", status="queued", **where))
        server.on(f"GET /threads/{name}/runs/run_{n}", run(f"run_{n}", status="in_progress", **where))
        server.on(f"GET /threads/{name}/runs/run_{n}", run(f"run_{n}", **where))
        said = message(f"msg_a{n}", f"Answer {n}.", at=12, run_id=f"run_{n}", **where)
        server.on(f"GET /threads/{name}/messages", page(said))

    async def talk(client: AsyncOpenAI, n: int) -> None:
        threads, name = client.beta.threads, names[n]
        await threads.messages.create(name, role="user", content=f"Question {n}?")
        await threads.runs.create_and_poll(thread_id=name, assistant_id="asst_1", poll_interval_ms=2)
        await threads.messages.list(name)

    async def main() -> None:
        async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            await asyncio.gather(*(talk(client, n) for n in range(10)))

    asyncio.run(main())
    told = {(log["session_id"], log["user_query"], log["response"]) for log in instrumented()}
    assert told == {(name, f"Question {n}?", f"Answer {n}.") for n, name in enumerate(names)}
    assert len(instrumented()) == 10


def test_two_runs_on_one_thread_keep_their_own_answers(server: Server, client: OpenAI, instrumented: Logs) -> None:
    second = message("msg_4", "Sunny.", at=22, run_id="run_2")
    asked = question("msg_3", "And tomorrow?", at=15)
    server.on(f"POST {THREAD}/runs", run(status="queued"), run("run_2", at=20, status="queued"))
    server.on(f"GET {RUN}", run()).on(f"GET {THREAD}/runs/run_2", run("run_2", at=20))
    server.on(f"GET {THREAD}/messages", page(second, asked, SAID, ASKED))
    runs = client.beta.threads.runs
    for _ in range(2):
        runs.create("thread_1", assistant_id="asst_1")
    for name in ("run_1", "run_2"):
        runs.retrieve(name, thread_id="thread_1")
    client.beta.threads.messages.list("thread_1")
    check(instrumented(), [RUN_LOG, {**RUN_LOG, "user_query": "And tomorrow?", "response": "Sunny."}])


def test_memory_stays_flat_over_many_runs(instrumented: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(emission, "emit", lambda draft, error: made.append(draft.accumulator.fields()["session_id"]))
    monkeypatch.setattr(standalone, "_MOST_LOGGED", 100)
    standalone_logs.reset()
    for n in range(3000):
        asks = route("POST", f"/threads/thread_{n}/runs")
        assert asks is not None
        options = SimpleNamespace(json_data={"assistant_id": "asst_1"}, extra_json=None, params={})
        request_record.RequestRecord(asks, options, replace(Origin.here(), started_ns=n), None).finished(
            run(f"run_{n}", thread_id=f"thread_{n}")
        )
    assert made == [f"thread_{n}" for n in range(3000 - 1024)]
    assert (len(standalone_logs._pending), len(standalone_logs._logged)) == (1024, 100)
    assert len(request_record.memory._threads) <= 1024


# Python warns about threads of an earlier test's engine or of the server: the child only writes and exits.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_logs_no_answers_of_its_parent(server: Server, client: OpenAI, instrumented: Logs) -> None:
    server.on(f"POST {THREAD}/runs", run())
    client.beta.threads.runs.create("thread_1", assistant_id="asst_1")
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.write(write, str(len(standalone_logs._pending)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 10) == b"0"
    assert len(standalone_logs._pending) == 1
    os.close(read)
    os.close(write)


# Streams ---------------------------------------------------------------------------------------------------------


def stream_of(client: OpenAI) -> Any:
    return client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True)


def test_an_abandoned_stream_is_logged_as_incomplete(server: Server, client: OpenAI, instrumented: Logs) -> None:
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS))
    stream = stream_of(client)
    next(stream)
    next(stream)
    stream.response.close = lambda: None  # neither closed by the program nor freed yet
    del stream
    gc.collect()
    assert instrumented() == []
    flush(0)
    check(instrumented(), [{**BROKEN, "outcome": "incomplete"}])


def test_streams_still_open_at_the_end_are_logged(server: Server, client: OpenAI, instrumented: Logs) -> None:
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS))
    with stream_of(client) as stream:
        next(stream)
        flush(0)
        assert instrumented() == []
        _periodic.finish(ending=True)
        assert len(instrumented()) == 1
    assert len(instrumented()) == 1


def test_a_decorated_call_that_returns_a_stream_ends_with_it(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS))
    answer = athina_trace.athina_trace(lambda question: stream_of(client))
    stream = answer(QUERY)
    assert instrumented() == []
    assert len(list(stream)) == 5
    check(instrumented(), [CHAT])
    with answer(QUERY) as stream:
        next(stream)
        next(stream)
    check(instrumented(), [CHAT, {**BROKEN, "outcome": "incomplete"}])


def test_hooks_of_a_stream_log_have_run_when_the_stream_ends(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS))
    athina_trace.configure(
        outbox=":memory:", before_emit=lambda log: log.model_copy(update={"prompt_slug": "seen"}), hook_timeout=60
    )
    answer = athina_trace.athina_trace(lambda question: stream_of(client))
    list(answer(QUERY))
    list(stream_of(client))
    assert [log["prompt_slug"] for log in instrumented()] == ["seen", "seen"]


def test_a_decorated_coroutine_that_returns_a_stream_ends_with_it(server: Server, instrumented: Logs) -> None:
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS))

    @athina_trace.athina_trace
    async def answer(client: Any, question: str) -> Any:
        return await client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True)

    async def main() -> None:
        async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            async for _ in await answer(client, QUERY):
                assert instrumented() == []

    asyncio.run(main())
    check(instrumented(), [CHAT])


def test_a_stream_read_after_its_decorated_call_is_a_separate_log(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS))
    kept: list[Any] = []
    with athina_session("s"), athina_trace.athina_trace(user_query="q") as log:
        kept.append(stream_of(client))
    list(kept[0])
    first, second = instrumented()
    assert (first["user_query"], first["response"]) == ("q", "")
    assert second["custom_attributes"]["parent_reference"] == log.external_reference_id
    assert (second["session_id"], second["response"]) == ("s", RAIN)


@pytest.mark.parametrize("instrumented_too", [True, False])
def test_a_decorated_generator_may_yield_the_chunks_of_a_stream(
    server: Server, client: OpenAI, local: Logs, *, instrumented_too: bool
) -> None:
    if instrumented_too:
        instrument_openai()
    by_name = {script.__name__: script for script in SCRIPTS}
    for name, expected in (("chat_streamed", CHAT), ("response_streamed", RESPONSE), ("run_streamed", ANSWERED)):
        decorated = athina_trace.athina_trace(pieces_of(by_name[name]))
        list(decorated(server, client))
        told = {name: value for name, value in expected.items() if name != "user_query"}
        check(local()[-1:], [told])  # without a request, the question is unknown
    assert len(local()) == 3


def pieces_of(script: Any) -> Callable[[Server, OpenAI], Iterator[Any]]:
    def pieces(server: Server, client: OpenAI) -> Iterator[Any]:
        for each in script(server, client):
            if not isinstance(each, type) and getattr(each, "object", None) != "thread.message":
                yield each

    return pieces


def test_a_decorated_async_generator_may_yield_the_chunks_of_a_stream(server: Server, instrumented: Logs) -> None:
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS))

    @athina_trace.athina_trace
    async def answer(client: Any, question: str) -> AsyncIterator[str]:
        async for chunk in await client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True):
            for choice in chunk.choices:
                yield choice.delta.content or ""

    async def main() -> None:
        async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            async for _ in answer(client, QUERY):
                pass

    asyncio.run(main())
    check(instrumented(), [CHAT])


# Decorated calls -------------------------------------------------------------------------------------------------


def test_values_set_by_the_program_win(server: Server, client: OpenAI, instrumented: Logs) -> None:
    server.on("POST /chat/completions", chat(content=RAIN))

    @athina_trace.athina_trace
    def answer(number: int) -> str:
        current_log().update(context="a document", total_tokens=99)
        said = client.chat.completions.create(model="gpt-4o", messages=ASK).choices[0].message.content
        return f"{number}: {said}"

    answer(1)
    check(instrumented(), [{**CHAT, "response": f"1: {RAIN}", "total_tokens": 99, "context": "a document"}])


def test_a_chained_response_has_session_and_question_of_an_earlier_log(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on("POST /responses", response("resp_1"), response("resp_2", previous_response_id="resp_1"))
    with athina_trace.athina_trace():
        client.responses.create(model="gpt-4.1", input=QUERY)
    with athina_trace.athina_trace():
        client.responses.create(model="gpt-4.1", previous_response_id="resp_1", input=[])
    check(instrumented(), [{"session_id": None, "user_query": QUERY}, {"session_id": "resp_1", "user_query": QUERY}])


def test_a_message_posted_before_a_decorated_call_is_the_question_of_its_run(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on(f"POST {THREAD}/messages", ASKED).on(f"POST {THREAD}/runs", Events.of_assistants(*run_events()))
    client.beta.threads.messages.create("thread_1", role="user", content=QUERY)
    with athina_trace.athina_trace():
        list(client.beta.threads.runs.create("thread_1", assistant_id="asst_1", stream=True))
    check(instrumented(), [RUN_LOG])


def test_a_cancelled_request_is_logged_as_cancelled(server: Server, instrumented: Logs) -> None:
    server.on("POST /responses", response("resp_1"))

    async def main() -> None:
        async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            asking = asyncio.create_task(client.responses.create(model="gpt-4.1", input=QUERY))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking

    asyncio.run(main())
    check(instrumented(), [{"user_query": QUERY, "outcome": "cancelled", "error": None, "status": "cancelled"}])


# Instrumenting ---------------------------------------------------------------------------------------------------


def ask(client: OpenAI, server: Server) -> None:
    server.on("POST /responses", response("resp_1", output_text(RAIN)))
    client.responses.create(model="gpt-4.1", input=QUERY)


def instrumented_classes() -> list[str]:
    from openai._base_client import AsyncAPIClient, SyncAPIClient  # noqa: PLC0415 - what is patched

    kinds = (SyncAPIClient, AsyncAPIClient)
    return [kind.__name__ for kind in kinds if hasattr(kind.request, "__wrapped__")]


def test_instrumenting_twice_logs_once_and_one_uninstrument_undoes_it(
    server: Server, client: OpenAI, local: Logs
) -> None:
    instrument_openai()
    instrument_openai()
    instrument_openai(client)
    ask(client, server)
    assert len(local()) == 1
    uninstrument_openai()
    ask(client, server)
    assert len(local()) == 1
    assert not {"request", "copy", "with_options"} & set(vars(client))
    assert instrumented_classes() == []


def test_a_single_client_and_its_copies_can_be_instrumented(server: Server, client: OpenAI, local: Logs) -> None:
    with OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as other:
        instrument_openai(client)
        ask(client, server)
        ask(other, server)
        ask(client.with_options(timeout=5), server)
        ask(client.copy(), server)
        assert len(local()) == 3
        instrument_openai(other)
        uninstrument_openai(client)
        ask(client, server)
        ask(other, server)
        assert len(local()) == 4


def test_uninstrumenting_one_client_does_not_change_the_others(server: Server, client: OpenAI, local: Logs) -> None:
    instrument_openai(client)
    assert instrumented_classes() == ["SyncAPIClient"]
    uninstrument_openai(client)
    assert instrumented_classes() == []
    instrument_openai()
    uninstrument_openai(client)
    ask(client, server)
    assert len(local()) == 1


@pytest.fixture
def theirs() -> Iterator[Callable[[], Any]]:
    """Return a function that wraps `request` as other tools do and returns the wrapper; all is restored in the end."""
    from openai._base_client import SyncAPIClient  # noqa: PLC0415 - what is patched

    own = {name: vars(SyncAPIClient)[name] for name in ("request", "_process_response")}

    def wrap() -> Any:
        made = wrapt.FunctionWrapper(SyncAPIClient.request, lambda call, _client, args, given: call(*args, **given))
        setattr(SyncAPIClient, "request", made)  # noqa: B010 - the types of both do not matter here
        return made

    yield wrap
    uninstrument_openai()
    for name, method in own.items():
        setattr(SyncAPIClient, name, method)


def standing(name: str = "request") -> Any:
    from openai._base_client import SyncAPIClient  # noqa: PLC0415 - what is patched

    return vars(SyncAPIClient)[name]


def test_patches_of_others_around_ours_stay_and_duplicate_nothing(
    server: Server, client: OpenAI, local: Logs, theirs: Callable[[], Any]
) -> None:
    instrument_openai()
    put = theirs()
    instrument_openai()
    ask(client, server)
    assert len(local()) == 1
    uninstrument_openai()
    assert standing() is put
    ask(client, server)
    assert len(local()) == 1
    instrument_openai()
    assert hasattr(standing("_process_response"), "__wrapped__")
    ask(client, server)
    assert len(local()) == 2


def test_uninstrumenting_restores_earlier_patches_of_others(
    server: Server, client: OpenAI, local: Logs, theirs: Callable[[], Any]
) -> None:
    put = theirs()
    instrument_openai()
    ask(client, server)
    assert len(local()) == 1
    uninstrument_openai()
    assert standing() is put


def instrument_with(others: threading.Barrier) -> None:
    others.wait()
    instrument_openai()


def test_concurrent_instrumentation_patches_once() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            together = threading.Barrier(4)
            threads = [threading.Thread(target=instrument_with, args=(together,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not hasattr(vars(standing())["__wrapped__"], "__wrapped__")
            uninstrument_openai()
    finally:
        sys.setswitchinterval(interval)
    assert not hasattr(standing(), "__wrapped__")


def test_a_copy_that_cannot_be_instrumented_is_still_returned(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_guard, "strict", False)

    class Odd(OpenAI):
        def with_options(self, **_: Any) -> Any:
            return "mine"

    with Odd(base_url=server.base_url, api_key="any") as odd:
        instrument_openai(odd)
        assert odd.with_options(timeout=1) == "mine"
    assert status().faults == 1


def test_only_clients_can_be_instrumented() -> None:
    with pytest.raises(TypeError, match="takes a client of the openai package, got dict"):
        instrument_openai({})


def test_subclasses_and_azure_are_instrumented(server: Server, local: Logs) -> None:
    class Mine(OpenAI):
        def request(self, *args: Any, **kwargs: Any) -> Any:
            return super().request(*args, **kwargs)

    server.on("POST /chat/completions", chat(content=RAIN))
    azure_path = "POST /openai/deployments/mini/chat/completions"
    server.on(azure_path, chat(content=RAIN))
    instrument_openai()
    with Mine(base_url=server.base_url, api_key="any", max_retries=0) as mine:
        mine.chat.completions.create(model="gpt-4o", messages=ASK)
    endpoint = server.base_url.removesuffix("/v1")
    with AzureOpenAI(azure_endpoint=endpoint, api_version="2024-02-01", api_key="any", max_retries=0) as azure:
        azure.chat.completions.create(model="mini", messages=ASK)
    check(local(), [CHAT, CHAT])


@pytest.fixture(scope="module")
def programs() -> Iterator[ForkedPrograms]:
    """Start an interpreter that has imported the client, but neither the parts that it loads on use, nor ours."""
    with ForkedPrograms({**os.environ, "PYTHONPATH": str(ROOT)}, "import openai") as made:
        yield made


@pytest.mark.parametrize(
    "steps",
    [
        "athina_trace.instrument_openai(); assert not loaded(); import openai; make()",
        "import openai; athina_trace.instrument_openai(); make()",
        "import openai; make(); athina_trace.instrument_openai()",
    ],
    ids=["instrument first", "import first", "client first"],
)
def test_instrumenting_works_before_or_after_import_and_client(
    server: Server, steps: str, programs: ForkedPrograms
) -> None:
    server.on("POST /responses", response("resp_1", output_text(RAIN)))
    code = (
        "import sys, athina_trace\n"
        "def loaded(): return 'openai' in sys.modules\n"
        "def make():\n"
        "    global client\n"
        f"    client = openai.OpenAI(base_url={server.base_url!r}, api_key='any', max_retries=0)\n"
        f"{steps}\n"
        "client.responses.create(model='gpt-4.1', input='Hello?')\n"
        "print([log['user_query'] for log in athina_trace.recent_logs()])"
    )
    if "not loaded" in steps:
        printed = processes.run(code)
    else:
        done = programs.run(code, environment=os.environ)
        printed = (done.stdout, done.stderr)
    assert printed == ("['Hello?']\n", "")


@pytest.mark.parametrize("waits", [["stream"], ["run"], ["run", "stream"]], ids=" and ".join)
def test_waiting_answers_are_logged_at_process_exit(waits: list[str], server: Server, programs: ForkedPrograms) -> None:
    server.on(f"POST {THREAD}/runs", run()).on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS))
    code = (
        "import athina_trace, openai, sys, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        # Since Python 3.14 the client, instrumented or not, complains about its own stream if it is closed as late as
        # this. The default argument keeps an object, since the program's globals are gone by then.
        "def show_others(found, show=sys.unraisablehook):\n"
        "    if 'sys.meta_path is None' not in str(found.exc_value): show(found)\n"
        "sys.unraisablehook = show_others\n"
        "athina_trace.instrument_openai()\n"
        f"client = openai.OpenAI(base_url={server.base_url!r}, api_key='any', max_retries=0)\n"
        "if 'run' in sys.argv:\n"
        "    client.beta.threads.runs.create('thread_1', assistant_id='asst_1')\n"
        "if 'stream' in sys.argv:\n"
        "    stream = client.chat.completions.create(model='gpt-4o', messages=[], stream=True)\n"
        "    next(stream)\n"
    )
    done = programs.run(code, *waits, environment=os.environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    models = [{"stream": "gpt-4o-mini", "run": "gpt-4o"}[each] for each in waits]
    assert sorted(log["language_model_id"] for log in athina_trace.recent_logs()) == models


def test_disabled_tracing_observes_nothing(server: Server, client: OpenAI) -> None:
    athina_trace.configure(enabled=False)
    instrument_openai()
    ask(client, server)
    assert status().made == 0


def test_internal_faults_do_not_reach_the_program(
    server: Server, client: OpenAI, instrumented: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_guard, "strict", False)

    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    server.on("POST /chat/completions", chat(content=RAIN), Events.of_chat(*RAIN_CHUNKS))
    server.on("POST /responses", response("resp_1", output_text(RAIN)))
    monkeypatch.setattr(request_record, "read_exchange", broken)
    assert client.chat.completions.create(model="gpt-4o", messages=ASK).choices[0].message.content == RAIN
    assert len(list(stream_of(client))) == 5
    monkeypatch.setattr(request_record.RequestRecord, "__init__", broken)
    assert client.responses.create(model="gpt-4.1", input=QUERY).output_text == RAIN
    assert status().faults == 3
    assert instrumented() == []


def test_json_that_the_client_decoded_is_not_decoded_again(
    server: Server, client: OpenAI, instrumented: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def a_response(server: Server, client: AsyncOpenAI) -> AsyncIterator[Any]:
        yield await client.responses.create(model="gpt-4.1", input=QUERY)

    decoded: list[bytes] = []
    monkeypatch.setattr(normalise, "decode", decoded.append)
    server.on("POST /responses", response("resp_1", output_text(RAIN)))
    server.on("POST /chat/completions", chat(content=RAIN))
    client.responses.create(model="gpt-4.1", input=QUERY)
    client.chat.completions.create(model="gpt-4o", messages=ASK)
    play_async(a_response, server)
    check(instrumented(), [RESPONSE, CHAT, RESPONSE])
    assert decoded == []


def test_an_answer_is_logged_as_received_even_if_the_program_changes_it(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    search = {"type": "maps_search_call", "id": "ms_1", "status": "completed", "output": {"hits": ["Oslo"]}}
    server.on("POST /responses", response("resp_1", search, output_text(RAIN)))
    with athina_trace.athina_trace():
        given: Any = client.responses.create(model="gpt-4.1", input=QUERY)
        given.output[0].output["hits"].clear()
    (log,) = instrumented()
    assert log["tool_calls"][0]["output"] == {"hits": ["Oslo"]}


def test_the_clients_request_method_has_the_expected_signature() -> None:
    import inspect  # noqa: PLC0415 - for this test

    from openai._base_client import AsyncAPIClient, SyncAPIClient  # noqa: PLC0415 - what is patched

    for kind in (SyncAPIClient, AsyncAPIClient):
        names = list(inspect.signature(kind.request).parameters)
        assert names == ["self", "cast_to", "options", "stream", "stream_cls"]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("POST /responses", "response"),
        ("POST https://example.com/v1/responses?x=1", "response"),
        ("GET /responses/resp_1", "response"),
        ("POST /openai/deployments/mini/chat/completions", "chat"),
        ("POST /deployments/chat/chat/completions", "chat"),
        ("POST /openai/deployments/threads/chat/completions", "chat"),
        ("POST /threads/runs", "run"),
        ("POST /threads/t/runs/r/submit_tool_outputs", "run"),
        ("GET /threads/t/messages", None),
        ("POST /threads", None),
        ("GET /threads/t/runs", "nothing"),
        ("POST /embeddings", "nothing"),
        ("GET /responses/resp_1/input_items", "nothing"),
        ("DELETE /conversations/conv_1", "nothing"),
    ],
)
def test_the_kind_of_a_request_is_known_from_its_path(line: str, kind: str | None) -> None:
    found = route(*line.split())
    assert (found.kind if found is not None else "nothing") == kind


@pytest.fixture
def notices(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[tuple[str, str]]]:
    """Return the records about requests that are not logged: level, and text up to the colon or semicolon."""
    monkeypatch.setattr(patches, "_reported", set())
    caplog.set_level(logging.INFO, "athina_trace")
    return lambda: [(each.levelname, re.split("[:;]", each.message)[0]) for each in caplog.records]


def test_requests_to_apis_that_are_not_logged_are_reported_once(
    server: Server, client: OpenAI, instrumented: Logs, notices: Callable[[], list[tuple[str, str]]]
) -> None:
    vector = {"object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": [0.1]}]}
    verdict = {"id": "modr_1", "model": "m", "results": []}
    for _ in range(2):
        server.on("POST /embeddings", vector)
        server.on("POST /moderations", verdict)
        server.on("POST /images/generations", {"created": 1, "data": []})
        server.on("POST /audio/transcriptions", {"text": "On its way."})
        client.embeddings.create(model="m", input="q")
        client.moderations.create(input="q")
        client.images.generate(prompt="q")
        client.audio.transcriptions.create(model="m", file=("q.wav", b"RIFF"))
    server.on("GET /models", {"object": "list", "data": []})
    client.models.list()
    assert instrumented() == []
    assert notices() == [
        ("INFO", f"requests of OpenAI's client to {api} are not logged")
        for api in ("embeddings", "moderations", "images", "audio")
    ]


def test_answers_by_apis_that_are_not_observed_cause_one_warning(
    server: Server, client: OpenAI, instrumented: Logs, notices: Callable[[], list[tuple[str, str]]]
) -> None:
    server.on("POST /batches", {"id": "batch_1", "object": "batch"})
    client.batches.create(completion_window="24h", endpoint="/v1/chat/completions", input_file_id="file_1")
    connecting = [("realtime.connect", "realtime"), ("responses.connect", "responses")]
    for _ in range(2):
        for _, resource in connecting:
            if hasattr(getattr(client, resource, None), "connect"):  # openai 1 has no `connect`
                getattr(client, resource).connect(**({"model": "m"} if resource == "realtime" else {}))
    assert instrumented() == []
    offered = [name for name, resource in connecting if hasattr(getattr(client, resource, None), "connect")]
    assert notices() == [
        ("WARNING", f"answers that OpenAI's client gets through {api} are not logged") for api in ("batches", *offered)
    ]
    uninstrument_openai()
    for cls in {type(getattr(client, resource)) for name, resource in connecting if name in offered}:
        assert not any(map(_is_patch, callables.layers(vars(cls)["connect"])))
