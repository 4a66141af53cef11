"""Chat completions: their answers, what their requests ask, and streams of their chunks, as records."""

from __future__ import annotations

import zlib
from typing import Any

from athina_trace._answers.records import Answer, Key, Record, ToolCall
from athina_trace.integrations.openai.common import (
    call_body,
    citations,
    content_text,
    failure,
    messages,
    outputs,
    question,
    served,
    usage_counts,
)
from athina_trace.integrations.openai.deltas import grow
from athina_trace.integrations.openai.normalise import Data, child, children, count, members, number, string

__all__ = ["ChatChunks", "add_request", "parse_chat", "request_outputs"]


def parse_chat(chat: Data) -> list[Record]:
    """Read a chat completion and its calls of tools. One that came has ended, though it may name no reason."""
    key = _key(chat)
    choice = next(iter(children(chat, "choices")), {})
    message = child(choice, "message")
    answer = Answer(
        key=key,
        created=number(chat, "created"),
        status=string(choice, "finish_reason"),
        model=string(chat, "model"),
        text=_text(message),
        usage=usage_counts(chat),
        error=failure(chat, what="completion") or failure(choice, what="completion"),
        details=served(chat, completion_id=string(chat, "id")),
        citations=citations(children(message, "annotations")),
    )
    return [answer, *_calls(message, key)]


def _key(chat: Data) -> Key:
    """Name a completion by its id and, as small servers repeat those, its time; else by its content."""
    own, created = string(chat, "id"), number(chat, "created")
    if own is None and created is None:
        return "chat", f"#{zlib.crc32(repr(chat).encode('utf-8', 'replace')):08x}"
    return "chat", f"{own or ''}@{created}"


def _text(message: Data) -> str | None:
    """Read the answer: text, a refusal, or the transcript of what was spoken."""
    spoken = string(child(message, "audio"), "transcript")
    return content_text(message.get("content")) or string(message, "refusal") or spoken


def _calls(message: Data, owner: Key) -> list[ToolCall]:
    """Read the tool calls of a message, and a legacy function call."""
    calls = children(message, "tool_calls")
    if message.get("function_call") is not None:
        calls = [*calls, {"function": message["function_call"]}]
    return [
        ToolCall(
            key=string(call, "id") or f"#{place}",
            owner=owner,
            body=call_body(call),
            output=child(call, "function").get("output"),
        )
        for place, call in enumerate(calls)
    ]


def add_request(answer: Answer, params: Data) -> None:
    """Add what the request for a completion asked."""
    answer.prompt = messages(members(params, "messages"))
    answer.query = question(reversed(answer.prompt))
    answer.functions = tuple(members(params, "functions"))


def request_outputs(params: Data) -> list[Record]:
    """Read the outputs of the program's tools that a request hands over."""
    return [*outputs(members(params, "messages"))]


class ChatChunks:
    """Puts the chunks of one chat completion together."""

    def __init__(self) -> None:
        self._whole: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}

    @property
    def ended(self) -> bool:
        """Whether every choice has its reason to end; the usage may still follow."""
        return bool(self._choices) and all(choice.get("finish_reason") for choice in self._choices.values())

    def add(self, chunk: Data) -> None:
        """Take the next chunk, or an event of the client's own stream helper that holds one."""
        if chunk.get("type") == "chunk":
            chunk = child(chunk, "chunk")
        if type(chunk.get("choices")) is not list and chunk.get("usage") is None:
            return
        for name in ("id", "created", "model", "service_tier", "system_fingerprint", "usage"):
            value = chunk.get(name)
            if value or name not in self._whole:
                self._whole[name] = value
        for choice in children(chunk, "choices"):
            built = self._choices.setdefault(count(choice, "index") or 0, {"message": {}})
            grow(built["message"], child(choice, "delta"))
            reason = string(choice, "finish_reason")
            if reason is not None:
                built["finish_reason"] = reason

    def result(self) -> dict[str, Any] | None:
        """Return the completion as far as it came."""
        if not self._whole:
            return None
        choices = [{"index": place, **choice} for place, choice in sorted(self._choices.items())]
        return {"object": "chat.completion", **self._whole, "choices": choices}
