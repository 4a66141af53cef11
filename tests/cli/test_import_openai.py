"""Logs imported from OpenAI's API, through its real client from a server on loopback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from athina_trace.cli import terminal
from tests.cli.conftest import Run, lines
from tests.openai import samples
from tests.openai.samples import HOUR, page
from tests.openai.server import Failure, Server


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture(autouse=True)
def no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes longer than that for the client's import alone."""
    monkeypatch.setattr(terminal, "_PROGRESS_SECONDS", 3600.0)


@pytest.fixture
def imported(run: Run, server: Server, tmp_path: Path) -> Any:
    """Import objects by id; return the logs in the outbox, and the output."""
    outbox = str(tmp_path / "outbox.db")

    def imported(*names: str) -> tuple[list[dict[str, Any]], str]:
        settings = {"OPENAI_API_KEY": "key", "OPENAI_BASE_URL": server.base_url}
        done = run("import", "--yes", "--outbox", outbox, "--openai", *names, **settings)
        assert (done.returncode, done.stderr) == (0, "")
        return [line["log"] for line in lines(run("export", "--outbox", outbox).stdout)], done.stdout

    return imported


def test_all_stored_completions_are_imported_over_several_pages(imported: Any, server: Server) -> None:
    server.on("GET /chat/completions", page(samples.chat("chatcmpl-1")) | {"has_more": True, "last_id": "chatcmpl-1"})
    server.on("GET /chat/completions", page(samples.chat("chatcmpl-2", content="Bye.", at=60)))
    for number, asked in ((1, "Hi?"), (2, "Thanks")):
        messages = [{"id": f"m-{number}", "role": "user", "content": asked}]
        server.on(f"GET /chat/completions/chatcmpl-{number}/messages", page(*messages))
    logs, printed = imported()
    assert "2 new logs of 2 sessions" in printed
    assert [(log["user_query"], log["response"], log["external_reference_id"]) for log in logs] == [
        ("Hi?", "Hello.", "openai-chatcmpl-1"),
        ("Thanks", "Bye.", "openai-chatcmpl-2"),
    ]
    first = logs[0]
    assert (first["language_model_id"], first["prompt_tokens"], first["completion_tokens"]) == ("gpt-4o-mini", 5, 2)
    assert first["prompt"] == [{"role": "user", "content": "Hi?"}]
    assert first["custom_attributes"]["made_at"].startswith("2023-11-14T22:13:30")
    assert [target for _, target, _ in server.requests if "after=chatcmpl-1" in target] != []
    again, printed = imported("completions")
    assert again == logs
    assert "0 new logs" in printed


def test_a_response_is_imported_with_its_input_and_tools(imported: Any, server: Server) -> None:
    call = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"}
    server.on("GET /responses/resp_1", samples.response("resp_1", call, samples.output_text("Rain.")))
    asked = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weather?"}]}
    server.on("GET /responses/resp_1/input_items", page(asked))
    (log,), _ = imported("resp_1")
    assert (log["user_query"], log["response"], log["language_model_id"]) == ("Weather?", "Rain.", "gpt-4.1")
    assert log["tool_calls"][0]["function"]["name"] == "weather"
    assert log["prompt"][0] == {"role": "system", "content": "Be kind."}
    assert log["total_tokens"] == 26


def test_a_conversation_is_imported_as_one_log_per_answer(imported: Any, server: Server) -> None:
    def said(role: str, text: str, kind: str, own: str) -> Any:
        return {"type": "message", "id": own, "role": role, "content": [{"type": kind, "text": text}]}

    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": "{}"}
    output = {"type": "function_call_output", "id": "fco_1", "call_id": "call_1", "output": "rain"}
    server.on("GET /conversations/conv_1", {"id": "conv_1", "object": "conversation", "created_at": HOUR})
    server.on(
        "GET /conversations/conv_1/items",
        page(
            said("user", "Weather?", "input_text", "msg_1"),
            call,
            output,
            said("assistant", "Rain.", "output_text", "msg_2"),
            said("user", "And later?", "input_text", "msg_3"),
            said("assistant", "Sun.", "output_text", "msg_4"),
            said("user", "Not answered yet", "input_text", "msg_5"),
        ),
    )
    logs, printed = imported("conv_1")
    assert "2 new logs of 1 sessions" in printed
    assert [(log["session_id"], log["user_query"], log["response"], log["external_reference_id"]) for log in logs] == [
        ("conv_1", "Weather?", "Rain.", "openai-msg_2"),
        ("conv_1", "And later?", "Sun.", "openai-msg_4"),
    ]
    assert [(each["function"]["name"], each["output"]) for each in logs[0]["tool_calls"]] == [("weather", "rain")]


