"""Messages of other libraries are recognised by the shape of their data: roles, question, text and tokens."""

from __future__ import annotations

import asyncio
import json
import sys
import types
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
import trio
import trio.lowlevel

from athina_trace import aflush, athina_trace, current_log
from athina_trace._answers.libraries import answer_of, prompt_of
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

GOOGLE = {
    "candidates": [
        {
            "content": {
                "role": "model",
                "parts": [
                    {"text": "Hm.", "thought": True},
                    {"text": "On its way."},
                    {"function_call": {"id": "c1", "name": "find", "args": {"a": 1}}},
                ],
            },
            "finish_reason": "STOP",
        }
    ],
    "usage_metadata": {"prompt_token_count": 5, "candidates_token_count": 3, "total_token_count": 8},
    "model_version": "gemini",
}
BEDROCK = {
    "output": {
        "message": {
            "role": "assistant",
            "content": [{"text": "On its way."}, {"toolUse": {"toolUseId": "c1", "name": "find", "input": {"a": 1}}}],
        }
    },
    "stopReason": "end_turn",
    "usage": {"inputTokens": 5, "outputTokens": 3, "totalTokens": 8},
}
OLLAMA_COUNTS = {"model": "llama", "done": True, "prompt_eval_count": 5, "eval_count": 3}
OLLAMA_CALL = {"function": {"name": "find", "arguments": {"a": 1}}}
OLLAMA = {**OLLAMA_COUNTS, "message": {"role": "assistant", "content": "On its way.", "tool_calls": [OLLAMA_CALL]}}
COHERE = {
    "id": "1",
    "finish_reason": "COMPLETE",
    "message": {"role": "assistant", "content": [{"type": "text", "text": "On its way."}], "tool_calls": [CALL]},
    "usage": {"billed_units": {"input_tokens": 1.0}, "tokens": {"input_tokens": 5.0, "output_tokens": 3.0}},
}


def llama_index(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "additional_kwargs": {}, "blocks": [{"block_type": "text", "text": text}]}


def llama_index_answer(text: str, delta: str | None = None) -> dict[str, Any]:
    return {"message": llama_index("assistant", text), "raw": None, "delta": delta, "additional_kwargs": {}}


def haystack(role: str, text: str, **meta: Any) -> dict[str, Any]:
    return {"_role": role, "_content": [{"text": text}], "_name": None, "_meta": meta}


def autogen(kind: str, source: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"type": kind, "source": source, "content": content, "models_usage": None, "metadata": {}, **more}


def mistral(*outputs: dict[str, Any]) -> dict[str, Any]:
    return {"object": "conversation.response", "conversation_id": "c", "outputs": outputs, "usage": COUNTS}


