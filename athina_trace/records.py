"""Athina's wire shapes: the fields of a log, as its HTTP API names and types them.

Source: Athina's documentation of `POST /api/v1/log/inference` and its SDKs. Where those disagree on a name
(`completion` and `completion_tokens`, `tool_call` and `tool_calls`), both spellings are accepted and both are sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Optional, TypeAlias, TypedDict

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from athina_trace._values import plain

ALIASES = {"completion": "completion_tokens", "tool_call": "tool_calls"}
"""The second spelling of a field → the spelling used everywhere inside."""

_DOUBLED = {field: alias for alias, field in ALIASES.items()}
_SCALARS = (str, int, float, bool, type(None))


def _to_text(value: object) -> object:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _to_response(value: object) -> object:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


Text: TypeAlias = Annotated[str, BeforeValidator(_to_text)]
OptionalText = Optional[Text]  # noqa: UP045 - pyright knows no `|` between aliases at run time
Response = Annotated[str, BeforeValidator(_to_response)]


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
    """Every field that a decorator may name; `response` is an option of its own there."""

    external_reference_id: str


class LogFields(ConstantFields, total=False):
    """Every field that `current_log().update(...)` may name."""

    response: str


class ChangedFields(_Fields, total=False):
    """Every field that `update_log(...)` may change."""

    response: str


class InferenceLog(BaseModel):
    """One log, as Athina takes it. Identifiers become strings; `response` always is one; None means absent.

    >>> log = InferenceLog(language_model_id="gpt-4o", prompt="Hi", response="Hello", completion_tokens=3)
    >>> log.wire()["completion"]
    3
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), defer_build=True)

    language_model_id: Text
    prompt: str | list[dict[str, Any]]
    response: Response
    session_id: OptionalText = None
    user_query: OptionalText = None
    context: Any = None
    expected_response: OptionalText = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cost: float | None = None
    prompt_slug: OptionalText = None
    environment: OptionalText = None
    customer_id: OptionalText = None
    customer_user_id: OptionalText = None
    external_reference_id: OptionalText = None
    tool_calls: Any = None
    tools: Any = None
    response_time: int | None = None
    status_code: int | None = None
    error: OptionalText = None
    custom_attributes: dict[str, Any] | None = None
    custom_eval_metrics: dict[str, float] | None = None
    model_options: dict[str, Any] | None = None
    functions: Any = None
    function_call_response: Any = None
    user_feedback: Literal[1, 0, -1] | None = None
    user_feedback_comment: OptionalText = None

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> InferenceLog:
        """Build a log from `fields`, under either spelling. Raises pydantic's `ValidationError` on a wrong type."""
        return cls.model_validate({ALIASES.get(name, name): value for name, value in fields.items()})

    def wire(self) -> dict[str, Any]:
        """The JSON object to send: absent fields left out, both spellings of a doubled name."""
        return _double(self.model_dump(exclude_none=True))


FIELDS = frozenset(InferenceLog.model_fields)
"""The names of all fields, in the spelling used inside."""

_EXACT: dict[str, tuple[type, ...]] = {
    **{name: (str,) for name, info in InferenceLog.model_fields.items() if info.annotation in (str, OptionalText)},
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
    return _double(present if exact else _mend(present))


def partial_wire(fields: dict[str, Any]) -> dict[str, Any]:
    """What `to_wire` gives for those fields of a log that are to change, and for no others."""
    given = {*(ALIASES.get(name, name) for name in fields), "custom_attributes"}
    return {name: value for name, value in to_wire(fields).items() if ALIASES.get(name, name) in given}


def is_prompt(value: Any) -> bool:
    """Whether JSON-safe data is what Athina takes for a prompt: text, or a list of messages."""
    return type(value) is str or (type(value) is list and {dict}.issuperset(map(type, value)))


def _double(fields: dict[str, Any]) -> dict[str, Any]:
    for field, alias in _DOUBLED.items():
        if field in fields:
            fields[alias] = fields[field]
    return fields


def _mend(fields: dict[str, Any]) -> dict[str, Any]:
    """Coerce what pydantic can coerce; move each field that it refuses to `custom_attributes`."""
    required = {"language_model_id": "unknown", "prompt": "", "response": ""}
    notes: dict[str, Any] = {}
    for name in _refused({**required, **fields}):
        notes[f"invalid.{name}"] = flat(fields.pop(name))
    mended = InferenceLog.model_validate({**required, **fields}).model_dump(exclude_none=True)
    mended["custom_attributes"] = {**mended.get("custom_attributes", {}), **notes}
    return mended


def _refused(fields: dict[str, Any]) -> set[str]:
    """The fields whose values pydantic refuses."""
    try:
        InferenceLog.model_validate(fields)
    except ValidationError as error:
        return {str(problem["loc"][0]) for problem in error.errors(include_url=False)}
    return set()


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


def nearest(name: str) -> str:
    """The sentence part that suggests the field closest to `name`, or an empty string."""
    import difflib  # noqa: PLC0415 - only mistakes need it

    close = difflib.get_close_matches(name, [*FIELDS, *ALIASES], n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
