"""A log that is too large is truncated to fit, notes that, and keeps its identity."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from athina_trace._delivery.truncate import IDENTIFIERS, truncate

NAMES = {name: f"the-{name}" for name in sorted(IDENTIFIERS)}
LEAST = 2048


def shrunk(log: Any, limit: int = LEAST) -> Any:
    body = json.dumps(log).encode()
    result = truncate(body, limit=limit)
    assert len(result) <= limit
    return json.loads(result, parse_constant=pytest.fail)


def test_what_fits_is_left_alone() -> None:
    body = b'{ "response" : "as it is" }'
    assert truncate(body, limit=len(body)) is body


def test_the_largest_text_is_halved_until_all_fits_and_its_length_is_noted() -> None:
    log = shrunk({**NAMES, "prompt": "p" * 500, "response": "r" * 123_456})
    assert log["response"] == "r" * (123_456 // 128)
    assert log["prompt"] == "p" * 500
    assert log["custom_attributes"] == {"truncated.response": 123_456}
    assert {name: log[name] for name in NAMES} == NAMES


def test_texts_within_messages_and_attributes_are_found() -> None:
    messages = [{"role": "system", "content": "s" * 9000}, {"role": "user", "content": "u" * 5000}]
    log = shrunk({**NAMES, "prompt": messages, "response": "ok", "custom_attributes": {"page": "h" * 7000, "n": 1}})
    assert [message["role"] for message in log["prompt"]] == ["system", "user"]
    assert log["response"] == "ok"
    assert log["custom_attributes"]["truncated.prompt"] == 14_000
    assert log["custom_attributes"]["truncated.custom_attributes.page"] == 7000
    assert log["custom_attributes"]["n"] == 1


def test_shrinking_again_keeps_the_first_length() -> None:
    once = truncate(json.dumps({**NAMES, "response": "r" * 100_000}).encode(), limit=10_000)
    twice = json.loads(truncate(once, limit=LEAST))
    assert twice["custom_attributes"] == {"truncated.response": 100_000}


def test_text_that_grows_when_encoded_is_measured_in_bytes() -> None:
    log = shrunk({"response": "\x00" * 3000, "context": "😀" * 3000, "prompt": "\ud800" * 3000})
    assert set(log["custom_attributes"]) == {"truncated.response", "truncated.context", "truncated.prompt"}


def test_many_short_texts() -> None:
    log = shrunk({**NAMES, "prompt": "p", "response": "r", "context": ["a", "b"] * 100_000})
    assert log["context"][:2] == ["a", "b"]
    assert log["custom_attributes"] == {"truncated.context": 200_000}


def test_a_hundred_thousand_fields_and_attributes() -> None:
    many = {f"key{number}": number for number in range(50_000)}
    log = shrunk({**many, **NAMES, "response": "r", "custom_attributes": many})
    assert {name: log[name] for name in NAMES} == NAMES
    assert "truncated.others" in log["custom_attributes"]


def test_names_that_are_too_long_are_dropped() -> None:
    log = shrunk({**NAMES, "k" * 100_000: 1, "response": "r"})
    assert log["response"] == "r"
    assert log["custom_attributes"][f"truncated.{'k' * 40}"] == 1


def test_attributes_that_are_not_an_object_become_one() -> None:
    assert shrunk({"custom_attributes": "x" * 9000})["custom_attributes"]["truncated.custom_attributes.value"] == 9000


def test_numbers_that_json_cannot_represent_become_null() -> None:
    body = b'{"a": NaN, "b": -Infinity, "c": 1e999, "d": %s, "response": "%s"}' % (b"9" * 10_000, b"r" * 9000)
    log = json.loads(truncate(body, limit=LEAST), parse_constant=pytest.fail)
    assert [log[key] for key in "abcd"] == [None] * 4


@pytest.mark.parametrize("body", [b"[" * 100_000, b"\xff" * 5000, b'"%s"' % (b"x" * 5000), b"{" + b" " * 5000])
def test_a_body_that_is_not_a_log_leaves_a_note(body: bytes) -> None:
    assert json.loads(truncate(body, limit=LEAST)) == {"custom_attributes": {"truncated.body": len(body)}}


def test_an_impossible_limit_gives_the_smallest_result() -> None:
    log = json.loads(
        truncate(json.dumps({**NAMES, "prompt": "p" * 99, "response": "r" * 99, "cost": 1}).encode(), limit=1)
    )
    assert log.pop("custom_attributes")
    assert log == {**NAMES, "prompt": "", "response": ""}


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3000)
FIELDS = st.sampled_from(
    ["prompt", "response", "context", "tools", "custom_attributes", "truncated.response"]
) | st.text(max_size=300)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(FIELDS, inner, max_size=30),
    max_leaves=60,
)


@settings(max_examples=60)
@given(st.dictionaries(FIELDS, VALUES, max_size=30), st.integers(LEAST, 20_000))
def test_any_log_fits_and_keeps_its_identity(fields: dict[str, Any], limit: int) -> None:
    log = shrunk({**fields, **NAMES}, limit=limit) if len(json.dumps({**fields, **NAMES})) > limit else NAMES
    assert {name: log[name] for name in NAMES} == NAMES


@given(st.binary(max_size=5000), st.integers(0, 100))
def test_any_bytes_become_json(body: bytes, limit: int) -> None:
    result = truncate(body, limit=limit)
    assert result is body or isinstance(json.loads(result), dict)
