"""Reading any log for its page and for `show`."""

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athina_trace.viewer.conversation import PAGE_LIMITS, Excerpt, read_turn
from athina_trace.viewer.log_fields import log_row, searchable_text
from athina_trace.viewer.queries import StoredLog

NAMES = st.sampled_from(
    [
        "user_query",
        "prompt",
        "response",
        "context",
        "expected_response",
        "tool_calls",
        "function",
        "arguments",
        "output",
        "result",
        "role",
        "content",
        "tool_call_id",
        "id",
        "name",
        "type",
        "text",
        "custom_attributes",
        "tools",
        "error",
        "status_code",
        "user_feedback",
        "user_feedback_comment",
        "session_id",
        "prompt_tokens",
        "total_tokens",
        "response_time",
        "cost",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)


def turn_of(fields: dict[str, Any]) -> Any:
    return read_turn(StoredLog(cast("Any", None), fields, []))


@given(st.dictionaries(NAMES, JSON, max_size=8))
def test_any_json_can_be_read(fields: dict[str, Any]) -> None:
    turn = turn_of(fields)
    assert all(isinstance(text, str) for _, text in turn.details)
    assert all(isinstance(part, str) for part in searchable_text("r", fields))
    row = log_row(1, 0.0, "r", fields, size=1)
    assert len(row.question) <= 280
    assert row.tokens is None or isinstance(row.tokens, int)


@pytest.mark.parametrize("name", ["response", "context", "user_query", "error", "expected_response"])
def test_a_page_truncates_long_text_and_states_its_length(name: str) -> None:
    turn = turn_of({name: "x" * 50_000})
    found = [value for value in vars(turn).values() if isinstance(value, Excerpt) and value]
    excerpt = (found or turn.context)[0]
    assert (len(excerpt.shown), excerpt.length, excerpt.is_cut) == (PAGE_LIMITS.text, 50_000, True)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ({"function": {"name": "f", "arguments": '{"a":1}'}, "output": "x"}, ("f", '{\n  "a": 1\n}', "x")),
        ({"name": "f", "arguments": {"a": 1}, "result": [1]}, ("f", '{\n  "a": 1\n}', "[\n  1\n]")),
        ({"type": "retrieval"}, ("retrieval", "", "")),
        ({"id": "c1", "function": {"name": "g"}}, ("g", "", "from the prompt")),
        ({"id": "c1", "name": "g", "output": None}, ("g", "", "from the prompt")),
    ],
)
def test_tool_calls_of_both_shapes_are_read(call: dict[str, Any], expected: tuple[str, str, str]) -> None:
    prompt = [{"role": "tool", "tool_call_id": "c1", "content": "from the prompt"}]
    (tool,) = turn_of({"tool_calls": [call], "prompt": prompt}).tools
    assert (tool.name, tool.arguments.shown, tool.output.shown) == expected
