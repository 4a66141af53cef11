"""Unusual programs and servers: abandoned streams, runs that recover, non-standard shapes."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import pytest
from openai import BadRequestError, OpenAI
from pydantic import BaseModel, ValidationError

import athina_trace
from athina_trace import flush
from athina_trace.testing import captured_logs

from .conftest import ERRORS
from .samples import (
    HOUR,
    Wire,
    chat,
    function_call,
    message,
    output_text,
    page,
    response,
    run,
    step,
    waiting_run,
)
from .scripts import ASK, ASKED, RAIN, RUN, SAID, THREAD, chunks, events, run_events
from .server import Events, Failure, Server

Logs = Callable[[], list[dict[str, Any]]]
QUERY = "What is the weather?"


@pytest.fixture(autouse=True)
def _uncollected() -> Iterator[None]:
    """Disable the garbage collector: no log may depend on it."""
    gc.disable()
    yield
    gc.enable()


def only_log(logs: Logs) -> dict[str, Any]:
    (log,) = logs()
    return log


def as_a_call(decorated: bool) -> AbstractContextManager[Any]:
    return athina_trace.athina_trace() if decorated else nullcontext()


def respond(client: OpenAI, **more: Any) -> Any:
    return client.responses.create(model="gpt-4.1", **{"input": QUERY, **more})


def ask(client: OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(model="gpt-4o-mini", messages=more.pop("messages", ASK), **more)


# Abandoned streams ----------------------------------------------------------------------------------------------


def left_at(stream: Any, wanted: Callable[[Any], bool]) -> Any:
    return next(each for each in stream if wanted(each))


def test_a_response_stream_left_after_its_last_event_is_complete_and_logged_at_once(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on("POST /responses", Events.of_response(*events()))
    left_at(respond(client, stream=True), lambda event: event.type == "response.completed")
    log = only_log(instrumented)
    assert (log["response"], log["total_tokens"], log["custom_attributes"]["status"]) == (RAIN, 26, "completed")
    assert "outcome" not in log["custom_attributes"]


def test_a_run_stream_left_after_its_last_event_is_not_logged_again_by_polls(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on(f"POST {THREAD}/runs", Events.of_assistants(*run_events()))
    server.on(f"GET {RUN}", run()).on(f"GET {THREAD}/messages", page(SAID, ASKED))
    threads = client.beta.threads
    stream = threads.runs.create("thread_1", assistant_id="asst_1", stream=True)
    left_at(stream, lambda event: event.event == "thread.run.completed")
    threads.runs.retrieve("run_1", thread_id="thread_1")
    threads.messages.list("thread_1")
    log = only_log(instrumented)
    assert (log["response"], log["total_tokens"]) == (RAIN, 37)
    assert "outcome" not in log["custom_attributes"]


def test_a_completion_stream_left_after_its_finish_reason_is_complete(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on("POST /chat/completions", Events.of_chat(*chunks({"content": RAIN})))
    with ask(client, stream=True) as stream:
        left_at(stream, lambda chunk: chunk.choices[0].finish_reason)
    log = only_log(instrumented)
    assert log["response"] == RAIN
    assert "outcome" not in log["custom_attributes"]


@pytest.mark.parametrize("breaks", [True, False], ids=["broken", "ended early"])
def test_a_run_whose_stream_broke_off_is_logged_with_its_end_from_polls(
    breaks: bool, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    begun: Any = [("thread.run.created", run(status="queued")), ("thread.run.in_progress", run(status="in_progress"))]
    server.on(f"POST {THREAD}/messages", ASKED).on(f"POST {THREAD}/runs", Events(begun, breaks=breaks))
    server.on(f"GET {RUN}", run()).on(f"GET {THREAD}/messages", page(SAID, ASKED))
    threads = client.beta.threads
    threads.messages.create("thread_1", role="user", content=QUERY)
    with suppress(*ERRORS):
        list(threads.runs.create("thread_1", assistant_id="asst_1", stream=True))
    threads.runs.poll("run_1", thread_id="thread_1", poll_interval_ms=1)
    threads.messages.list("thread_1")
    log = only_log(instrumented)
    assert (log["user_query"], log["response"], log["total_tokens"]) == (QUERY, RAIN, 37)
    assert log["custom_attributes"]["status"] == "completed"
    assert not {"error", "outcome"} & {*log, *log["custom_attributes"]}


def test_a_run_with_a_closed_stream_and_no_polls_is_incomplete(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on(f"POST {THREAD}/runs", Events.of_assistants(*run_events()))
    with client.beta.threads.runs.create("thread_1", assistant_id="asst_1", stream=True) as stream:
        next(iter(stream))
    assert instrumented() == []
    flush(0)
    assert only_log(instrumented)["custom_attributes"]["outcome"] == "incomplete"


def test_a_background_response_is_followed_after_its_stream_broke_off(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on("POST /responses", Events.of_response(*events()[:3]))
    server.on("GET /responses/resp_1", response("resp_1", output_text(RAIN)))
    with respond(client, stream=True, background=True) as stream:
        next(iter(stream))
    client.responses.retrieve("resp_1")
    log = only_log(instrumented)
    assert (log["user_query"], log["response"], log["total_tokens"]) == (QUERY, RAIN, 26)
    assert "outcome" not in log["custom_attributes"]


def test_tool_outputs_submitted_during_the_first_stream_belong_to_one_log(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    waits = Events.of_assistants(("thread.run.requires_action", waiting_run(function_call())))
    server.on(f"POST {THREAD}/messages", ASKED).on(f"POST {THREAD}/runs", waits)
    server.on(f"POST {RUN}/submit_tool_outputs", Events.of_assistants(*run_events()))
    threads = client.beta.threads
    threads.messages.create("thread_1", role="user", content=QUERY)
    outputs: Any = {"run_id": "run_1", "thread_id": "thread_1"}
    for event in threads.runs.create("thread_1", assistant_id="asst_1", stream=True):
        if event.event == "thread.run.requires_action":
            given: Any = [{"tool_call_id": "call_1", "output": "rain"}]
            list(threads.runs.submit_tool_outputs(**outputs, tool_outputs=given, stream=True))
    log = only_log(instrumented)
    assert (log["user_query"], log["response"], log["total_tokens"]) == (QUERY, RAIN, 37)
    assert [(call["function"]["name"], call["output"]) for call in log["tool_calls"]] == [("weather", "rain")]


def test_a_run_continued_by_another_calls_tool_outputs_keeps_its_question(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on(f"POST {THREAD}/messages", ASKED).on(f"POST {THREAD}/runs", waiting_run(function_call()))
    server.on(f"POST {RUN}/submit_tool_outputs", run()).on(f"GET {THREAD}/messages", page(SAID))
    threads = client.beta.threads
    threads.messages.create("thread_1", role="user", content=QUERY)
    with athina_trace.athina_trace():
        threads.runs.create("thread_1", assistant_id="asst_1")
    with athina_trace.athina_trace():
        given: Any = [{"tool_call_id": "call_1", "output": "rain"}]
        threads.runs.submit_tool_outputs("run_1", thread_id="thread_1", tool_outputs=given)
        threads.messages.list("thread_1")
    assert [(log["user_query"], log["response"]) for log in instrumented()] == [(QUERY, ""), (QUERY, RAIN)]


# Runs and later snapshots of them ---------------------------------------------------------------------------------


def test_steps_listed_after_the_messages_update_the_log(server: Server, client: OpenAI, instrumented: Logs) -> None:
    found = {"results": [{"file_id": "file-1", "content": [{"type": "text", "text": "Rain at noon."}]}]}
    server.on(f"POST {THREAD}/runs", run()).on(f"GET {THREAD}/messages", page(SAID, ASKED))
    server.on(
        f"GET {RUN}/steps", page(step("step_1", {"id": "call_1", "type": "file_search", "file_search": found}, at=11))
    )
    threads = client.beta.threads
    threads.runs.create("thread_1", assistant_id="asst_1")
    threads.messages.list("thread_1")
    before = only_log(instrumented)
    assert "context" not in before
    with captured_logs() as changes:
        for _ in range(2):
            threads.runs.steps.list("run_1", thread_id="thread_1")
    (change,) = changes.updates
    assert change["external_reference_id"] == before["external_reference_id"]
    assert change["context"] == ["Rain at noon."]
    assert change["tool_calls"][0]["id"] == "call_1"


def test_a_run_whose_answer_was_only_found_in_its_thread_is_logged(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on(f"POST {THREAD}/runs", run(status="queued")).on(f"GET {THREAD}/messages", page(ASKED), page(SAID, ASKED))
    threads = client.beta.threads
    threads.runs.create("thread_1", assistant_id="asst_1")
    for _ in range(2):
        threads.messages.list("thread_1")
    assert instrumented() == []
    flush(0)
    assert only_log(instrumented)["response"] == RAIN


def test_a_run_seen_in_progress_again_is_waited_for(server: Server, client: OpenAI, instrumented: Logs) -> None:
    server.on(f"POST {THREAD}/runs", run(status="queued")).on(f"GET {THREAD}/messages", page(SAID, ASKED))
    server.on(f"GET {RUN}", run(status="in_progress"), run())
    threads = client.beta.threads
    threads.runs.create("thread_1", assistant_id="asst_1")
    threads.messages.list("thread_1")
    threads.runs.retrieve("run_1", thread_id="thread_1")
    flush(0)
    assert instrumented() == []
    threads.runs.retrieve("run_1", thread_id="thread_1")
    threads.messages.list("thread_1")
    assert only_log(instrumented)["total_tokens"] == 37


def test_a_late_snapshot_in_progress_does_not_undo_the_end_of_a_run(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on(f"POST {THREAD}/runs", run()).on(f"GET {RUN}", run(status="in_progress"))
    threads = client.beta.threads
    threads.runs.create("thread_1", assistant_id="asst_1")
    threads.runs.retrieve("run_1", thread_id="thread_1")
    flush(0)
    assert only_log(instrumented)["custom_attributes"]["status"] == "completed"


def test_a_run_last_seen_in_progress_is_logged_with_what_had_arrived(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    begun: Any = [("thread.run.created", run(status="queued"))]
    server.on(f"POST {THREAD}/runs", Events(begun, breaks=True)).on(f"GET {RUN}", run(status="in_progress"))
    threads = client.beta.threads
    with suppress(*ERRORS):
        list(threads.runs.create("thread_1", assistant_id="asst_1", stream=True))
    threads.runs.retrieve("run_1", thread_id="thread_1")
    assert instrumented() == []
    flush(0)
    assert "run_1" in only_log(instrumented)["custom_attributes"]["run_id"]


def test_a_refused_run_does_not_end_the_wait_for_another(server: Server, client: OpenAI, instrumented: Logs) -> None:
    server.on(f"POST {THREAD}/runs", run(), Failure(400, "Thread already has an active run."))
    server.on(f"GET {THREAD}/messages", page(SAID, ASKED))
    threads = client.beta.threads
    threads.runs.create("thread_1", assistant_id="asst_1")
    with pytest.raises(BadRequestError):
        threads.runs.create("thread_1", assistant_id="asst_1")
    threads.messages.list("thread_1")
    assert [log["response"] for log in instrumented()] == ["", RAIN]


def test_an_expired_run_with_messages_waits_for_them(server: Server, client: OpenAI, instrumented: Logs) -> None:
    server.on(f"POST {THREAD}/runs", waiting_run(function_call())).on(f"GET {RUN}", run(status="expired"))
    server.on(f"GET {THREAD}/messages", page(message("msg_2", "Let me look.", at=12), ASKED))
    threads = client.beta.threads
    threads.runs.create("thread_1", assistant_id="asst_1")
    threads.runs.retrieve("run_1", thread_id="thread_1")
    threads.messages.list("thread_1")
    log = only_log(instrumented)
    assert (log["user_query"], log["response"], log["error"]) == (QUERY, "Let me look.", "run expired")


def test_additional_messages_follow_those_posted_before(server: Server, client: OpenAI, instrumented: Logs) -> None:
    server.on(f"POST {THREAD}/messages", ASKED).on(f"POST {THREAD}/runs", run())
    server.on(f"GET {THREAD}/messages", page(SAID))
    threads = client.beta.threads
    threads.messages.create("thread_1", role="user", content=QUERY)
    more: Any = [{"role": "user", "content": "Be quick."}]
    threads.runs.create("thread_1", assistant_id="asst_1", additional_messages=more)
    threads.messages.list("thread_1", run_id="run_1")
    log = only_log(instrumented)
    assert [said["content"] for said in log["prompt"]] == ["Be brief.", QUERY, "Be quick."]
    assert log["user_query"] == "Be quick."


# Questions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decorated", [False, True])
def test_a_message_with_only_an_image_is_not_the_question(
    decorated: bool, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on("POST /responses", response("resp_1", output_text("Lakers."))).on("POST /chat/completions", chat())
    image = [{"type": "input_image", "image_url": "https://example.com/a.png"}]
    said: Any = [{"role": "user", "content": "Who plays?"}, {"role": "user", "content": image}]
    for call in (lambda: respond(client, input=said), lambda: ask(client, messages=said)):
        with as_a_call(decorated):
            call()
    assert [log["user_query"] for log in instrumented()] == ["Who plays?"] * 2


def test_a_prompt_template_gives_system_and_user_messages(server: Server, client: OpenAI, instrumented: Logs) -> None:
    items: Any = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "You greet."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Greet Alice."}]},
    ]
    prompt: Any = {"id": "pmpt_1", "version": "2", "variables": {"name": "Alice"}}
    server.on("POST /responses", response("resp_1", output_text("Hello!"), instructions=items, prompt=prompt))
    client.responses.create(prompt=prompt)
    log = only_log(instrumented)
    assert log["prompt"] == [{"role": "system", "content": "You greet."}, {"role": "user", "content": "Greet Alice."}]
    assert log["user_query"] == "Greet Alice."
    assert (log["custom_attributes"]["prompt_id"], log["custom_attributes"]["prompt_version"]) == ("pmpt_1", "2")


def test_a_question_added_to_a_conversation_is_that_of_the_next_response(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    conversation: Wire = {"conversation": {"id": "conv_1"}}
    said = {"id": "msg_9", "type": "message", "role": "user", "status": "completed", "content": []}
    server.on("POST /conversations/conv_1/items", page(said))
    server.on("POST /responses", response("resp_1", output_text("Fine."), **conversation))
    respond(client, conversation="conv_1")
    client.conversations.items.create("conv_1", items=[{"type": "message", "role": "user", "content": "Tomorrow?"}])
    client.responses.create(model="gpt-4.1", conversation="conv_1")
    assert [log["user_query"] for log in instrumented()] == [QUERY, "Tomorrow?"]


@pytest.mark.parametrize("decorated", [False, True])
def test_parameters_in_extra_body_are_read(decorated: bool, server: Server, client: OpenAI, instrumented: Logs) -> None:
    server.on("POST /responses", response("resp_1", output_text("One.")))
    server.on("POST /responses", response("resp_2", output_text("Two."), previous_response_id="resp_1"))
    server.on("POST /responses", response("resp_3", output_text("Three."), previous_response_id="resp_2"))
    with as_a_call(decorated):
        respond(client)
    for previous in ("resp_1", "resp_2"):
        with as_a_call(decorated):
            respond(client, extra_body={"previous_response_id": previous})
    assert [log.get("session_id") for log in instrumented()] == [None, "resp_1", "resp_1"]


def test_unknown_parameters_in_extra_body_are_not_written_to_disk(
    server: Server, client: OpenAI, tmp_path: Any
) -> None:
    athina_trace.configure(outbox=str(tmp_path / "outbox.db"))
    athina_trace.instrument_openai()
    server.on("POST /chat/completions", chat())
    ask(client, extra_body={"data_sources": [{"parameters": {"authentication": {"key": "secret-5f1c"}}}]})
    assert len(athina_trace.recent_logs()) == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file() and b"secret-5f1c" in path.read_bytes()] == []


# Answers -----------------------------------------------------------------------------------------------------------


class Weather(BaseModel):
    """The response format that the program requests."""

    rain: bool


def test_an_answer_that_does_not_fit_the_response_format_is_logged_with_the_error(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    cut: Wire = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    server.on("POST /responses", response("resp_1", output_text('{"ra'), **cut))
    server.on("POST /chat/completions", chat(content='{"city": "Oslo"}'))
    with pytest.raises(ValidationError):
        client.responses.parse(model="gpt-4.1", input=QUERY, text_format=Weather)
    with pytest.raises(ValidationError):
        client.chat.completions.parse(model="gpt-4o-mini", messages=ASK, response_format=Weather)
    first, second = instrumented()
    assert (first["response"], first["total_tokens"], first["custom_attributes"]["status"]) == (
        '{"ra',
        26,
        "incomplete",
    )
    assert (second["response"], second["total_tokens"]) == ('{"city": "Oslo"}', 7)
    assert all(log["error"].startswith("ValidationError") for log in (first, second))


def test_base64_data_is_replaced_by_its_length_everywhere(server: Server, client: OpenAI, instrumented: Logs) -> None:
    image = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ" + "aB3" * 1000
    drawn = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": image}
    shot = {"type": "computer_screenshot", "image_url": f"data:image/png;base64,{image}"}
    server.on("POST /responses", response("resp_1", drawn, output_text("Here.")))
    respond(client, input=[{"type": "computer_call_output", "call_id": "call_1", "output": shot}])
    log = only_log(instrumented)
    assert log["tool_calls"][0]["result"] == f"<{len(image)} base64 characters of image/png>"
    noted = f"<{len(image) + 22} base64 characters of image/png>"
    assert log["prompt"][1]["content"] == '{"type": "computer_screenshot", "image_url": "' + noted + '"}'


def test_citations_and_approvals_are_logged(server: Server, client: OpenAI, instrumented: Logs) -> None:
    notes = [{"type": "url_citation", "url": "https://a.example"}, {"type": "file_citation", "file_id": "file-1"}]
    part = {"type": "output_text", "text": RAIN, "annotations": notes}
    request = {
        "type": "mcp_approval_request",
        "id": "mcpr_1",
        "name": "roll",
        "arguments": "{}",
        "server_label": "dice",
    }
    server.on("POST /responses", response("resp_1", {**output_text(""), "content": [part]}, request))
    note = {"type": "url_citation", "url_citation": {"url": "https://b.example", "title": "B"}}
    server.on("POST /chat/completions", chat(content=RAIN, annotations=[note]))
    respond(client, text={"verbosity": "low"})
    ask(client)
    first, second = instrumented()
    assert first["custom_attributes"]["citations"] == "https://a.example, file-1"
    assert [call["name"] for call in first["tool_calls"]] == ["roll"]
    assert first["model_options"]["extra_options"] == {"verbosity": "low"}
    assert second["custom_attributes"]["citations"] == "https://b.example"


NULLS: Any = {
    "type": "web_search",
    "user_location": {"type": "approximate", "city": None, "country": "NO"},
    "filters": None,
}
SCHEMA: Any = {"type": "object", "properties": {"day": {"type": "string", "default": None}}}
FUNCTION: Any = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True, "description": None}


@pytest.mark.parametrize("decorated", [False, True])
def test_tools_are_logged_without_nulls_except_in_their_schemas(
    decorated: bool, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on("POST /responses", response("resp_1", output_text(RAIN), tools=[NULLS, FUNCTION]))
    with as_a_call(decorated):
        respond(client)
    search, function = only_log(instrumented)["tools"]
    assert search == {"type": "web_search", "user_location": {"type": "approximate", "country": "NO"}}
    assert function == {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}


# Servers with non-standard shapes ---------------------------------------------------------------------------------


def without(wire: Wire, *names: str) -> Wire:
    return {name: value for name, value in wire.items() if name not in names}


@pytest.mark.parametrize("decorated", [False, True])
@pytest.mark.parametrize("missing", [("status",), ("id", "object"), ("object",)], ids="+".join)
def test_a_response_without_object_id_or_status_is_logged(
    missing: tuple[str, ...], decorated: bool, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on("POST /responses", without(response("resp_1", output_text(RAIN)), *missing))
    with as_a_call(decorated):
        respond(client)
    log = only_log(instrumented)
    assert (log["user_query"], log["response"], log["total_tokens"]) == (QUERY, RAIN, 26)


@pytest.mark.parametrize("decorated", [False, True])
@pytest.mark.parametrize("named", ["text_completion", ""])
def test_a_completion_with_another_object_name_is_logged(
    named: str, decorated: bool, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on("POST /chat/completions", {**chat(content=RAIN), "object": named})
    with as_a_call(decorated):
        ask(client)
    log = only_log(instrumented)
    assert (log["user_query"], log["response"], log["total_tokens"]) == (QUERY, RAIN, 7)


BAD_GATEWAY: Wire = {"error": {"message": "Provider returned error", "code": 502}}


@pytest.mark.parametrize("decorated", [False, True])
def test_an_error_with_status_200_is_an_error(
    decorated: bool, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    choice = {"index": 0, "finish_reason": "error", "message": {"role": "assistant", "content": ""}, **BAD_GATEWAY}
    server.on("POST /responses", BAD_GATEWAY)
    server.on("POST /chat/completions", BAD_GATEWAY, {**chat(), "choices": [choice]})
    for call in (respond, ask, ask):
        with as_a_call(decorated):
            call(client)
    assert [(log["user_query"], log["error"]) for log in instrumented()] == [(QUERY, "Provider returned error")] * 3


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": "Model not loaded"}, "Model not loaded"),
        ({"detail": "Not authenticated"}, "Not authenticated"),
        ({"error": {"message": "Too long"}}, "Too long"),
        ([{"error": {"message": "No such key", "status": "INVALID_ARGUMENT"}}], "No such key"),
        ({"Message": "Forbidden"}, 'BadRequestError: {"Message": "Forbidden"}'),
        (
            {"detail": [{"loc": ["body", "messages"], "msg": "Field required"}]},
            'BadRequestError: {"detail": [{"loc": ["body", "messages"], "msg": "Field required"}]}',
        ),
    ],
)
def test_an_error_is_logged_with_the_servers_message(
    body: Wire, words: str, server: Server, client: OpenAI, instrumented: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failure, "body", property(lambda _self: body))
    server.on("POST /chat/completions", Failure(400, ""))
    with pytest.raises(BadRequestError):
        ask(client)
    assert only_log(instrumented)["error"] == words


@pytest.mark.parametrize("api", ["chat", "responses", "runs"])
def test_an_event_named_error_with_only_a_message_is_an_error(
    api: str, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    failed = ("error", {"message": "Later.", "code": None})
    begun = ("thread.run.created", run(status="in_progress"))
    server.on("POST /chat/completions", Events([(None, chunks({"content": "On"})[0]), failed]))
    server.on("POST /responses", Events([failed]))
    server.on(f"POST {THREAD}/runs", Events([begun, failed]))
    with athina_trace.athina_trace():
        if api == "chat":
            list(client.chat.completions.create(model="m", messages=ASK, stream=True))
        elif api == "responses":
            list(client.responses.create(model="m", input=QUERY, stream=True))
        else:
            list(client.beta.threads.runs.create(thread_id="thread_1", assistant_id="asst_1", stream=True))
    assert only_log(instrumented)["error"] == "Later."


def test_an_error_as_the_only_event_of_a_stream_is_an_error(server: Server, client: OpenAI, instrumented: Logs) -> None:
    server.on("POST /responses", Events.of_response({"type": "error", "code": "overloaded", "message": "Later."}))
    list(respond(client, stream=True))
    log = only_log(instrumented)
    assert (log["error"], log["custom_attributes"]["status"]) == ("overloaded: Later.", "failed")
    assert "outcome" not in log["custom_attributes"]


def test_an_error_in_an_unparsed_event_is_an_error(server: Server, client: OpenAI, instrumented: Logs) -> None:
    failed = {"type": "error", "error": {"type": "server_error", "code": "overloaded", "message": "Later."}}
    server.on("POST /responses", Events.of_response(failed))
    with client.responses.with_streaming_response.create(model="gpt-4.1", input=QUERY, stream=True) as raw:
        list(raw.iter_lines())
    assert only_log(instrumented)["error"] == "overloaded: Later."


def test_text_deltas_without_an_item_are_the_answer(server: Server, client: OpenAI, instrumented: Logs) -> None:
    piece = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "item_id": "msg_1"}
    deltas = [{**piece, "delta": "It rains"}, {**piece, "delta": " in Oslo."}]
    done = {"type": "response.completed", "response": response("resp_1")}
    server.on("POST /responses", Events.of_response(*deltas, done))
    list(respond(client, stream=True))
    log = only_log(instrumented)
    assert (log["response"], log["total_tokens"]) == (RAIN, 26)


CALL: Wire = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather"}


@pytest.mark.parametrize("final", [[], None, "as the items"], ids=["empty", "null", "items"])
@pytest.mark.parametrize("content", [[], None, [{"type": "output_text", "text": "", "annotations": []}]])
def test_items_that_end_empty_have_their_streamed_text(
    content: Any, final: Any, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    """Servers that convert another API's stream may have the text only in its deltas."""
    made = events()[:-2]
    ended: list[Wire] = [{**output_text(""), "content": content}, {**CALL, "arguments": ""}]
    made += [{"type": "response.output_item.done", "output_index": 0, "item": ended[0]}]
    piece = {"type": "response.function_call_arguments.delta", "output_index": 1, "item_id": "fc_1"}
    made += [{"type": "response.output_item.added", "output_index": 1, "item": ended[1]}]
    made += [{**piece, "delta": '{"city":'}, {**piece, "delta": '"Oslo"}'}]
    made += [{"type": "response.output_item.done", "output_index": 1, "item": ended[1]}]
    whole = {**response("resp_1"), "output": ended if final == "as the items" else final}
    server.on("POST /responses", Events.of_response(*made, {"type": "response.completed", "response": whole}))
    list(respond(client, stream=True))
    log = only_log(instrumented)
    assert (log["response"], log["total_tokens"]) == (RAIN, 26)
    assert [call["function"]["arguments"] for call in log["tool_calls"]] == ['{"city":"Oslo"}']


