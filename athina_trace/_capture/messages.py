"""Messages of LangChain, Anthropic, the Agents SDK and pydantic-ai: roles of a prompt; text and tokens of an answer.

Recognised by the shape of their plain data, so that neither a library nor its version matters. Messages that are role
dictionaries already need nothing of this, and OpenAI's own objects are read by `integrations.openai`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from athina_trace._serialization import text

Data = dict[str, Any]

_ROLES: Final = {"human": "user", "user": "user", "ai": "assistant", "assistant": "assistant", "system": "system"}
_LANGCHAIN: Final = {**_ROLES, "AIMessageChunk": "assistant", "HumanMessageChunk": "user", "tool": "tool"}
_PARTS: Final = {"system-prompt": "system", "user-prompt": "user", "retry-prompt": "user", "tool-return": "tool"}
_TOKENS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")
# Events of an Anthropic stream that carry no text; some repeat what others carry.
_SILENT_EVENTS: Final = frozenset({"content_block_start", "content_block_stop", "message_stop", "input_json"})


def prompt_of(data: Any) -> list[Data] | None:
    """Role dictionaries for a list of messages, or for one; None where it holds anything else."""
    messages = data if isinstance(data, list) else [data]
    for message in messages:
        if type(message) is not dict or "role" not in message or "additional_kwargs" in message:
            break
    else:
        return messages  # role dictionaries, as most prompts are
    roles: list[Data] = []
    for message in messages:
        found = list(_role_messages(message))
        if not found:
            return None
        roles += found
    return roles


def _role_messages(message: Any) -> Iterator[Data]:
    """What one message is as role dictionaries: pydantic-ai puts several into one."""
    if isinstance(message, list):
        # LangChain takes pairs, too: ("human", "Where is it?").
        if len(message) == 2 and message[0] in _ROLES and isinstance(message[1], str):  # noqa: PLR2004 - a pair
            yield {"role": _ROLES[message[0]], "content": message[1]}
    elif not isinstance(message, dict):
        return
    elif _is_langchain(message):
        role = message.get("role") or _LANGCHAIN.get(message["type"], message["type"])
        kept = {name: message[name] for name in ("tool_call_id", "name") if message.get(name)}
        calls = _tool_calls(message.get("tool_calls"), "id", "name", "args")
        yield {"role": role, "content": message["content"], **kept, **({"tool_calls": calls} if calls else {})}
    elif _is_pydantic_ai(message):
        for part in message["parts"]:
            if (role := _PARTS.get(part.get("part_kind"))) is not None:
                kept = {"tool_call_id": part["tool_call_id"]} if role == "tool" and part.get("tool_call_id") else {}
                yield {"role": role, "content": part.get("content"), **kept}
        if message["kind"] == "response":
            answered = answer_of(message) or {}
            asked = {"tool_calls": answered["tool_calls"]} if "tool_calls" in answered else {}
            yield {"role": "assistant", "content": answered.get("response", ""), **asked}
    elif isinstance(message.get("role"), str):
        yield message


def answer_of(data: Any) -> Data | None:
    """The fields of a log that an answer, or a piece of a streamed one, gives; None where it is of another shape."""
    if not isinstance(data, dict):
        return None
    if _is_langchain(data) and _LANGCHAIN.get(data["type"]) == "assistant":
        model = (data.get("response_metadata") or {}).get("model_name")
        calls = _tool_calls(data.get("tool_calls"), "id", "name", "args")
        return _fields(_content(data["content"]), data.get("usage_metadata"), model, calls)
    messages = data.get("messages")
    if isinstance(messages, list) and messages and isinstance(messages[-1], dict) and _is_langchain(messages[-1]):
        return answer_of(messages[-1])  # the state of a LangGraph
    if data.get("type") == "message" and data.get("role") == "assistant" and isinstance(data.get("usage"), dict):
        uses = [part for part in data.get("content") or () if part.get("type") == "tool_use"]
        calls = _tool_calls(uses, "id", "name", "input")
        return _fields(_content(data.get("content")), data["usage"], data.get("model"), calls)
    if _is_pydantic_ai(data) and data["kind"] == "response":
        words = "".join(text(part.get("content")) for part in data["parts"] if part.get("part_kind") == "text")
        uses = [part for part in data["parts"] if part.get("part_kind") == "tool-call"]
        calls = _tool_calls(uses, "tool_call_id", "tool_name", "args")
        return _fields(words, data.get("usage"), data.get("model_name"), calls)
    return _run_of(data) or _event_of(data)


def _run_of(data: Data) -> Data | None:
    """The result of an agent's run: its last words, and the tokens of all its requests."""
    if "final_output" in data and isinstance(data.get("raw_responses"), list):  # the Agents SDK
        requests = [answered.get("usage") for answered in data["raw_responses"] if isinstance(answered, dict)]
        return merged([_fields(text(data["final_output"])), *(_fields("", usage) for usage in requests)])
    state = data.get("_state")
    if "output" in data and isinstance(state, dict) and isinstance(state.get("message_history"), list):  # pydantic-ai
        answers = [answer_of(each) or {} for each in state["message_history"]]
        last = next((each["language_model_id"] for each in reversed(answers) if "language_model_id" in each), None)
        return _fields(text(data["output"]), state.get("usage"), last)
    return None


