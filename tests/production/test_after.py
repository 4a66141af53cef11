"""After a call: manual logs, updates, feedback, and how to get the `prompt_run_id`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import athina_trace as at
from athina_trace.testing import CapturedLogs
from tests.support.athina_server import AthinaServer, answer, hang

Logs = Callable[[], list[dict[str, Any]]]


@at.athina_trace
def ask(question: str) -> str | None:
    return at.current_log().external_reference_id


def requests(athina: AthinaServer) -> list[tuple[str, str, dict[str, Any]]]:
    return [(request.method, request.path, request.json) for request in athina.accepted]


def test_log_inference_logs_its_fields_in_the_current_session(athina_logs: CapturedLogs) -> None:
    with at.athina_session("thread_1", customer_id=7):
        reference = at.log_inference(user_query="q", response="a", language_model_id="gpt-4o", completion=3)
    log = athina_logs.assert_one(user_query="q", response="a", session_id="thread_1", customer_id="7")
    assert (log.external_reference_id, log.completion_tokens) == (reference, 3)
    assert log.prompt == [{"role": "user", "content": "q"}]
    assert log.response_time is None
    assert log.custom_attributes == {}


def test_log_inference_keeps_the_callers_reference_and_duration(athina_logs: CapturedLogs) -> None:
    assert at.log_inference(external_reference_id="mine", response_time=12) == "mine"
    athina_logs.assert_one(external_reference_id="mine", response_time=12)


def test_log_inference_inside_a_call_makes_a_separate_log(athina_logs: CapturedLogs) -> None:
    @at.athina_trace
    def outer() -> None:
        at.log_inference(user_query="inner")
        at.current_log().update(user_query="outer")

    outer()
    inner, around = athina_logs
    assert (inner.user_query, around.user_query) == ("inner", "outer")
    assert inner.custom_attributes == {"parent_reference": around.external_reference_id}


def test_unknown_fields_are_reported_with_the_nearest_one() -> None:
    with pytest.raises(TypeError, match="did you mean 'user_query'"):
        at.log_inference(user_qury="q")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="did you mean 'response'"):
        at.update_log(external_reference_id="r", respons="a")  # type: ignore[call-arg]


def test_updates_and_feedback_arrive_after_their_log(athina: AthinaServer, delivered: Logs) -> None:
    with at.athina_session("thread_1"):
        reference = ask("q")
    assert reference
    at.update_log(external_reference_id=reference, expected_response="e", completion_tokens=4)
    at.log_feedback(reference, -1, "wrong")
    delivered()
    log, update, feedback = requests(athina)
    assert log[2]["external_reference_id"] == reference
    assert update[:2] == ("PATCH", f"/api/v1/log/inference/update-by-external-reference-id/{reference}")
    assert update[2] == {"expected_response": "e", "completion_tokens": 4, "completion": 4}
    assert feedback == (
        "PATCH",
        "/api/v1/prompt_run/user-feedback",
        {"external_reference_id": reference, "user_feedback": -1, "user_feedback_comment": "wrong"},
    )


def test_an_update_waits_for_its_log(athina: AthinaServer, delivered: Logs) -> None:
    athina.script(answer(500), answer(503))
    with at.athina_session("thread_1"):
        reference = ask("q")
    assert reference
    at.log_feedback(reference, 1)
    delivered()
    assert [method for method, _, _ in requests(athina)] == ["POST", "PATCH"]
    assert [request.method for request in athina.requests] == ["POST", "POST", "POST", "PATCH"]


def test_an_update_of_a_delivered_log_stays_in_its_conversation(athina: AthinaServer, delivered: Logs) -> None:
    with at.athina_session("thread_1"):
        first = ask("1")
        delivered()
        release = threading.Event()
        athina.when(lambda request: request.method == "PATCH" and not release.is_set(), hang)
        assert first
        at.log_feedback(first, 1)
        ask("2")
        athina.wait_for_requests(2)
        assert not at.flush(0.3)
    assert [request.json.get("user_query") for request in athina.requests] == ["1", None]  # "2" waits behind
    release.set()


def test_on_delivered_gives_the_prompt_run_id_which_updates_accept(athina: AthinaServer) -> None:
    told: list[at.Delivered] = []
    at.configure(api_key="key", base_url=athina.url, on_delivered=told.append)
    with at.athina_session("thread_1"):
        reference = ask("q")
    assert at.flush(60)
    (event,) = told
    assert (event.kind, event.external_reference_id) == ("log", reference)
    assert event.prompt_run_id
    at.update_log(prompt_run_id=event.prompt_run_id, context={"doc": 1})
    assert at.flush(60)
    assert requests(athina)[1] == ("PATCH", f"/api/v1/log/inference/{event.prompt_run_id}", {"context": {"doc": 1}})


def test_custom_attributes_of_an_update_are_flattened_like_a_logs(athina_logs: CapturedLogs) -> None:
    at.update_log(external_reference_id="r", custom_attributes={"order": {"id": 1}}, tool_call=[1])
    assert athina_logs.updates == [
        {
            "external_reference_id": "r",
            "custom_attributes": {"order": '{"id":1}'},
            "tool_calls": [1],
            "tool_call": [1],
        }
    ]


def test_wrong_types_in_an_update_never_lose_it(athina_logs: CapturedLogs) -> None:
    at.update_log(external_reference_id="r", prompt_tokens="many")  # type: ignore[arg-type]
    assert athina_logs.updates == [
        {"external_reference_id": "r", "custom_attributes": {"invalid.prompt_tokens": "many"}}
    ]


@pytest.mark.parametrize("feedback", [2, -2, True, False, None, "1"])
def test_feedback_is_one_of_three_values(feedback: Any) -> None:
    with pytest.raises(ValueError, match="takes 1, 0 or -1"):
        at.log_feedback("r", feedback)


@pytest.mark.parametrize("nothing", [at.current_log().external_reference_id, ""])
def test_feedback_and_updates_need_a_reference(nothing: Any) -> None:
    with pytest.raises(TypeError, match=rf"got {nothing!r}; outside a decorated call, that of current_log\(\) is None"):
        at.log_feedback(nothing, 1)
    with pytest.raises(TypeError, match="got neither"):
        at.update_log(external_reference_id=nothing, response="x")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("slug", "prompt_slug"),
        ("messages", "prompt"),
        ("answer", "response"),
        ("user", "customer_user_id"),
        ("latency", "response_time"),
        ("env", "environment"),
        ("zzz", None),
    ],
)
def test_an_unknown_field_suggests_the_intended_one(name: str, meant: str | None) -> None:
    given: dict[str, Any] = {name: "x"}
    for verb in (at.athina_trace, at.log_inference):
        with pytest.raises(TypeError) as caught:
            verb(**given)
        assert str(caught.value).endswith(
            f"; did you mean {meant!r}?" if meant else f"() got an unknown field {name!r}"
        )


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"external_reference_id": "r"}, "the fields to change"),
        ({"external_reference_id": "r", "prompt_run_id": "p", "response": ""}, "got both: 'r' and 'p'"),
        ({}, "got neither"),
        (
            {"external_reference_id": None, "response": ""},
            r"got neither; outside a decorated call, those of current_log\(\) are None",
        ),
    ],
)
def test_an_update_needs_one_log_and_some_fields(given: Any, wrong: str) -> None:
    with pytest.raises(TypeError, match=rf"update_log\(\) takes .*{wrong}"):
        at.update_log(**given)


def test_if_disabled_nothing_is_logged() -> None:
    at.configure(enabled=False)
    assert len(at.log_inference(response="a")) == 36
    at.update_log(external_reference_id="r", response="a")
    at.log_feedback("r", 1)
    assert at.status().made == 0
