"""A log as a turn of a conversation: its texts in reading order, cut to fit a page."""

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
from athina_trace.viewer.log_fields import error_of, objects_in, question_of, readable_error, text_of, tool_calls
from athina_trace.viewer.queries import StoredLog

_INSTRUCTION_ROLES = ("system", "developer")
_SHOWN_ELSEWHERE = {
    "session_id", "user_query", "response", "prompt", "context", "expected_response", "tool_calls", "tool_call",
    "language_model_id", "customer_id", "customer_user_id", "environment", "prompt_slug", "external_reference_id",
    "error", "response_time", "completion", "user_feedback", "user_feedback_comment", "tools", "total_tokens",
}  # fmt: skip
"""Fields that are not repeated in a turn's details."""

_MAX_DEPTH = 12
_ERROR_NAME = re.compile(r"[A-Za-z_]\w{0,60}(?:Error|Exception|Timeout)\b")


class TurnLimits(NamedTuple):
    """Limits on what is shown of a turn; None: no limit.

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
    """A text, perhaps cut; `field` names the log's field with the whole text."""

    shown: str
    length: int
    field: str

    @property
    def is_cut(self) -> bool:
        """Whether the text is cut."""
        return self.length > len(self.shown)

    def __bool__(self) -> bool:
        return self.length > 0


class ToolUse(NamedTuple):
    """A tool call by the model, with arguments and output as indented JSON or text."""

    name: str
    arguments: Excerpt
    output: Excerpt
    failed: bool

    @property
    def failure(self) -> str:
        """The output of a failed tool, on one line."""
        return " ".join(readable_error(self.output.shown).split())


class HistoryMessage(NamedTuple):
    """An earlier message of the prompt."""

    role: str
    content: Excerpt
    attachments: list[Attachment]


class Step(NamedTuple):
    """A call that was made inside another one, with its own inner calls."""

    row: Row
    name: str
    steps: list[Step]


class Steps(NamedTuple):
    """All calls that were made inside a turn.

    Attributes:
        steps: those made by the turn itself.
        ids: the ids of all steps, at any depth.
        failed: how many of them failed.
        longest: the slowest of the turn's own steps.
        tokens: the total of all steps.
        cost: the total of all steps, dollars; None if no cost is known.
        is_estimate: whether part of the cost is an estimate.
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
        error: why the call failed; the log's field may contain a server's whole answer.
        context: the retrieved documents.
        comment: the user's comment with a feedback.
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
        """The name of the exception at the beginning of the error; empty if there is none."""
        found = _ERROR_NAME.match(self.error.shown)
        return found[0] if found else ""


def read_turn(log: StoredLog, limits: TurnLimits = PAGE_LIMITS) -> Turn:
    """Read the texts of a log from its fields."""
    fields = log.fields
    prompt = objects_in(fields.get("prompt"))
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
    """Yield the retrieved documents: a list, a single one, or the entries of an object."""
    if isinstance(context, dict):
        for name, value in list(context.items())[: limits.items]:
            yield f"{name}: {indented(value)}"
    elif isinstance(context, list):
        for value in context[: limits.items]:
            # Names under which retrievers keep a document's text; otherwise the whole document is shown.
            texts = [value.get(name) for name in ("text", "content", "page_content")] if isinstance(value, dict) else []
            yield next((text for text in texts if isinstance(text, str)), None) or indented(value)
    elif context:
        yield text_of(context)


def _details(fields: dict[str, Any], limits: TurnLimits) -> Iterator[tuple[str, str]]:
    """Yield all other fields, custom attributes, and the names of the offered tools."""
    attributes = fields.get("custom_attributes")
    if (error := text_of(fields.get("error"))) != readable_error(error):
        yield "error", error[: limits.detail]
    rest = {name: value for name, value in fields.items() if name not in _SHOWN_ELSEWHERE}
    inner = rest.pop("custom_attributes") if isinstance(attributes, dict) else {}
    most = None if limits.items is None else limits.items * 2
    for name, value in [*rest.items(), *inner.items()][:most]:
        yield name, indented(value)[: limits.detail]
    functions = [tool.get("function", tool) for tool in objects_in(fields.get("tools"))[: limits.items]]
    if names := [text_of(function.get("name")) for function in functions if isinstance(function, dict)]:
        yield "tools", ", ".join(names)


def indented(value: Any) -> str:
    """Return any JSON value, or JSON in a string, as indented text."""
    parsed = value
    if isinstance(value, str):
        # Not json.loads, which raises other errors than ValueError for deep nesting and huge integers.
        try:
            parsed = from_json(value) if value[:1] in "{[" else value
        except ValueError:
            return value
    return json.dumps(parsed, ensure_ascii=False, indent=2) if isinstance(parsed, (dict, list)) else text_of(parsed)


def steps_of(rows: Sequence[Row], turn: Row) -> Steps:
    """Arrange the steps of a turn by the calls in which they were made; those without a parent belong to the turn."""
    names = {row["reference"] for row in rows}
    children: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        children[row["parent"] if row["parent"] in names else turn["reference"]].append(row)

    def below(reference: str, depth: int) -> list[Step]:
        # Removed, so that a reference shared by two logs is used once. Deeper levels would not fit on a screen.
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