COUNTS = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
DOCUMENTS: list[dict[str, Any]] = [{"id": None, "metadata": {}, "page_content": "A parcel.", "type": "Document"}]
CALLING = ai("", id="a1", tool_calls=[{"name": "find", "args": {"a": 1}, "id": "c1"}], usage_metadata=LANGCHAIN_USAGE)
FOUND = langchain("tool", "x", tool_call_id="c1")
SAYING = ai("On its way.", id="a2", usage_metadata=LANGCHAIN_USAGE)
TEAM = [
    autogen("TextMessage", "user", "q"),
    autogen("ToolCallRequestEvent", "a", [{"id": "c1", "name": "find", "arguments": '{"a":1}'}], models_usage=COUNTS),
    autogen("TextMessage", "a", "On its way.", models_usage=COUNTS),
]

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
    "agents": ({**RUN, "_last_agent": {"model": "gpt-4o"}}, {"total_tokens": 16, "language_model_id": "gpt-4o"}),
    "agents, an object as model": ({**RUN, "_last_agent": {"model": "<x.Model>"}}, {"language_model_id": "unknown"}),
    "google": (GOOGLE, {"total_tokens": 8, "language_model_id": "gemini", "tool_calls": [CALL]}),
    "bedrock": (BEDROCK, {"total_tokens": 8, "prompt_tokens": 5, "tool_calls": [CALL]}),
    "ollama": (
        OLLAMA,
        {"total_tokens": 8, "language_model_id": "llama", "tool_calls": [{**CALL, "id": None}]},
    ),
    "ollama, counts in text": (
        {**OLLAMA_COUNTS, "response": "On its way.", "prompt_eval_count": "5", "eval_count": 3.0},
        {"total_tokens": 8},
    ),
    "ollama, generate": ({**OLLAMA_COUNTS, "response": "On its way."}, {"total_tokens": 8}),
    "cohere": (COHERE, {"total_tokens": 8, "completion_tokens": 3, "tool_calls": [CALL]}),
    "llama index": (llama_index_answer("On its way."), {}),
    "llama index, engine": ({"response": "On its way.", "source_nodes": [], "metadata": None}, {}),
    "haystack": (
        {"replies": [haystack("assistant", "On its way.", usage=LANGCHAIN_USAGE, model="gpt-4o")]},
        {"total_tokens": 8, "language_model_id": "gpt-4o"},
    ),
    "langchain, generations": (
        {"generations": [{"message": ai("On its way.", usage_metadata=LANGCHAIN_USAGE)}]},
        {"total_tokens": 8},
    ),
    "langchain, generations of several": ({"generations": [[{"message": ai("On its way.")}]]}, {}),
    "llama index, completion": ({"text": "On its way.", "additional_kwargs": {}, "raw": None, "delta": None}, {}),
    "autogen": (
        {"finish_reason": "stop", "content": "On its way.", "usage": LANGCHAIN_USAGE, "cached": False},
        {"total_tokens": 8},
    ),
    "autogen, team": ({"messages": TEAM, "stop_reason": "x"}, {"total_tokens": 16, "tool_calls": [CALL]}),
    "autogen, agent": ({"chat_message": TEAM[2], "inner_messages": [TEAM[1]]}, {"total_tokens": 16}),
    "langgraph, tools": (
        {"messages": [langchain("human", "old"), ai("Old."), langchain("human", "q"), CALLING, FOUND, SAYING]},
        {"total_tokens": 16, "tool_calls": [CALL]},
    ),
    "langchain, chain": (
        {"query": "q", "result": "On its way.", "source_documents": DOCUMENTS},
        {"context": ["A parcel."]},
    ),
    "langchain, agent": ({"input": "q", "chat_history": [], "output": "On its way."}, {}),
    "langchain, chain of messages": (
        {"input": "q", "context": DOCUMENTS, "answer": SAYING},
        {"total_tokens": 8, "context": ["A parcel."]},
    ),
    "langchain, completions": (
        {"generations": [[{"text": "On its way.", "type": "Generation"}]], "llm_output": {"token_usage": COUNTS}},
        {"total_tokens": 8},
    ),
    "dspy": (
        {"_store": {"reasoning": "Hm.", "answer": "On its way."}, "_lm_usage": {"openai/gpt-4o": {**COUNTS, "x": {}}}},
        {"total_tokens": 8, "language_model_id": "openai/gpt-4o"},
    ),
    "haystack, pipeline": (
        {"llm": {"replies": ["On its way."], "meta": [{"model": "gpt-4o", "usage": COUNTS}]}, "prompt": {"x": 1}},
        {"total_tokens": 8, "language_model_id": "gpt-4o"},
    ),
    "haystack, answers": (
        {
            "b": {
                "answers": [{"data": "On its way.", "documents": [{"content": "A parcel."}], "meta": {"usage": COUNTS}}]
            }
        },
        {"total_tokens": 8, "context": ["A parcel."]},
    ),
    "llama index, agent": (
        {"response": llama_index("assistant", "On its way."), "current_agent_name": "a", "raw": {"usage": COUNTS}},
        {"total_tokens": 8},
    ),
    "cohere, first": (
        {
            "text": "On its way.",
            "generation_id": "g",
            "tool_calls": [{"name": "find", "parameters": {"a": 1}}],
            "meta": {"billed_units": {"input_tokens": 5.0, "output_tokens": 3.0}},
        },
        {"total_tokens": 8, "tool_calls": [{**CALL, "id": None}]},
    ),
    "mistral": (
        mistral({"type": "message.output", "content": "On its way.", "model": "mistral"}),
        {"total_tokens": 8, "language_model_id": "mistral"},
    ),
    "openai, a message": (
        {"role": "assistant", "content": "On its way.", "tool_calls": [CALL]},
        {"tool_calls": [CALL]},
    ),
    "camel case": (
        {"text": "On its way.", "usage": {"inputTokens": 5, "outputTokens": 3}, "modelId": "m"},
        {"total_tokens": 8, "language_model_id": "m"},
    ),
    "anything that counts tokens": (
        {"answer": "On its way.", "sources": [], "token_usage": COUNTS},
        {"total_tokens": 8},
    ),
    "anything that counts tokens, inside": (
        {"result": {"content": [{"text": "On its way."}]}, "metrics": {"accumulated_usage": COUNTS}},
        {"total_tokens": 8},
    ),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_answers(local: Logs, kind: str) -> None:
    answer, expected = ANSWERS[kind]
    athina_trace(lambda question: answer)("q")
    (log,) = local()
    assert log["response"] == "On its way."
    assert {name: log.get(name) for name in expected} == expected


