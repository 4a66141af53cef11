"""The fields of a log, with the names and types of Athina's HTTP API.

Source: Athina's documentation of `POST /api/v1/log/inference` and its SDKs. Where they disagree on a name
(`completion` and `completion_tokens`, `tool_call` and `tool_calls`), both spellings are accepted and both are sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypedDict

from athina_trace._serialization import plain

ALIASES = {"completion": "completion_tokens", "tool_call": "tool_calls"}
"""The second spelling of a field → the spelling that we use internally."""

_SENT_TWICE = tuple((field, alias) for alias, field in ALIASES.items())


class _Fields(TypedDict, total=False):
    language_model_id: str
    prompt: str | list[dict[str, Any]]
    session_id: str
    user_query: str
    context: Any
    expected_response: str
    prompt_tokens: int
    completion_tokens: int
    completion: int
    total_tokens: int
    cost: float
    prompt_slug: str
    environment: str
    customer_id: str
    customer_user_id: str
    tool_calls: Any
    tool_call: Any
    tools: Any
    response_time: int
    status_code: int
    error: str
    custom_attributes: dict[str, Any]
    custom_eval_metrics: dict[str, float]
    model_options: dict[str, Any]
    functions: Any
    function_call_response: Any
    user_feedback: Literal[1, 0, -1]
    user_feedback_comment: str


class ConstantFields(_Fields, total=False):
    """Every field that a decorator may set; there, `response` is a separate option."""

    external_reference_id: str


class LogFields(ConstantFields, total=False):
    """Every field that `current_log().update(...)` may set."""

    response: str


class ChangedFields(_Fields, total=False):
    """Every field that `update_log(...)` may change."""

    response: str


FIELDS = frozenset(LogFields.__annotations__).difference(ALIASES)
"""The names of all fields, in our spelling."""


def with_aliases(fields: dict[str, Any]) -> dict[str, Any]:
    """Add the second spelling of each field that has two. Modifies the given dictionary."""
    for field, alias in _SENT_TWICE:
        if field in fields:
            fields[alias] = fields[field]
    return fields


def attributes_of(given: Mapping[Any, Any]) -> dict[str, Any]:
    """Return custom attributes as JSON-safe data, each value with its own limits."""
    return {str(name): plain(value, name=str(name)) for name, value in given.items()}


def check_names(function: str, names: Iterable[str]) -> None:
    """Raise `TypeError` for a name that is not a field, and suggest the nearest one."""
    for name in names:
        if ALIASES.get(name, name) not in FIELDS:
            raise TypeError(f"{function}() got an unknown field {name!r}{nearest(name)}")


_MEANT = {
    "answer": "response",
    "conversation_id": "session_id",
    "customer": "customer_id",
    "duration": "response_time",
    "env": "environment",
    "feedback": "user_feedback",
    "input": "user_query",
    "latency": "response_time",
    "messages": "prompt",
    "metadata": "custom_attributes",
    "model": "language_model_id",
    "output": "response",
    "query": "user_query",
    "question": "user_query",
    "slug": "prompt_slug",
    "thread_id": "session_id",
    "user_id": "customer_user_id",
}
"""Names of fields in other tools → our names."""


def nearest(name: str) -> str:
    """Return "; did you mean …?" for an unknown field, or an empty string."""
    import difflib  # noqa: PLC0415 - only mistakes need it

    known = {**{field: field for field in (*FIELDS, *ALIASES)}, **_MEANT}
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {known[close[0]]!r}?" if close else ""
