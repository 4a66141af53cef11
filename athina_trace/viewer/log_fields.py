"""Read the JSON of one log: its texts, and the row that lists, filters, sums and the search are made of.

Nothing here raises for odd values: a log holds whatever a program sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from pydantic_core import from_json

_MAX_LINE = 280
"""Characters of a question, answer or error that a list shows at most."""
_MAX_SEARCHED = 50_000
"""Characters of one field that the search covers."""


class LogRow(NamedTuple):
    """One row of a list; its fields are the columns of the index's table `log`, in order.

    Attributes:
        id: the number of the log's entry in the outbox.
        made: seconds since the epoch.
        session: the log's session, or its own reference where it belongs to none.
        latency: milliseconds.
        size: bytes of the log's JSON.
    """

    id: int
    made: float
    session: str
    reference: str
    customer: str | None
    user: str | None
    environment: str | None
    slug: str | None
    model: str | None
    tokens: int | None
    cost: float | None
    latency: int | None
    error: str | None
    question: str
    answer: str
    feedback: int | None
    size: int


def log_row(entry_id: int, made: float, reference: str, fields: dict[str, Any], *, size: int) -> LogRow:
    """Build the row of a log from its `fields`."""
    tokens = _integer(fields.get("total_tokens"))
    if tokens is None:
        parts = [_integer(fields.get(name)) for name in ("prompt_tokens", "completion_tokens")]
        known = [part for part in parts if part is not None]
        tokens = sum(known) if known else None
    return LogRow(
        id=entry_id,
        made=made,
        session=_label(fields.get("session_id")) or reference,
        reference=reference,
        customer=_label(fields.get("customer_id")),
        user=_label(fields.get("customer_user_id")),
        environment=_label(fields.get("environment")),
        slug=_label(fields.get("prompt_slug")),
        model=_label(fields.get("language_model_id")),
        tokens=tokens,
        cost=_number(fields.get("cost")),
        latency=_integer(fields.get("response_time")),
        error=_line(error_of(fields)) or None,
        question=_line(question_of(fields)),
        answer=_line(text_of(fields.get("response"))),
        feedback=_integer(fields.get("user_feedback")),
        size=size,
    )


def parse_object(text: bytes | str) -> dict[str, Any]:
    """Parse a JSON object; an empty one where `text` holds something else."""
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
    """Return what the user asked: `user_query`, else the last user message of the prompt."""
    if fields.get("user_query"):
        return text_of(fields["user_query"])
    prompt = fields.get("prompt")
    if isinstance(prompt, str):
        return prompt
    questions = [text_of(message.get("content")) for message in messages_of(prompt) if message.get("role") == "user"]
    return questions[-1] if questions else ""


def error_of(fields: dict[str, Any]) -> str:
    """Return why the call failed; empty where it did not."""
    code = fields.get("status_code")
    failed = isinstance(code, int) and code >= 400  # noqa: PLR2004 - where HTTP's errors begin
    return text_of(fields.get("error")) or (f"status {code}" if failed else "")


def messages_of(prompt: Any) -> list[dict[str, Any]]:
    """Return the messages of a prompt, without whatever else the list holds."""
    return [message for message in prompt if isinstance(message, dict)] if isinstance(prompt, list) else []


def text_of(value: Any) -> str:
    """Return any JSON value as text: strings unchanged, text parts of a message joined, the rest as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    parts = [part.get("text") for part in value if isinstance(part, dict)] if isinstance(value, list) else []
    if parts and all(isinstance(part, str) for part in parts):
        return "\n".join(map(str, parts))
    return json.dumps(value, ensure_ascii=False)


def searchable_text(reference: str, fields: dict[str, Any]) -> tuple[str, str, str]:
    """Return what the search covers: the question, the answer, and the rest."""
    # Not the system prompt and the list of tools: they are the same in every log and distinguish none.
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