@pytest.mark.parametrize("kind", ANSWERS)
def test_answers_that_are_recorded(local: Logs, kind: str) -> None:
    answer, expected = ANSWERS[kind]

    @athina_trace
    def ask(question: str) -> Any:
        current_log().record(answer)
        current_log().record(answer)
        return answer

    ask("q")
    athina_trace(lambda: current_log().record(answer))()
    for log in local():
        assert log["response"] == "On its way."
        assert {name: log.get(name) for name in expected} == expected


def test_lists_of_messages_are_recorded_from_the_last_question_on(local: Logs) -> None:
    early = ai("Old.", usage_metadata=LANGCHAIN_USAGE)
    conversations: list[Any] = [
        [early, langchain("human", "q"), CALLING, FOUND, SAYING],
        [PYDANTIC_AI_RESPONSE, PYDANTIC_AI_REQUEST, {**PYDANTIC_AI_RESPONSE, "usage": {"input_tokens": 16}}],
        TEAM,
    ]
    for messages in conversations:
        with athina_trace() as log:
            log.record(messages)
    assert [(log["response"], log.get("total_tokens", log["prompt_tokens"])) for log in local()] == [
        ("On its way.", 16)
    ] * 3


def test_recording_after_the_end_updates_the_log() -> None:
    with captured_logs() as logs:
        with athina_trace() as log:
            log.record(CALLING)
        log.record(SAYING)
    (change,) = logs.updates
    assert (logs[0].total_tokens, change["response"], change["total_tokens"]) == (8, "On its way.", 16)


@pytest.mark.parametrize(
    "answer",
    [
        {"type": "message", "content": "no usage"}, {"type": "ai", "content": "no more"}, {"messages": ["text"]},
        {"messages": []}, {"output": "x", "_state": 1}, {"kind": "response", "parts": "x"}, {"final_output": "x"},
        {"candidates": []}, {"candidates": [{"content": None}]}, {"output": {"message": {}}, "usage": {}},
        {"message": {"role": "assistant"}}, {"response": "x"}, {"text": "x", "raw": 1}, {"metadata": {"usage": 1}},
        {"message": "m", "finish_reason": "x"}, {"contentBlockStop": {}, "x": 1}, {"type": "content-delta"},
        {"type": "text", "text": "x"}, {"type": "message_delta"}, {"parts": [], "kind": 1}, [ai("in a list")],
        {"answer": "x", "score": 1}, {"question": "q", "answer": {"a": 1}},
        {"question": "q", "answer": "a", "why": ["x"]},
        {"answer": "x", "sources": ["s"], "usage": {"input_tokens": 5}}, {"messages": [langchain("human", "q")]},
        {"a": {"messages": []}, "b": {"messages": ["x"]}}, {"usage": {"input_tokens": 5}},
        {"role": "user", "content": "x"}, {"a": {"answers": ["x"]}},
        {"data": {"x": 1}, "event": "x"}, {"total_tokens": True, "text": "x"},
    ],
)  # fmt: skip
def test_data_that_only_resembles_an_answer_is_logged_as_it_is(local: Logs, answer: Any) -> None:
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
    "google": (
        [{"role": "user", "parts": [{"text": "Where is it?"}]}, GOOGLE["candidates"][0]["content"]],  # type: ignore[index]
        [
            {"role": "user", "content": "Where is it?"},
            {"role": "assistant", "content": "On its way.", "tool_calls": [CALL]},
        ],
    ),
    "llama index": (
        [llama_index("system", "Be kind."), llama_index("user", "Where is it?")],
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Where is it?"}],
    ),
    "haystack": ([haystack("user", "Where is it?")], [{"role": "user", "content": "Where is it?"}]),
    "langchain, value": (
        {"messages": [langchain("human", "Where is it?")]},
        [{"role": "user", "content": "Where is it?"}],
    ),
    "autogen": (
        [{"type": "SystemMessage", "content": "Be kind."}, {"type": "UserMessage", "content": "Where is it?"}],
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Where is it?"}],
    ),
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


