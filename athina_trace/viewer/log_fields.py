"""Reads the JSON of a log: its texts, and the row for lists, filters, sums and the search.

Nothing here raises for odd values: a log contains whatever a program sent.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pydantic_core import from_json

from athina_trace import _prices
from athina_trace._delivery.cost_estimates import MARK

_MAX_LINE = 280
"""Maximum characters of a question, answer or error in a list."""
_MAX_SEARCHED = 50_000
"""Characters of a field that the search covers."""
_MAX_REPR = 20_000
"""Maximum length of an error that is parsed as a Python literal."""
MAX_NAMES = 50
"""Maximum number of tools and attributes by which a log can be found."""
MAX_VALUE = 100
"""Maximum length of an attribute by which a log can be found; longer ones are texts."""
_NOT_CHOSEN = {"parent_reference", "time_to_first_chunk_ms", "chunks", "made_at"}
"""Attributes that differ in every log, so there are no filters for them."""
_BODY = re.compile(r"(?s)(?P<head>[^{\[]{0,200}?)(?:Error code: (?P<code>\d{3}) - )?(?P<body>[{\[].*[}\]])\s*")
_FAILED_OUTPUT = re.compile(r"(?i)(?:error|traceback|exception|failed)\b|[\w.]{1,80}(?:Error|Exception)\b")


class LogRow(NamedTuple):
    """A row of a list; its fields are the columns of the index's table `log`, in order.

    Attributes:
        id: the number of the log's entry in the outbox.
        made: seconds since the epoch.
        session: the log's session, or its own reference if it has none.
        parent: the reference of the call in which this one was made.
        root: the id of the turn of which this call is a step; None for a turn.
        cost: dollars.
        is_estimate: whether the cost was computed here, rather than set by the program.
        is_unpriced: whether a model was called and its cost is unknown.
        latency: milliseconds.
        first_chunk: milliseconds until the first piece of a stream.
        failed_tools: tool calls that failed.
        size: bytes of the log's JSON.
        comment: the user's comment with a feedback.
    """

    id: int
    made: float
    session: str
    reference: str
    parent: str | None
    root: int | None
    customer: str | None
    user: str | None
    environment: str | None
    slug: str | None
    model: str | None
    tokens: int | None
    cost: float | None
    is_estimate: bool
    is_unpriced: bool
    latency: int | None
    first_chunk: int | None
    failed_tools: int
    feedback: int | None
    size: int
    error: str | None
    question: str
    answer: str
    comment: str | None


class LoggedToolCall(NamedTuple):
    """A tool call by the model, as it is in the log."""

    name: str
    arguments: Any
    output: Any
    failed: bool


def log_row(entry_id: int, made: float, reference: str, fields: dict[str, Any], *, size: int) -> LogRow:
    """Build the row of a log from its `fields`, as a turn."""
    prompt, completion = (_integer(fields.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    tokens = _integer(fields.get("total_tokens"))
    if tokens is None and (prompt, completion) != (None, None):
        tokens = (prompt or 0) + (completion or 0)
    attributes = attributes_of(fields)
    model = _label(fields.get("language_model_id"))
    error = error_of(fields)
    cost, estimate = _number(fields.get("cost")), None
    if cost is None and model and prompt is not None and completion is not None:
        cached = _integer(attributes.get("cached_tokens")) or 0
        estimate = _prices.estimate(model, prompt=prompt, completion=completion, cached=cached, made=made)
    called = tokens is not None or model not in (None, "unknown")
    parent = _label(attributes.get("parent_reference"))
    return LogRow(
        id=entry_id,
        made=made,
        session=_label(fields.get("session_id")) or reference,
        reference=reference,
        parent=None if parent == reference else parent,
        root=None,
        customer=_label(fields.get("customer_id")),
        user=_label(fields.get("customer_user_id")),
        environment=_label(fields.get("environment")),
        slug=_label(fields.get("prompt_slug")),
        model=model,
        tokens=tokens,
        cost=estimate if cost is None else cost,
        is_estimate=estimate is not None or (cost is not None and attributes.get(MARK) is True),
        # Failed calls are not charged.
        is_unpriced=cost is None and estimate is None and called and not error,
        latency=_integer(fields.get("response_time")),
        first_chunk=_integer(attributes.get("time_to_first_chunk_ms")),
        failed_tools=sum(call.failed for call in tool_calls(fields)),
        feedback=_integer(fields.get("user_feedback")),
        size=size,
        error=_line(error) or None,
        question=_line(question_of(fields)),
        answer=_line(text_of(fields.get("response"))),
        comment=_line(text_of(fields.get("user_feedback_comment"))) or None,
    )


def attributes_of(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the custom attributes of a log."""
    attributes = fields.get("custom_attributes")
    return attributes if isinstance(attributes, dict) else {}


