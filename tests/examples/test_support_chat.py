"""The demo as a newcomer runs it: in a process of its own, over real HTTP."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from standin_openai import StandIn

ROOT = Path(__file__).parents[2]


class Athina(ThreadingHTTPServer):
    """What Athina has received, as pairs of headers and body."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), AthinaHandler)
        self.received: list[tuple[str, Any, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class AthinaHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert isinstance(self.server, Athina)
        self.server.received.append((self.path, self.headers, body))
        answer = b'{"status": "success", "data": {"prompt_run_id": "run"}}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        pass


@pytest.fixture
def athina() -> Iterator[Athina]:
    with Athina() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run_demo(state: Path, **settings: str) -> str:
    """What the demo prints, with these environment variables and none of this machine's."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("ATHINA", "OPENAI"))
    }
    environment = inherited | {"XDG_STATE_HOME": str(state), "PYTHONIOENCODING": "utf-8"} | settings
    command = [sys.executable, "-W", "error", "examples/support_chat.py"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=45, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_without_keys_the_conversation_waits_in_the_outbox(tmp_path: Path) -> None:
    printed = run_demo(tmp_path)
    assert re.findall(r"^\[\d\] .*$", printed, flags=re.MULTILINE) == [
        "[1] Hello, where is my parcel PX-48213?",
        "[2] What if I do not like it, can I send it back?",
        "[3] Good to know. Can a neighbour take it tomorrow?",
    ]
    assert printed.count("customer  disney-usa-2314832, michaelmouse@gmail.com") == 3
    assert len(set(re.findall(r"session   (thread_\w+)", printed))) == 1
    assert 'tool call track_parcel({"parcel_id": "PX-48213"}) -> {"parcel_id": "PX-48213", ' in printed
    assert "3 logs made: 0 delivered, 3 waiting, 0 refused" in printed
    outbox = re.search(r"^Outbox: (.+)$", printed, flags=re.MULTILINE)
    assert outbox is not None
    assert tmp_path in Path(outbox[1]).parents


def test_with_a_key_each_answer_is_one_post_in_the_order_of_the_talk(tmp_path: Path, athina: Athina) -> None:
    printed = run_demo(tmp_path, ATHINA_API_KEY="k3y-0f-athina", ATHINA_BASE_URL=athina.url)
    assert "3 logs made: 3 delivered, 0 waiting, 0 refused" in printed
    assert "k3y-0f-athina" not in printed
    assert {path for path, _, _ in athina.received} == {"/api/v1/log/inference"}
    assert {headers["athina-api-key"] for _, headers, _ in athina.received} == {"k3y-0f-athina"}
    first, second, third = (body for _, _, body in athina.received)
    assert first["session_id"] == second["session_id"] == third["session_id"]
    assert second["user_query"] == "What if I do not like it, can I send it back?"
    assert second["response"].startswith("Yes, you can send parcel PX-48213 back")
    assert second["context"].startswith("Returns: ")
    assert second["prompt"][0]["content"].endswith(second["context"])
    assert second["prompt"][1] == {"role": "user", "content": second["user_query"]}
    assert first["tool_calls"] == first["tool_call"]
    assert [call["name"] for call in first["tool_calls"]] == ["track_parcel"]
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


def test_with_openais_key_the_talk_goes_through_responses(tmp_path: Path, stand_in: StandIn) -> None:
    printed = run_demo(tmp_path, OPENAI_API_KEY="any", OPENAI_BASE_URL=stand_in.base_url)
    assert len(set(re.findall(r"session   (conv_\w+)", printed))) == 1
    assert printed.count("model     gpt-4.1-mini-2025-04-14") == 3
    assert "tool call track_parcel(" in printed
    assert "3 logs made: 0 delivered, 3 waiting, 0 refused" in printed
