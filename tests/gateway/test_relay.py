"""The gateway in front of a relay: accepted logs are stored, and arrive as if sent to Athina directly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from athina_trace.local_athina import LocalAthina
from athina_trace.schema import ALIASES
from tests.gateway.conftest import CLIENT, LOG, PATH
from tests.gateway.test_process import started
from tests.support.nats_servers import NatsServers, RunningWorker
from tests.support.waiting import until

WHOLE = {
    "language_model_id": "gpt-4o",
    "prompt": [{"role": "user", "content": "Where is my parcel? ü🎉"}],
    "response": {"id": "chatcmpl-1", "choices": [{"message": {"role": "assistant", "content": "On its way."}}]},
    "prompt_slug": "desk/v1",
    "customer_user_id": "u",
    "user_query": "Where is my parcel?",
    "prompt_tokens": 3,
    "cost": 0.5,
    "context": {"documents": ["a", "b"]},
    "tools": [{"type": "function"}],
    "custom_attributes": {"plan": "gold", "nested": {"a": [1, None]}},
    "a_field_that_athina_may_have_one_day": [1, {"b": 2}],
}


def talk(url: str) -> None:
    """Log some conversations turn by turn, change logs, and give feedback."""
    with httpx.Client(base_url=url, headers=CLIENT, trust_env=False, timeout=100) as client:

        def send(method: str, path: str, fields: dict[str, Any]) -> dict[str, Any]:
            answer = client.request(method, path, json=fields)
            assert answer.status_code == 200, answer.text
            data: dict[str, Any] = answer.json()["data"]
            return data

        for turn in range(4):
            for session in range(8):
                reference = f"{session}-{turn}"
                ids = {"session_id": f"session {session}", "external_reference_id": reference}
                made = send("POST", PATH, {**(WHOLE if session % 2 else LOG), **ids})
                send("PATCH", f"{PATH}/update-by-external-reference-id/{reference}", {"cost": turn + 0.25})
                send("PATCH", f"{PATH}/{made['prompt_run_id']}", {"customer_id": "c"})
        send("PATCH", "/api/v1/prompt_run/user-feedback", {"external_reference_id": "3-1", "user_feedback": 1})


def arrived(athina: LocalAthina) -> dict[str, dict[str, Any]]:
    """Return the logs that Athina received, in order, without duplicate spellings."""
    return {
        log["external_reference_id"]: {name: value for name, value in log.items() if name not in ALIASES}
        for log in athina.logs()
    }


@pytest.mark.parametrize("outbox", ["disk", "memory"])
def test_logs_through_the_gateway_and_a_relay_equal_logs_sent_directly(
    outbox: str, local_athina: LocalAthina, tmp_path: Path
) -> None:
    settings = {"ATHINA_OUTBOX": str(tmp_path / "outbox.db")}
    if outbox == "memory":
        settings = {"ATHINA_OUTBOX": ":memory:", "ATHINA_FLUSH_EACH_CALL": "1", "ATHINA_FLUSH_TIMEOUT": "60"}
    with LocalAthina() as direct, NatsServers(tmp_path / "nats") as nats:
        talk(direct.url)
        nats.set_up(partitions=4)
        with started(ATHINA_RELAY=nats.url, **settings) as (process, url):
            talk(url)
            if outbox == "memory":
                process.kill()  # a response implies the stream's acknowledgement
            with RunningWorker(nats, local_athina.url):
                until(lambda: len(local_athina.changes()) == len(direct.changes()))
        through, expected = arrived(local_athina), arrived(direct)
        assert through == expected
        assert len(through) == 32
        for session in range(8):
            own = [name for name in through if name.startswith(f"{session}-")]
            assert own == [f"{session}-{turn}" for turn in range(4)]
        # Logs of different conversations may overtake each other.
        assert sorted(map(json.dumps, local_athina.changes())) == sorted(map(json.dumps, direct.changes()))
