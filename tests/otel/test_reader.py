"""The attributes of spans in each convention, one by one."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athina_trace._answers.accumulator import AnswerAccumulator
from athina_trace._answers.records import ToolOutput
from athina_trace.integrations.opentelemetry.reader import (
    Kind,
    identity_of,
    kind_of,
    read_documents,
    read_model,
    read_tool,
    was_given_up,
)
from athina_trace.integrations.opentelemetry.spans import Event, SpanRecord
from athina_trace.integrations.opentelemetry.values import decoded, items, mapping, nested, number_of, string_of

SYSTEM, QUESTION, ANSWER = "Be brief.", "How cold is it?", "Three degrees."
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
TOOL = {"type": "function", "function": {"name": "weather"}}
USED = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def span(name: str = "chat gpt-4o", **more: Any) -> SpanRecord:
    return SpanRecord(name=name, span_id="00000000000000aa", **more)


def fields(span: SpanRecord) -> dict[str, Any]:
    accumulator = AnswerAccumulator()
    accumulator.take(read_model(span))
    return accumulator.fields()


def dumped(*messages: dict[str, Any]) -> str:
    return json.dumps(messages)


def text_part(text: str) -> dict[str, str]:
    return {"type": "text", "content": text}


CURRENT: dict[str, Any] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "anthropic",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.response.model": "gpt-4o-2024",
    "gen_ai.response.id": "msg_1",
    "gen_ai.response.finish_reasons": ("stop",),
    "gen_ai.request.temperature": 0.5,
    "gen_ai.request.stop_sequences": ("END",),
    "gen_ai.conversation.id": "thread_1",
    "user.id": "user_1",
    "gen_ai.prompt.name": "greeting",
    "gen_ai.prompt.version": "3",
    "gen_ai.usage.input_tokens": 5,
    "gen_ai.usage.output_tokens": 2,
    "gen_ai.usage.cache_read.input_tokens": 1,
    "operation.cost": 0.25,
    "gen_ai.tool.definitions": json.dumps([TOOL]),
    "gen_ai.system_instructions": dumped(text_part(SYSTEM)),
    "gen_ai.input.messages": dumped({"role": "user", "parts": [text_part(QUESTION)]}),
    "gen_ai.output.messages": dumped({"role": "assistant", "parts": [text_part(ANSWER)], "finish_reason": "stop"}),
}
INDEXED: dict[str, Any] = {
    "llm.request.type": "chat",
    "gen_ai.system": "anthropic",
    "gen_ai.response.model": "gpt-4o-2024",
    "gen_ai.response.id": "msg_1",
    "gen_ai.prompt.0.role": "system",
    "gen_ai.prompt.0.content": SYSTEM,
    "gen_ai.prompt.1.role": "user",
    "gen_ai.prompt.1.content": json.dumps([{"type": "text", "text": QUESTION}]),
    "gen_ai.completion.0.role": "assistant",
    "gen_ai.completion.0.content": ANSWER,
    "gen_ai.completion.0.finish_reason": "stop",
    "gen_ai.usage.prompt_tokens": 5,
    "gen_ai.usage.completion_tokens": 2,
    "llm.usage.total_tokens": 7,
    "llm.request.functions.0.name": "weather",
    "traceloop.association.properties.session_id": "thread_1",
    "traceloop.association.properties.user_id": "user_1",
    "traceloop.prompt.key": "greeting/3",
}
OPENINFERENCE: dict[str, Any] = {
    "openinference.span.kind": "LLM",
    "llm.model_name": "gpt-4o-2024",
    "llm.system": "anthropic",
    "llm.finish_reason": "stop",
    "llm.invocation_parameters": '{"temperature": 0.5, "stop": ["END"]}',
    "llm.input_messages.0.message.role": "system",
    "llm.input_messages.0.message.content": SYSTEM,
    "llm.input_messages.1.message.role": "user",
    "llm.input_messages.1.message.contents.0.message_content.type": "text",
    "llm.input_messages.1.message.contents.0.message_content.text": QUESTION,
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.content": ANSWER,
    "llm.tools.0.tool.json_schema": json.dumps(TOOL),
    "llm.token_count.prompt": 5,
    "llm.token_count.completion": 2,
    "llm.token_count.total": 7,
    "llm.cost.total": 0.25,
    "output.value": '{"id": "msg_1"}',
    "session.id": "thread_1",
    "user.id": "user_1",
    "prompt.id": "greeting/3",
}
AI_SDK: dict[str, Any] = {
    "ai.response.model": "gpt-4o-2024",
    "ai.model.id": "gpt-4o",
    "ai.response.id": "msg_1",
    "ai.response.finishReason": "stop",
    "ai.prompt.messages": dumped(
        {"role": "system", "content": SYSTEM}, {"role": "user", "content": [{"type": "text", "text": QUESTION}]}
    ),
    "ai.prompt.tools": [json.dumps(TOOL)],
    "ai.response.text": ANSWER,
    "ai.usage.promptTokens": 5,
    "ai.usage.outputTokens": 2,
    "ai.settings.temperature": 0.5,
    "ai.telemetry.metadata.sessionId": "thread_1",
    "ai.telemetry.metadata.userId": "user_1",
}
EVENTS = [
    Event(name="gen_ai.system.message", attributes={"content": SYSTEM}),
    Event(name="gen_ai.user.message", attributes={"content": QUESTION}),
    Event(
        name="gen_ai.choice",
        attributes={"index": 0, "finish_reason": "stop", "message": json.dumps({"content": ANSWER})},
    ),
]
CONTENT_EVENTS = [
    Event(
        name="gen_ai.content.prompt",
        attributes={
            "gen_ai.prompt": dumped({"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION})
        },
    ),
    Event(
        name="gen_ai.content.completion",
        attributes={"gen_ai.completion": dumped({"role": "assistant", "content": ANSWER})},
    ),
]
SMALL = {
    "gen_ai.operation.name": "chat",
    "gen_ai.response.model": "gpt-4o-2024",
    "gen_ai.usage.input_tokens": 5,
    "gen_ai.usage.output_tokens": 2,
}
LOGFIRES = [{"event.name": event.name, **event.attributes} for event in EVENTS]
AZURES = [Event(name=event.name, attributes={"gen_ai.event.content": json.dumps(event.attributes)}) for event in EVENTS]
DETAILS = Event(name="gen_ai.client.inference.operation.details", attributes=CURRENT)

SPANS = {
    "current": span(attributes=CURRENT),
    "structured": span(
        attributes={name: decoded(each) if "messages" in name else each for name, each in CURRENT.items()}
    ),
    "details": span(attributes=SMALL, events=[DETAILS]),
    "indexed": span(attributes=INDEXED),
    "openinference": span(attributes=OPENINFERENCE),
    "ai sdk": span("ai.generateText.doGenerate", attributes=AI_SDK),
    "events": span(attributes=SMALL, events=EVENTS),
    "azure's events": span(attributes=SMALL, events=AZURES),
    "content events": span(attributes=SMALL, events=CONTENT_EVENTS),
    "logfire's events": span(attributes={**SMALL, "events": json.dumps(LOGFIRES)}),
}


@pytest.mark.parametrize("convention", SPANS)
def test_each_convention_has_the_question_and_the_answer(convention: str) -> None:
    log = fields(SPANS[convention])
    assert (log["user_query"], log["response"], log["language_model_id"]) == (QUESTION, ANSWER, "gpt-4o-2024")
    assert log["prompt"] == [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
    assert {name: log[name] for name in USED} == USED


@pytest.mark.parametrize("convention", ["current", "structured", "indexed", "openinference", "ai sdk"])
def test_each_convention_has_session_user_and_options(convention: str) -> None:
    log = fields(SPANS[convention])
    assert (log["session_id"], log["customer_user_id"]) == ("thread_1", "user_1")
    assert ("id", "msg_1") in read_model(SPANS[convention])[0].names  # type: ignore[union-attr]
    assert log["custom_attributes"]["status"] == "stop"
    if convention != "ai sdk":
        assert log["prompt_slug"] == "greeting/3"
        assert log["tools"] == [TOOL] or convention == "indexed"
    if convention != "indexed":
        assert log["model_options"]["temperature"] == 0.5
    assert log.get("cost", 0.25) == 0.25


def calling(convention: str) -> SpanRecord:
    part = {"type": "tool_call", "id": "call_1", "name": "weather", "arguments": {"city": "Oslo"}}
    function = "llm.output_messages.0.message.tool_calls.0.tool_call"
    arguments = CALL["function"]["arguments"]  # type: ignore[index]
    by_convention: dict[str, dict[str, Any]] = {
        "current": {**SMALL, "gen_ai.output.messages": dumped({"role": "assistant", "parts": [part]})},
        "litellm": {
            **SMALL,
            "gen_ai.output.messages": dumped({"role": "assistant", "parts": [], "tool_calls": [CALL]}),
        },
        "litellm v2": {
            **SMALL,
            "gen_ai.output.messages": dumped({"role": "assistant", "content": None, "tool_calls": [CALL]}),
        },
        "blocks": {
            **SMALL,
            "gen_ai.output.messages": dumped(
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Oslo"}}],
                }
            ),
        },
        "indexed": {
            **SMALL,
            "gen_ai.completion.0.tool_calls.0.id": "call_1",
            "gen_ai.completion.0.tool_calls.0.name": "weather",
            "gen_ai.completion.0.tool_calls.0.arguments": arguments,
        },
        "openinference": {
            "openinference.span.kind": "LLM",
            f"{function}.id": "call_1",
            f"{function}.function.name": "weather",
            f"{function}.function.arguments": arguments,
        },
        "ai sdk": {
            "ai.response.toolCalls": dumped({"toolCallId": "call_1", "toolName": "weather", "input": {"city": "Oslo"}})
        },
    }
    if convention == "events":
        message = json.dumps({"tool_calls": [CALL]})
        return span(attributes=SMALL, events=[Event(name="gen_ai.choice", attributes={"message": message})])
    return span(attributes=by_convention[convention])


@pytest.mark.parametrize(
    "convention", ["current", "litellm", "litellm v2", "blocks", "indexed", "openinference", "ai sdk", "events"]
)
def test_tool_calls_have_one_form_in_all_conventions(convention: str) -> None:
    assert fields(calling(convention))["tool_calls"] == [CALL]


@pytest.mark.parametrize("text", [None, "I ask."])
def test_tool_calls_in_the_older_form_are_read_beside_messages_in_the_current_one(text: str | None) -> None:
    parts = [text_part(text)] if text else []
    attributes: dict[str, Any] = {
        **SMALL,
        "gen_ai.output.messages": dumped({"role": "assistant", "parts": parts}),
        "gen_ai.completion.0.function_call.name": "weather",
        "gen_ai.completion.0.function_call.arguments": CALL["function"]["arguments"],  # type: ignore[index]
        "gen_ai.completion.1.function_call.name": "time",
    }
    log = fields(span(attributes=attributes))
    assert log["tool_calls"] == [
        {"type": "function", "function": CALL["function"]},
        {"type": "function", "function": {"name": "time"}},
    ]
    assert log.get("response") == text


@pytest.mark.parametrize("text", ['{"text": "x"}', '[{"text": "x"}]', "[1]"])
def test_text_that_looks_like_json_is_unchanged(text: str) -> None:
    message = {"role": "user", "content": text}
    assert fields(span(attributes={**SMALL, "gen_ai.input.messages": dumped(message)}))["user_query"] == text


ASKED_AGAIN: dict[str, dict[str, Any]] = {
    "litellm": {"gen_ai.input.messages": dumped({"role": "tool", "parts": [text_part("3")], "tool_call_id": "call_1"})},
    "litellm v2": {"gen_ai.input.messages": dumped({"role": "tool", "content": "3", "tool_call_id": "call_1"})},
    "litellm v2, in parts": {
        "gen_ai.input.messages": dumped(
            {"role": "tool", "content": [{"type": "text", "text": "3"}], "tool_call_id": "call_1"}
        )
    },
    "blocks": {
        "gen_ai.input.messages": dumped(
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "3"}]}
        )
    },
    "current": {
        "gen_ai.input.messages": dumped(
            {"role": "assistant", "parts": [{"type": "tool_call", "id": "call_1", "name": "weather"}]},
            {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_1", "response": "3"}]},
        )
    },
    "pydantic": {
        "gen_ai.input.messages": dumped(
            {"role": "user", "parts": [{"type": "tool_call_response", "id": "call_1", "result": "3"}]},
        )
    },
    "two kinds of ids": {
        "gen_ai.input.messages": dumped(
            {"role": "assistant", "parts": [{"type": "tool_call", "id": "call_1", "name": "weather"}]},
            {"role": "tool", "parts": [{"type": "tool_call_response", "id": "another_1", "response": "3"}]},
        )
    },
    "indexed": {
        "gen_ai.prompt.0.role": "tool",
        "gen_ai.prompt.0.tool_call_id": "call_1",
        "gen_ai.prompt.0.content": "3",
    },
    "openinference": {
        "llm.input_messages.0.message.role": "tool",
        "llm.input_messages.0.message.tool_call_id": "call_1",
        "llm.input_messages.0.message.content": "3",
    },
    "ai sdk": {
        "ai.prompt.messages": dumped(
            {"role": "tool", "content": [{"type": "tool-result", "toolCallId": "call_1", "output": "3"}]}
        )
    },
    "ai sdk 5": {
        "ai.prompt.messages": dumped(
            {
                "role": "tool",
                "content": [{"type": "tool-result", "toolCallId": "call_1", "output": {"type": "text", "value": "3"}}],
            }
        )
    },
}


@pytest.mark.parametrize("convention", ASKED_AGAIN)
def test_tool_outputs_in_the_next_prompt_belong_to_their_calls_and_are_no_question(convention: str) -> None:
    asked = {**ASKED_AGAIN[convention], **SMALL}
    accumulator = AnswerAccumulator()
    accumulator.take(read_model(calling("current")))
    accumulator.take(read_model(SpanRecord(name="chat", span_id="00000000000000bb", attributes=asked)))
    log = accumulator.fields()
    assert [call["output"] for call in log["tool_calls"]] == ["3"]
    assert "user_query" not in log


@pytest.mark.parametrize("outputs", [("b", "a"), ("x", "y"), ("x", "a")])
def test_tool_outputs_are_matched_to_calls_by_id_and_then_by_order(outputs: tuple[str, str]) -> None:
    """If outputs have other ids, as in one of a span's conventions, they are matched in order."""
    messages = [{"role": "assistant", "parts": [{"type": "tool_call", "id": call, "name": "weather"}]} for call in "ab"]
    messages += [
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": call, "response": call}]} for call in outputs
    ]
    records = read_model(span(attributes={**CURRENT, "gen_ai.input.messages": dumped(*messages)}))
    given = {each.call: each.value for each in records if isinstance(each, ToolOutput)}
    assert (
        given
        == {("b", "a"): {"a": "a", "b": "b"}, ("x", "y"): {"a": "x", "b": "y"}, ("x", "a"): {"a": "a", "b": "x"}}[
            outputs
        ]
    )


