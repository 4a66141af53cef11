"""Reads parts of messages that libraries have in common: texts and tool calls; recognises libraries' messages."""

from __future__ import annotations

from typing import Any, Final

from athina_trace._answers.libraries.counts import Data
from athina_trace._serialization import text

ROLES: Final = {"human": "user", "user": "user", "ai": "assistant", "assistant": "assistant", "system": "system"}
LANGCHAIN_ROLES: Final = {**ROLES, "AIMessageChunk": "assistant", "HumanMessageChunk": "user", "tool": "tool"}


def dicts(values: Any) -> list[Data]:
    """Return the dictionaries of a list; nothing for anything else."""
    return [each for each in values if isinstance(each, dict)] if isinstance(values, list) else []


def parts_of(message: Data) -> Any:
    """Return the parts of a message, from the places where Google, LlamaIndex and Haystack keep them."""
    return next((message[name] for name in ("parts", "blocks", "_content") if name in message), None)


def part_calls(parts: Any) -> list[Data]:
    """Return the tool calls among a message's parts, an answer's items, or any library's list of calls."""
    calls: list[Data] = []
    for part in dicts(parts):
        inner = next((part[name] for name in _CALLS if isinstance(part.get(name), dict)), None)
        call = part if inner is None else inner
        name = call.get("name") or call.get("tool_name")
        given = next((argument for argument in _ARGUMENTS if argument in call), None)
        if isinstance(name, str) and (inner is not None or given is not None):
            own = next((each[place] for each in (call, part) for place in _CALL_IDS if each.get(place)), None)
            arguments = text(call.get(given)) if given is not None else ""
            calls.append({"id": own, "type": "function", "function": {"name": name, "arguments": arguments}})
    return calls


_CALLS: Final = ("function_call", "functionCall", "toolUse", "function")
_ARGUMENTS: Final = ("arguments", "args", "input", "parameters")
_CALL_IDS: Final = ("call_id", "tool_call_id", "toolUseId", "id")


def is_langchain(message: Data) -> bool:
    """Return whether it is one of LangChain's messages."""
    return "additional_kwargs" in message and "content" in message and isinstance(message.get("type"), str)


def is_pydantic_ai(message: Data) -> bool:
    """Return whether it is one of pydantic-ai's messages."""
    parts = message.get("parts")
    return (
        message.get("kind") in ("request", "response")
        and isinstance(parts, list)
        and all(isinstance(part, dict) and isinstance(part.get("part_kind"), str) for part in parts)
    )


def content_text(content: Any) -> str:
    """Return the text of a message: a string, or the text parts of a list."""
    if not isinstance(content, list):
        return text(content)
    parts = [part.get("text") if isinstance(part, dict) and not part.get("thought") else part for part in content]
    return "".join(part for part in parts if isinstance(part, str))
