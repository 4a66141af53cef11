"""Answers outside decorated calls: each is one log, on disk before the call returns."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, ValidationError

import athina_trace
from athina_trace import _runtime, athina_session, instrument_openai
from athina_trace._answers.memory import ConversationMemory
from athina_trace._answers.records import RUN, Answer, Key, ThreadMessage
from athina_trace._capture import answer_logs, nesting
from athina_trace._capture.answer_logs import Origin
from athina_trace._delivery.entry import Entry
from athina_trace._delivery.outbox import MemoryOutbox
from athina_trace.errors import OutboxError
from athina_trace.integrations.openai.standalone_logs import standalone_logs
from athina_trace.testing import captured_logs
from tests.support.interrupted import run_interrupted

from .samples import Wire, chat, function_call, message, output_text, page, response, run
from .scripts import ASK, RAIN, THREAD
from .server import Server

Logs = Callable[[], list[dict[str, Any]]]
ROOT = Path(__file__).parents[2]
QUERY = "What is the weather?"


def test_sync_and_async_answers_are_logged_at_once(server: Server, client: OpenAI, instrumented: Logs) -> None:
    server.on("POST /responses", response("resp_1", output_text(RAIN))).on("POST /chat/completions", chat(content=RAIN))
    client.responses.create(model="gpt-4.1", input=QUERY)
    client.chat.completions.create(model="gpt-4o", messages=ASK)

    async def ask() -> None:
        async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as other:
            await other.responses.create(model="gpt-4.1", input=QUERY)
            await other.chat.completions.create(model="gpt-4o", messages=ASK)

    asyncio.run(ask())
    assert [log["response"] for log in instrumented()] == [RAIN] * 4


def test_a_request_inside_a_request_is_not_part_of_its_answer(server: Server, instrumented: Logs) -> None:
    server.on("POST /responses", response("resp_1", output_text(RAIN))).on("GET /models/gpt-4.1", {"id": "gpt-4.1"})

    class Asking(OpenAI):
        def _prepare_request(self, request: Any) -> None:
            if request.method == "POST":
                self.models.retrieve("gpt-4.1")

    with Asking(base_url=server.base_url, api_key="any", max_retries=0) as client:
        client.responses.create(model="gpt-4.1", input=QUERY)
    assert [log["response"] for log in instrumented()] == [RAIN]


class Weather(BaseModel):
    """The response format that the program requests, and the model does not follow."""

    rain: bool


def test_unparsable_answers_are_logged_with_their_own_text_in_every_thread(server: Server, instrumented: Logs) -> None:
    texts = [f"Answer {number}" for number in range(8)]
    server.on("POST /chat/completions", *(chat(f"chatcmpl-{text}", content=text) for text in texts), chat())

    def ask() -> None:
        with OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client, pytest.raises(ValidationError):
            client.chat.completions.parse(model="gpt-4o", messages=ASK, response_format=Weather)

    threads = [threading.Thread(target=ask) for _ in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(log["response"] for log in instrumented()) == texts
    assert all(log["error"].startswith("ValidationError") for log in instrumented())


def test_answers_survive_a_kill(server: Server, tmp_path: Path) -> None:
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
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, timeout=100, check=False)
    assert killed.returncode == -signal.SIGKILL
    heir = subprocess.run(
        [sys.executable, "-c", look], cwd=ROOT, env=environment, capture_output=True, timeout=100, check=True
    )
    (log,) = json.loads(heir.stdout)
    assert (log["session_id"], log["customer_id"], log["user_query"], log["response"]) == ("desk", "acme", QUERY, RAIN)


def test_an_answer_has_its_reference_in_the_journal(server: Server, client: OpenAI, tmp_path: Path) -> None:
    instrument_openai()
    athina_trace.configure(outbox=str(tmp_path / "outbox.db"))
    server.on("POST /responses", response("resp_1", output_text(RAIN)))
    client.responses.create(model="gpt-4.1", input=QUERY)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*.journal") if path.is_file())
    (log,) = athina_trace.recent_logs()
    assert log["external_reference_id"].encode() in written


def test_line_breaks_in_an_answer_are_kept(server: Server, client: OpenAI, tmp_path: Path) -> None:
    instrument_openai()
    athina_trace.configure(outbox=str(tmp_path / "outbox.db"))
    server.on("POST /chat/completions", chat(content="Rain.\nAnd\tsun."))
    client.chat.completions.create(model="gpt-4o", messages=ASK)
    assert [log["response"] for log in athina_trace.recent_logs()] == ["Rain.\nAnd\tsun."]


def test_a_long_question_is_logged(server: Server, client: OpenAI, instrumented: Logs) -> None:
    server.on("POST /responses", response("resp_1", output_text(RAIN)))
    client.responses.create(model="gpt-4.1", input="What? " * 20_000)
    assert [(log["response"], len(log["user_query"])) for log in instrumented()] == [(RAIN, 120_000)]


def test_credentials_of_an_mcp_server_reach_neither_disk_nor_log(
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


@pytest.mark.parametrize("answer", [{}, {"object": "list", "data": []}])
def test_an_object_that_is_not_an_answer_is_not_logged(
    answer: Wire, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on("POST /chat/completions", answer)
    client.chat.completions.create(model="gpt-4o", messages=ASK)
    assert instrumented() == []


def test_an_answer_that_is_retrieved_again_is_one_log(server: Server, client: OpenAI, local: Logs) -> None:
    instrument_openai()
    made: Wire = response("resp_1", output_text(RAIN))
    server.on("POST /responses", made).on("GET /responses/resp_1", made)
    client.responses.create(model="gpt-4.1", input=QUERY)
    client.responses.retrieve("resp_1")
    client.responses.retrieve("resp_1")
    assert [log["response"] for log in local()] == [RAIN]


def test_if_the_disk_fails_answers_are_kept_in_memory(
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


def test_the_session_of_a_chain_is_its_first_known_response(server: Server, client: OpenAI, local: Logs) -> None:
    instrument_openai()
    server.on("POST /responses", *(response(f"resp_{number}", output_text(RAIN)) for number in (1, 2, 3)))
    for number in (1, 2, 3):
        client.responses.create(model="gpt-4.1", input=QUERY, previous_response_id=f"resp_{number - 1}")
    assert [log["session_id"] for log in local()] == ["resp_0"] * 3


def test_each_answer_has_the_fields_of_its_own_scope(server: Server, client: OpenAI, instrumented: Logs) -> None:
    server.on("POST /chat/completions", *[chat(content=RAIN)] * 5)
    with athina_session("one", customer_id="first"):
        for within in (nullcontext(), athina_session("two"), nullcontext()):
            with within:
                client.chat.completions.create(model="gpt-4o", messages=ASK)
    for customer in ("second", None):
        with athina_session("one", customer_id=customer):
            client.chat.completions.create(model="gpt-4o", messages=ASK)
    found = [(log["session_id"], log.get("customer_id")) for log in instrumented()]
    assert found == [("one", "first"), ("two", "first"), ("one", "first"), ("one", "second"), ("one", None)]


def test_each_answer_is_logged_with_the_settings_at_its_time(server: Server, client: OpenAI, tmp_path: Path) -> None:
    instrument_openai()
    server.on("POST /chat/completions", *[chat(content=RAIN)] * 3)
    environments = ["production", "staging", "production"]
    for environment in environments:
        athina_trace.configure(outbox=str(tmp_path / "outbox.db"), environment=environment)
        client.chat.completions.create(model="gpt-4o", messages=ASK)
    assert [log["environment"] for log in athina_trace.recent_logs()] == environments


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_messages_of_one_second_keep_their_page_order(
    order: Any, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    texts = ["First.", "Second."]
    listed = [message(f"msg_{text}", text, at=12) for text in (texts if order == "asc" else reversed(texts))]
    server.on(f"POST {THREAD}/runs", run()).on(f"GET {THREAD}/messages", page(*listed))
    client.beta.threads.runs.create("thread_1", assistant_id="asst_1")
    client.beta.threads.messages.list("thread_1", order=order)
    assert [log["response"] for log in instrumented()] == ["First.\nSecond."]


@pytest.mark.parametrize("others", [False, True])
def test_a_finalizer_may_report_an_answer_while_others_are_followed(
    others: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The garbage collector closes an abandoned stream in the middle of our own work."""
    monkeypatch.setattr(nesting, "is_followed", others)
    left: Key = ("response", "left")
    posted = ThreadMessage(id="msg_1", thread="thread_1", role="user", text=QUERY)

    def report() -> None:
        answer = Answer(key=left, request=1, text="Snow.")
        standalone_logs.answered(answer, [answer], Origin.here(), new=True, error=GeneratorExit())
        memory.remember_posted([posted])

    def followed() -> None:
        memory.remember_posted([posted])
        running = Answer(key=(RUN, "run_1"), session="thread_1", request=2)
        standalone_logs.answered(running, [running], Origin.here(), new=True, error=None)
        standalone_logs.listed([posted], "thread_1", run=None, more=False)
        memory.answered("thread_1")
        standalone_logs.run_periodically(0.0, True)

    nth, was_interrupted = 0, True
    while was_interrupted:
        nth += 1
        with captured_logs() as captured:
            standalone_logs.reset()
            answer_logs.reset()
            memory = ConversationMemory()
            was_interrupted = run_interrupted(nth, followed, report)
        assert sorted(log.response for log in captured) == ["", *["Snow."] * was_interrupted], nth
    assert nth > 100
