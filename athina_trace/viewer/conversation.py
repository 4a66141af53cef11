"""One log as a turn of a conversation: what a page shows of it, cut to a size that a browser bears."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from athina_trace.viewer.facts import error_of, messages_of, question_of, text_of
from athina_trace.viewer.queries import Turn

SHOWN = 20_000
"""Characters of one text on a conversation's page; the rest is a click away."""
_ITEMS = 50
"""Tool calls, documents or messages of one turn that are shown."""


@dataclass(frozen=True)
class Text:
    """A text, perhaps cut; `field` names where in the log the whole of it stands."""

    shown: str
    length: int
    field: str

    @property
    def is_cut(self) -> bool:
        """Whether there is more than is shown."""
        return self.length > len(self.shown)

    def __bool__(self) -> bool:
        return self.length > 0


@dataclass(frozen=True)
class ToolCall:
    """A tool that the model asked for, with its arguments and its output as readable text."""

    name: str
    arguments: Text
    output: Text


@dataclass(frozen=True)
class Shown:
    """A turn, ready for a template."""

    turn: Turn
    question: Text
    answer: Text
    expected: Text
    error: Text
    system: list[Text]
    history: list[tuple[str, Text]]
    context: list[Text]
    tools: list[ToolCall]
    comment: Text
    details: dict[str, str] = field(default_factory=dict)


def shown(turn: Turn) -> Shown:
    """Read a log's fields for the page."""
    fields = turn.fields
    prompt = messages_of(fields.get("prompt"))
    return Shown(
        turn=turn,
        question=cut(question_of(fields), "user_query"),
        answer=cut(text_of(fields.get("response")), "response"),
        expected=cut(text_of(fields.get("expected_response")), "expected_response"),
        error=cut(error_of(fields), "error"),
        system=[cut(text_of(each.get("content")), "prompt") for each in prompt if each.get("role") in _INSTRUCT],
        history=list(_history(prompt, question_of(fields))),
        context=[cut(text, "context") for text in _documents(fields.get("context"))],
        tools=[_tool_call(call, _outputs(prompt)) for call in _calls(fields.get("tool_calls"))],
        comment=cut(text_of(fields.get("user_feedback_comment")), "user_feedback_comment"),
        details=dict(_details(fields)),
    )


_INSTRUCT = ("system", "developer")


def cut(text: str, name: str) -> Text:
    """A text as long as a page bears."""
    return Text(text[:SHOWN], len(text), name)


def _history(prompt: list[dict[str, Any]], question: str) -> Iterator[tuple[str, Text]]:
    """The messages that went before the question, tools' answers and instructions left out."""
    said = [each for each in prompt if each.get("role") not in (*_INSTRUCT, "tool") and each.get("content")]
    if said and text_of(said[-1].get("content")) == question:
        said = said[:-1]
    for each in said[-_ITEMS:]:
        yield text_of(each.get("role")) or "message", cut(text_of(each["content"]), "prompt")


def _documents(context: Any) -> list[str]:
    """What was retrieved: a list of documents, the one, or the entries of an object."""
    if isinstance(context, list):
        return [_document(each) for each in context[:_ITEMS]]
    if isinstance(context, dict):
        return [f"{name}: {readable(value)}" for name, value in list(context.items())[:_ITEMS]]
    return [text_of(context)] if context else []


def _document(value: Any) -> str:
    if isinstance(value, dict):
        for name in ("text", "content", "page_content"):
            text = value.get(name)
            if isinstance(text, str):
                return text
    return readable(value)


def _calls(value: Any) -> list[dict[str, Any]]:
    return [call for call in value if isinstance(call, dict)][:_ITEMS] if isinstance(value, list) else []


def _outputs(prompt: list[dict[str, Any]]) -> dict[str, Any]:
    """What tools answered, as messages of the prompt tell it, by the id of the call."""
    return {text_of(each.get("tool_call_id")): each.get("content") for each in prompt if each.get("role") == "tool"}


def _tool_call(call: dict[str, Any], outputs: dict[str, Any]) -> ToolCall:
    function = call.get("function")
    inner = function if isinstance(function, dict) else call
    output = next((each[name] for each in (call, inner) for name in ("output", "result") if name in each), None)
    output = outputs.get(text_of(call.get("id"))) if output is None else output
    return ToolCall(
        text_of(inner.get("name") or call.get("type") or "tool"),
        cut(readable(inner.get("arguments")), "tool_calls"),
        cut(readable(output), "tool_calls"),
    )


def readable(value: Any) -> str:
    """Any JSON value, or JSON inside a string, over as many lines as it takes to be read."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value[:1] in "{[" else value
        except ValueError:
            return text_of(value)
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, indent=2)
    return text_of(value)


_TOLD = {
    "session_id", "user_query", "response", "prompt", "context", "expected_response", "tool_calls", "tool_call",
    "language_model_id", "customer_id", "customer_user_id", "environment", "prompt_slug", "external_reference_id",
    "error", "response_time", "completion", "user_feedback", "user_feedback_comment", "tools", "total_tokens",
}  # fmt: skip
"""Fields that a turn shows in a place of their own."""


def _details(fields: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Everything else, by name."""
    attributes = fields.get("custom_attributes")
    rest = {name: value for name, value in fields.items() if name not in _TOLD and name != "custom_attributes"}
    inner = attributes if isinstance(attributes, dict) else {}
    for name, value in [*rest.items(), *inner.items()][: _ITEMS * 2]:
        yield name, readable(value)[:2000]
    names = [text_of(tool.get("function", tool).get("name")) for tool in _plain_tools(fields.get("tools"))]
    if names:
        yield "tools", ", ".join(names)


def _plain_tools(tools: Any) -> list[dict[str, Any]]:
    usable = [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    return [tool for tool in usable[:_ITEMS] if isinstance(tool.get("function", tool), dict)]
