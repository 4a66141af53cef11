"""Objects of OpenAI's APIs, made up: dictionaries as they come over the wire, and objects of that shape."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from athina_trace._answers.records import Record
from athina_trace.integrations.openai.normalise import normalise
from athina_trace.integrations.openai.objects import may_be_known, parse

Wire = dict[str, Any]

HOUR = 1_700_000_000
"""Everything here happens in the hour after this second."""


def run(run_id: str = "run_1", *, at: int = 10, status: str = "completed", **more: Any) -> Wire:
    usage = {"prompt_tokens": 30, "completion_tokens": 7, "total_tokens": 37} if status == "completed" else None
    return {
        "id": run_id,
        "object": "thread.run",
        "created_at": HOUR + at,
        "assistant_id": "asst_1",
        "thread_id": "thread_1",
        "status": status,
        "required_action": None,
        "last_error": None,
        "incomplete_details": None,
        "model": "gpt-4o",
        "instructions": "Be brief.",
        "tools": [{"type": "file_search"}],
        "temperature": 0.5,
        "usage": usage,
        **more,
    }


def waiting_run(*calls: Wire, **more: Any) -> Wire:
    action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": list(calls)}}
    return run(status="requires_action", required_action=action, **more)


def text_part(text: str, *annotations: Wire) -> Wire:
    return {"type": "text", "text": {"value": text, "annotations": list(annotations)}}


def message(
    message_id: str,
    *parts: Wire | str,
    at: int,
    role: str = "assistant",
    run_id: str | None = "run_1",
    **more: Any,
) -> Wire:
    return {
        "id": message_id,
        "object": "thread.message",
        "created_at": HOUR + at,
        "thread_id": "thread_1",
        "run_id": run_id if role == "assistant" else None,
        "role": role,
        "content": [text_part(part) if isinstance(part, str) else part for part in parts],
        **more,
    }


def question(message_id: str, text: str, *, at: int, **more: Any) -> Wire:
    return message(message_id, text, at=at, role="user", **more)


def page(*members: object) -> Wire:
    return {"object": "list", "data": list(members), "has_more": False}


def function_call(call_id: str = "call_1", *, name: str = "weather", arguments: str = '{"city":"Oslo"}') -> Wire:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def step(step_id: str, *calls: Wire, at: int, run_id: str = "run_1", **more: Any) -> Wire:
    return {
        "id": step_id,
        "object": "thread.run.step",
        "created_at": HOUR + at,
        "run_id": run_id,
        "thread_id": "thread_1",
        "type": "tool_calls",
        "status": "completed",
        "step_details": {"type": "tool_calls", "tool_calls": list(calls)},
        **more,
    }


def output_text(text: str) -> Wire:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": [part]}


def response(response_id: str = "resp_1", *output: Wire, at: int = 10, **more: Any) -> Wire:
    return {
        "id": response_id,
        "object": "response",
        "created_at": HOUR + at,
        "status": "completed",
        "model": "gpt-4.1",
        "instructions": "Be kind.",
        "output": list(output),
        "previous_response_id": None,
        "tools": [],
        "usage": {
            "input_tokens": 20,
            "input_tokens_details": {"cached_tokens": 8},
            "output_tokens": 6,
            "output_tokens_details": {"reasoning_tokens": 4},
            "total_tokens": 26,
        },
        **more,
    }


def chat(chat_id: str = "chatcmpl-1", *, content: str | None = "Hello.", at: int = 10, **said: Any) -> Wire:
    return {
        "id": chat_id,
        "object": "chat.completion",
        "created": HOUR + at,
        "model": "gpt-4o-mini",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": content, **said},
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }


def read(subject: object) -> list[Record] | None:
    """Return the records of an object, as a log would take them; None if its kind is unknown."""
    return parse(normalise(subject)) if may_be_known(subject) else None


def as_object(wire: Any) -> Any:
    """Return the same data with attributes instead of keys, as in the client's models."""
    if isinstance(wire, dict):
        return SimpleNamespace(**{name: as_object(value) for name, value in wire.items()})
    return [as_object(value) for value in wire] if isinstance(wire, list) else wire
