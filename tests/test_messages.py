"""Messages of other libraries, by the shape of their data: roles, question, text and tokens."""

from __future__ import annotations

import asyncio
import json
import sys
import types
from collections.abc import Callable, Generator
from typing import Any

import pytest
import trio
import trio.lowlevel

from athina_trace import aflush, athina_trace
from athina_trace._capture.messages import answer_of, prompt_of
from athina_trace.inference_log import InferenceLog
from athina_trace.testing import captured_logs

Logs = Callable[[], list[dict[str, Any]]]


def langchain(kind: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"type": kind, "content": content, "additional_kwargs": {}, "response_metadata": {}, "name": None, **more}


def ai(content: Any, **more: Any) -> dict[str, Any]:
    return langchain("ai", content, **{"tool_calls": [], "usage_metadata": None, **more})


LANGCHAIN_USAGE = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"a":1}'}}
ANTHROPIC = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [
        {"type": "text", "text": "On its"},
        {"type": "text", "text": " way."},
        {"type": "tool_use", "id": "c1", "name": "find", "input": {"a": 1}},
    ],
    "usage": {"input_tokens": 5, "output_tokens": 3},
}
PYDANTIC_AI_REQUEST = {
    "kind": "request",
    "parts": [
        {"part_kind": "system-prompt", "content": "Be kind."},
        {"part_kind": "user-prompt", "content": "Where is it?"},
        {"part_kind": "tool-return", "content": "Oslo", "tool_call_id": "c1"},
    ],
}
PYDANTIC_AI_RESPONSE = {
    "kind": "response",
    "model_name": "gpt-4o",
    "parts": [
        {"part_kind": "text", "content": "On its way."},
        {"part_kind": "tool-call", "tool_name": "find", "args": {"a": 1}, "tool_call_id": "c1"},
    ],
    "usage": {"input_tokens": 5, "output_tokens": 3},
}
RUN = {"input": "q", "new_items": [], "final_output": "On its way.", "raw_responses": [{"usage": LANGCHAIN_USAGE}] * 2}
PYDANTIC_AI_RUN = {
    "output": "On its way.",
    "_state": {
        "message_history": [PYDANTIC_AI_REQUEST, PYDANTIC_AI_RESPONSE],
        "usage": {"input_tokens": 5, "output_tokens": 3},
    },
}

ANSWERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "langchain": (
        ai("On its way.", usage_metadata=LANGCHAIN_USAGE, response_metadata={"model_name": "gpt-4o"}),
        {"total_tokens": 8, "prompt_tokens": 5, "completion_tokens": 3, "language_model_id": "gpt-4o"},
    ),
    "langchain, parts": (ai([{"type": "text", "text": "On its"}, " way.", {"type": "image"}]), {}),
    "langchain, tools": (
        ai("On its way.", tool_calls=[{"name": "find", "args": {"a": 1}, "id": "c1", "type": "tool_call"}]),
        {"tool_calls": [CALL]},
    ),
    "langgraph": ({"messages": [langchain("human", "q"), ai("On its way.")]}, {}),
    "anthropic": (ANTHROPIC, {"total_tokens": 8, "language_model_id": "claude", "tool_calls": [CALL]}),
    "pydantic-ai": (PYDANTIC_AI_RESPONSE, {"total_tokens": 8, "language_model_id": "gpt-4o", "tool_calls": [CALL]}),
    "pydantic-ai, run": (PYDANTIC_AI_RUN, {"total_tokens": 8, "language_model_id": "gpt-4o"}),
    "agents": (RUN, {"total_tokens": 16, "prompt_tokens": 10}),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_answers(local: Logs, kind: str) -> None:
    answer, expected = ANSWERS[kind]
    athina_trace(lambda question: answer)("q")
    (log,) = local()
    assert log["response"] == "On its way."
    assert {name: log.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    "answer",
    [
        {"type": "message", "content": "no usage"}, {"type": "ai", "content": "no more"}, {"messages": ["text"]},
        {"messages": []}, {"output": "x", "_state": 1}, {"kind": "response", "parts": "x"}, {"final_output": "x"},
        {"type": "text", "text": "x"}, {"type": "message_delta"}, {"parts": [], "kind": 1}, [ai("in a list")],
    ],
)  # fmt: skip
def test_other_data_that_looks_a_little_like_an_answer_is_logged_as_it_is(local: Logs, answer: Any) -> None:
    athina_trace(lambda: answer)()
    assert json.loads(local()[0]["response"]) == answer


