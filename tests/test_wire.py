"""One decorated call is one POST, with the documented body."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from athina_trace import athina_session, athina_trace, configure, current_log, flush
from athina_trace._pipeline import wire
from tests.conftest import KEY
from tests.support.athina_server import AthinaServer

Logs = Callable[[], list[dict[str, Any]]]

DOCUMENTED = {
    "language_model_id": "gpt-4",
    "prompt": [
        {"role": "system", "content": "System Instructions for the assistant"},
        {"role": "user", "content": "Individual message level instructions"},
    ],
    "response": "Response message from the assistant",
    "session_id": "session-123",
    "user_query": "The message from the user you are responding to",
    "context": {"documents": ["one", "two"]},
    "prompt_tokens": 123,
    "completion": 100,
    "completion_tokens": 100,
    "total_tokens": 223,
    "cost": 0.12314,
    "prompt_slug": "customer-support/v1",
    "environment": "production",
    "customer_id": "disney-usa-2314832",
    "customer_user_id": "michaelmouse@gmail.com",
    "external_reference_id": "239ej92-r24-4838-45663",
    "tool_call": [{"name": "track_parcel"}],
    "tool_calls": [{"name": "track_parcel"}],
    "tools": [{"type": "function", "function": {"name": "track_parcel"}}],
    "expected_response": "The ground truth",
}


def test_one_call_is_one_post_with_the_documented_body(athina: AthinaServer, delivered: Logs) -> None:
    @athina_trace(prompt_slug="customer-support/v1")
    def answer(thread_id: str, question: str) -> str:
        given: dict[str, Any] = {
            name: DOCUMENTED[name]
            for name in (
                "language_model_id", "prompt", "context", "prompt_tokens", "completion", "total_tokens", "cost",
                "external_reference_id", "tool_call", "tools", "expected_response",
            )
        }  # fmt: skip
        current_log().update(**given)
        return f"Response message from the assistant{thread_id[:0]}{question[:0]}"

    with athina_session(
        "session-123",
        customer_id="disney-usa-2314832",
        customer_user_id="michaelmouse@gmail.com",
        environment="production",
    ):
        answer("session-123", "The message from the user you are responding to")

    (log,) = delivered()
    (request,) = athina.requests
    assert (request.method, request.path) == ("POST", "/api/v1/log/inference")
    assert request.headers["athina-api-key"] == KEY
    assert request.headers["content-type"] == "application/json"
    assert {name: log[name] for name in DOCUMENTED} == DOCUMENTED
    assert set(log) - set(DOCUMENTED) == {"response_time", "custom_attributes"}
    assert isinstance(log["response_time"], int)


def test_context_may_be_a_string(delivered: Logs) -> None:
    @athina_trace
    def answer(question: str, context: str) -> str:
        return question + context

    answer("q", "the documents")
    (log,) = delivered()
    assert (log["context"], log["user_query"], log["response"]) == ("the documents", "q", "qthe documents")


def test_absent_fields_are_left_out_and_required_ones_are_there(delivered: Logs) -> None:
    @athina_trace
    def ping() -> None: ...

    ping()
    (log,) = delivered()
    assert set(log) == {
        "language_model_id", "prompt", "response", "external_reference_id", "response_time", "custom_attributes",
    }  # fmt: skip
    assert (log["language_model_id"], log["response"]) == ("unknown", "")


def test_the_second_version_of_the_endpoint(athina: AthinaServer) -> None:
    configure(api_key=KEY, base_url=athina.url, api_version="v2")
    athina_trace(lambda question: question)("hello")
    assert flush(60)
    assert [request.path for request in athina.requests] == ["/api/v2/log/inference"]


def test_logs_of_one_session_arrive_in_the_order_of_their_calls(delivered: Logs) -> None:
    @athina_trace
    def answer(question: str) -> str:
        return question

    for turn in range(200):
        with athina_session(f"s{turn % 3}"):
            answer(str(turn))
    logs = delivered()
    for session in ("s0", "s1", "s2"):
        turns = [int(log["user_query"]) for log in logs if log["session_id"] == session]
        assert turns == sorted(turns)
    assert len(logs) == 200


@pytest.mark.parametrize("thread_id", [42, 3.5])
def test_identifiers_become_strings(local: Logs, thread_id: object) -> None:
    @athina_trace
    def answer(thread_id: object, question: str) -> str:
        return question

    answer(thread_id, "q")
    with athina_session(customer_id=7, customer_user_id=8):
        answer(thread_id, "q")
    first, second = local()
    assert first["session_id"] == str(thread_id)
    assert (second["customer_id"], second["customer_user_id"]) == ("7", "8")


def test_usual_fields_are_known_by_their_types_and_messages_looked_at_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known: set[tuple[Any, ...]] = set()
    monkeypatch.setattr(wire, "_usual_shapes", known)
    monkeypatch.setattr(wire, "_MAX_SHAPES", 2)
    usual = {"prompt": [{"role": "user", "content": "q"}], "response": "a", "response_time": 7}
    for fields in [usual, {**usual, "cost": 0.5}, {**usual, "cost": 1, "error": "e"}, usual]:
        assert wire.repaired(fields) == fields
    assert len(known) == 2
    # Of the same names and types, with a message that is none; then a number that is none.
    assert "invalid.prompt" in wire.repaired({**usual, "prompt": [7]})["custom_attributes"]
    assert "invalid.response_time" in wire.repaired({**usual, "response_time": "soon"})["custom_attributes"]