@pytest.mark.parametrize(
    ("name", "attributes", "kind"),
    [
        ("chat", {"gen_ai.operation.name": "chat"}, Kind.MODEL),
        ("complete", {"gen_ai.operation.name": "text_completion"}, Kind.MODEL),
        ("generate", {"gen_ai.operation.name": "generate_content"}, Kind.MODEL),
        ("semantic kernel", {"gen_ai.operation.name": "text_completions"}, Kind.MODEL),
        ("semantic kernel, .NET", {"gen_ai.operation.name": "chat.completions"}, Kind.MODEL),
        ("semantic kernel, .NET", {"gen_ai.operation.name": "text.completions"}, Kind.MODEL),
        ("agent", {"gen_ai.operation.name": "invoke_agent"}, Kind.OTHER),
        ("workflow", {"gen_ai.operation.name": "invoke_workflow"}, Kind.OTHER),
        ("embed", {"gen_ai.operation.name": "embeddings"}, Kind.OTHER),
        ("again", {"gen_ai.operation.name": "fetch_response"}, Kind.OTHER),
        ("tool", {"gen_ai.operation.name": "execute_tool"}, Kind.TOOL),
        ("find", {"gen_ai.operation.name": "retrieval"}, Kind.RETRIEVAL),
        ("llm", {"openinference.span.kind": "LLM"}, Kind.MODEL),
        ("both", {"openinference.span.kind": "CHAIN", "gen_ai.operation.name": "chat"}, Kind.OTHER),
        ("agent", {"openinference.span.kind": "AGENT"}, Kind.OTHER),
        ("tool", {"openinference.span.kind": "TOOL"}, Kind.TOOL),
        ("find", {"openinference.span.kind": "RETRIEVER"}, Kind.RETRIEVAL),
        ("ai.generateText", {"ai.usage.promptTokens": 5}, Kind.OTHER),
        ("ai.generateText.doGenerate", {}, Kind.MODEL),
        ("ai.streamText.doStream", {}, Kind.MODEL),
        ("ai.generateObject.doGenerate", {}, Kind.MODEL),
        ("ai.embed.doEmbed", {}, Kind.OTHER),
        ("ai.toolCall", {}, Kind.TOOL),
        ("old", {"llm.request.type": "completion"}, Kind.MODEL),
        ("task", {"traceloop.span.kind": "workflow"}, Kind.OTHER),
        ("GET /", {}, Kind.OTHER),
        ("odd", {"gen_ai.operation.name": ["chat"]}, Kind.OTHER),
    ],
)
def test_only_model_requests_are_answers(name: str, attributes: dict[str, Any], kind: Kind) -> None:
    assert kind_of(name, attributes) is kind