def test_an_item_takes_no_text_from_another_kind_of_item_at_its_index(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    search: Wire = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    whole = response("resp_1", search, output_text(RAIN))
    made = [*events()[:-1], {"type": "response.completed", "response": whole}]
    server.on("POST /responses", Events.of_response(*made))
    list(respond(client, stream=True))
    log = only_log(instrumented)
    assert (log["response"], log["tool_calls"]) == (RAIN, [search])


def called(*calls: Wire) -> Wire:
    return {"tool_calls": list(calls)}


def test_tool_calls_are_distinguished_however_a_server_numbers_them(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    one: Wire = {"index": 0, **function_call("call_1", arguments='{"a"')}
    two: Wire = {"index": 0, **function_call("call_2", name="time", arguments="{}")}
    rest: Wire = {"index": 0, "id": "", "type": "function", "function": {"name": None, "arguments": ": 1}"}}
    server.on("POST /chat/completions", Events.of_chat(*chunks(called(one), called(rest), called(two))))
    list(ask(client, stream=True))
    told = [(call["id"], *call["function"].values()) for call in only_log(instrumented)["tool_calls"]]
    assert told == [("call_1", "weather", '{"a": 1}'), ("call_2", "time", "{}")]


def test_ids_that_change_with_each_chunk_make_no_new_calls(server: Server, client: OpenAI, instrumented: Logs) -> None:
    one: Wire = {"index": 0, **function_call("call_1", arguments='{"a"')}
    rest: Wire = {"index": 0, "id": "call_x", "function": {"arguments": ": 1}"}}
    server.on("POST /chat/completions", Events.of_chat(*chunks(called(one), called(rest))))
    list(ask(client, stream=True))
    (call,) = only_log(instrumented)["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": '{"a": 1}'}


@pytest.mark.parametrize("choices", [{"choices": None}, {}], ids=["null", "absent"])
def test_usage_is_read_from_a_chunk_without_choices(
    choices: Wire, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    last = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": HOUR, "model": "gpt-4o-mini", **choices}
    usage = {"usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}
    server.on("POST /chat/completions", Events.of_chat(*chunks({"content": RAIN}), {**last, **usage}))
    list(ask(client, stream=True))
    assert (only_log(instrumented)["response"], only_log(instrumented)["total_tokens"]) == (RAIN, 7)


def test_null_fields_in_a_delta_remove_nothing(server: Server, client: OpenAI, instrumented: Logs) -> None:
    made = chunks({"content": RAIN}, {"content": None, "role": ""})
    server.on("POST /chat/completions", Events.of_chat(*made))
    with client.chat.completions.with_streaming_response.create(model="gpt-4o-mini", messages=ASK, stream=True) as raw:
        list(raw.iter_lines())
    assert only_log(instrumented)["response"] == RAIN


def spoken(*turns: tuple[str, str]) -> Any:
    """Make a message history of tool calls, each with an id and its output."""
    said: list[Any] = list(ASK)
    for call_id, output in turns:
        said.append({"role": "assistant", "content": None, "tool_calls": [function_call(call_id)]})
        said.append({"role": "tool", "tool_call_id": call_id, "content": output})
    return said


@pytest.mark.parametrize("resent", [True, False], ids=["history resent", "outputs alone"])
def test_calls_with_reused_ids_keep_their_own_outputs(
    resent: bool, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    for number in range(2):
        made = chat(f"chatcmpl-{number}", content=None, tool_calls=[function_call("call_0")])
        server.on("POST /chat/completions", made)
    server.on("POST /chat/completions", chat("chatcmpl-2", content="First rain, then sun."))
    turns = [("call_0", "rain"), ("call_0", "sun")]
    with athina_trace.athina_trace():
        ask(client)
        ask(client, messages=spoken(*turns[:1]))
        ask(client, messages=spoken(*(turns if resent else turns[1:])))
    assert [call["output"] for call in only_log(instrumented)["tool_calls"]] == ["rain", "sun"]


def test_tool_outputs_of_earlier_turns_do_not_belong_to_this_turns_calls(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on("POST /chat/completions", chat(content=None, tool_calls=[function_call("call_0")]))
    server.on("POST /chat/completions", chat("chatcmpl-2", content="Sun."))
    turns = [("call_0", "rain"), ("call_0", "sun")]
    with athina_trace.athina_trace():
        ask(client, messages=spoken(*turns[:1]))
        ask(client, messages=spoken(*turns))
    assert [call["output"] for call in only_log(instrumented)["tool_calls"]] == ["sun"]


def test_legacy_functions_are_logged_as_functions_and_function_call(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    functions: Any = [{"name": "weather", "parameters": {"type": "object", "properties": {}}}]
    server.on("POST /chat/completions", chat(content=None, function_call={"name": "weather", "arguments": "{}"}))
    server.on("POST /chat/completions", chat("chatcmpl-2", content=RAIN))
    told: Any = [*ASK, {"role": "function", "name": "weather", "content": "rain"}]
    with athina_trace.athina_trace():
        ask(client, functions=functions)
        ask(client, messages=told, functions=functions)
    log = only_log(instrumented)
    assert (log["functions"], log["function_call_response"], log["response"]) == (functions, "rain", RAIN)
    assert [call["function"]["name"] for call in log["tool_calls"]] == ["weather"]
