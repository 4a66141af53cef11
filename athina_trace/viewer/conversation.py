"""One log as a turn of a conversation: its texts in the order in which they are read, cut to what a page can show."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from pydantic_core import from_json

from athina_trace._delivery.sqlite import Row
from athina_trace.viewer.attachments import Attachment, attachments_in, attachments_of
from athina_trace.viewer.log_fields import error_of, messages_of, question_of, readable_error, text_of, tool_calls
from athina_trace.viewer.queries import StoredLog

_INSTRUCTION_ROLES = ("system", "developer")
_SHOWN_ELSEWHERE = {
    "session_id", "user_query", "response", "prompt", "context", "expected_response", "tool_calls", "tool_call",
    "language_model_id", "customer_id", "customer_user_id", "environment", "prompt_slug", "external_reference_id",
    "error", "response_time", "completion", "user_feedback", "user_feedback_comment", "tools", "total_tokens",
}  # fmt: skip
"""Fields that are not repeated among a turn's details."""

_MAX_DEPTH = 12
_ERROR_NAME = re.compile(r"[A-Za-z_]\w{0,60}(?:Error|Exception|Timeout)\b")


class TurnLimits(NamedTuple):
    """What is shown of one turn; None: all of it.

    Attributes:
        text: characters of one text; a page links to the rest.
        detail: characters of one field among the details.
        items: tool calls, documents or messages.
    """

    text: int | None
    detail: int | None
    items: int | None


PAGE_LIMITS = TurnLimits(text=20_000, detail=2_000, items=50)
NO_LIMITS = TurnLimits(text=None, detail=None, items=None)


@dataclass(frozen=True)
class Excerpt:
    """A text, perhaps cut; `field` names the log's field that holds the whole text."""

    shown: str
    length: int
    field: str

    @property
    def is_cut(self) -> bool:
        """Whether there is more than is shown."""
        return self.length > len(self.shown)

    def __bool__(self) -> bool:
        return self.length > 0


class ToolUse(NamedTuple):
    """A tool that the model called, with arguments and output as indented JSON or text."""

    name: str
    arguments: Excerpt
    output: Excerpt
    failed: bool

    @property
    def failure(self) -> str:
        """What a failed tool says, on one line."""
        return " ".join(readable_error(self.output.shown).split())


class HistoryMessage(NamedTuple):
    """An earlier message of the prompt."""

    role: str
    content: Excerpt
    attachments: list[Attachment]


class Step(NamedTuple):
    """A call that was made inside another one, with those that were made inside of it."""

    row: Row
    name: str
    steps: list[Step]


class Steps(NamedTuple):
    """All calls that were made inside a turn.

    Attributes:
        steps: those made by the turn itself.
        ids: of all of them, at any depth.
        failed: how many of them failed.
        longest: that of the turn's own steps which took longest.
        tokens: those of all of them.
        cost: that of all of them, dollars; None where none is known.
        is_estimate: whether a part of it is an estimate.
    """

    steps: list[Step]
    ids: set[int]
    failed: int
    longest: Step | None
    tokens: int
    cost: float | None
    is_estimate: bool


@dataclass(frozen=True)
class Turn:
    """A log, ready for a template.

    Attributes:
        log: the log itself.
        system: instructions to the model.
        history: the messages before the question, as sent.
        attachments: images and files of the question.
        error: why the call failed, in words; the log's field may hold a server's whole answer.
        context: what was retrieved.
        comment: what the user wrote with a feedback.
        details: all other fields and custom attributes, by name.
    """

    log: StoredLog
    question: Excerpt
    attachments: list[Attachment]
    answer: Excerpt
    expected: Excerpt
    error: Excerpt
    system: list[Excerpt]
    history: list[HistoryMessage]
    context: list[Excerpt]
    tools: list[ToolUse]
    comment: Excerpt
    details: list[tuple[str, str]]

    @property
    def error_name(self) -> str:
        """The name of the exception that the error begins with; empty where it begins with something else."""
        found = _ERROR_NAME.match(self.error.shown)
        return found[0] if found else ""