@pytest.mark.parametrize(
    ("description", "attributes", "expected"),
    [
        ("Overloaded", {}, ("Overloaded", None)),
        (None, {"error.type": "timeout"}, ("timeout", None)),
        ("Busy", {"error.type": "429"}, ("Busy", 429)),
        ("Busy", {"error.type": "APICallError", "http.response.status_code": 429}, ("Busy", 429)),
        ("Error code: 400 - The model is overloaded.", {}, ("The model is overloaded.", 400)),
        (
            "RateLimitError: Error code: 429 - {'error': {'message': 'Slow down.', 'type': 'x'}}",
            {},
            ("Slow down.", 429),
        ),
        ("status_code: 500, model_name: m, body: {'message': 'Broken.'}", {}, ("Broken.", 500)),
        (
            """("<class 'OpenAIChat'> failed", BadRequestError("Error code: 400 - {'error': {'message': 'No.'}}"))""",
            {},
            ("No.", 400),
        ),
        # OpenInference: the repr of an exception, and where it was raised.
        ("No('Error code: 400 - Not now.')Traceback (most recent call last):\n  File", {}, ("Not now.", 400)),
        ("Error getting response: {'error': 'Error code: 400 - Not now.'}", {}, ("Not now.", 400)),
        ("429 RESOURCE_EXHAUSTED. {'error': {'code': 429, 'message': 'Too many.'}}", {}, ("Too many.", 429)),
        ("ClientError: 400 None. {'error': {'message': 'No.'}}", {}, ("No.", 400)),
        ("Error code: 500 - {'error': {'message': 'cut o", {}, ("{'error': {'message': 'cut o", 500)),
        # OpenLLMetry: the error in an answer of Azure.
        ("{'message': 'Filtered.', 'code': 'content_filter', 'param': None}", {}, ("Filtered.", None)),
        ("{'message': 'cut o", {}, ("{'message': 'cut o", None)),
        # Mistral and Ollama, with JSON instead of Python's repr.
        ('SDKError: API error occurred: Status 429. Body: {"message": "Slow.", "code": null}', {}, ("Slow.", 429)),
        ('API error occurred: Status 401\n{"detail":"Unauthorized"}', {}, ("Unauthorized", 401)),
        ('API error occurred: Status 502 Content-Type "text/html". Body: <b>Bad</b>', {}, ("<b>Bad</b>", 502)),
        ("ResponseError: model 'tiny' not found (status code: 404)", {}, ("model 'tiny' not found", 404)),
        ("Slow down. (status code: 429)", {}, ("Slow down.", 429)),
        ("The order has status 404.\nThat is odd.", {}, ("The order has status 404.\nThat is odd.", None)),
        (None, {}, ("failed", None)),
    ],
)
def test_errors_are_the_apis_message(description: str | None, attributes: Any, expected: tuple[Any, Any]) -> None:
    log = fields(span(attributes={**SMALL, **attributes}, failed=True, description=description))
    assert (log["error"], log.get("status_code")) == expected


