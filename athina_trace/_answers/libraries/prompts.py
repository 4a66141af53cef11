"""Converts a prompt's messages in the form of any library to role dictionaries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from athina_trace._answers.libraries.answers import answer_of
from athina_trace._answers.libraries.counts import Data
from athina_trace._answers.libraries.parts import (
    LANGCHAIN_ROLES,
    ROLES,
    content_text,
    is_langchain,
    is_pydantic_ai,
    part_calls,
    parts_of,
)

_PARTS: Final = {"system-prompt": "system", "user-prompt": "user", "retry-prompt": "user", "tool-return": "tool"}
_OTHERS: Final = {**ROLES, "model": "assistant", "CHATBOT": "assistant", "USER": "user"}
_AUTOGEN: Final = {"SystemMessage": "system", "UserMessage": "user", "AssistantMessage": "assistant"}


def prompt_of(data: Any) -> list[Data] | None:
    """Return role dictionaries for a list of messages or a single one; None if it contains anything else."""
    if isinstance(data, dict) and isinstance(data.get("messages"), list):  # LangChain's prompt value
        data = data["messages"]
    messages = data if isinstance(data, list) else [data]
    for message in messages:
        if (
            type(message) is not dict
            or not ("role" in message and "content" in message)
            or "additional_kwargs" in message
        ):
            break
    else:
        return messages  # role dictionaries, like most prompts
    roles: list[Data] = []
    for message in messages:
        found = list(_role_messages(message))
        if not found:
            return None
        roles += found
    return roles


def _role_messages(message: Any) -> Iterator[Data]:  # noqa: C901 - one case for each form
    """Yield the role dictionaries of one message: one of pydantic-ai's may contain several."""
    if isinstance(message, list):
        # LangChain also accepts pairs: ("human", "Where is it?").
        if len(message) == 2 and isinstance(message[0], str) and message[0] in ROLES and isinstance(message[1], str):  # noqa: PLR2004 - a pair
            yield {"role": ROLES[message[0]], "content": message[1]}
    elif not isinstance(message, dict):
        return
    elif is_langchain(message):
        role = message.get("role") or LANGCHAIN_ROLES.get(message["type"], message["type"])
        kept = {name: message[name] for name in ("tool_call_id", "name") if message.get(name)}
        yield {"role": role, "content": message["content"], **kept, **_calls(message.get("tool_calls"))}
    elif is_pydantic_ai(message):
        for part in message["parts"]:
            if (role := _PARTS.get(part.get("part_kind"))) is not None:
                kept = {"tool_call_id": part["tool_call_id"]} if role == "tool" and part.get("tool_call_id") else {}
                yield {"role": role, "content": part.get("content"), **kept}
        if message["kind"] == "response":
            answered = answer_of(message) or {}
            asked = {"tool_calls": answered["tool_calls"]} if "tool_calls" in answered else {}
            yield {"role": "assistant", "content": answered.get("response", ""), **asked}
    elif isinstance(message.get("source"), str) and "models_usage" in message:
        role = "user" if message["source"] == "user" else "assistant"
        content = message.get("content")
        yield {"role": role, "content": content_text(content), **_calls(content)}
    elif (
        isinstance(message.get("type"), str) and message["type"] in _AUTOGEN and isinstance(message.get("content"), str)
    ):
        yield {"role": _AUTOGEN[message["type"]], "content": message["content"]}
    elif isinstance(parts := parts_of(message), list) and "kind" not in message:
        role = message.get("role") or message.get("_role")
        role = role if isinstance(role, str) and role else "user"
        yield {"role": _OTHERS.get(role, role), "content": content_text(parts), **_calls(parts)}
    elif isinstance(message.get("role"), str):
        yield message


def _calls(parts: Any) -> Data:
    """Return the tool calls among a message's parts as the field of a role dictionary."""
    calls = part_calls(parts)
    return {"tool_calls": calls} if calls else {}