BEGUN = {"id": "t1", "name": "model", "input": {"messages": []}, "triggers": ["branch:to:model"]}
TASK: dict[str, Any] = {"id": "t1", "name": "model", "error": None, "result": {"messages": [SAYING]}, "interrupts": []}
CHECKPOINT: dict[str, Any] = {
    "config": {},
    "parent_config": None,
    "metadata": {},
    "next": [],
    "tasks": [],
    "values": {"messages": [langchain("human", "q"), SAYING]},
}

STREAMS: dict[str, list[Any]] = {
    "google": [
        {
            "candidates": [{"content": {"parts": [{"text": words}]}, "finish_reason": reason}],
            "usage_metadata": {"prompt_token_count": 5, "candidates_token_count": 3},
        }
        for words, reason in (("On its", None), (" way.", "STOP"))
    ],
    "bedrock": [
        {"messageStart": {"role": "assistant"}},
        {"contentBlockDelta": {"delta": {"text": "On its"}, "contentBlockIndex": 0}},
        {"contentBlockDelta": {"delta": {"text": " way."}, "contentBlockIndex": 0}},
        {"contentBlockStop": {"contentBlockIndex": 0}},
        {"messageStop": {"stopReason": "end_turn"}},
        {"metadata": {"usage": {"inputTokens": 5, "outputTokens": 3}, "metrics": {}}},
    ],
    "ollama": [
        {"model": "llama", "done": False, "message": {"role": "assistant", "content": "On its"}},
        {**OLLAMA_COUNTS, "message": {"role": "assistant", "content": " way."}},
    ],
    "cohere": [
        {"type": "message-start", "id": "1"},
        {"type": "content-start", "delta": {"message": {"content": {"type": "text", "text": ""}}}},
        {"type": "content-delta", "delta": {"message": {"content": {"text": "On its"}}}},
        {"type": "content-delta", "delta": {"message": {"content": {"text": " way."}}}},
        {"type": "content-end", "index": 0},
        {"type": "message-end", "delta": {"usage": {"tokens": {"input_tokens": 5.0, "output_tokens": 3.0}}}},
    ],
    "llama index": [llama_index_answer("On its", "On its"), llama_index_answer("On its way.", " way.")],
    "llama index, agent": [
        {"delta": "On its", "response": "On its", "current_agent_name": "a"},
        {"delta": " way.", "response": "On its way.", "current_agent_name": "a", "raw": {"usage": COUNTS}},
    ],
    "cohere, first": [
        {"event_type": "stream-start", "generation_id": "g"},
        {"event_type": "text-generation", "text": "On its"},
        {"event_type": "text-generation", "text": " way."},
        {
            "event_type": "stream-end",
            "response": {"text": "On its way.", "generation_id": "g", "meta": {"tokens": COUNTS}},
        },
    ],
    "mistral": [
        {
            "data": {
                "id": "1",
                "object": "chat.completion.chunk",
                "created": 1,
                "choices": [{"index": 0, "delta": {"content": words}, "finish_reason": reason}],
                "usage": COUNTS if reason else None,
            }
        }
        for words, reason in (("On its", None), (" way.", "stop"))
    ],
    "mistral, conversations": [
        {"event": "conversation.response.started", "data": {"type": "conversation.response.started"}},
        {"event": "message.output.delta", "data": {"type": "message.output.delta", "content": "On its"}},
        {"event": "message.output.delta", "data": {"type": "message.output.delta", "content": {"text": " way."}}},
        {"event": "conversation.response.done", "data": {"type": "conversation.response.done", "usage": COUNTS}},
    ],
    "agents": [
        {"type": "agent_updated_stream_event", "new_agent": {"name": "a"}},
        *(
            {"type": "raw_response_event", "data": {"type": "response.output_text.delta", "delta": words}}
            for words in ("On its", " way.")
        ),
        {"type": "run_item_stream_event", "name": "x", "item": {}},
        {
            "type": "raw_response_event",
            "data": {
                "type": "response.completed",
                "response": {"id": "r", "object": "response", "status": "completed", "usage": COUNTS},
            },
        },
    ],
    "pydantic-ai": [
        {"event_kind": "part_start", "index": 0, "part": {"part_kind": "text", "content": "On its"}},
        {"event_kind": "final_result", "tool_name": None},
        {"event_kind": "part_delta", "index": 0, "delta": {"part_delta_kind": "text", "content_delta": " way."}},
        {"event_kind": "part_end", "index": 0, "part": {"part_kind": "text", "content": "On its way."}},
        {"event_kind": "agent_run_result", "result": PYDANTIC_AI_RUN},
    ],
    "haystack": [
        {"content": "On its", "component_info": None, "meta": {}},
        {"content": " way.", "component_info": None, "meta": {"usage": COUNTS}},
    ],
    "autogen": [
        autogen("ModelClientStreamingChunkEvent", "a", "On its"),
        autogen("ModelClientStreamingChunkEvent", "a", " way."),
        TEAM[2],
        {"messages": [TEAM[0], TEAM[2]], "stop_reason": None},
    ],
    "texts and then the whole": [
        "On its",
        " way.",
        {"finish_reason": "stop", "content": "On its way.", "usage": COUNTS, "cached": False},
    ],
    "langgraph, values": [
        {"messages": [langchain("human", "q")]},
        *[{"messages": [langchain("human", "q"), SAYING]}] * 2,
    ],
    "langgraph, updates": [
        {"model": {"messages": [SAYING]}},
        {"tools": {"messages": [FOUND]}},
        {"a": {"messages": []}},
    ],
    "langgraph, tasks": [BEGUN, TASK, {**TASK, "result": [["messages", [SAYING]]]}],
    "langgraph, checkpoints": [{**CHECKPOINT, "values": {"messages": []}}, CHECKPOINT, CHECKPOINT],
    "langgraph, debug": [
        {"type": kind, "timestamp": "2026", "step": 1, "payload": each}
        for kind, each in (("checkpoint", CHECKPOINT), ("task", BEGUN), ("task_result", TASK))
    ],
    "langgraph, several modes": [
        ["custom", {"progress": 1}],
        ["values", {"messages": [langchain("human", "q")]}],
        *(["messages", [langchain("AIMessageChunk", each), {"langgraph_node": "a"}]] for each in ("On its", " way.")),
        ["updates", {"model": {"messages": [SAYING]}}],
        ["tasks", TASK],
    ],
    "langgraph, graphs within graphs": [
        [["a:1", "b:2"], {"model": {"messages": [SAYING]}}],
        [[], "values", {"messages": [langchain("human", "q"), SAYING]}],
        [["a:1"], "custom", {"progress": 1}],
    ],
    "langgraph, named modes": [
        {"type": "custom", "ns": [], "data": {"progress": 1}},
        {
            "type": "messages",
            "ns": ["a:1"],
            "data": [langchain("AIMessageChunk", "On its way."), {"langgraph_node": "a"}],
        },
        {"type": "updates", "ns": [], "data": {"model": {"messages": [SAYING]}}},
    ],
    "langgraph, messages": [
        [langchain("AIMessageChunk", "On its"), {"langgraph_node": "a"}],
        [FOUND, {"langgraph_node": "b"}],
        ["messages", [langchain("AIMessageChunk", " way.", usage_metadata=LANGCHAIN_USAGE), {"langgraph_node": "a"}]],
    ],
    "langchain, events": [
        {"event": "on_chat_model_start", "run_id": "1", "data": {"input": {"messages": []}}},
        {
            "event": "on_chat_model_stream",
            "run_id": "1",
            "data": {"chunk": langchain("AIMessageChunk", "On its way.", usage_metadata=COUNTS)},
        },
        {"event": "on_chat_model_end", "run_id": "1", "data": {"output": SAYING}},
    ],
    "openai, deltas": [
        *(
            {"role": None, "content": words, "function_call": None, "refusal": None, "tool_calls": None}
            for words in ("On its", " way.")
        ),
        {"id": "1", "object": "chat.completion", "created": 1, "choices": [], "usage": COUNTS},
    ],
}

