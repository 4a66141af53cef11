"""What stays out of a log on request: pure rules over fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

INPUTS: Final = 1
"""Arguments, prompts, questions and documents, as far as they were captured."""
RESPONSE: Final = 2
"""Answers, as far as they were captured."""
NAMED: Final = 4
"""The same fields where the program named them, and the words of exceptions."""
EVERYTHING: Final = INPUTS | RESPONSE | NAMED

_INPUT_FIELDS: Final = frozenset({"prompt", "user_query", "context", "expected_response"})
_RESPONSE_FIELDS: Final = frozenset({"response", "tool_calls", "function_call_response", "user_feedback_comment"})
_IDENTIFIERS: Final = frozenset({"session_id"})


def redacted(hides: int, fields: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` without those that `hides` names."""
    gone = (_INPUT_FIELDS if hides & INPUTS else frozenset()) | (_RESPONSE_FIELDS if hides & RESPONSE else frozenset())
    return {name: value for name, value in fields.items() if name not in gone}


def identifiers(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Captured arguments without their content. Without its session a log would belong to no conversation."""
    return {name: value for name, value in inputs.items() if name in _IDENTIFIERS}


def without_arguments(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Custom attributes without the arguments among them."""
    return {name: value for name, value in attributes.items() if not name.startswith("input.")}


def type_only(error: str) -> str:
    """Of the text of an error, which begins with the exception's type, the type alone."""
    return error.partition(":")[0]
