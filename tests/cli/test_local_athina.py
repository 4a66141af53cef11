"""The local Athina and the viewer, as commands and as a fixture: over real sockets, with our real client."""

import json
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from athina_trace._delivery.client import Client
from athina_trace._serving.server import listen
from athina_trace.local_athina import Faults, LocalAthina
from tests.support.waiting import until

LOG = {"language_model_id": "m", "prompt": "p", "response": "r", "user_query": "q", "session_id": "s"}
KEY = {"athina-api-key": "k"}


@pytest.fixture
def api(local_athina: LocalAthina) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=local_athina.url, headers=KEY, trust_env=False) as client:
        yield client


def words(answer: httpx.Response) -> str:
    return f"{answer.json()['error']}: {answer.json()['details']['message']}"


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_log_is_accepted_and_gets_an_id(api: httpx.Client, local_athina: LocalAthina, version: str) -> None:
    answer = api.post(f"/api/{version}/log/inference", json=LOG)
    assert answer.status_code == 200
    assert answer.json()["status"] == "success"
    assert len(answer.json()["data"]["prompt_run_id"]) == 36
    assert local_athina.logs() == [LOG]


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        ({"prompt": "p", "response": "r"}, 400, "language_model_id is required"),
        ({**LOG, "prompt_tokens": "many"}, 400, "prompt_tokens: Input should be a valid integer"),
        ({**LOG, "user_feedback": 5}, 400, "user_feedback: Input should be 1, 0 or -1"),
        ([], 400, "the body must be a JSON object, not list"),
        (b"{", 400, "the body is not JSON"),
        (b'{"a": "\\ud800"}', 400, "the body is not JSON"),
        (b"[" * 100_000, 400, "the body is not JSON"),
        (b" " * 10_000_001, 413, "a request may have at most 10000000 bytes"),
    ],
)
def test_invalid_logs_are_refused_with_a_message(
    api: httpx.Client, local_athina: LocalAthina, body: Any, status: int, expected: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body)
    answer = api.post("/api/v1/log/inference", content=content)
    assert answer.status_code == status
    assert expected in words(answer)
    assert local_athina.logs() == []


def test_v2_requires_a_string_response(api: httpx.Client) -> None:
    assert api.post("/api/v2/log/inference", json={**LOG, "response": {"a": 1}}).status_code == 400
    assert api.post("/api/v1/log/inference", json={**LOG, "response": {"a": 1}}).status_code == 200


def test_both_spellings_and_unknown_fields_are_accepted(api: httpx.Client, local_athina: LocalAthina) -> None:
    fields = {**LOG, "completion": 3, "completion_tokens": 3, "tool_call": [], "tool_calls": [], "new": {"a": [1]}}
    assert api.post("/api/v1/log/inference", json=fields).status_code == 200
    assert local_athina.logs() == [fields]


def test_a_reference_is_unique(api: httpx.Client) -> None:
    fields = {**LOG, "external_reference_id": "r1"}
    assert api.post("/api/v1/log/inference", json=fields).status_code == 200
    assert api.post("/api/v1/log/inference", json=fields).status_code == 409


def test_requests_without_a_key_are_refused(local_athina: LocalAthina) -> None:
    for key in ({}, {"athina-api-key": ""}):
        assert httpx.post(f"{local_athina.url}/api/v1/log/inference", json=LOG, headers=key).status_code == 401


def test_a_server_with_a_key_accepts_only_that_key() -> None:
    with LocalAthina(key="right") as athina:
        for key, status in (("wrong", 401), ("right", 200)):
            answer = httpx.post(f"{athina.url}/api/v1/log/inference", json=LOG, headers={"athina-api-key": key})
            assert answer.status_code == status


