"""A log is data until `to_wire`: sample → `before_emit` → mask → wire → bytes, each once, in this order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import athina_trace as at
from athina_trace._pipeline import pipeline, writer
from athina_trace.testing import CapturedLogs, captured_logs

SECRET = "m.mouse@disney.example"
DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@at.athina_trace
def ask(question: str, **more: Any) -> Any:
    return more.get("answer", "answer")


def unchanged(log: at.InferenceLog) -> at.InferenceLog:
    return log


def same(_path: str, text: str) -> str:
    return text


class Seeing:
    """A hook that changes nothing."""

    def __init__(self) -> None:
        self.logs: list[at.InferenceLog] = []

    def __call__(self, log: at.InferenceLog) -> at.InferenceLog:
        self.logs.append(log)
        return log


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The steps that a log takes, in order."""
    taken: list[str] = []

    def noted(module: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(module, name)

        def step(*args: Any, **kwargs: Any) -> Any:
            taken.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, step)

    for module, name in ((pipeline, "mask_fields"), (writer, "to_wire"), (writer, "log_entry")):
        noted(module, name)
    noted(pipeline.Pipeline, "samples")
    return taken


def test_under_a_hook_and_a_mask_each_step_is_taken_once(steps: list[str]) -> None:
    def hook(log: at.InferenceLog) -> at.InferenceLog:
        steps.append("before_emit")
        return log

    with captured_logs(before_emit=hook, hook_timeout=60, maskers=["email"]) as logs:
        ask("q", order={"n": 1}, answer={"to": [SECRET]})
    assert steps == ["samples", "before_emit", "mask_fields", "to_wire", "log_entry"]
    logs.assert_one(response='{"to":["[email]"]}')


def test_a_plain_log_takes_no_step_but_the_last_ones(steps: list[str], athina_logs: CapturedLogs) -> None:
    ask("q")
    assert len(athina_logs) == 1
    assert steps == ["to_wire", "log_entry"]


def test_a_hook_sees_data_and_the_text_to_send() -> None:
    hook = Seeing()
    with captured_logs(before_emit=hook, hook_timeout=60) as logs:
        ask("q", order={"n": 1}, answer={"a": [1, "ü"]})
    (seen,) = hook.logs
    assert (seen.custom_attributes or {})["input.order"] == {"n": 1}
    assert seen.response == logs[0].response == '{"a":[1,"ü"]}'


def test_a_mask_walks_data_that_a_hook_left_alone_and_the_text_that_it_gave() -> None:
    def hook(log: at.InferenceLog) -> at.InferenceLog:
        return log.model_copy(update={"response": log.response + "!"}) if log.user_query == "change" else log

    seen: dict[str, str] = {}

    def mask(path: str, text: str) -> str:
        seen[path] = text
        return text

    with captured_logs(before_emit=hook, hook_timeout=60, mask=mask):
        ask("leave", answer={"to": [SECRET]})
        assert seen["response.to[0]"] == SECRET
        ask("change", answer={"to": [SECRET]})
    assert seen["response"] == f'{{"to":["{SECRET}"]}}!'


@pytest.mark.parametrize("field", ["customer_id", "response", "session_id"])
def test_a_mask_sees_numbers_where_text_will_be_sent(field: str) -> None:
    given: dict[str, Any] = {field: 4111111111111111}
    with captured_logs(maskers=["card"]) as logs:
        at.log_inference(**given)
    assert "4111111111111111" not in str(logs.wire)


def test_objects_from_a_hook_are_converted_to_data_and_masked() -> None:
    class Customer:
        def __init__(self) -> None:
            self.mail = SECRET

    def hook(log: at.InferenceLog) -> at.InferenceLog:
        (log.custom_attributes or {})["in place"] = {"mail": SECRET}
        return log.model_copy(update={"context": {"who": {SECRET}, "object": object()}, "tool_calls": [Customer()]})

    with captured_logs(before_emit=hook, hook_timeout=60, maskers=["email"]) as logs:
        ask("q")
    log = logs.assert_one(context={"who": ["[email]"], "object": "<object>"})
    assert (log.custom_attributes or {})["in place"] == '{"mail":"[email]"}'
    assert SECRET not in str(logs.wire)


def test_a_hook_never_sees_private_content() -> None:
    hook = Seeing()
    with captured_logs(before_emit=hook, hook_timeout=60), at.athina_private():
        ask("secret words", answer="secret words")
        at.log_inference(response="secret words")
    assert len(hook.logs) == 2
    assert "secret words" not in str(hook.logs)


def test_values_that_a_hook_does_not_change_are_not_truncated_again() -> None:
    bodies = []
    for settings in ({}, {"before_emit": unchanged}):
        with captured_logs(hook_timeout=60, **settings) as logs:
            ask("q" * 300_000, **{f"large{number}": ["word " * 39_000] * 4 for number in range(4)})
        bodies.append({**logs.wire[0], "external_reference_id": "", "response_time": 0})
    assert bodies[0] == bodies[1]


@example({"k" * 201: {"k" * 300: "v"}}, {"k" * 201: None})
@given(DATA, DATA)
def test_a_hook_and_a_mask_that_change_nothing_change_nothing(argument: Any, answer: Any) -> None:
    bodies = []
    for settings in ({}, {"before_emit": unchanged}, {"mask": same}, {"before_emit": unchanged, "mask": same}):
        with captured_logs(hook_timeout=60, **settings) as logs:
            ask("q", argument=argument, answer=answer)
        bodies.append({**logs.wire[0], "external_reference_id": "", "response_time": 0})
    assert all(body == bodies[0] for body in bodies)
