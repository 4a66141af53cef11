"""From fields to the JSON object that is sent: wrong types are mended, custom attributes made flat."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from athina_trace._serialization import plain
from athina_trace.schema import ALIASES, FIELDS, doubled

_SCALARS = (str, int, float, bool, type(None))
_ANYTHING = ("context", "tool_calls", "tools", "functions", "function_call_response")

_EXACT: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(FIELDS.difference(_ANYTHING, ("prompt",)), (str,)),
    **dict.fromkeys(("custom_attributes", "model_options"), (dict,)),
    **dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens", "response_time", "status_code"), (int,)),
    "cost": (int, float),
    # Only pydantic can tell.
    **dict.fromkeys(("custom_eval_metrics", "user_feedback"), ()),
}
"""Field → the types that need no look by pydantic."""


def to_wire(fields: dict[str, Any]) -> dict[str, Any]:
    """The JSON object to send for `fields` (JSON-safe values, inner spelling, None meaning absent).

    Wrong types are mended where that can be done; what cannot be mended moves to `custom_attributes` as
    `invalid.<field>`, so that a wrong type never loses a log.
    """
    present: dict[str, Any] = {}
    prompt = fields.get("prompt")
    exact = prompt is None or is_prompt(prompt)
    for name, value in fields.items():
        if value is not None:
            present[name] = value
            exact = exact and (name not in _EXACT or type(value) in _EXACT[name])
    return doubled(present if exact else _mend(present))


def partial_wire(fields: dict[str, Any]) -> dict[str, Any]:
    """What `to_wire` gives for those fields of a log that are to change, and for no others."""
    given = {*(ALIASES.get(name, name) for name in fields), "custom_attributes"}
    return {name: value for name, value in to_wire(fields).items() if ALIASES.get(name, name) in given}


def is_prompt(value: Any) -> bool:
    """Whether JSON-safe data is what Athina takes for a prompt: text, or a list of messages."""
    return type(value) is str or (type(value) is list and {dict}.issuperset(map(type, value)))


def _mend(fields: dict[str, Any]) -> dict[str, Any]:
    """Coerce what pydantic can coerce; move each field that it refuses to `custom_attributes`."""
    from athina_trace.inference_log import InferenceLog, refused  # noqa: PLC0415 - only mistakes need it

    required = {"language_model_id": "unknown", "prompt": "", "response": ""}
    notes: dict[str, Any] = {}
    for name in refused({**required, **fields}):
        notes[f"invalid.{name}"] = flat(fields.pop(name))
    mended = InferenceLog.model_validate({**required, **fields}).model_dump(exclude_none=True)
    mended["custom_attributes"] = {**mended.get("custom_attributes", {}), **notes}
    return mended


def flat(value: Any) -> Any:
    """A value of `custom_attributes`: a scalar as it is, anything else (JSON-safe) as compact JSON text.

    Athina's dashboard shows keys with scalar values only.
    """
    if isinstance(value, _SCALARS):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def attributes(given: Mapping[str, Any]) -> dict[str, Any]:
    """Custom attributes out of what a user gave: bounded, and flat."""
    return {str(name): flat(plain(value, name=str(name))) for name, value in given.items()}