def test_updates_and_feedback_are_applied_to_their_log(api: httpx.Client, local_athina: LocalAthina) -> None:
    run = api.post("/api/v1/log/inference", json={**LOG, "external_reference_id": "a/b"}).json()["data"][
        "prompt_run_id"
    ]
    by_reference = api.patch(
        "/api/v1/log/inference/update-by-external-reference-id/a%2Fb", json={"expected_response": "x"}
    )
    by_id = api.patch(f"/api/v1/log/inference/{run}", json={"cost": 0.5})
    feedback = api.patch(
        "/api/v1/prompt_run/user-feedback",
        json={"external_reference_id": "a/b", "user_feedback": -1, "user_feedback_comment": "no"},
    )
    assert [answer.json()["data"]["prompt_run_id"] for answer in (by_reference, by_id, feedback)] == [run] * 3
    assert [change.get("cost") for change in local_athina.changes()] == [None, 0.5, None]

    def is_shown() -> bool:
        shown = api.get("/log.json", params={"id": "a/b"}).json()
        return (shown.get("expected_response"), shown.get("cost"), shown.get("user_feedback")) == ("x", 0.5, -1)

    until(is_shown)  # a page does not wait until a slow machine has read the newest logs


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/v1/log/inference/update-by-external-reference-id/none", {}, 404),
        ("/api/v1/log/inference/none", {}, 404),
        ("/api/v1/log/inference/none", {"cost": "dear"}, 400),
        ("/api/v1/prompt_run/user-feedback", {"external_reference_id": "none", "user_feedback": 1}, 404),
        ("/api/v1/prompt_run/user-feedback", {"external_reference_id": "none", "user_feedback": 2}, 400),
        ("/api/v1/prompt_run/user-feedback", {"external_reference_id": "none", "user_feedback": True}, 400),
    ],
)
def test_updates_of_an_unknown_log_are_refused(api: httpx.Client, path: str, body: dict[str, Any], status: int) -> None:
    assert api.patch(path, json=body).status_code == status


def test_faults_are_injected_on_request(api: httpx.Client, local_athina: LocalAthina) -> None:
    def post() -> httpx.Response:
        return api.post("/api/v1/log/inference", json=LOG)

    local_athina.faults.fail_next(500, 200, 429)
    assert [post().status_code for _ in range(4)] == [500, 200, 429, 200]
    local_athina.faults.share, local_athina.faults.status, local_athina.faults.retry_after = 1.0, 429, 2
    failed = post()
    assert (failed.status_code, failed.headers["retry-after"]) == (429, "2")
    assert local_athina.faults.failed == {500: 1, 429: 2}
    local_athina.faults.share = 0.5
    assert {post().status_code for _ in range(40)} == {200, 429}
    with pytest.raises(ValueError, match="share=2"):
        Faults(share=2)


def test_cross_site_requests_are_refused(local_athina: LocalAthina) -> None:
    foreign = ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"})
    for headers in foreign:
        answer = httpx.post(f"{local_athina.url}/api/v1/log/inference", json=LOG, headers={**KEY, **headers})
        assert answer.status_code in (403, 421)
    assert local_athina.logs() == []


def test_our_own_client_can_deliver_to_it(local_athina: LocalAthina) -> None:
    api = Client(base_url=local_athina.url, key="k", api_version="v1", total=60)
    outcome = api.deliver("log", "", json.dumps({**LOG, "external_reference_id": "r"}).encode())
    again = api.deliver("log", "", json.dumps({**LOG, "external_reference_id": "r"}).encode())
    bad = api.deliver("log", "", b"{}")
    api.close()
    assert outcome.status == 200
    assert outcome.prompt_run_id is not None
    assert again.status == 409
    assert bad.message.startswith("Validation error: language_model_id is required")


# -- as commands