def read_turn(log: StoredLog, limits: TurnLimits = PAGE_LIMITS) -> Turn:
    """Read the texts of a log from its fields."""
    fields = log.fields
    prompt = messages_of(fields.get("prompt"))
    question = question_of(fields)

    def cut(text: str, field: str) -> Excerpt:
        return Excerpt(text[: limits.text], len(text), field)

    history = [each for each in prompt if each.get("role") not in (*_INSTRUCTION_ROLES, "tool") and each.get("content")]
    if history and text_of(history[-1].get("content")) == question:
        history.pop()
    if isinstance(fields.get("prompt"), str) and fields["prompt"] != question:
        history = [{"role": "prompt", "content": fields["prompt"]}]
    return Turn(
        log=log,
        question=cut(question, "user_query"),
        attachments=attachments_of(fields)[: limits.items],
        answer=cut(text_of(fields.get("response")), "response"),
        expected=cut(text_of(fields.get("expected_response")), "expected_response"),
        error=cut(error_of(fields), "error"),
        system=[
            cut(text_of(each.get("content")), "prompt") for each in prompt if each.get("role") in _INSTRUCTION_ROLES
        ],
        history=[
            HistoryMessage(
                text_of(each.get("role")) or "message",
                cut(text_of(each["content"]), "prompt"),
                attachments_in(each["content"])[: limits.items],
            )
            for each in history[-limits.items if limits.items else 0 :]
        ],
        context=[cut(text, "context") for text in _documents(fields.get("context"), limits)],
        tools=[
            ToolUse(
                call.name,
                cut(indented(call.arguments), "tool_calls"),
                cut(indented(call.output), "tool_calls"),
                call.failed,
            )
            for call in islice(tool_calls(fields), limits.items)
        ],
        comment=cut(text_of(fields.get("user_feedback_comment")), "user_feedback_comment"),
        details=list(_details(fields, limits)),
    )


def _documents(context: Any, limits: TurnLimits) -> Iterator[str]:
    """Yield what was retrieved: a list of documents, a single one, or the entries of an object."""
    if isinstance(context, dict):
        for name, value in list(context.items())[: limits.items]:
            yield f"{name}: {indented(value)}"
    elif isinstance(context, list):
        for value in context[: limits.items]:
            # The names under which retrievers keep a document's text; else all of it is shown.
            texts = [value.get(name) for name in ("text", "content", "page_content")] if isinstance(value, dict) else []
            yield next((text for text in texts if isinstance(text, str)), None) or indented(value)
    elif context:
        yield text_of(context)


def _details(fields: dict[str, Any], limits: TurnLimits) -> Iterator[tuple[str, str]]:
    """Yield all fields that have no place of their own, custom attributes, and the names of the tools on offer."""
    attributes = fields.get("custom_attributes")
    if (error := text_of(fields.get("error"))) != readable_error(error):
        yield "error", error[: limits.detail]
    rest = {name: value for name, value in fields.items() if name not in _SHOWN_ELSEWHERE}
    inner = rest.pop("custom_attributes") if isinstance(attributes, dict) else {}
    most = None if limits.items is None else limits.items * 2
    for name, value in [*rest.items(), *inner.items()][:most]:
        yield name, indented(value)[: limits.detail]
    tools = fields.get("tools")
    usable = [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    functions = [tool.get("function", tool) for tool in usable[: limits.items]]
    if names := [text_of(function.get("name")) for function in functions if isinstance(function, dict)]:
        yield "tools", ", ".join(names)


def indented(value: Any) -> str:
    """Return any JSON value, or JSON inside a string, as indented text."""
    parsed = value
    if isinstance(value, str):
        # Not json.loads: it fails on deep nesting and huge integers with other errors than ValueError.
        try:
            parsed = from_json(value) if value[:1] in "{[" else value
        except ValueError:
            return value
    return json.dumps(parsed, ensure_ascii=False, indent=2) if isinstance(parsed, (dict, list)) else text_of(parsed)


def steps_of(rows: Sequence[Row], turn: Row) -> Steps:
    """Arrange the steps of a turn by the calls in which they were made; what has lost its parent is the turn's own."""
    names = {row["reference"] for row in rows}
    children: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        children[row["parent"] if row["parent"] in names else turn["reference"]].append(row)

    def below(reference: str, depth: int) -> list[Step]:
        # Taken out, so that a reference that two logs share is arranged once. Deeper levels would not fit a screen.
        inner = children.pop(reference, []) if depth < _MAX_DEPTH else []
        return [
            Step(row, row["function"] or row["model"] or "call", below(row["reference"], depth + 1)) for row in inner
        ]

    costs = [row["cost"] for row in rows if row["cost"] is not None]
    own = below(turn["reference"], 0)
    timed = [step for step in own if step.row["latency"] is not None]
    return Steps(
        own,
        {row["id"] for row in rows},
        longest=max(timed, key=lambda step: int(step.row["latency"]), default=None),
        failed=sum(row["error"] is not None for row in rows),
        tokens=sum(row["tokens"] or 0 for row in rows),
        cost=sum(costs) if costs else None,
        is_estimate=any(row["is_estimate"] for row in rows),
    )