def _event_of(data: Data) -> Data | None:
    """One event of an Anthropic stream."""
    match data:
        case {"type": "content_block_delta", "delta": dict(delta)}:
            return _fields(text(delta.get("text")))
        case {"type": "message_start", "message": {"role": "assistant", "usage": dict(usage), **message}}:
            return _fields("", {"input_tokens": usage.get("input_tokens")}, message.get("model"))
        case {"type": "message_delta", "usage": dict(usage)}:
            return _fields("", {"output_tokens": usage.get("output_tokens")})
        case {"type": "text", "text": str(), "snapshot": str()}:
            return {}
        case {"type": str(kind)} if kind in _SILENT_EVENTS:
            return {}
    return None


def merged(answers: list[Data]) -> Data:
    """What several pieces give together: texts joined, tokens summed, the last of everything else."""
    out: Data = {}
    for each in answers:
        for name, value in each.items():
            out[name] = out[name] + value if name in out and name in ("response", *_TOKENS) else value
    if "total_tokens" not in out and "prompt_tokens" in out and "completion_tokens" in out:
        out["total_tokens"] = out["prompt_tokens"] + out["completion_tokens"]
    return out


def _fields(response: str, usage: Any = None, model: Any = None, calls: list[Data] | None = None) -> Data:
    fields: Data = {"response": response}
    usage = usage if isinstance(usage, dict) else {}
    for name, given in zip(_TOKENS, ("input_tokens", "output_tokens", "total_tokens"), strict=True):
        if isinstance(usage.get(given), int):
            fields[name] = usage[given]
    if isinstance(model, str) and model:
        fields["language_model_id"] = model
    return {**fields, "tool_calls": calls} if calls else fields


def _is_langchain(message: Data) -> bool:
    return "additional_kwargs" in message and "content" in message and isinstance(message.get("type"), str)


def _is_pydantic_ai(message: Data) -> bool:
    parts = message.get("parts")
    return (
        message.get("kind") in ("request", "response")
        and isinstance(parts, list)
        and all(isinstance(part, dict) and "part_kind" in part for part in parts)
    )


def _content(content: Any) -> str:
    """The text of a message: a string, or the text parts of a list."""
    if not isinstance(content, list):
        return text(content)
    parts = [part.get("text") if isinstance(part, dict) else part for part in content]
    return "".join(part for part in parts if isinstance(part, str))


def _tool_calls(calls: Any, reference: str, name: str, arguments: str) -> list[Data]:
    """Calls of tools as OpenAI writes them."""
    return [
        {
            "id": call.get(reference),
            "type": "function",
            "function": {"name": call.get(name), "arguments": text(call.get(arguments))},
        }
        for call in calls or ()
        if isinstance(call, dict)
    ]
