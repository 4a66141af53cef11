"""The demo as a newcomer runs it: in its own process, over real HTTP."""

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from standin_openai import StandIn
from tests.support.athina_server import AthinaServer

Demo = Callable[..., str]


@pytest.fixture
def athina() -> Iterator[AthinaServer]:
    with AthinaServer() as server:
        yield server


def test_without_keys_the_conversation_reaches_a_local_athina(run_demo: Demo) -> None:
    for _ in ("first", "second"):
        assert_reached_a_local_athina(run_demo())


def assert_reached_a_local_athina(printed: str) -> None:
    assert re.findall(r"^\[\d\] .*$", printed, flags=re.MULTILINE) == [
        "[1] Hello, where is my parcel PX-48213?",
        "[2] What if I do not like it, can I send it back?",
        "[3] Good to know. Can a neighbour take it tomorrow?",
    ]
    assert printed.count("customer  disney-usa-2314832, michaelmouse@gmail.com") == 3
    assert len(set(re.findall(r"session   (thread_\w+)", printed))) == 1
    assert 'tool call track_parcel({"parcel_id": "PX-48213"}) -> {"parcel_id": "PX-48213", ' in printed
    assert '"user_query": "Hello, where is my parcel PX-48213?",' in printed
    assert "\n3 made, 3 delivered (flushed" in printed
    received = re.search(r"athina-trace ui --outbox (.+)\n$", printed)
    assert received is not None
    with closing(sqlite3.connect(received[1])) as db:
        assert db.execute("SELECT count(*) FROM entry WHERE kind = 'log'").fetchone() == (3,)


def test_with_a_key_each_answer_is_one_post_in_the_order_of_the_talk(run_demo: Demo, athina: AthinaServer) -> None:
    printed = run_demo(ATHINA_API_KEY="k3y-0f-athina", ATHINA_BASE_URL=athina.url)
    assert "\n3 made, 3 delivered (flushed" in printed
    assert "k3y-0f-athina" not in printed
    assert {(request.method, request.path) for request in athina.requests} == {("POST", "/api/v1/log/inference")}
    assert {request.headers["athina-api-key"] for request in athina.requests} == {"k3y-0f-athina"}
    first, second, third = (request.json for request in athina.requests)
    assert first["session_id"] == second["session_id"] == third["session_id"]
    assert second["user_query"] == "What if I do not like it, can I send it back?"
    assert second["response"].startswith("Yes, you can send parcel PX-48213 back")
    assert second["context"].startswith("Returns: ")
    assert second["prompt"][0]["content"].endswith(second["context"])
    assert second["prompt"][1] == {"role": "user", "content": second["user_query"]}
    assert first["tool_calls"] == first["tool_call"]
    assert [call["function"]["name"] for call in first["tool_calls"]] == ["track_parcel"]
    assert first["tools"][0]["function"]["name"] == "track_parcel"
    for log in (first, second, third):
        assert log["language_model_id"] == "gpt-4o-mini"
        assert log["prompt_tokens"] + log["completion_tokens"] == log["total_tokens"]
        assert log["completion"] == log["completion_tokens"]
        assert log["response_time"] > 0
        assert (log["prompt_slug"], log["environment"]) == ("customer-support/v1", "demo")
        assert (log["customer_id"], log["customer_user_id"]) == (
            "disney-usa-2314832",
            "michaelmouse@gmail.com",
        )


def test_with_openais_key_the_talk_goes_through_responses(run_demo: Demo, stand_in: StandIn) -> None:
    printed = run_demo(OPENAI_API_KEY="any", OPENAI_BASE_URL=stand_in.base_url)
    assert len(set(re.findall(r"session   (conv_\w+)", printed))) == 1
    assert printed.count("model     gpt-4.1-mini-2025-04-14") == 3
    assert "tool call track_parcel(" in printed
    assert "\n3 made, 3 delivered (flushed" in printed