def test_the_exception_message_is_the_error_if_the_status_has_none() -> None:
    raised = Event(name="exception", attributes={"exception.type": "ValueError", "exception.message": "No."})
    assert fields(span(attributes=SMALL, events=[raised], failed=True))["error"] == "No."


@pytest.mark.parametrize("kind", ["GeneratorExit", "asyncio.exceptions.CancelledError"])
def test_a_closed_stream_is_no_error(kind: str) -> None:
    closed = span(attributes={**SMALL, "error.type": kind}, failed=True, description=f"{kind}: ")
    assert was_given_up(closed)
    assert "error" not in fields(closed)


def test_an_answer_without_an_end_or_an_error_is_incomplete() -> None:
    assert was_given_up(span(attributes={**CURRENT, "gen_ai.response.finish_reasons": ("error",)}))
    assert not was_given_up(span(attributes=CURRENT))


@pytest.mark.parametrize("group", ["completion_tokens_details", "output_tokens_details"])
def test_reasoning_tokens_are_read_from_logfires_copy_of_the_usage(group: str) -> None:
    raw = json.dumps({group: {"reasoning_tokens": 3}, "prompt_tokens_details": None})
    log = fields(span(attributes={**SMALL, "gen_ai.usage.raw": raw}))
    assert log["custom_attributes"]["reasoning_tokens"] == 3


