"""What lists, filters, sums and the search know of one log: read from its JSON, whatever its values are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic_core import from_json

_LINE = 280
"""Characters of a question, answer or error that a list shows at most."""
_SEARCHED = 50_000
"""Characters of one field that the search knows."""


class Facts(NamedTuple):
    """One row of a list. `session` is the log's session, or its own reference where it belongs to none."""

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


def load(body: bytes) -> dict[str, Any]:
    """The JSON object that `body` holds; an empty one where it holds something else."""
    try:
        fields = from_json(body)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def facts(number: int, made: float, reference: str, fields: dict[str, Any], *, size: int) -> Facts:
    """Read the row of a log out of its `fields`; `number` is its entry's id, `size` its bytes."""
    return Facts(
        id=number,
        made=made,
        session=_name(fields.get("session_id")) or reference,
        reference=reference,
        customer=_name(fields.get("customer_id")),
        user=_name(fields.get("customer_user_id")),
        environment=_name(fields.get("environment")),
        slug=_name(fields.get("prompt_slug")),
        model=_name(fields.get("language_model_id")),
        tokens=_tokens(fields),
        cost=_number(fields.get("cost")),
        latency=_whole(fields.get("response_time")),
        error=_line(error_of(fields)) or None,
        question=_line(question_of(fields)),
        answer=_line(text_of(fields.get("response"))),
        feedback=_whole(fields.get("user_feedback")),
        size=size,
    )


def question_of(fields: dict[str, Any]) -> str:
    """What the user asked: `user_query`, else the last user message of the prompt."""
    if fields.get("user_query"):
        return text_of(fields["user_query"])
    prompt = fields.get("prompt")
    if isinstance(prompt, str):
        return prompt
    said = [text_of(message.get("content")) for message in messages_of(prompt) if message.get("role") == "user"]
    return said[-1] if said else ""


def error_of(fields: dict[str, Any]) -> str:
    """Why the call failed, in words; empty where it did not."""
    code = fields.get("status_code")
    failed = isinstance(code, int) and code >= 400  # noqa: PLR2004 - where HTTP's errors begin
    return text_of(fields.get("error")) or (f"status {code}" if failed else "")


def messages_of(prompt: Any) -> list[dict[str, Any]]:
    """The messages of a prompt, whatever else it holds left out."""
    return [message for message in prompt if isinstance(message, dict)] if isinstance(prompt, list) else []


def text_of(value: Any) -> str:
    """Any JSON value as text: a string as it is, text parts of a message joined, the rest as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    parts = [part.get("text") for part in value if isinstance(part, dict)] if isinstance(value, list) else []
    if parts and all(isinstance(part, str) for part in parts):
        return "\n".join(map(str, parts))
    return json.dumps(value, ensure_ascii=False)


def words_of(reference: str, fields: dict[str, Any]) -> tuple[str, str, str]:
    """What the search looks through: the question, the answer, and the rest that tells logs apart.

    The prompt's fixed part and the list of tools are left out: they are the same in every log.
    """
    names = ("session_id", "customer_id", "customer_user_id", "prompt_slug", "language_model_id", "error")
    large = ("context", "expected_response", "tool_calls", "custom_attributes")
    rest = " ".join(text_of(fields.get(name))[:_SEARCHED] for name in (*names, *large) if fields.get(name))
    return question_of(fields)[:_SEARCHED], text_of(fields.get("response"))[:_SEARCHED], f"{reference} {rest}"


def merged(fields: dict[str, Any], updates: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """A log after its later updates and feedback, oldest first."""
    for update in updates:
        fields = {**fields, **update}
    return fields


def _tokens(fields: dict[str, Any]) -> int | None:
    total = _whole(fields.get("total_tokens"))
    parts = [_whole(fields.get(name)) for name in ("prompt_tokens", "completion_tokens")]
    known = [part for part in parts if part is not None]
    return total if total is not None or not known else sum(known)


def _name(value: Any) -> str | None:
    return text_of(value)[:_LINE] or None


def _line(text: str) -> str:
    return " ".join(text[: _LINE * 2].split())[:_LINE]


def _number(value: Any) -> float | None:
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15  # noqa: PLR2004
    return float(value) if usable else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
