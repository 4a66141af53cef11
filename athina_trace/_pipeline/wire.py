"""Converts the fields of a log to the JSON object that is sent: repairs types, makes text of values, adds aliases.

    repaired    fields → fields      each value has a type that Athina accepts; the response may still be data
    to_wire     fields → the object  repaired, the response as text, custom attributes flat, both spellings
    forwarded   fields → the object  for another client's fields: repaired, both spellings, the response unchanged

Fields are JSON-safe data under our spelling; None means absent. Nothing before `to_wire` turns data into text, and
nothing after it turns text back into data.
"""

from __future__ import annotations

import json
from typing import Any

from athina_trace.schema import FIELDS, with_aliases

_SCALARS = frozenset({str, int, float, bool, type(None)})
_CONTAINERS = (dict, list)
_MESSAGES = frozenset({dict})
_ANYTHING = ("context", "tool_calls", "tools", "functions", "function_call_response")

_EXACT: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(FIELDS.difference(_ANYTHING, ("prompt",)), (str,)),
    **dict.fromkeys(("custom_attributes", "model_options"), (dict,)),
    **dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens", "response_time", "status_code"), (int,)),
    "cost": (int, float),
    # Only pydantic can decide.
    **dict.fromkeys(("custom_eval_metrics", "user_feedback"), ()),
}
"""Field → the types that pydantic need not check."""
_USUAL = frozenset(
    [
        *((name, kind) for name, kinds in _EXACT.items() for kind in kinds),
        *((name, kind) for name in (*_ANYTHING, "response") for kind in (str, list, dict)),
        *(("prompt", kind) for kind in (str, list)),
    ]
)
"""Fields with types of values that need no repair, apart from the messages of a prompt."""
_MAX_SHAPES = 4096
_usual_shapes: set[tuple[Any, ...]] = set()
"""Combinations of fields and types that were found to need no repair. A program makes few of them."""

json_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode
"""JSON-safe data as compact JSON."""

_REQUIRED = {"language_model_id": "unknown", "prompt": "", "response": ""}
"""The required fields, and the values that replace those that cannot be repaired."""


def to_wire(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON object to send for `fields`: those of a whole log, or only those that change."""
    wire = repaired(fields)
    if type(wire.get("response", "")) is not str:
        wire["response"] = json_text(wire["response"])
    attributes = wire.get("custom_attributes", {})
    if not _SCALARS.issuperset(map(type, attributes.values())):
        # Athina's dashboard shows scalar values only.
        wire["custom_attributes"] = {
            name: value if type(value) in _SCALARS else json_text(value) for name, value in attributes.items()
        }
    return with_aliases(wire)


def forwarded(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON object to send for another client's fields: structured data stays structured."""
    return with_aliases(repaired(fields))


def repaired(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the `fields` that are present, with types that Athina accepts, in a new dictionary.

    A value that cannot be repaired moves to `custom_attributes` as `invalid.<field>`, so that no log is lost.
    """
    # Most logs are complete and correct, like the one before: a check of each field would take five times as long, and
    # the loop below twenty-five times.
    shape, prompt = (*fields, *map(type, fields.values())), fields.get("prompt")
    if (shape in _usual_shapes or _is_usual(fields, shape)) and (
        type(prompt) is not list or _MESSAGES.issuperset(map(type, prompt))
    ):
        return fields.copy()
    exact = prompt is None or is_prompt(prompt)
    present: dict[str, Any] = {}
    for name, value in fields.items():
        if value is not None:
            present[name] = value
            if name in _EXACT and type(value) not in _EXACT[name]:
                if name != "response":
                    exact = False
                elif type(value) not in _CONTAINERS:
                    present[name] = json_text(value)
    return present if exact else _repaired(present)


def _is_usual(fields: dict[str, Any], shape: tuple[Any, ...]) -> bool:
    usual = _USUAL.issuperset(zip(fields, map(type, fields.values()), strict=False))
    if usual and len(_usual_shapes) < _MAX_SHAPES:
        _usual_shapes.add(shape)
    return usual


def is_prompt(value: Any) -> bool:
    """Return whether JSON-safe data is a prompt as Athina accepts it: text, or a list of messages."""
    return type(value) is str or (type(value) is list and _MESSAGES.issuperset(map(type, value)))


def _repaired(fields: dict[str, Any]) -> dict[str, Any]:
    """Coerce values with pydantic; move each field that it rejects to `custom_attributes`."""
    from athina_trace.inference_log import InferenceLog, invalid_fields  # noqa: PLC0415 - only mistakes need it

    invalid = invalid_fields({**_REQUIRED, **fields})
    kept = {name: value for name, value in fields.items() if name not in invalid}
    coerced = InferenceLog.model_validate({**_REQUIRED, **kept}).model_dump(exclude_none=True)
    if "response" in kept:
        coerced["response"] = kept["response"]
    out = {name: value for name, value in coerced.items() if name in fields}
    if invalid:
        notes = {f"invalid.{name}": fields[name] for name in invalid}
        out["custom_attributes"] = {**out.get("custom_attributes", {}), **notes}
    return out