def test_an_empty_call_is_no_call() -> None:
    parts = [{"type": "text", "content": "4"}, {"type": "tool_call", "name": "", "arguments": ""}]
    answered = json.dumps([{"role": "assistant", "parts": parts}])
    log = fields(span(attributes={**SMALL, "gen_ai.output.messages": answered}))
    assert (log["response"], log.get("tool_calls")) == ("4", None)


def test_zero_token_counts_and_costs_are_left_out() -> None:
    uncounted = {**CURRENT, "gen_ai.usage.input_tokens": 0, "gen_ai.usage.output_tokens": 0, "operation.cost": 0.0}
    assert fields(span(attributes=uncounted)).keys().isdisjoint((*USED, "cost"))


@pytest.mark.parametrize("missing", [-1, "-2", -3.0])
def test_negative_token_counts_are_left_out(missing: float | str) -> None:
    usage = {
        "gen_ai.usage.input_tokens": missing,
        "gen_ai.usage.prompt_tokens": 5,
        "gen_ai.usage.output_tokens": missing,
    }
    details = json.dumps({"input": missing, "output": missing})
    raw = json.dumps({"output_tokens_details": {"reasoning_tokens": missing}})
    for copied in ({}, {"langfuse.observation.usage_details": details}, {"gen_ai.usage.raw": raw}):
        log = fields(span(attributes={**SMALL, **usage, **copied}))
        assert "reasoning_tokens" not in log.get("custom_attributes", {})
        assert (log["prompt_tokens"], log.keys() & {"completion_tokens", "total_tokens"}) == (5, set())
    named_twice = json.dumps({"completion_tokens": missing, "output": 7})
    log = fields(span(attributes={**SMALL, **usage, "langfuse.observation.usage_details": named_twice}))
    assert log["completion_tokens"] == 7


def test_logfires_request_span_is_no_answer_if_the_stream_has_its_own_span() -> None:
    request = span(scope="logfire.openai", attributes={**SMALL, "gen_ai.input.messages": "[]"})
    assert read_model(request) == []
    assert read_model(span(scope="logfire.openai", attributes=CURRENT)) != []


@pytest.mark.parametrize("failed", [False, True])
def test_spans_that_langsmith_writes_later_are_not_answers(failed: bool) -> None:
    content = {"gen_ai.prompt": '{"messages": []}', "gen_ai.completion": '{"choices": []}', "gen_ai.response.id": "c1"}
    attributes = {"gen_ai.operation.name": "chat", **SMALL, **content}
    assert read_model(span(scope="langsmith", attributes=attributes, failed=failed)) == []