@contextmanager
def started(environment: dict[str, str], *arguments: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Run a serving command until Ctrl-C; yield when it has printed its address, and require a clean end."""
    command = [sys.executable, "-W", "error", "-m", "athina_trace", *arguments, "--port", "0"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            line = ""
            while "Viewer: " not in line:
                line = process.stdout.readline()
                assert line, process.stderr.read()
            found = re.search(r"Viewer: (\S+)", line)
            assert found is not None
            yield found[1], process
        finally:
            process.send_signal(signal.SIGINT)
            code, errors = process.wait(60), process.stderr.read()
        assert (code, errors) == (130, "")


def test_serve_accepts_logs_and_shows_them(environment: dict[str, str], tmp_path: Path) -> None:
    path = str(tmp_path / "received.db")
    with started(environment, "serve", "--outbox", path) as (url, _):
        answer = httpx.post(f"{url}api/v1/log/inference", json=LOG, headers=KEY)
        assert answer.status_code == 200
        until(lambda: 'href="/session?id=s' in httpx.get(f"{url}logs").text)
        assert "received" in httpx.get(f"{url}logs").text


def test_serve_fails_on_demand(environment: dict[str, str], tmp_path: Path) -> None:
    path = str(tmp_path / "received.db")
    with started(environment, "serve", "--outbox", path, "--fail", "1", "--status", "429") as (url, _):
        assert httpx.post(f"{url}api/v1/log/inference", json=LOG, headers=KEY).status_code == 429
    with started(environment, "serve", "--outbox", path, "--status", "500") as (url, _):
        assert httpx.post(f"{url}api/v1/log/inference", json=LOG, headers=KEY).status_code == 500


def test_serve_prints_the_injected_faults(environment: dict[str, str], tmp_path: Path) -> None:
    path = str(tmp_path / "received.db")
    command = [sys.executable, "-m", "athina_trace", "serve", "--outbox", path, "--port", "0"]
    command += ["--fail", "1", "--status", "429", "--delay", "0.01"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        expected = process.stdout.readline()
        assert expected == "Faults on demand: 100% of all requests are answered with 429, each answer 0.01 s later.\n"
        found = re.search(r"ATHINA_BASE_URL=(\S+)", process.stdout.readline())
        assert found is not None
        process.stdout.readline()
        for _ in range(2):
            assert httpx.post(f"{found[1]}/api/v1/log/inference", json=LOG, headers=KEY).status_code == 429
            assert process.stdout.readline() == "POST /api/v1/log/inference: answered 429, a simulated fault\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "2 requests, 2 of them failed on demand.\n"
        assert process.wait(60) == 130


def test_connections_have_nagles_algorithm_disabled() -> None:
    """With Nagle's algorithm and delayed acknowledgements, the second packet of a response may take 40 ms."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_empty_page_of_serve_explains_how_to_log(local_athina: LocalAthina) -> None:
    page = unescape(httpx.get(local_athina.url).text)
    assert f"ATHINA_BASE_URL={local_athina.url} ATHINA_API_KEY=any" in page
    command = re.search(r"<code>(curl .*?)</code>", page, re.DOTALL)
    assert command is not None
    _, url, *options = shlex.split(command[1].replace("\\\n", ""))
    assert options[::2] == ["-H", "-H", "-d"]
    headers = dict(header.split(": ") for header in (options[1], options[3]))
    assert httpx.post(url, headers=headers, content=options[5]).json()["status"] == "success"
    assert [log["response"] for log in local_athina.logs()] == ["Hi!"]
    until(lambda: "curl" not in httpx.get(f"{local_athina.url}/logs").text)


def test_ui_shows_an_outbox(environment: dict[str, str], sampled: str) -> None:
    with started(environment, "ui", "--outbox", sampled) as (url, _):
        assert url.startswith("http://127.0.0.1:")
        until(lambda: "64 sessions" in httpx.get(url).text)


@pytest.mark.parametrize("options", [("--host", "0.0.0.0"), ("--host", "0.0.0.0", "--token"), ("--token",)])
def test_ui_requires_a_random_token_off_loopback_or_on_request(
    environment: dict[str, str], sampled: str, options: tuple[str, ...]
) -> None:
    with started(environment, "ui", "--outbox", sampled, *options) as (url, _):
        assert re.search(r"\?token=[0-9a-f]{32}$", url)
        assert httpx.get(url.partition("?")[0]).status_code == 401
        with httpx.Client(follow_redirects=True) as client:
            assert client.get(url).status_code == 200


def test_demo_fills_its_own_outbox(environment: dict[str, str]) -> None:
    command = [sys.executable, "-W", "error", "-m", "athina_trace", "demo"]
    for _ in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=True)
        assert "sample conversations are in" in done.stdout
        assert re.search(r"athina-trace ui --outbox \S+demo\.db", done.stdout)
