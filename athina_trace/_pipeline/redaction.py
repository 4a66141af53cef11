"""Redaction: which fields are kept out of a log on request."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntFlag
from typing import Any, Final


class Redaction(IntFlag):
    """What to keep out of a log. An `IntFlag`, since each call tests whether it is set, and an int is fastest."""

    NOTHING = 0
    INPUTS = 1
    """Captured arguments, prompts, questions and documents."""
    RESPONSE = 2
    """Captured answers."""
    NAMED = 4
    """The same fields if the program set them, and the messages of exceptions."""
    EVERYTHING = INPUTS | RESPONSE | NAMED


NOTHING: Final = Redaction.NOTHING
"""For each call: before Python 3.12, looking up an enum's member is slow."""
# The fields with content. All others say who, when, how long, which model and how much.
_INPUT_FIELDS: Final = frozenset({"prompt", "user_query", "context", "expected_response"})
_RESPONSE_FIELDS: Final = frozenset({"response", "tool_calls", "function_call_response", "user_feedback_comment"})
_IDENTIFIERS: Final = frozenset({"session_id"})


def redacted(redaction: Redaction, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return `fields` without those that are redacted."""
    gone = _INPUT_FIELDS if redaction & Redaction.INPUTS else frozenset[str]()
    if redaction & Redaction.RESPONSE:
        gone |= _RESPONSE_FIELDS
    return {name: value for name, value in fields.items() if name not in gone}


def of_named(redaction: Redaction) -> Redaction:
    """Return the redaction of fields that the program set: nothing, unless `NAMED` is set."""
    return redaction if redaction & Redaction.NAMED else Redaction.NOTHING


def identifiers(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return only the captured session, without which a log would belong to no conversation."""
    return {name: value for name, value in inputs.items() if name in _IDENTIFIERS}


def without_arguments(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return custom attributes without captured arguments."""
    return {name: value for name, value in attributes.items() if not name.startswith("input.")}


def type_only(error: str) -> str:
    """Return only the exception's type, with which the text of an error begins."""
    return error.partition(":")[0]