OPERATION = "gen_ai.client.inference.operation.details"
BLOCKS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    # Strands Agents: an event for each attribute, or the older events with the blocks of Bedrock's messages.
    "an event for each": [
        (OPERATION, {"gen_ai.system_instructions": dumped(text_part(SYSTEM))}),
        (
            OPERATION,
            {
                "gen_ai.input.messages": dumped(
                    {"role": "user", "parts": [text_part(QUESTION)]},
                    {
                        "role": "assistant",
                        "parts": [{"type": "tool_call", "id": "call_0", "name": "weather", "arguments": {}}],
                    },
                    {
                        "role": "user",
                        "parts": [{"type": "tool_call_response", "id": "call_0", "response": [{"text": "Cold."}]}],
                    },
                )
            },
        ),
        (
            OPERATION,
            {
                "gen_ai.output.messages": dumped(
                    {
                        "role": "assistant",
                        "parts": [
                            {"type": "tool_call", "id": "call_1", "name": "weather", "arguments": {"city": "Oslo"}}
                        ],
                    }
                )
            },
        ),
    ],
    "blocks of Bedrock": [
        ("gen_ai.system.message", {"content": dumped({"text": SYSTEM})}),
        ("gen_ai.user.message", {"content": dumped({"text": QUESTION})}),
        (
            "gen_ai.assistant.message",
            {"content": dumped({"toolUse": {"toolUseId": "call_0", "name": "weather", "input": {}}})},
        ),
        (
            "gen_ai.tool.message",
            {"content": dumped({"toolResult": {"toolUseId": "call_0", "content": [{"text": "Cold."}]}})},
        ),
        (
            "gen_ai.choice",
            {"message": dumped({"toolUse": {"toolUseId": "call_1", "name": "weather", "input": {"city": "Oslo"}}})},
        ),
    ],
    "blocks of Anthropic": [
        ("gen_ai.system.message", {"content": SYSTEM}),
        ("gen_ai.user.message", {"content": dumped({"type": "text", "text": QUESTION})}),
        (
            "gen_ai.assistant.message",
            {"content": dumped({"type": "tool_use", "id": "call_0", "name": "weather", "input": {}})},
        ),
        (
            "gen_ai.user.message",
            {"content": dumped({"type": "tool_result", "tool_use_id": "call_0", "content": "Cold."})},
        ),
        (
            "gen_ai.choice",
            {
                "message": json.dumps(
                    {"content": [{"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Oslo"}}]}
                )
            },
        ),
    ],
}


@pytest.mark.parametrize("written", BLOCKS)
def test_tool_calls_and_outputs_in_content_blocks_are_read(written: str) -> None:
    asked = span(
        attributes={"gen_ai.operation.name": "chat", "gen_ai.request.model": "claude"},
        events=[Event(name=name, attributes=attributes) for name, attributes in BLOCKS[written]],
    )
    records = read_model(asked)
    found = fields(asked)
    assert (found["user_query"], found.get("response"), found["tool_calls"]) == (QUESTION, None, [CALL])
    assert found["prompt"] == [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": ""},
        {"role": "tool", "content": "Cold."},
    ]
    assert [each for each in records if isinstance(each, ToolOutput)] == [ToolOutput(call="call_0", value="Cold.")]


def test_a_tool_output_may_be_data() -> None:
    given = [{"text": "Cold.", "score": 1}]
    part = {"type": "tool_call_response", "id": "call_0", "response": given}
    records = read_model(
        span(attributes={**CURRENT, "gen_ai.input.messages": dumped({"role": "user", "parts": [part]})})
    )
    assert [each.value for each in records if isinstance(each, ToolOutput)] == [given]


def test_a_function_span_of_kind_llm_is_an_answer_if_its_data_is_text() -> None:
    decorated = {"openinference.span.kind": "LLM", "input.value": QUESTION, "output.value": ANSWER}
    found = fields(span(attributes={**decorated, "output.mime_type": "text/plain"}))
    assert (found["user_query"], found["response"]) == (QUESTION, ANSWER)
    hidden = {**decorated, "input.value": "__REDACTED__"}
    assert fields(span(attributes=hidden)).get("user_query") is None
    # Data in no attribute meant for it belongs to a function, such as LlamaIndex's that prepares a request.
    prepares = {**decorated, "llm.model_name": "gpt-4o", "input.value": "{}", "output.value": "{}"}
    prepares |= dict.fromkeys(("input.mime_type", "output.mime_type"), "application/json")
    assert read_model(span(attributes=prepares)) == []
    assert read_model(span(attributes=prepares, failed=True, description="CancelledError")) != []


def test_a_list_of_prompts_is_answered_by_the_output_value() -> None:
    completed = {"openinference.span.kind": "LLM", "llm.prompts": (QUESTION,), "output.value": ANSWER}
    log = fields(span(attributes=completed))
    assert (log["user_query"], log["response"]) == (QUESTION, ANSWER)


@pytest.mark.parametrize(
    "shown", ["<tiny.Stream object at 0x7f8a9c0e7990>", "<generator object ask.<locals>.run at 0x7F8A>"]
)
def test_the_repr_of_a_stream_is_no_response(shown: str) -> None:
    asked = {"openinference.span.kind": "LLM", "llm.model_name": "tiny", "output.value": shown}
    asked |= {"llm.input_messages.0.message.role": "user", "llm.input_messages.0.message.content": QUESTION}
    log = fields(span(attributes=asked))
    assert (log["user_query"], log.get("response")) == (QUESTION, None)


