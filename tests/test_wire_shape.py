"""The wire shape: every field, both spellings, and nothing lost for its type."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from athina_trace import InferenceLog
from athina_trace._pipeline.wire import _EXACT, is_prompt, to_wire
from athina_trace.schema import ALIASES, FIELDS, LogFields

DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
REQUIRED = {"language_model_id": "m", "prompt": "p", "response": "r"}


def test_typed_fields_are_the_fields() -> None:
    assert set(LogFields.__annotations__) == FIELDS | set(ALIASES)


def test_the_models_fields_are_the_fields() -> None:
    assert set(InferenceLog.model_fields) == FIELDS


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), DATA))
def test_types_considered_exact_are_those_the_model_keeps_unchanged(fields: dict[str, Any]) -> None:
    present = {name: value for name, value in {**REQUIRED, **fields}.items() if value is not None}
    prompt = present.get("prompt")
    exact = all(type(value) in _EXACT.get(name, (type(value),)) for name, value in present.items())
    if exact and is_prompt(prompt):
        assert InferenceLog.of({**REQUIRED, **present}).model_dump(exclude_none=True) == {**REQUIRED, **present}


@pytest.mark.parametrize(("alias", "field"), ALIASES.items())
def test_both_spellings_are_accepted_and_sent(alias: str, field: str) -> None:
    for name in (alias, field):
        wire = InferenceLog.of({**REQUIRED, name: 3}).wire()
        assert wire[alias] == wire[field] == 3


def test_required_and_forbidden_fields_of_a_log() -> None:
    with pytest.raises(ValidationError, match="language_model_id"):
        InferenceLog.of({"prompt": "p", "response": "r"})
    with pytest.raises(ValidationError, match="not permitted"):
        InferenceLog.of({**REQUIRED, "respons": "r"})


def test_identifiers_and_answers_become_strings() -> None:
    log = InferenceLog.of({**REQUIRED, "session_id": 3, "customer_id": 4.5, "response": {"a": 1}})
    assert (log.session_id, log.customer_id, log.response) == ("3", "4.5", '{"a": 1}')
    assert InferenceLog.of({**REQUIRED, "response": None}).response == ""


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), DATA))
@example({"prompt": {}})
def test_no_type_loses_a_log(fields: dict[str, Any]) -> None:
    attributes = fields.get("custom_attributes")
    wire = to_wire({**REQUIRED, **fields})
    json.dumps(wire, allow_nan=False)
    InferenceLog.of({**REQUIRED, **{name: value for name, value in wire.items() if name not in ALIASES}})
    for name, value in fields.items():
        kept = name in wire or f"invalid.{name}" in wire.get("custom_attributes", {})
        assert kept or value is None, name
    if isinstance(attributes, dict):
        assert set(attributes) <= set(wire["custom_attributes"])


def test_absent_fields_are_left_out() -> None:
    assert to_wire({**REQUIRED, "cost": None}) == REQUIRED