PROMPTS: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "langchain": (
        [langchain("system", "Be kind."), langchain("human", "Where is it?")],
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Where is it?"}],
    ),
    "langchain, chat": ([langchain("chat", "hm", role="critic")], [{"role": "critic", "content": "hm"}]),
    "langchain, one": (langchain("human", "Where is it?"), [{"role": "user", "content": "Where is it?"}]),
    "langchain, tools": (
        [
            ai("", tool_calls=[{"name": "find", "args": {"a": 1}, "id": "c1"}]),
            langchain("tool", "x", tool_call_id="c1"),
        ],
        [
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": "x", "tool_call_id": "c1"},
        ],
    ),
    "pairs": (
        [("system", "Be kind."), ["human", "Where is it?"]],
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Where is it?"}],
    ),
    "mixed": (
        [{"role": "system", "content": "Be kind."}, langchain("human", "Where is it?")],
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Where is it?"}],
    ),
    "pydantic-ai": (
        [PYDANTIC_AI_REQUEST, PYDANTIC_AI_RESPONSE],
        [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Where is it?"},
            {"role": "tool", "content": "Oslo", "tool_call_id": "c1"},
            {"role": "assistant", "content": "On its way.", "tool_calls": [CALL]},
        ],
    ),
    "openai": ([{"role": "user", "content": "Where is it?"}], [{"role": "user", "content": "Where is it?"}]),
}


@pytest.mark.parametrize("kind", PROMPTS)
def test_prompts(local: Logs, kind: str) -> None:
    messages, expected = PROMPTS[kind]
    athina_trace(lambda messages: "a")(messages)
    (log,) = local()
    assert log["prompt"] == expected
    if any(message["role"] == "user" for message in expected):
        assert log["user_query"] == "Where is it?"


@pytest.mark.parametrize("messages", [["text"], [("a", "b", "c")], [("other", "x")], [{"kind": "request"}], [3]])
def test_prompts_of_other_shapes_are_left_alone(messages: Any) -> None:
    assert prompt_of(messages) is None
    assert answer_of(messages) is None


def streamed(*chunks: Any) -> InferenceLog:
    with captured_logs() as logs:
        list(athina_trace(lambda: iter(chunks))())
    return logs[0]


def test_streams_of_langchain() -> None:
    pieces = [langchain("AIMessageChunk", piece, usage_metadata=None) for piece in ("On", " its", " way.")]
    last = langchain("AIMessageChunk", "", usage_metadata=LANGCHAIN_USAGE)
    log = streamed(*pieces, last)
    assert (log.response, log.total_tokens) == ("On its way.", 8)


def test_streams_of_anthropic() -> None:
    def delta(text: str) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}

    usage = {"input_tokens": 5, "output_tokens": 1}
    started = {"type": "message_start", "message": {"role": "assistant", "model": "claude", "usage": usage}}
    log = streamed(
        started,
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        delta("On its"),
        {"type": "text", "text": "On its", "snapshot": "On its"},
        delta(" way."),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    )
    assert (log.response, log.total_tokens, log.language_model_id) == ("On its way.", 8, "claude")


def test_the_real_messages_where_the_libraries_are_there(local: Logs) -> None:
    core = pytest.importorskip("langchain_core.messages")

    @athina_trace
    def chat(messages: Any) -> Any:
        return core.AIMessage("On its way.", usage_metadata=LANGCHAIN_USAGE)

    chat([core.SystemMessage("Be kind."), core.HumanMessage("Where is it?")])
    (log,) = local()
    assert (log["user_query"], log["response"], log["total_tokens"]) == ("Where is it?", "On its way.", 8)


# ---- errors that hold others


class RateLimited(Exception):  # noqa: N818 - as a client's might be called
    status_code = 429


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
def test_an_exception_group_names_what_it_holds(local: Logs) -> None:
    group: Any = vars(__import__("builtins"))["ExceptionGroup"]

    @athina_trace
    async def ask(question: str) -> None:
        raise group("two", [ValueError("odd"), group("inner", [RateLimited("slow down")])])

    with pytest.raises(group):
        asyncio.run(ask("q"))
    (log,) = local()
    assert log["error"].splitlines() == [
        "ExceptionGroup: two (2 sub-exceptions)",
        "ValueError: odd",
        "RateLimited: slow down",
    ]
    assert log["status_code"] == 429


# ---- other loops and other coroutines


def test_generator_based_coroutines(local: Logs) -> None:
    @athina_trace
    @types.coroutine
    def ask(question: str) -> Generator[None, None, str]:
        yield
        return "a"

    async def main() -> Any:
        return await ask("q")

    assert asyncio.run(main()) == "a"
    (log,) = local()
    assert log["response"] == "a"
    assert "chunks" not in log["custom_attributes"]


def test_flushing_under_trio(local: Logs) -> None:
    assert trio.run(aflush, 1.0).waiting == 0


@pytest.mark.parametrize("awaits", [False, True])
def test_async_generators_that_are_suspended_when_trio_ends(local: Logs, awaits: bool) -> None:
    @athina_trace
    async def stream(question: str) -> Any:
        try:
            yield "a"
            yield "b"
        finally:
            if awaits:
                await trio.lowlevel.checkpoint()

    async def main() -> None:
        for number in range(20):
            kept.append(stream(str(number)))
            await anext(kept[-1])

    kept: list[Any] = []
    trio.run(main)
    outcomes = [(log["custom_attributes"].get("outcome"), log.get("error")) for log in local()]
    assert outcomes == [("incomplete", None)] * 20