def test_an_unknown_model_name_is_looked_up_elsewhere() -> None:
    name = "traceloop.association.properties.ls_model_name"
    nameless = {**SMALL, "gen_ai.response.model": "unknown", "gen_ai.request.model": "unknown"}
    assert fields(span(attributes={**nameless, name: "command-r"}))["language_model_id"] == "command-r"
    assert fields(span(attributes={**nameless, "gen_ai.request.model": "r"}))["language_model_id"] == "r"
    assert "language_model_id" not in fields(span(attributes=nameless))
    # An instrumentation that does not know the name has still seen a request.
    assert read_model(span(attributes={"gen_ai.operation.name": "chat", "gen_ai.request.model": "unknown"})) != []
    assert fields(span(attributes={**SMALL, name: "command-r"}))["language_model_id"] != "command-r"


LANGFUSE: dict[str, Any] = {
    "langfuse.observation.type": "generation",
    "langfuse.observation.input": dumped({"role": "user", "content": QUESTION}),
    "langfuse.observation.output": json.dumps({"role": "assistant", "content": None, "tool_calls": [CALL]}),
    "langfuse.observation.model.name": "gpt-4o-2024",
    "langfuse.observation.model.parameters": '{"temperature": 0.5, "max_tokens": "Infinity"}',
    "langfuse.observation.usage_details": '{"input": 5, "output": 2, "completion_tokens_details": null}',
    "langfuse.observation.cost_details": '{"total": 0.25}',
    "session.id": "thread_1",
}


def test_langfuse_observations_are_read() -> None:
    assert kind_of("answer", LANGFUSE) is Kind.MODEL
    assert kind_of("answer", {"langfuse.observation.type": "agent"}) is Kind.OTHER
    log = fields(span(attributes=LANGFUSE))
    assert (log["user_query"], log["tool_calls"], log["session_id"]) == (QUESTION, [CALL], "thread_1")
    assert {name: log[name] for name in USED} == USED
    assert (log["language_model_id"], log["model_options"], log["cost"]) == ("gpt-4o-2024", {"temperature": 0.5}, 0.25)
    texts = {"langfuse.observation.input": QUESTION, "langfuse.observation.output": "42"}
    assert [fields(span(attributes={**LANGFUSE, **texts}))[name] for name in ("user_query", "response")] == [
        QUESTION,
        "42",
    ]
    for arguments in (
        {"messages": [{"role": "user", "content": QUESTION}], "tools": []},
        {"args": [QUESTION, 3], "kwargs": {"more": None}},
    ):
        asked = {**LANGFUSE, "langfuse.observation.input": json.dumps(arguments)}
        assert fields(span(attributes=asked))["user_query"] == QUESTION
    assert (
        read_tool(span(attributes={"langfuse.observation.type": "tool", "langfuse.observation.output": "3"})).output
        == "3"
    )


def test_a_request_without_model_and_content_is_no_answer() -> None:
    listing = span(attributes={"openinference.span.kind": "LLM", "llm.system": "openai", "output.value": '{"id": "c"}'})
    assert read_model(listing) == []
    refused = span(attributes={"openinference.span.kind": "LLM"}, failed=True, description="No.")
    assert fields(refused)["error"] == "No."


def test_reasoning_and_tool_calls_beside_text_are_no_choices() -> None:
    item = "llm.output_messages.{}.message"
    attributes = {
        "openinference.span.kind": "LLM",
        item.format(0) + ".contents.0.message_content.type": "reasoning",
        item.format(0) + ".contents.0.message_content.text": "Hm.",
        item.format(1) + ".tool_calls.0.tool_call.function.name": "weather",
        item.format(2) + ".contents.0.message_content.type": "reasoning",
        item.format(2) + ".contents.0.message_content.text": "Hm.",
        item.format(2) + ".contents.1.message_content.type": "text",
        item.format(2) + ".contents.1.message_content.text": ANSWER,
        item.format(3) + ".content": "Another.",
    }
    log = fields(span(attributes=attributes))
    assert (log["response"], log["custom_attributes"]["choices"]) == (ANSWER, '["Another."]')
    assert [call["function"] for call in log["tool_calls"]] == [{"name": "weather"}]


def test_tool_spans_have_the_tools_output() -> None:
    current = {
        "gen_ai.tool.call.id": "call_1",
        "gen_ai.tool.name": "weather",
        "gen_ai.tool.call.arguments": '{"city":"Oslo"}',
        "gen_ai.tool.call.result": '"3 degrees"',
    }
    assert read_tool(span(attributes=current)) == ("call_1", "weather", '{"city":"Oslo"}', "3 degrees")
    ai_sdk = {"ai.toolCall.id": "call_1", "ai.toolCall.name": "weather", "ai.toolCall.result": '{"degrees": 3}'}
    assert read_tool(span(attributes=ai_sdk)) == ("call_1", "weather", None, '{"degrees": 3}')
    openinference = {"tool.name": "weather", "input.value": "{}", "output.value": "3"}
    assert read_tool(span(attributes=openinference)) == (None, "weather", "{}", "3")
    assert read_tool(span(failed=True, description="No such city.")).output == "No such city."
    assert read_tool(span()).output is None


