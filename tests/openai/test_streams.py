"""Streams of the three APIs are assembled from their chunks and events, even if they break off."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athina_trace._answers.accumulator import AnswerAccumulator
from athina_trace.integrations.openai.assistants import RunEvents
from athina_trace.integrations.openai.chat import ChatChunks
from athina_trace.integrations.openai.normalise import normalise
from athina_trace.integrations.openai.responses import ResponseEvents

from . import samples
from .samples import HOUR, Wire, as_object


def log_of(accumulator: Any, events: list[Any]) -> dict[str, Any]:
    for event in events:
        if isinstance(plain := normalise(event), dict):
            accumulator.add(plain)
    log = AnswerAccumulator()
    log.add(accumulator.result())
    return log.fields()


def chunk(*choices: Wire, **more: object) -> Wire:
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": HOUR, "model": "gpt-4o-mini"}
    return {**base, "choices": list(choices), "usage": None, **more}


def choice(index: int = 0, reason: str | None = None, **delta: object) -> Wire:
    return {"index": index, "delta": delta, "finish_reason": reason}


def called(index: int, **function: str) -> Wire:
    return {"index": index, "function": function}


def started(index: int, call_id: str, name: str) -> Wire:
    return {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}


CHUNKS = [
    chunk(id="", model="", created=0, prompt_filter_results=[]),
    chunk(choice(role="assistant", content="")),
    chunk(choice(content="Hel")),
    chunk(choice(1, content="Another.")),
    chunk(choice(content="lo.")),
    chunk(choice(tool_calls=[started(0, "call_1", "weather"), started(1, "call_2", "wind")])),
    chunk(choice(tool_calls=[called(1, arguments='{"a"')])),
    chunk(choice(tool_calls=[called(0, arguments="{}")])),
    chunk(choice(tool_calls=[called(1, arguments=":1}")])),
    chunk(choice(reason="tool_calls")),
    chunk(usage={"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}),
]


@pytest.mark.parametrize("wrap", [dict, as_object, lambda wire: {"type": "chunk", "chunk": wire}])
def test_chat_chunks_are_assembled_into_the_completion(wrap: Any) -> None:
    log = log_of(ChatChunks(), list(map(wrap, CHUNKS)))
    assert log == {
        "response": "Hello.",
        "language_model_id": "gpt-4o-mini",
        "tool_calls": [
            samples.function_call("call_1", name="weather", arguments="{}"),
            samples.function_call("call_2", name="wind", arguments='{"a":1}'),
        ],
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "total_tokens": 7,
        "custom_attributes": {"completion_id": "chatcmpl-1", "choices": '["Another."]', "status": "tool_calls"},
    }


def test_a_refusal_and_a_legacy_function_call_are_assembled_from_pieces() -> None:
    assert (
        log_of(ChatChunks(), [chunk(choice(refusal="I ")), chunk(choice(refusal="won't."))])["response"] == "I won't."
    )
    pieces = [
        chunk(choice(function_call={"name": "f", "arguments": "{"})),
        chunk(choice(function_call={"arguments": "}"})),
    ]
    calls = log_of(ChatChunks(), pieces)["tool_calls"]
    assert calls == [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]


def event(kind: str, **more: object) -> Wire:
    return {"type": f"response.{kind}", **more}


CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": ""}
BEGUN = samples.response(status="in_progress", usage=None)
RESPONSE_EVENTS = [
    event("created", response=BEGUN),
    event("output_item.added", output_index=0, item=CALL),
    event("function_call_arguments.delta", output_index=0, delta="{"),
    event("function_call_arguments.delta", output_index=0, delta="}"),
    event("output_item.done", output_index=0, item={**CALL, "arguments": "{}"}),
    event("output_item.added", output_index=1, item={"type": "message", "role": "assistant", "content": []}),
    event("output_text.delta", output_index=1, content_index=0, delta="Hel"),
    event("output_text.delta", output_index=1, content_index=0, delta="lo."),
    event("refusal.delta", output_index=1, content_index=1, delta="No more."),
]


@pytest.mark.parametrize("wrap", [dict, as_object])
def test_the_last_event_of_a_response_has_all_of_it(wrap: Any) -> None:
    final = samples.response("resp_1", samples.output_text("Whole."))
    log = log_of(ResponseEvents(), list(map(wrap, [*RESPONSE_EVENTS, event("completed", response=final)])))
    assert (log["response"], log["total_tokens"], log["custom_attributes"]["status"]) == (
        "Whole.",
        26,
        "completed",
    )


RAIN = {"output_index": 0, "content_index": 0, "text": "It rains."}
PART = {"type": "output_text", "text": "It rains.", "annotations": [{"type": "url_citation", "url": "http://a.test"}]}
WHOLE_TEXTS = [
    [event("output_text.done", **RAIN)],
    [event("content_part.done", output_index=0, content_index=0, part=PART)],
    [event("output_text.done", **RAIN), event("content_part.done", output_index=0, content_index=0, part=PART)],
    [event("output_item.done", output_index=0, item={"type": "message", "role": "assistant", "content": [PART]})],
]
DELTAS = [event("output_text.delta", output_index=0, content_index=0, delta=part) for part in ("It ", "rains.")]
ADDED = [event("output_item.added", output_index=0, item={"type": "message", "role": "assistant", "content": []})]
WHOLE_ADDED = [event("output_item.added", output_index=0, item={"type": "message", "content": [PART]})]
PART_ADDED = [event("content_part.added", output_index=0, content_index=0, part={"type": "output_text", "text": ""})]


@pytest.mark.parametrize("end", [[], [event("completed", response=samples.response("resp_1"))]], ids=["cut", "empty"])
@pytest.mark.parametrize("before", [[], ADDED, WHOLE_ADDED, ADDED + PART_ADDED, DELTAS, ADDED + PART_ADDED + DELTAS])
@pytest.mark.parametrize("whole", WHOLE_TEXTS)
def test_a_whole_text_in_a_stream_is_read_once_with_or_without_deltas(
    whole: list[Wire], before: list[Wire], end: list[Wire]
) -> None:
    log = log_of(ResponseEvents(), [RESPONSE_EVENTS[0], *before, *whole, *end])
    assert log["response"] == "It rains."
    cites = any("annotations" in str(each) for each in before + whole)
    assert log["custom_attributes"].get("citations") == ("http://a.test" if cites else None)


@pytest.mark.parametrize("end", [[], [event("completed", response=samples.response("resp_1"))]], ids=["cut", "empty"])
@pytest.mark.parametrize("deltas", [[], ["{", "}"]])
@pytest.mark.parametrize(
    ("kind", "streamed", "name"),
    [
        ("function_call", "function_call_arguments", "arguments"),
        ("mcp_call", "mcp_call_arguments", "arguments"),
        ("custom_tool_call", "custom_tool_call_input", "input"),
        ("code_interpreter_call", "code_interpreter_call_code", "code"),
    ],
)
def test_whole_arguments_in_a_stream_are_read_once_with_or_without_deltas(
    kind: str, streamed: str, name: str, deltas: list[str], end: list[Wire]
) -> None:
    events = [event("output_item.added", output_index=0, item={"type": kind, "id": "item_1", "name": "act", name: ""})]
    events += [event(f"{streamed}.delta", output_index=0, delta=delta) for delta in deltas]
    events += [event(f"{streamed}.done", output_index=0, **{name: "{}"})]
    (call,) = log_of(ResponseEvents(), [RESPONSE_EVENTS[0], *events, *end])["tool_calls"]
    assert call.get(call["type"], call)[name] == "{}"


def test_items_after_those_of_an_interrupted_responses_last_snapshot_are_kept() -> None:
    snapshot = samples.response("resp_1", samples.output_text("Clouds."), status="in_progress")
    rain = event("output_text.delta", output_index=1, content_index=0, delta="It rains.")
    assert log_of(ResponseEvents(), [event("in_progress", response=snapshot), rain])["response"] == "Clouds.\nIt rains."


@pytest.mark.parametrize("item", [{"type": "reasoning", "summary": []}, {"type": "message", "content": []}, None])
def test_whole_thoughts_in_a_stream_are_not_the_answer(item: Wire | None) -> None:
    """Some servers do not announce the item of thoughts, or give it the place of the message."""
    thought, summary = ({"type": kind, "text": "Clouds."} for kind in ("reasoning_text", "summary_text"))
    events = [
        *([event("output_item.added", output_index=0, item=item)] if item is not None else []),
        event("reasoning_text.done", output_index=0, content_index=0, text="Clouds."),
        event("content_part.done", output_index=0, content_index=0, part=thought),
        event("reasoning_summary_part.done", output_index=0, summary_index=0, part=summary),
        event("output_text.done", **{**RAIN, "output_index": 1}),
    ]
    assert log_of(ResponseEvents(), events)["response"] == "It rains."


@pytest.mark.parametrize("wrap", [dict, as_object])
def test_a_response_that_breaks_off_keeps_what_had_arrived(wrap: Any) -> None:
    log = log_of(ResponseEvents(), list(map(wrap, RESPONSE_EVENTS)))
    assert log["response"] == "Hello.\nNo more."
    assert [call["function"] for call in log["tool_calls"]] == [{"name": "weather", "arguments": "{}"}]
    assert log["custom_attributes"]["status"] == "in_progress"


def test_an_error_event_fails_the_response() -> None:
    log = log_of(ResponseEvents(), [RESPONSE_EVENTS[0], {"type": "error", "code": "server_error", "message": "Sorry."}])
    assert (log["error"], log["custom_attributes"]["status"]) == ("server_error: Sorry.", "failed")


def told(name: str, subject: Wire) -> Wire:
    return {"event": f"thread.{name}", "data": subject}


def delta(subject_id: str, **change: object) -> Wire:
    return {"id": subject_id, "delta": change}


def code(**piece: object) -> Wire:
    return {
        "type": "tool_calls",
        "tool_calls": [{"index": 0, "type": "code_interpreter", "code_interpreter": piece}],
    }


RUN_EVENTS = [
    told("run.created", samples.run(status="queued")),
    told("run.step.created", samples.step("step_1", at=11, status="in_progress")),
    told("run.step.delta", delta("step_1", step_details=code(input="1", outputs=[]))),
    told("run.step.delta", delta("step_1", step_details=code(input="+1"))),
    told("message.created", samples.message("msg_1", at=12, status="in_progress")),
    told("message.delta", delta("msg_1", content=[{"index": 0, "type": "text", "text": {"value": "Tw"}}])),
    told("message.delta", delta("msg_1", content=[{"index": 0, "type": "text", "text": {"value": "o."}}])),
]


@pytest.mark.parametrize("wrap", [dict, as_object])
def test_an_assistants_stream_gives_run_steps_and_messages(wrap: Any) -> None:
    whole = {"id": "call_1", "type": "code_interpreter", "code_interpreter": {"input": "1+1", "outputs": []}}
    ends = [
        told("run.step.completed", samples.step("step_1", whole, at=11)),
        told("message.completed", samples.message("msg_1", "Two.", at=12, status="completed")),
        told("run.completed", samples.run()),
        {"event": "done", "data": "[DONE]"},
    ]
    log = log_of(RunEvents(), list(map(wrap, [*RUN_EVENTS, *ends])))
    assert (log["response"], log["total_tokens"], log["tool_calls"]) == ("Two.", 37, [whole])


@pytest.mark.parametrize("wrap", [dict, as_object])
def test_an_assistants_stream_that_breaks_off_keeps_what_had_arrived(wrap: Any) -> None:
    log = log_of(RunEvents(), list(map(wrap, RUN_EVENTS)))
    assert log["response"] == "Two."
    assert log["tool_calls"] == [{"type": "code_interpreter", "code_interpreter": {"input": "1+1", "outputs": []}}]


def test_a_stream_that_waits_for_tools_gives_their_calls() -> None:
    waiting = told("run.requires_action", samples.waiting_run(samples.function_call()))
    assert log_of(RunEvents(), [*RUN_EVENTS[:1], waiting])["tool_calls"] == [samples.function_call()]


USAGE = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
LIKE_CHUNKS = [
    chunk(choice(content="a"), obfuscation="x"),
    chunk(choice(content="b"), obfuscation="yz"),
    chunk(choice(content="")),
    chunk(choice(1, content="c")),
    chunk(choice(content="d", reasoning_content="e")),
    chunk(choice(reason="length", content="f")),
    chunk(choice(content="g"), choice(1, content="h")),
    chunk(choice(content="i"), model="gpt-4o"),
    chunk(choice(content="j"), usage=USAGE),
    chunk({**choice(content="k"), "usage": USAGE}),
    chunk({**choice(content="l"), "error": {"message": "Sorry."}}),
    chunk(choice(tool_calls=[started(0, "call_1", "weather")])),
]


@given(st.lists(st.sampled_from(LIKE_CHUNKS), max_size=9))
def test_a_chunk_that_is_like_the_one_before_is_read_like_any_other(chunks: list[Wire]) -> None:
    alike, different = ChatChunks(), ChatChunks()
    for number, each in enumerate(chunks):
        alike.add(each)
        different.add({**each, "number": number})
    assert alike.result() == different.result()


LIKE_EVENTS = [
    event("output_text.delta", output_index=place, content_index=index, delta=text)
    for place, index, text in [(0, 0, "a"), (0, 0, "b"), (0, 1, "c"), (1, 0, "d"), (1, 0, "")]
] + [
    event("refusal.delta", output_index=0, content_index=0, delta="e"),
    event("function_call_arguments.delta", output_index=0, delta="f"),
    event("function_call_arguments.delta", output_index=1, delta="g"),
    event("output_item.added", output_index=0, item={"type": "message", "content": []}),
    event("output_item.done", output_index=0, item={"type": "message", "content": []}),
    event("output_text.done", output_index=0, content_index=0, text="h"),
    event("function_call_arguments.done", output_index=1, arguments="i"),
]


@given(st.lists(st.sampled_from(LIKE_EVENTS), max_size=9))
def test_an_event_that_is_like_the_one_before_is_read_like_any_other(events: list[Wire]) -> None:
    at_once, one_by_one = ResponseEvents(), ResponseEvents()
    for each in events:
        at_once.add(each)
        one_by_one.add(each)
        one_by_one.result()  # needs all that came so far
    assert at_once.result() == one_by_one.result()


EVERY = [ChatChunks, ResponseEvents, RunEvents]


@pytest.mark.parametrize("accumulator", EVERY)
def test_a_stream_without_events_gives_nothing(accumulator: Any) -> None:
    assert not accumulator().result()


@given(
    st.lists(
        st.sampled_from([*CHUNKS, *RESPONSE_EVENTS, *RUN_EVENTS, None, 1, {}, {"type": "response.x"}]),
        max_size=9,
    )
)
def test_events_of_any_stream_in_any_order_never_raise(events: list[object]) -> None:
    for accumulator in EVERY:
        log_of(accumulator(), events)