CALL_STREAMS: dict[str, list[Any]] = {
    "anthropic": [
        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "c1", "name": "find"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a"'}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ":1}"}},
    ],
    "bedrock": [
        {"contentBlockStart": {"start": {"toolUse": {"toolUseId": "c1", "name": "find"}}, "contentBlockIndex": 1}},
        {"contentBlockDelta": {"delta": {"toolUse": {"input": '{"a":1}'}}, "contentBlockIndex": 1}},
    ],
    "cohere": [
        {
            "type": "tool-call-start",
            "index": 0,
            "delta": {"message": {"tool_calls": {"id": "c1", "function": {"name": "find", "arguments": ""}}}},
        },
        {
            "type": "tool-call-delta",
            "index": 0,
            "delta": {"message": {"tool_calls": {"function": {"arguments": '{"a":1}'}}}},
        },
    ],
    "langchain": [
        langchain("AIMessageChunk", "", tool_call_chunks=[{"index": 0, **part}])
        for part in ({"id": "c1", "name": "find", "args": ""}, {"id": None, "name": None, "args": '{"a":1}'})
    ],
    "mistral": [
        {
            "event": "function.call.delta",
            "data": {"type": "function.call.delta", "tool_call_id": "c1", "name": "find", "arguments": part},
        }
        for part in ('{"a"', ":1}")
    ],
    "pydantic-ai": [
        {
            "event_kind": "part_start",
            "index": 0,
            "part": {"part_kind": "tool-call", "tool_name": "find", "tool_call_id": "c1", "args": None},
        },
        {"event_kind": "part_delta", "index": 0, "delta": {"part_delta_kind": "tool_call", "args_delta": '{"a":1}'}},
    ],
    "google": [{"candidates": [GOOGLE["candidates"][0]]}],  # type: ignore[index]
}