def test_retrieval_spans_have_the_documents() -> None:
    current = {"gen_ai.retrieval.documents": json.dumps([{"id": "1", "content": "Cold."}, {"score": 0.1}])}
    assert read_documents(span(attributes=current)) == ("Cold.",)
    openinference = {
        "retrieval.documents.1.document.content": "Second.",
        "retrieval.documents.0.document.content": "First.",
    }
    assert read_documents(span(attributes=openinference)) == ("First.", "Second.")


def test_a_conversation_in_the_invocation_parameters_is_the_session() -> None:
    conversation = '{"conversation": {"id": "conv_1"}}'
    parameters = {"llm.invocation_parameters": conversation, "llm.model_name": "gpt-4o"}
    assert fields(span(attributes=parameters))["session_id"] == "conv_1"


def test_the_status_of_a_response_is_read_from_openinferences_copy() -> None:
    copied = json.dumps({"id": "resp_1", "object": "response", "status": "incomplete"})
    log = fields(span(attributes={**OPENINFERENCE, "llm.finish_reason": "", "output.value": copied}))
    assert log["custom_attributes"]["status"] == "incomplete"


@pytest.mark.parametrize("name", ["litellm.cost.total", "gen_ai.cost.total_cost"])
def test_the_cost_reported_by_litellm_is_read(name: str) -> None:
    assert fields(span(attributes={**SMALL, name: 0.25}))["cost"] == 0.25


@pytest.mark.parametrize("kind", ["text", "input_text"])
def test_a_question_with_an_image_is_read(kind: str) -> None:
    parts = [{"type": kind, "text": QUESTION}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]
    for message in ({"role": "user", "content": parts}, {"role": "user", "parts": parts}):
        log = fields(span(attributes={**SMALL, "gen_ai.input.messages": dumped(message)}))
        assert log["user_query"] == QUESTION


def test_numbers_are_read_in_any_notation() -> None:
    given: dict[str, Any] = {
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "",
        "gen_ai.usage.input_tokens": "31",
        "gen_ai.usage.output_tokens": 2.0,
        "gen_ai.request.temperature": 1,
        "gen_ai.request.top_p": math.nan,
        "gen_ai.request.max_tokens": True,
    }
    log = fields(span(attributes=given))
    assert (log["language_model_id"], log["model_options"]) == ("m", {"temperature": 1})
    assert [str(log[name]) for name in ("prompt_tokens", "completion_tokens", "total_tokens")] == ["31", "2", "33"]


def test_missing_attributes_give_no_fields() -> None:
    assert fields(span(attributes={"gen_ai.operation.name": "chat"})) == {}
    assert identity_of({"session.id": "", "user.id": 7}) == {}


def test_session_and_user_are_read_from_the_context_of_the_newest_ai_sdk() -> None:
    named = identity_of({"ai.settings.context.sessionId": "thread_1", "ai.settings.context.userId": "user_1"})
    assert named == {"session_id": "thread_1", "customer_user_id": "user_1"}


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)
NAMES = sorted(
    {
        *CURRENT,
        *INDEXED,
        *OPENINFERENCE,
        *AI_SDK,
        "gen_ai.completion.0.tool_calls.0.id",
        "events",
        "gen_ai.event.content",
    }
)
ROLES = st.sampled_from(["user", "assistant", "tool", 7, None])
KINDS = ["text", "tool_call", "tool_call_response", "blob", 7]
PARTS: Any = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(KINDS)},
        optional=dict.fromkeys(("content", "id", "name", "arguments", "response", "text"), JSON),
    )
    | JSON,
    max_size=3,
)
MESSAGES = st.lists(st.fixed_dictionaries({"role": ROLES, "parts": PARTS | JSON}) | JSON, max_size=3)
VALUES = JSON | MESSAGES | MESSAGES.map(json.dumps) | st.binary(max_size=4)
HOSTILE = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=6), VALUES, max_size=12)


HOSTILE_EVENTS = st.builds(Event, name=st.sampled_from([each.name for each in EVENTS]), attributes=HOSTILE)


@given(HOSTILE, st.lists(HOSTILE_EVENTS, max_size=4))
def test_no_span_raises(attributes: dict[str, Any], events: list[Event]) -> None:
    hostile = span(attributes=attributes, events=events, resource=attributes, failed=bool(events))
    log = fields(hostile)
    json.dumps(log, allow_nan=False)
    kind_of("ai.", attributes)
    read_tool(hostile)
    read_documents(hostile)
    assert log.get("response") is None or type(log["response"]) is str


@given(JSON)
def test_attribute_readers_return_their_types(value: Any) -> None:
    attributes = {"a": value}
    assert string_of(attributes, "b", "a") == (value if type(value) is str and value else None)
    assert type(number_of(attributes, "a")) in (int, float, type(None))
    assert type(items(value)) is list
    assert hasattr(mapping(value), "get")


def test_deep_and_long_json_is_ignored() -> None:
    assert decoded("[" * 200_000) is None
    assert decoded(json.dumps("x" * 5_000_000)) is None
    assert nested({"a.0.b": 1, "a.1": 2, "a.x.b": 3, "a.99999999999.b": 4, "ab.0.c": 5}, "a") == [{"b": 1}]
