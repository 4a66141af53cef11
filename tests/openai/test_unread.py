"""Answers that go into the outbox as they came over the wire give the logs that reading them at once gives."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI

import athina_trace
from athina_trace import _guard, _runtime, athina_session, flush, instrument_openai, status
from athina_trace._delivery.entry import Entry
from athina_trace._delivery.outbox import MemoryOutbox
from athina_trace.context import Scope
from athina_trace.errors import OutboxError
from athina_trace.integrations.openai import patches, unread
from athina_trace.integrations.openai.memory import Chain
from athina_trace.integrations.openai.own_logs import own_logs
from athina_trace.integrations.openai.unread import Known
from athina_trace.integrations.openai.watched import memory

from .conftest import play
from .samples import Wire, chat, function_call, output_text, response
from .scripts import ASK, RAIN, SCRIPTS
from .server import Server

Logs = Callable[[], list[dict[str, Any]]]
ROOT = Path(__file__).parents[2]
QUERY = "What is the weather?"
PASSING = ("external_reference_id", "response_time")
"""What differs from one time to the next."""


def entry_of(answer: object, *, asked: object = None, kind: Any = "chat", **known: Any) -> Entry | None:
    """The unread entry of this answer, if it has one."""
    request = httpx.Request("POST", "http://host/", json=asked or {"messages": ASK})
    content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    told = Known(**{**NOTHING, "kind": kind, **known})
    return unread.entry_of(
        httpx.Response(200, content=content, request=request),
        told.kind,
        Chain(told.session, told.query),
        told.response_time,
        Scope(told.fields, told.attributes),
        told.defaults,
    )


def put(answer: object, **known: Any) -> Entry:
    """An unread entry of this answer, as it stands in the outbox."""
    entry = entry_of(answer, **known)
    assert entry is not None
    assert entry.kind == "unread"
    return entry._replace(made=1.0)


NOTHING: dict[str, Any] = dict.fromkeys(("session", "query")) | {
    "response_time": 12,
    "fields": {},
    "attributes": {},
    "defaults": {},
}


def read(entry: Entry) -> dict[str, Any]:
    log = unread.read(entry)
    assert log is not None
    fields: dict[str, Any] = json.loads(log.body)
    assert (log.kind, log.made, log.reference) == ("log", 1.0, fields["external_reference_id"])
    assert log.lane == (fields.get("session_id") or log.reference)
    assert log.reference.startswith("00000000-03e8-7")  # the UUIDv7 of one second after the epoch
    return fields


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_read_later_or_at_once_the_log_is_the_same(
    script: Any, local: Logs, instrumented: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def logs() -> list[dict[str, Any]]:
        athina_trace.configure(outbox=":memory:", custom_attributes={"region": "eu"})
        memory.forget()
        own_logs.forget()
        with Server() as server, OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            with athina_session("desk", customer_id="acme"):
                play(script, server, client)
            flush(0)
        made = [{name: value for name, value in log.items() if name not in PASSING} for log in local()]
        for log in made:
            log["custom_attributes"].pop("time_to_first_chunk_ms", None)
        return made

    later = logs()
    monkeypatch.setattr(unread, "_MOST_BYTES", 0)
    assert logs() == later


def test_whole_answers_stay_unread(server: Server, instrumented: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    server.on("POST /responses", response("resp_1", output_text(RAIN))).on("POST /chat/completions", chat(content=RAIN))
    read_later: list[Entry] = []
    runtime = _runtime._runtime
    assert runtime is not None

    def read_one(entry: Entry) -> Entry | None:
        read_later.append(entry)
        return unread.read(entry)

    monkeypatch.setattr(runtime.outbox, "read", read_one)
    with OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        client.responses.create(model="gpt-4.1", input=QUERY)
        client.chat.completions.create(model="gpt-4o", messages=ASK)

    async def ask() -> None:
        async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            await client.responses.create(model="gpt-4.1", input=QUERY)
            await client.chat.completions.create(model="gpt-4o", messages=ASK)

    asyncio.run(ask())
    assert [log["response"] for log in instrumented()] == [RAIN] * 4
    assert len(read_later) == 4


def test_a_request_within_a_request_is_none_of_its_answer(server: Server, instrumented: Logs) -> None:
    server.on("POST /responses", response("resp_1", output_text(RAIN))).on("GET /models/gpt-4.1", {"id": "gpt-4.1"})

    class Asking(OpenAI):
        def _prepare_request(self, request: Any) -> None:
            if request.method == "POST":
                self.models.retrieve("gpt-4.1")

    with Asking(base_url=server.base_url, api_key="any", max_retries=0) as client:
        client.responses.create(model="gpt-4.1", input=QUERY)
    assert [log["response"] for log in instrumented()] == [RAIN]


def test_an_answer_that_another_threads_came_after_is_read_at_once(
    server: Server, local: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    instrument_openai()
    server.on("POST /responses", response("resp_1", output_text(RAIN)))

    class Overtaken(OpenAI):
        def _process_response(self, **given: Any) -> Any:
            answer = super()._process_response(**given)
            monkeypatch.setattr(patches, "_came_last", (object(), httpx.Response(200)))
            return answer

    monkeypatch.setattr(unread, "read", None)
    with Overtaken(base_url=server.base_url, api_key="any", max_retries=0) as client:
        client.responses.create(model="gpt-4.1", input=QUERY)
    assert [log["response"] for log in local()] == [RAIN]


def test_what_was_answered_survives_a_kill_and_is_read_by_the_next_process(server: Server, tmp_path: Path) -> None:
    server.on("POST /responses", response("resp_1", function_call(), output_text(RAIN)))
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    code = (
        "import athina_trace, openai, os, signal\n"
        "athina_trace.instrument_openai()\n"
        f"client = openai.OpenAI(base_url={server.base_url!r}, api_key='any', max_retries=0)\n"
        "with athina_trace.athina_session('desk', customer_id='acme'):\n"
        f"    client.responses.create(model='gpt-4.1', input={QUERY!r})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    look = "import athina_trace, json; print(json.dumps(athina_trace.recent_logs()))"
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, timeout=30, check=False)
    assert killed.returncode == -signal.SIGKILL
    heir = subprocess.run(
        [sys.executable, "-c", look], cwd=ROOT, env=environment, capture_output=True, timeout=30, check=True
    )
    (log,) = json.loads(heir.stdout)
    assert (log["session_id"], log["customer_id"], log["user_query"], log["response"]) == ("desk", "acme", QUERY, RAIN)


def test_a_pretty_answer_stays_one_record(tmp_path: Path) -> None:
    athina_trace.configure(outbox=str(tmp_path / "outbox.db"))
    runtime = _runtime.active()
    assert runtime is not None
    pretty = json.dumps(chat(content="Rain.\nAnd\tsun."), indent=2).replace("\n", "\r\n").encode()
    runtime.put(put(pretty))
    assert [log["response"] for log in athina_trace.recent_logs()] == ["Rain.\nAnd\tsun."]


def test_what_is_too_long_is_read_at_once(
    server: Server, client: OpenAI, local: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    instrument_openai()
    server.on("POST /responses", response("resp_1", output_text(RAIN)))
    monkeypatch.setattr(unread, "read", None)
    client.responses.create(model="gpt-4.1", input="What? " * 20_000)
    assert [log["response"] for log in local()] == [RAIN]


def test_credentials_of_a_tools_server_reach_neither_disk_nor_log(
    server: Server, client: OpenAI, tmp_path: Path
) -> None:
    instrument_openai()
    athina_trace.configure(outbox=str(tmp_path / "outbox.db"))
    server.on("POST /responses", response("resp_1", output_text(RAIN)))
    tool = {"type": "mcp", "server_label": "parcels", "server_url": "https://parcels.example"}
    tools: Any = [{**tool, "authorization": "secret-5f1c", "headers": {"X-Key": "secret-5f1c"}}]
    client.responses.create(model="gpt-4.1", input=QUERY, tools=tools)
    (log,) = athina_trace.recent_logs()
    assert log["tools"] == [{**tool, "authorization": "[masked]", "headers": "[masked]"}]
    assert [path for path in tmp_path.rglob("*") if path.is_file() and b"secret-5f1c" in path.read_bytes()] == []


def test_whatever_the_wire_says_is_read(local: Logs) -> None:
    half = b'{"object": "chat.completion", "choices": [{"message": {"content": "Rain \\ud83d"}}], "usage": NaN}'
    assert read(put(half))["response"] == "Rain \N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("answer", [{}, {"object": "list", "data": []}])
def test_what_is_no_answer_is_no_log(answer: Any) -> None:
    assert unread.read(put(answer)) is None


@pytest.mark.parametrize(
    "content",
    [b"<html>Log in</html>", b"[]", b'"text"', b"null", b"", "\ufeff{}".encode(), "{}".encode("utf-16")],
)
def test_what_is_no_plain_json_object_is_not_put_unread(content: bytes) -> None:
    assert entry_of(content) is None


def test_an_entry_that_cannot_be_read_is_a_fault_of_ours_and_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch, local: Logs
) -> None:
    monkeypatch.setattr(_guard, "strict", False)
    runtime = _runtime.active()
    assert runtime is not None
    runtime.put(put(chat())._replace(body=b"[1,2]"))
    runtime.put(put(chat(content=RAIN)))
    assert [log["response"] for log in local()] == [RAIN]
    assert (status().made, status().faults) == (1, 1)


def test_an_answer_that_is_asked_for_again_is_one_log(server: Server, client: OpenAI, local: Logs) -> None:
    instrument_openai()
    made: Wire = response("resp_1", output_text(RAIN))
    server.on("POST /responses", made).on("GET /responses/resp_1", made)
    client.responses.create(model="gpt-4.1", input=QUERY)
    client.responses.retrieve("resp_1")
    client.responses.retrieve("resp_1")
    assert [log["response"] for log in local()] == [RAIN]


def test_where_the_disk_fails_the_memory_takes_it(
    server: Server, client: OpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instrument_openai()
    athina_trace.configure(outbox=str(tmp_path / "outbox.db"))
    runtime = _runtime._runtime
    assert runtime is not None

    def full(_: Entry) -> None:
        raise OutboxError(28, "no space left")

    monkeypatch.setattr(runtime.outbox, "put", full)
    server.on("POST /responses", response("resp_1", output_text(RAIN)))
    client.responses.create(model="gpt-4.1", input=QUERY)
    assert runtime.delivery._fallback is not None
    memory: MemoryOutbox = runtime.delivery._fallback[0]
    assert [json.loads(entry.body)["response"] for entry in memory.waiting()] == [RAIN]


def test_the_session_of_a_chain_stays_that_of_its_first_known_response(
    server: Server, client: OpenAI, local: Logs
) -> None:
    instrument_openai()
    server.on("POST /responses", *(response(f"resp_{number}", output_text(RAIN)) for number in (1, 2, 3)))
    for number in (1, 2, 3):
        client.responses.create(model="gpt-4.1", input=QUERY, previous_response_id=f"resp_{number - 1}")
    assert [log["session_id"] for log in local()] == ["resp_0"] * 3


def test_each_answer_has_what_its_own_scope_said(server: Server, client: OpenAI, instrumented: Logs) -> None:
    server.on("POST /chat/completions", *[chat(content=RAIN)] * 5)
    with athina_session("one", customer_id="first"):
        for within in (nullcontext(), athina_session("two"), nullcontext()):
            with within:
                client.chat.completions.create(model="gpt-4o", messages=ASK)
    for customer in ("second", None):
        with athina_session("one", customer_id=customer):
            client.chat.completions.create(model="gpt-4o", messages=ASK)
    said = [(log["session_id"], log.get("customer_id")) for log in instrumented()]
    assert said == [("one", "first"), ("two", "first"), ("one", "first"), ("one", "second"), ("one", None)]


def test_each_answer_has_the_settings_of_its_time() -> None:
    environments = ["production", "staging", "production"]
    entries = [put(chat(content=RAIN), defaults={"environment": environment}) for environment in environments]
    assert [read(entry)["environment"] for entry in entries] == environments
