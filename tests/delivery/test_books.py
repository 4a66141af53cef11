"""The counts and log records are right, and the API key is in no record and no file."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import athina_trace
from athina_trace import Status, _guard, _runtime
from athina_trace._pipeline.runtime import Runtime
from athina_trace.errors import AthinaTraceError
from tests.support.athina_server import (
    CHAOS,
    AthinaServer,
    Fault,
    answer,
    close_before_answer,
    lose_answer,
    redirect,
)
from tests.support.waiting import until

MARKER = "athina-marker-key-0c7e41"

CALLS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]), st.integers(0, 20_000), st.sampled_from([200, 400, 401, 413, 422, 500])
    ),
    min_size=1,
    max_size=25,
)


@athina_trace.athina_trace
def ask(session_id: str, question: str) -> str:
    return question


def adds_up(now: Status) -> bool:
    return (
        now.made == now.delivered + now.waiting + now.refused + now.dropped
        and min(now.made, now.delivered, now.waiting, now.refused, now.dropped, now.possible_duplicates, now.bytes) >= 0
    )


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(calls=CALLS, disk=st.booleans())
def test_the_numbers_always_add_up(
    calls: list[tuple[str, int, int]], disk: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outbox = str(tmp_path_factory.mktemp("outbox") / "outbox.db") if disk else ":memory:"
    with AthinaServer() as athina:
        athina_trace.configure(api_key="key", base_url=athina.url, outbox=outbox, max_outbox_bytes=100_000)
        for session, size, status in calls:
            athina.script(answer(status))
            ask(session, f"{status} {'x' * size}")
            assert adds_up(athina_trace.status())
        athina_trace.flush(0.05)
        now = athina_trace.status()
        assert adds_up(now)
        assert now.made == len(calls)
        athina.clear()
        athina_trace.shutdown(0)
        athina_trace.configure(api_key="key", base_url=athina.url, outbox=outbox, max_outbox_bytes=100_000)
        assert adds_up(athina_trace.status())
        athina_trace.shutdown(0)


def test_status_says_why_nothing_is_sent_and_since_when(athina: AthinaServer, tmp_path: Path) -> None:
    athina_trace.configure(api_key="key", base_url=athina.url, outbox=str(tmp_path / "outbox.db"))
    athina.when(lambda request: True, answer(403))
    ask("s", "1")
    assert not athina_trace.flush(10)
    now = athina_trace.status()
    assert now.paused is not None
    assert now.paused.startswith("status 403")
    assert now.waiting_since is not None
    assert now.bytes > 0
    assert now.outbox == str(tmp_path / "outbox.db")


def test_logs_that_a_gateway_refuses_in_all_sessions_are_delivered_once_it_is_right(
    athina: AthinaServer, tmp_path: Path
) -> None:
    athina_trace.configure(api_key="key", base_url=athina.url, outbox=str(tmp_path / "outbox.db"))
    athina.when(lambda request: True, answer(400, b"no such upstream"))
    for number in range(12):
        ask(f"s{number}", "?")
    athina_trace.flush(0)
    until(lambda: athina_trace.status().paused)
    assert "refuses every log: 400, no such upstream" in str(athina_trace.status().paused)
    athina.clear()
    athina_trace.flush(60)
    now = athina_trace.status()
    assert (now.delivered, now.waiting, now.refused, now.paused) == (5, 0, 7, None)


def test_a_lost_answer_is_a_possible_duplicate_but_not_a_refused_connection(
    athina: AthinaServer, tmp_path: Path
) -> None:
    athina_trace.configure(api_key="key", base_url=athina.url, outbox=str(tmp_path / "outbox.db"))
    athina.script(lose_answer)
    ask("s", "1")
    assert athina_trace.flush(60)
    assert athina_trace.status().possible_duplicates == 1
    assert len({request.json["external_reference_id"] for request in athina.accepted}) == 1
    assert len(athina.accepted) == 2
    athina.stop()
    ask("s", "2")
    athina_trace.flush(0.3)
    assert athina_trace.status().possible_duplicates == 1
    athina_trace.shutdown(0)


def test_each_cause_is_logged_once_a_minute(
    athina: AthinaServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    athina_trace.configure(api_key="key", base_url=athina.url, outbox=str(tmp_path / "outbox.db"))
    athina.when(lambda request: True, answer(400))
    for _ in range(30):
        ask("s", "?")
    athina_trace.flush(60)
    ours = [record.getMessage() for record in caplog.records if record.name == "athina_trace"]
    assert len(ours) == 1
    _guard._last_logged = {cause: at - 61 for cause, at in _guard._last_logged.items()}
    ask("s", "?")
    athina_trace.flush(60)
    assert len([record for record in caplog.records if record.name == "athina_trace"]) == 2


MIRROR: list[Fault] = [
    lambda exchange: exchange.respond(400, json.dumps({"error": dict(exchange.request.headers)}).encode()),
    lambda exchange: exchange.respond(401, f"<p>{exchange.request.headers['athina-api-key']}</p>".encode()),
    lambda exchange: exchange.respond(500, exchange.request.headers["athina-api-key"].encode() * 100),
    lambda exchange: exchange.write(b"HTTP/1.1 " + exchange.request.headers["athina-api-key"].encode() + b"\r\n\r\n"),
    close_before_answer,
]


@pytest.mark.parametrize("number", range(len(MIRROR)))
def test_the_key_is_nowhere(
    number: int,
    athina: AthinaServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A server echoes what it was sent; then everything that could have kept the key is searched."""
    caplog.set_level(logging.DEBUG)
    given = athina_trace.configure(api_key=MARKER, base_url=athina.url, outbox=str(tmp_path / "outbox.db"))
    athina.when(lambda request: True, MIRROR[number])
    ask("s", "1")
    athina_trace.flush(0.5)
    runtime = _runtime.active()
    assert isinstance(runtime, Runtime)
    places: dict[str, Any] = {
        "settings": [repr(given), str(given), given.model_dump_json(), repr(given.model_dump())],
        "status": athina_trace.status(),
        "flush": athina_trace.flush(0),
        "records": [vars(record) for record in caplog.records if record.name == "athina_trace"],
        "output": capfd.readouterr(),
        "objects": [runtime, vars(runtime), vars(runtime.delivery.worker.engine)],
        "copies": [repr(copy.copy(given))],
        "logs": athina_trace.recent_logs(),
    }
    with pytest.raises(AthinaTraceError) as refused:
        athina_trace.configure(api_key=MARKER + "\n", connections=0)
    places["error"] = [
        repr(refused.value),
        "".join(traceback.format_exception(refused.value)),
        pickle.dumps(str(refused.value)),
    ]
    athina_trace.shutdown(0)
    for name, place in places.items():
        assert MARKER not in repr(place), name
    for path in tmp_path.rglob("*"):
        assert MARKER.encode() not in (path.read_bytes() if path.is_file() else b""), path
        assert MARKER not in str(path)


def test_the_key_goes_to_no_one_else(athina: AthinaServer, tmp_path: Path) -> None:
    with AthinaServer() as elsewhere:
        athina_trace.configure(api_key=MARKER, base_url=athina.url, outbox=str(tmp_path / "outbox.db"))
        for status in (301, 302, 303, 307, 308):
            athina.script(redirect(elsewhere.url + "/api/v1/log/inference", status))
            ask("s", str(status))
        assert athina_trace.flush(60)
        assert elsewhere.connections == 0
        assert athina_trace.status().delivered == 5


@pytest.mark.parametrize("fault", CHAOS, ids=[f"{number}-{fault.__qualname__}" for number, fault in enumerate(CHAOS)])
def test_whatever_the_server_does_the_next_logs_arrive_in_order(
    fault: Fault, athina: AthinaServer, tmp_path: Path
) -> None:
    athina_trace.configure(api_key="key", base_url=athina.url, outbox=str(tmp_path / "outbox.db"), request_timeout=1)
    athina.script(fault)
    for number in range(4):
        ask("s", str(number))
    assert athina_trace.flush(60)
    order = list(dict.fromkeys(request.json["user_query"] for request in athina.accepted))
    assert order == ["0", "1", "2", "3"]
