"""What stays out of a log on request: pure rules over fields."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, Final, Protocol

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


class Written(Protocol):
    """A log being written; see `_draft.LogDraft`."""

    inputs: dict[str, Any]
    attributes: dict[str, Any]
    named: dict[str, Any]


def without(hides: int, fields: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` without those that `hides` names."""
    gone = (_INPUT_FIELDS if hides & INPUTS else frozenset()) | (_RESPONSE_FIELDS if hides & RESPONSE else frozenset())
    return {name: value for name, value in fields.items() if name not in gone}


def without_arguments(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Custom attributes without the arguments among them."""
    return {name: value for name, value in attributes.items() if not name.startswith("input.")}


def withhold(hides: int, draft: Written, ended: MutableMapping[str, Any]) -> None:
    """Take out of a draft, and of how its call ended, what settings or a scope keep back.

    Identifiers stay: without its session a log belongs to no conversation.
    """
    if hides & INPUTS:
        draft.inputs = {name: value for name, value in draft.inputs.items() if name in _IDENTIFIERS}
        draft.attributes = without_arguments(draft.attributes)
    if hides & NAMED:
        draft.named = without(hides, draft.named)
        draft.attributes.pop("response_error", None)
        if "error" in ended:
            ended["error"] = ended["error"].partition(":")[0]
