"""Sampling keeps or omits whole conversations, consistently in all processes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import athina_trace as at
from athina_trace._pipeline.sampling import keeps, says_left_out
from athina_trace.testing import captured_logs


@at.athina_trace
def ask(question: str) -> str | None:
    return at.current_log().external_reference_id


@at.athina_trace
def fail(question: str) -> str:
    raise LookupError(question)


def ask_in(sessions: int) -> None:
    for number in range(sessions):
        with at.athina_session(f"thread_{number}"):
            for turn in range(3):
                ask(f"{turn}")


def test_conversations_are_sampled_whole() -> None:
    with captured_logs(sample_rate=0.25) as logs:
        ask_in(400)
    kept: dict[Any, int] = {}
    for log in logs:
        kept[log.session_id] = kept.get(log.session_id, 0) + 1
        assert (log.custom_attributes or {})["sample_rate"] == 0.25
    assert set(kept.values()) == {3}
    assert 60 < len(kept) < 140


def test_other_processes_decide_the_same() -> None:
    script = "from athina_trace._pipeline.sampling import keeps; print([keeps(str(n), 0.5) for n in range(64)])"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert str([keeps(str(n), 0.5) for n in range(64)]) == other.strip()


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_rate_keeps_all_that_a_smaller_one_keeps(session: str, one: float, two: float) -> None:
    assert keeps(session, min(one, two)) <= keeps(session, max(one, two))
    assert keeps(session, 1)
    assert not keeps(session, 0)


def test_failed_calls_are_kept_by_default() -> None:
    for keep_failed in (True, False):
        with captured_logs(sample_rate=0, keep_failed=keep_failed) as logs, pytest.raises(LookupError):
            fail("q")
        assert len(logs) == keep_failed


def test_the_decorators_rate_overrides_the_scopes_which_overrides_the_settings() -> None:
    @at.athina_trace(sample_rate=0)
    def never(question: str) -> str:
        return ""

    @at.athina_trace(sample_rate=1)
    def always(question: str) -> str:
        return ""

    with captured_logs() as logs, at.athina_session(sample_rate=0):
        never("q")
        always("kept")
        ask("q")
        with at.athina_session("inner"):
            ask("q")
        with at.athina_session(sample_rate=1):
            ask("kept, too")
    assert [log.user_query for log in logs] == ["kept", "kept, too"]


def test_calls_without_a_session_follow_the_outer_call() -> None:
    @at.athina_trace
    def outer(question: str) -> None:
        ask("inner")

    with captured_logs(sample_rate=0.5) as logs:
        for number in range(40):
            outer(str(number))
    inner, outer_logs = ([log for log in logs if (log.user_query == "inner") is wanted] for wanted in (True, False))
    assert 0 < len(inner) == len(outer_logs) < 40


def test_feedback_on_an_unsampled_log_is_dropped() -> None:
    with captured_logs(sample_rate=0) as logs:
        reference = at.log_inference(response="a")
        at.log_feedback(reference, 1)
        at.update_log(external_reference_id=reference, response="b")
    assert (len(logs), logs.feedback, logs.updates) == (0, [], [])


@given(st.floats(0, 1), st.lists(st.sampled_from([None, "a", "b", "c"]), max_size=20))
def test_every_process_knows_an_unsampled_log_by_its_reference(rate: float, sessions: list[str | None]) -> None:
    references: list[Any] = []

    @at.athina_trace
    def call(session_id: str | None, depth: int) -> None:
        references.append(at.current_log().external_reference_id)
        if depth:
            call(None, depth - 1)

    with captured_logs(sample_rate=rate) as logs:
        for number, session in enumerate(sessions):
            call(session, number % 3)
    kept = {log.external_reference_id for log in logs}
    with captured_logs(sample_rate=rate) as elsewhere:
        for reference in references:
            at.log_feedback(reference, 1)
            at.update_log(external_reference_id=reference, response="b")
    for changes in (elsewhere.feedback, elsewhere.updates):
        assert [change["external_reference_id"] for change in changes] == [ref for ref in references if ref in kept]


def test_the_programs_own_references_are_sampled_but_do_not_encode_the_verdict() -> None:
    names = [f"order 2026-11-26, customer disney, number {number}" for number in range(40)]
    with captured_logs(sample_rate=0.5) as logs:
        for name in names:
            at.log_inference(external_reference_id=name, response="a")
    assert 0 < len(logs) < 40
    with captured_logs(sample_rate=0.5) as elsewhere:
        at.log_feedback(names[0], 1)
    assert len(elsewhere.feedback) == 1


def test_a_failed_call_of_an_unsampled_conversation_is_kept_and_can_be_updated() -> None:
    drafts: list[Any] = []

    @at.athina_trace
    def broken(question: str) -> None:
        drafts.append(at.current_log())
        raise LookupError

    with captured_logs(sample_rate=0) as logs:
        with pytest.raises(LookupError):
            broken("q")
        drafts[0].update(expected_response="more")
        at.log_feedback(drafts[0].external_reference_id, -1)
    assert (len(logs), len(logs.updates), len(logs.feedback)) == (1, 1, 1)


@pytest.mark.parametrize("is_read", [False, True])
def test_all_processes_agree_on_updates_of_a_failed_call(is_read: bool) -> None:
    drafts: list[Any] = []

    @at.athina_trace
    def broken(question: str) -> None:
        drafts.append(at.current_log())
        if is_read:  # and the program may have passed it on before the call fails
            drafts.append(drafts[0].external_reference_id)
        raise LookupError

    def change() -> None:
        at.log_feedback(drafts[0].external_reference_id, 1)
        at.update_log(external_reference_id=drafts[0].external_reference_id, response="b")

    with captured_logs(sample_rate=0) as logs:
        with pytest.raises(LookupError):
            broken("q")
        change()
    with captured_logs(sample_rate=0) as elsewhere:
        change()
    assert len(logs) == 1
    assert [len(logs.feedback), len(logs.updates)] == [len(elsewhere.feedback), len(elsewhere.updates)]
    assert len(elsewhere.feedback) == (not is_read)


def test_a_session_set_after_the_reference_was_read_changes_no_verdict() -> None:
    def learn(number: int) -> Any:
        with at.athina_trace() as log:
            reference = log.external_reference_id
            log.update(session_id=f"thread {number}", response="a")
        return reference

    with captured_logs(sample_rate=0.5) as logs:
        references = [learn(number) for number in range(40)]
    assert 0 < len(logs) < 40
    assert {log.external_reference_id for log in logs} == {ref for ref in references if not says_left_out(ref)}


@pytest.mark.parametrize("rate", [-0.1, 1.1, "half", float("nan")])
def test_rates_are_between_0_and_1(rate: Any) -> None:
    with pytest.raises(TypeError, match="from 0 to 1"):
        at.athina_trace(sample_rate=rate)
    with pytest.raises(ValueError, match="from 0 to 1"):
        at.athina_session(sample_rate=rate)
    with pytest.raises(at.SettingsError, match="sample_rate"):
        at.Settings.build(sample_rate=rate)