def searchable_attributes(fields: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the custom attributes by which a log can be found: short values that are not unique to it."""
    for name, value in list(attributes_of(fields).items())[:MAX_NAMES]:
        if (
            name not in _NOT_CHOSEN
            and isinstance(value, (str, int, float))
            and len(text := text_of(value)) <= MAX_VALUE
        ):
            yield name[:MAX_VALUE], text


def tool_calls(fields: dict[str, Any]) -> Iterator[LoggedToolCall]:
    """Yield each tool call, in OpenAI's shape or in a flat one, with its output and whether it failed."""
    calls = objects_in(fields.get("tool_calls"))
    if not calls:
        return
    # An output may be in the call itself, or in a later message of the prompt that names the call's id.
    prompt = objects_in(fields.get("prompt"))
    outputs = {text_of(each.get("tool_call_id")): each.get("content") for each in prompt if each.get("role") == "tool"}
    for call in calls:
        function = call.get("function")
        inner = function if isinstance(function, dict) else call
        own = (each[name] for each in (call, inner) for name in ("output", "result") if each.get(name) is not None)
        output = next(own, None)
        if output is None:
            output = outputs.get(text_of(call.get("id")))
        failure = next(
            (each[name] for each in (call, inner) for name in ("error", "last_error") if each.get(name)), None
        )
        yield LoggedToolCall(
            name=text_of(inner.get("name") or call.get("type") or "tool"),
            arguments=inner.get("arguments"),
            output=failure if output is None else output,
            failed=failure is not None or call.get("status") in ("failed", "error") or _is_failure(output),
        )


def _is_failure(output: Any) -> bool:
    """Return whether a tool's output reports a failure, in a JSON field or its first word."""
    value = output
    if isinstance(value, str):
        if not value.lstrip().startswith("{"):
            return _FAILED_OUTPUT.match(value.lstrip()) is not None
        value = parse_object(value)
    if not isinstance(value, dict):
        return False
    status = value.get("status")
    refused = isinstance(status, str) and status.lower() in ("error", "failed", "failure")
    return bool(value.get("error") or value.get("is_error") or value.get("isError")) or refused


def parse_object(text: bytes | str) -> dict[str, Any]:
    """Parse a JSON object; return an empty one if `text` is anything else."""
    try:
        fields = from_json(text)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def merge_updates(fields: dict[str, Any], updates: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Apply later updates and feedback, oldest first, to a log's fields."""
    for update in updates:
        fields = {**fields, **update}
    return fields


def question_of(fields: dict[str, Any]) -> str:
    """Return the user's question: `user_query`, else the last user message of the prompt."""
    if fields.get("user_query"):
        return text_of(fields["user_query"])
    prompt = fields.get("prompt")
    if isinstance(prompt, str):
        return prompt
    questions = [text_of(message.get("content")) for message in objects_in(prompt) if message.get("role") == "user"]
    return questions[-1] if questions else ""


def error_of(fields: dict[str, Any]) -> str:
    """Return a readable error; empty if the call did not fail."""
    code = fields.get("status_code")
    failed = isinstance(code, int) and code >= 400  # noqa: PLR2004 - where HTTP's errors begin
    return readable_error(text_of(fields.get("error"))) or (f"status {code}" if failed else "")


def readable_error(text: str) -> str:
    """Return the message in an error that ends with the server's whole answer, as raised by clients of HTTP APIs.

    >>> readable_error("RateLimitError: Error code: 429 - {'error': {'message': 'Slow down.', 'code': None}}")
    'RateLimitError 429: Slow down.'
    """
    found = _BODY.fullmatch(text) if len(text) <= _MAX_REPR else None
    if found is None:
        return text
    try:
        body = from_json(found["body"])
    except ValueError:
        try:
            body = ast.literal_eval(found["body"])
        # If a hostile text breaks the parser, the text itself is still worth showing.
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return text
    while isinstance(body, list) and body:
        body = body[0]
    inner = body.get("error") if isinstance(body, dict) else None
    places = [inner] if isinstance(inner, dict) else []
    places += [body] if isinstance(body, dict) else []
    messages = [place.get(name) for place in places for name in ("message", "detail", "error_description", "error")]
    message = next((each for each in messages if isinstance(each, str) and each.strip()), None)
    if message is None:
        return text
    head = found["head"].strip().removesuffix(":").removesuffix(" -").strip()
    head = f"{head} {found['code']}".strip() if found["code"] else head
    return f"{head}: {message}" if head else message


def objects_in(value: Any) -> list[dict[str, Any]]:
    """Return the JSON objects in a list, such as the messages of a prompt, without its other items."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def text_of(value: Any) -> str:
    """Return any JSON value as text: strings unchanged, text parts of a message joined, the rest as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    parts = objects_in(value)
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    # If the other parts of a message are images and files, only the texts are text.
    if texts and all("text" in part or "type" in part for part in parts):
        return "\n".join(texts)
    return json.dumps(value, ensure_ascii=False)


def searchable_text(reference: str, fields: dict[str, Any]) -> tuple[str, str, str]:
    """Return the text that the search covers: the question, the answer, and the rest."""
    # Not the system prompt and the list of tools, which are the same in every log.
    names = ("session_id", "customer_id", "customer_user_id", "prompt_slug", "language_model_id", "error")
    large = ("context", "expected_response", "tool_calls", "custom_attributes")
    rest = " ".join(text_of(fields.get(name))[:_MAX_SEARCHED] for name in (*names, *large) if fields.get(name))
    return question_of(fields)[:_MAX_SEARCHED], text_of(fields.get("response"))[:_MAX_SEARCHED], f"{reference} {rest}"


def _label(value: Any) -> str | None:
    return text_of(value)[:_MAX_LINE] or None


def _line(text: str) -> str:
    return " ".join(text[: _MAX_LINE * 2].split())[:_MAX_LINE]


def _number(value: Any) -> float | None:
    # Beyond this a float no longer holds every integer, and SQLite's sums would overflow.
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15  # noqa: PLR2004
    return float(value) if usable else None


def _integer(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