def test_a_thread_is_imported_as_one_log_per_run(imported: Any, server: Server) -> None:
    call = samples.function_call() | {"function": {"name": "weather", "arguments": "{}", "output": "rain"}}
    server.on("GET /threads/thread_1/runs", page(samples.run("run_1", at=2), samples.run("run_2", at=12)))
    server.on("GET /threads/thread_1/runs/run_1/steps", page(samples.step("step_1", call, at=3)))
    server.on("GET /threads/thread_1/runs/run_2/steps", page())
    server.on(
        "GET /threads/thread_1/messages",
        page(
            samples.question("msg_1", "Weather?", at=1),
            samples.message("msg_2", "Rain.", at=5),
            samples.question("msg_3", "And later?", at=11),
            samples.message("msg_4", "Sun.", at=15, run_id="run_2"),
        ),
    )
    logs, _ = imported("thread_1")
    assert [(log["session_id"], log["user_query"], log["response"], log["external_reference_id"]) for log in logs] == [
        ("thread_1", "Weather?", "Rain.", "openai-run_1"),
        ("thread_1", "And later?", "Sun.", "openai-run_2"),
    ]
    assert [(each["function"]["name"], each["output"]) for each in logs[0]["tool_calls"]] == [("weather", "rain")]
    assert "tool_calls" not in logs[1]


def test_objects_that_cannot_be_imported_are_reported_with_the_reason(run: Run, server: Server, tmp_path: Path) -> None:
    outbox = str(tmp_path / "outbox.db")
    settings = {"OPENAI_API_KEY": "key", "OPENAI_BASE_URL": server.base_url}

    def failed(*arguments: str, **changed: str) -> tuple[int, str]:
        done = run("import", "--yes", "--outbox", outbox, *arguments, **settings | changed)
        return done.returncode, done.stderr

    assert failed() == (2, "athina-trace: import takes either a file or --openai\n")
    assert failed("file.jsonl", "--openai")[0] == 2
    code, words = failed("--openai", "what")
    assert code == 2
    assert "'what' cannot be read: give ids that begin with chatcmpl-, resp_, conv_" in words
    server.on("GET /responses/resp_1", Failure(404, "No response found with id 'resp_1'."))
    code, words = failed("--openai", "resp_1")
    assert code == 1
    assert "reading resp_1 failed: Error code: 404" in words


def test_import_without_a_key_or_the_openai_package_names_what_is_missing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    done = run("import", "--openai")
    assert done.returncode == 2
    assert "OPENAI_API_KEY" in done.stderr
    monkeypatch.setitem(sys.modules, "openai", None)
    done = run("import", "--openai")
    assert done.returncode == 2
    assert "pip install openai" in done.stderr


def test_import_uses_azure_if_its_environment_variables_are_set(run: Run, server: Server, tmp_path: Path) -> None:
    server.on("GET /openai/threads/thread_1/runs", page(samples.run("run_1", at=2)))
    server.on("GET /openai/threads/thread_1/runs/run_1/steps", page())
    server.on("GET /openai/threads/thread_1/messages", page(samples.question("msg_1", "Hi?", at=1)))
    settings = {
        "AZURE_OPENAI_ENDPOINT": server.base_url.removesuffix("/v1"),
        "AZURE_OPENAI_API_KEY": "key",
        "OPENAI_API_VERSION": "2024-05-01-preview",
    }
    outbox = str(tmp_path / "outbox.db")
    done = run("import", "--yes", "--outbox", outbox, "--openai", "thread_1", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line["log"]["user_query"] for line in lines(run("export", "--outbox", outbox).stdout)] == ["Hi?"]
    assert all("api-version=2024-05-01-preview" in target for _, target, _ in server.requests)
