"""Tool calls of all three APIs in the one shape that chat completions made familiar.

    {"id": …, "type": "function", "function": {"name": …, "arguments": …}}
    {"id": …, "type": "custom", "custom": {"name": …, "input": …}}
    {"id": …, "type": "code_interpreter", "code_interpreter": {"input": …, "outputs": […]}}

A built-in tool of the Responses API keeps its item as it came (`{"id": …, "type": "web_search_call", …}`).
Sources: the reference of the Assistants, Responses and Chat Completions APIs, and recorded traffic.
"""

from __future__ import annotations

from athina_trace.integrations.openai.readings import Key, ToolCall
from athina_trace.integrations.openai.shape import data, get, items, known_in, number, string

__all__ = ["chat_calls", "is_call", "item_call", "step_calls", "waiting_calls"]


def chat_calls(message: object, owner: Key) -> tuple[ToolCall, ...]:
    """Read the tool calls of a chat completion's message, and a legacy function call."""
    legacy = get(message, "function_call")
    calls = items(message, "tool_calls") if legacy is None else (*items(message, "tool_calls"), {"function": legacy})
    return _numbered(calls, owner)


def waiting_calls(run: object, owner: Key) -> tuple[ToolCall, ...]:
    """Read the calls that a run in `requires_action` waits for."""
    return _numbered(items(run, "required_action", "submit_tool_outputs", "tool_calls"), owner)


def step_calls(step: object, owner: Key) -> tuple[ToolCall, ...]:
    """Read the calls of a run step, with the outputs that the step knows."""
    return _numbered(
        items(step, "step_details", "tool_calls"),
        owner,
        prefix=f"{string(step, 'id')}/",
        created=number(step, "created_at"),
        session=string(step, "thread_id"),
        progress=0 if get(step, "status") == "in_progress" else 1,
    )


def is_call(item: object) -> bool:
    """Tell whether an output item of a response is a call of a tool, or asks whether it may be made."""
    return (string(item, "type") or "").endswith(("_call", "_approval_request"))


def item_call(item: object, owner: Key, *, place: int) -> ToolCall:
    """Read an output item of a response that is a call; `place` stands in for a missing id."""
    kind = string(item, "type")
    key = string(item, "call_id") or string(item, "id") or f"#{place}"
    progress = 0 if get(item, "status") == "in_progress" else 1
    body = _ITEM_BODIES.get(kind or "", _plain)(item)
    return ToolCall(
        key=key,
        owner=owner,
        body=body,
        output=data(get(item, "output")),
        context=_found(item),
        progress=progress,
    )


def _numbered(
    calls: tuple[object, ...],
    owner: Key,
    *,
    prefix: str = "",
    created: float | None = None,
    session: str | None = None,
    progress: int = 1,
) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(
            key=string(call, "id") or f"{prefix}#{place}",
            owner=owner,
            body=_body(call),
            output=data(get(call, "function", "output")),
            context=_found(get(call, "file_search")),
            created=created,
            session=session,
            progress=progress,
        )
        for place, call in enumerate(calls)
    )


def _body(call: object) -> dict[str, object]:
    if get(call, "function") is not None:
        return _function(string(call, "id"), get(call, "function"))
    if get(call, "custom") is not None:
        return _custom(string(call, "id"), get(call, "custom"))
    return _plain(call)


def _function(call_id: str | None, function: object) -> dict[str, object]:
    named = {"name": get(function, "name"), "arguments": get(function, "arguments")}
    return _known({"id": call_id, "type": "function", "function": data(named)})


def _custom(call_id: str | None, custom: object) -> dict[str, object]:
    named = {"name": get(custom, "name"), "input": get(custom, "input")}
    return _known({"id": call_id, "type": "custom", "custom": data(named)})


def _plain(call: object) -> dict[str, object]:
    copied = known_in(call)
    return {name: value for name, value in copied.items() if name != "index"} if isinstance(copied, dict) else {}


def _known(body: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in body.items() if value is not None}


def _item_function(item: object) -> dict[str, object]:
    return _function(string(item, "call_id"), item)


def _item_custom(item: object) -> dict[str, object]:
    return _custom(string(item, "call_id"), item)


_ITEM_BODIES = {"function_call": _item_function, "custom_tool_call": _item_custom}


def _found(search: object) -> tuple[str, ...]:
    """Read the chunks that a file search found: `text` in a response's item, `content` in a run step."""
    results = items(search, "results")
    texts = (string(result, "text") or "\n".join(_chunks(result)) for result in results)
    return tuple(text for text in texts if text)


def _chunks(result: object) -> list[str]:
    return [text for part in items(result, "content") if (text := string(part, "text"))]
