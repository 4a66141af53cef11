"""What stays out of a log on request: pure rules over fields."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntFlag
from typing import Any, Final


class Redaction(IntFlag):
    """What is kept out of a log. An `IntFlag`: its truth is asked for each call, and an int's costs next to nothing."""

    NOTHING = 0
    INPUTS = 1
    """Arguments, prompts, questions and documents, as far as they were captured."""
    RESPONSE = 2
    """Answers, as far as they were captured."""
    NAMED = 4
    """The same fields where the program named them, and the words of exceptions."""
    EVERYTHING = INPUTS | RESPONSE | NAMED


NOTHING: Final = Redaction.NOTHING
"""The same without a look-up of a member, which is slow before Python 3.12, and made by each call."""
# The fields of content. All others are about who, when, how long, which model and how much.
_INPUT_FIELDS: Final = frozenset({"prompt", "user_query", "context", "expected_response"})
_RESPONSE_FIELDS: Final = frozenset({"response", "tool_calls", "function_call_response", "user_feedback_comment"})
_IDENTIFIERS: Final = frozenset({"session_id"})


def redacted(redaction: Redaction, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return `fields` without those that are kept out."""
    gone = _INPUT_FIELDS if redaction & Redaction.INPUTS else frozenset[str]()
    if redaction & Redaction.RESPONSE:
        gone |= _RESPONSE_FIELDS
    return {name: value for name, value in fields.items() if name not in gone}


def of_named(redaction: Redaction) -> Redaction:
    """Return what is kept out of fields that the program names: nothing, unless it is to be kept out, too."""
    return redaction if redaction & Redaction.NAMED else Redaction.NOTHING


def identifiers(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return captured arguments without their content. Without its session a log would belong to no conversation."""
    return {name: value for name, value in inputs.items() if name in _IDENTIFIERS}


def without_arguments(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return custom attributes without the arguments among them."""
    return {name: value for name, value in attributes.items() if not name.startswith("input.")}


def type_only(error: str) -> str:
    """Return the exception's type alone, with which the text of an error begins."""
    return error.partition(":")[0]