@pytest.mark.parametrize("kind", CALL_STREAMS)
def test_calls_of_tools_in_streams(kind: str) -> None:
    assert streamed(*CALL_STREAMS[kind]).tool_calls == [CALL]


def test_several_calls_in_one_stream_are_kept_apart() -> None:
    parts = [{"index": 0, "id": own, "name": own, "args": "{}"} for own in ("c1", "c2")]
    log = streamed(*(langchain("AIMessageChunk", "", tool_call_chunks=[part]) for part in parts))
    assert [call["id"] for call in log.tool_calls] == ["c1", "c2"]
    each = [{"candidates": [{"content": {"parts": [{"functionCall": {"name": own, "args": {}}}]}}]} for own in "ab"]
    assert [call["function"]["name"] for call in streamed(*each).tool_calls] == ["a", "b"]


@pytest.mark.parametrize("kind", STREAMS)
def test_streams_of_others(kind: str) -> None:
    log = streamed(*STREAMS[kind])
    assert (log.response, log.total_tokens) == ("On its way.", None if kind == "llama index" else 8)


@pytest.mark.parametrize("kind", STREAMS)
def test_streams_that_are_recorded_chunk_by_chunk(kind: str) -> None:
    with captured_logs() as logs, athina_trace() as log:
        for chunk in STREAMS[kind]:
            log.record(chunk)
    assert logs[0].total_tokens == (None if kind == "llama index" else 8)
    assert logs[0].response == "On its way."


def with_one_place_replaced(data: Any, other: Any) -> Iterator[Any]:
    """Yield the data with each of its values, at any depth, replaced in turn."""
    yield other
    places: Any = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list | tuple) else ()
    for place, value in places:
        for changed in with_one_place_replaced(value, other):
            copied: Any = data.copy() if isinstance(data, dict) else [*data]
            copied[place] = changed
            yield copied


@pytest.mark.parametrize("other", [None, 1, "x", [], {}, [None], {"x": [{}]}], ids=repr)
def test_no_form_is_relied_on(other: Any) -> None:
    pieces = (piece for pieces in (*STREAMS.values(), *CALL_STREAMS.values()) for piece in pieces)
    messages = (messages for messages, _ in PROMPTS.values())
    for form in (*(answer for answer, _ in ANSWERS.values()), *pieces, *messages):
        for changed in with_one_place_replaced(form, other):
            for each in (changed, {"messages": [changed]}):
                answer_of(each)  # nothing raises
                assert prompt_of(each) is None or isinstance(prompt_of(each), list)


def test_the_real_messages_of_installed_libraries(local: Logs) -> None:
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
def test_an_exception_group_names_its_exceptions(local: Logs) -> None:
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
