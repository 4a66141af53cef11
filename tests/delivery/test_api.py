"""The client and its transports against a real server that misbehaves in all ways."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import context

from athina_trace._delivery.client import Client
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.retry import Verdict, verdict
from athina_trace._delivery.routes import Kind, route
from tests.support import athina_server as server_module
from tests.support.athina_faults import raw
from tests.support.athina_server import AthinaServer, Fault, Request
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "marker-key-4711"
LOG = b'{"response": "hello"}'

PATIENCE = 30.0
"""Seconds for a server that does answer, even on a busy machine."""


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[AthinaServer]:
    with AthinaServer() as running:
        yield running


@pytest.fixture
def api(server: AthinaServer) -> Iterator[Client]:
    made = Client(base_url=server.url, key=KEY, connect=PATIENCE, read=PATIENCE, total=PATIENCE)
    yield made
    made.close()


def send(api: Client, server: AthinaServer, fault: Fault) -> Outcome:
    server.script(fault)
    return api.deliver("log", "", LOG)


def next_status(api: Client) -> int | None:
    """Return the outcome of the next log. The server may just be hanging up, which costs a try."""
    outcome = api.deliver("log", "", LOG)
    return api.deliver("log", "", LOG).status if outcome.possible_duplicate else outcome.status


def test_a_log_is_sent_as_athina_asks(api: Client, server: AthinaServer) -> None:
    assert api.deliver("log", "", LOG) == Outcome(200, prompt_run_id="run-1")
    (request,) = server.accepted
    assert (request.method, request.path, request.body) == ("POST", "/api/v1/log/inference", LOG)
    assert request.headers["athina-api-key"] == KEY
    assert request.headers["content-type"] == "application/json"
    assert request.headers["host"] == f"127.0.0.1:{server.port}"
    assert request.headers["user-agent"].startswith("athina-trace/")


def test_one_connection_carries_many_requests(api: Client, server: AthinaServer) -> None:
    server.script(server_module.answer(500), server_module.html(502), server_module.bad_json)
    assert [api.deliver("log", "", LOG).status for _ in range(6)] == [500, 502, 200, 200, 200, 200]
    assert server.connections == 1


@pytest.mark.parametrize(
    ("kind", "target", "expected"),
    [
        ("log", "", ("POST", "/api/v2/log/inference")),
        (
            "update",
            "a/b?c d#é%",
            ("PATCH", "/api/v1/log/inference/update-by-external-reference-id/a%2Fb%3Fc%20d%23%C3%A9%25"),
        ),
        ("update", "..", ("PATCH", "/api/v1/log/inference/update-by-external-reference-id/%2E%2E")),
        ("update", "\ud800", ("PATCH", "/api/v1/log/inference/update-by-external-reference-id/%3F")),
        ("update_by_id", "run.7", ("PATCH", "/api/v1/log/inference/run.7")),
        ("feedback", "ignored", ("PATCH", "/api/v1/prompt_run/user-feedback")),
    ],
)
def test_every_kind_has_its_endpoint(kind: Kind, target: str, expected: tuple[str, str], server: AthinaServer) -> None:
    assert route(kind, target, version="v2") == expected
    api = Client(base_url=f"{server.url}/self/hosted/", key=KEY, api_version="v2")
    assert api.deliver(kind, target, LOG).status == 200
    assert (server.accepted[0].method, server.accepted[0].path) == (expected[0], "/self/hosted" + expected[1])
    api.close()


def test_the_message_of_an_error_is_kept(api: Client, server: AthinaServer) -> None:
    assert send(api, server, server_module.answer(400)).message == "status 400: as the test asked"
    assert send(api, server, server_module.answer(400, b'{"error": ["a", 1], "details": ["b"]}')).message == '["a", 1]'
    assert send(api, server, server_module.html(502)).message == "Bad &amp; sad nginx"
    assert send(api, server, server_module.answer(500, b"x" * 60_000)).message == "x" * 500
    assert send(api, server, server_module.gzipped(422, b'{"error": "packed"}')).message == "packed"
    assert send(api, server, server_module.answer(200, b'{"prompt_run_id": "top"}')).prompt_run_id == "top"


def test_retry_after_is_part_of_the_outcome(api: Client, server: AthinaServer) -> None:
    assert send(api, server, server_module.busy(7)) == Outcome(429, 7.0, "status 429: as the test asked")
    assert send(api, server, server_module.busy("9" * 5000, 503)).retry_after == 3600.0
    assert send(api, server, server_module.busy("whenever")).retry_after is None


@pytest.mark.parametrize("proxied", [False, True])
def test_a_connection_whose_descriptor_the_program_has_reused_is_not_used(
    api: Client, server: AthinaServer, proxied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if proxied:
        monkeypatch.setenv("http_proxy", server.url)
    assert send(api, server, server_module.accept).status == 200
    here, there = socket.socketpair()
    with here, there:
        number = api._transport._socket.fileno()  # type: ignore[union-attr]
        os.dup2(here.fileno(), number)
        assert send(api, server, server_module.accept).status == 200
        assert server.connections == 2
        here.close()
        there.setblocking(False)
        with pytest.raises(BlockingIOError):  # nothing was written, and the descriptor is still open
            there.recv(1)
        os.close(number)
    number = api._transport._socket.fileno()  # type: ignore[union-attr]
    os.close(number)
    assert send(api, server, server_module.accept).status == 200
    assert server.connections == 3


def test_a_redirect_is_never_followed(api: Client, server: AthinaServer) -> None:
    with AthinaServer() as elsewhere:
        outcome = send(api, server, server_module.redirect(f"{elsewhere.url}/?{KEY}"))
        assert verdict(outcome.status) is Verdict.UNCERTAIN
        assert elsewhere.url in outcome.message
        assert KEY not in outcome.message
        assert elsewhere.connections == 0


HOSTILE: list[tuple[Fault, int | None]] = [
    (server_module.close_before_answer, None),
    (server_module.reset, None),
    (server_module.lose_answer, None),
    (server_module.close_in_mid_answer, None),
    (server_module.close_in_mid_body, 200),
    (server_module.delay(0.05), 200),
    (server_module.endless_body, 500),
    (server_module.endless_headers, None),
    (server_module.raw(b"HTTP/1.1 102 x\r\n\r\nHTTP/1.1 103 x\r\nLink: </a>\r\n\r\nHTTP/1.1 200 x\r\n\r\n"), 200),
    (server_module.raw(b"HTTP/1.1 103 x\r\nLink: </a>\r\n\r\n" * 9), None),
    (server_module.http10, 200),
    (server_module.bad_json, 200),
    (server_module.wrong_encoding, 200),
    (server_module.answer(200, b"[" * 60_000), 200),
    (server_module.answer(200, b'{"data": []}'), 200),
    (server_module.answer(500, b"\x1f\x8bnot gzip at all"), 500),
    (server_module.answer(500, b'{"error": "\\ud800"}'), 500),
    (server_module.gzipped(500, b"0" * 30_000_000), 500),
    (server_module.answer(204, b"", {"Content-Length": "-1"}), 204),
    (server_module.raw(b"SSH-2.0-OpenSSH\r\n"), None),
    (server_module.raw(b"HTTP/1.1 99999 x\r\n\r\n"), None),
    (server_module.raw(b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), 200),
    (server_module.raw(b"HTTP/1.1 500 \xff\r\nRetry-After: \xff\xfe\r\nContent-Length: 0\r\n\r\n"), 500),
    (server_module.raw(b""), None),
]


@pytest.mark.parametrize("proxied", [False, True])
@pytest.mark.parametrize(("fault", "status"), HOSTILE, ids=range(len(HOSTILE)))
def test_any_answer_is_handled(
    api: Client,
    server: AthinaServer,
    fault: Fault,
    status: int | None,
    proxied: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if proxied:
        monkeypatch.setenv("http_proxy", server.url)
    began = time.monotonic()
    outcome = send(api, server, fault)
    assert time.monotonic() - began < PATIENCE
    assert_is_a_verdict(outcome, status, proxied)
    assert next_status(api) == 200


def assert_is_a_verdict(outcome: Outcome, status: int | None, proxied: bool) -> None:
    assert outcome.status == status or (proxied and outcome.status is None)
    assert len(outcome.message) <= 500
    assert bool(outcome.message) is (outcome.status not in (200, 204))


# Measured by the time it takes, not by what arrives.
ENDLESS: list[tuple[Fault, int | None]] = [
    (server_module.hang, None),
    (server_module.drip_headers(0.05), None),
    (server_module.drip_body(0.05), 200),
    (server_module.drip_body(0.05, 500), 500),
    (server_module.continue_for_ever, None),
]


@pytest.mark.parametrize("proxied", [False, True])
def test_an_endless_answer_is_aborted_in_time(
    server: AthinaServer, proxied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if proxied:
        monkeypatch.setenv("http_proxy", server.url)
    # Longer where the head of an answer, which comes at once, is to be read on a machine however busy.
    clients = [
        Client(base_url=f"{server.url}/{number}", key=KEY, read=seconds, total=seconds)
        for number, seconds in enumerate(6.0 if status else 1.5 for _, status in ENDLESS)
    ]
    for number, (fault, _) in enumerate(ENDLESS):
        server.when(lambda request, door=f"/{number}/api/": door in request.path, fault)  # type: ignore[misc]
    over = threading.Event()
    watch = threading.Thread(
        target=lambda: [each.expire() for _ in iter(lambda: over.wait(0.02), True) for each in clients]
    )
    watch.start()
    began = time.monotonic()
    try:
        with ThreadPoolExecutor(len(clients)) as pool:
            outcomes = list(pool.map(lambda api: api.deliver("log", "", LOG), clients))
    finally:
        over.set()
        watch.join()
    assert time.monotonic() - began < PATIENCE  # the server would continue for a minute
    for outcome, (_, status) in zip(outcomes, ENDLESS, strict=True):
        assert_is_a_verdict(outcome, status, proxied)
    server.clear()
    for api in clients:
        until(lambda api=api: next_status(api) == 200)  # type: ignore[misc]
        api.close()


def test_the_answer_of_a_server_that_stops_reading_a_large_body_is_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        api = Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", key=KEY, read=0.2)
        taken: list[socket.socket] = []

        def answer() -> None:
            with suppress(OSError):
                while True:
                    taken.append(listener.accept()[0])
                    taken[-1].sendall(b"HTTP/1.1 413 x\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            # Again, if this machine was so busy that the answer came later.
            until(lambda: api.deliver("log", "", bytes(20_000_000)).status == 413)
            before = len(taken)
            until(lambda: api.deliver("log", "", bytes(20_000_000)).status == 413)
            assert len(taken) > before, "the rest of the body is missing there: what came next would be taken for it"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            api.close()
            for each in taken:
                each.close()


def test_a_server_that_is_away_and_comes_back(api: Client, server: AthinaServer) -> None:
    assert api.deliver("log", "", LOG).status == 200
    server.stop()
    outcome = api.deliver("log", "", LOG)
    assert outcome.status is None
    assert outcome.message.startswith("ConnectionRefusedError: ")
    assert not outcome.possible_duplicate
    server.start()
    assert api.deliver("log", "", LOG).status == 200
    assert len(server.accepted) == 2


def test_a_request_can_be_aborted_at_any_time(server: AthinaServer) -> None:
    api = Client(base_url=server.url, key=KEY, read=60.0, total=60.0)
    server.script(server_module.hang)
    outcomes: list[Outcome] = []
    sender = threading.Thread(target=lambda: outcomes.append(api.deliver("log", "", LOG)))
    sender.start()
    server.wait_for_requests(1)
    assert not api.expire()
    assert api.expire(now=math.inf)
    sender.join(60)
    assert [outcome.status for outcome in outcomes] == [None]
    assert not api.expire(now=math.inf)
    api.close()


def test_the_key_is_in_no_message(api: Client, server: AthinaServer) -> None:
    for size in range(480, 500):
        assert KEY[:5] not in send(api, server, server_module.answer(400, b"x" * size + KEY.encode())).message
    assert (
        send(api, server, server_module.answer(200, b'{"prompt_run_id": "%s"}' % KEY.encode())).prompt_run_id == "***"
    )
    assert KEY not in repr(api)


@pytest.mark.parametrize("key", ["", "two\nlines", "schlüssel", "nul\0"])
def test_a_key_that_does_not_fit_into_a_header_pauses(server: AthinaServer, key: str) -> None:
    outcome = Client(base_url=server.url, key=key).deliver("log", "", LOG)
    assert outcome.status == 401
    assert "ATHINA_API_KEY" in outcome.message
    assert server.connections == 0


def test_a_reference_that_does_not_fit_into_a_url_is_refused(api: Client, server: AthinaServer) -> None:
    assert api.deliver("log", "", LOG).status == 200
    outcome = api.deliver("update", "x" * 70_000, LOG)
    assert verdict(outcome.status) is Verdict.REFUSED
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "url", ["", "log.athina.ai", "ftp://127.0.0.1", "http://127.0.0.1:99999", "http://[::1", "http://\x00"]
)
def test_an_invalid_base_url_refuses_no_log(url: str) -> None:
    assert verdict(Client(base_url=url, key=KEY).deliver("log", "", LOG).status) is Verdict.RETRY


def test_the_environment_names_the_proxy(server: AthinaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url.replace("http://", "http://user:s3cret@"))
    api = Client(base_url="http://athina.invalid", key=KEY)
    server.script(server_module.answer(400, b"you said s3cret"))
    assert api.deliver("log", "", LOG) == Outcome(400, message="you said ***")
    assert api.deliver("log", "", LOG).status == 200
    assert server.requests[0].path == "http://athina.invalid/api/v1/log/inference"
    assert server.requests[0].headers["proxy-authorization"].startswith("Basic ")
    api.close()


def test_a_request_through_a_proxy_is_not_traced(server: AthinaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTelemetry's instrumentation of httpx patches this method, and checks the key."""
    answer, asked = httpx.HTTPTransport.handle_request, []

    def traced(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        asked.append(context.get_value("suppress_instrumentation"))
        return answer(transport, request)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", traced)
    monkeypatch.setenv("http_proxy", server.url)
    api = Client(base_url="http://athina.invalid", key=KEY)
    assert api.deliver("log", "", LOG).status == 200
    api.close()
    assert asked == [True]
    assert context.get_value("suppress_instrumentation") is None


def test_the_environment_names_exceptions_from_the_proxy(server: AthinaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    api = Client(base_url=server.url, key=KEY)
    assert api.deliver("log", "", LOG).status == 200
    api.close()


@pytest.mark.parametrize("status", [407, 502, 503, 504])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_lets_nothing_through_is_named_and_blames_no_key(
    status: int, scheme: str, server: AthinaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that answers in place of Athina, also to a CONNECT."""
    monkeypatch.setenv(f"{scheme}_proxy", server.url.replace("http://", "http://user:s3cret@"))
    api = Client(base_url=f"{scheme}://athina.invalid", key=KEY)
    server.when(lambda _: True, raw(b"HTTP/1.1 %d Not you\r\nContent-Length: 6\r\n\r\ns3cret" % status))
    outcome = api.deliver("log", "", LOG)
    assert verdict(outcome.status) is Verdict.RETRY
    assert outcome.message.startswith(f"through the proxy {server.url}: ")
    assert "s3cret" not in outcome.message
    if status == 407:
        assert outcome.status is None
        assert "407" in outcome.message
        assert not outcome.possible_duplicate
    api.close()


def test_an_invalid_proxy_refuses_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "gopher://user:s3cret@127.0.0.1:1")
    outcome = Client(base_url="http://127.0.0.1:1", key=KEY).deliver("log", "", LOG)
    assert outcome.status is None
    assert "s3cret" not in outcome.message


def test_the_scheme_https_may_be_in_any_case(server: AthinaServer) -> None:
    outcome = Client(base_url=server.url.replace("http", "HTTPS"), key=KEY, connect=0.2).deliver("log", "", LOG)
    assert outcome.status is None
    assert "handshake" in outcome.message


def test_keyboard_interrupts_are_raised(api: Client, server: AthinaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("athina_trace._delivery.client.read_answer", lambda *_, **__: interrupted())
    with pytest.raises(KeyboardInterrupt):
        send(api, server, server_module.accept)


def test_the_server_can_be_asked_by_predicate(api: Client, server: AthinaServer) -> None:
    def is_second(request: Request) -> bool:
        return request.number == 2

    server.when(is_second, server_module.answer(500))
    assert [api.deliver("log", "", LOG).status for _ in range(3)] == [200, 500, 200]
    assert [request.number for request in server.wait_for(2)] == [1, 3]
    with pytest.raises(AssertionError, match="waited 0 s for 9, got 2"):
        server.wait_for(9, timeout=0)


def test_the_servers_faults_can_be_repeated() -> None:
    def statuses() -> list[int | None]:
        with AthinaServer(faults=0.5, seed=11) as server:
            api = Client(base_url=server.url, key=KEY)
            found = [api.deliver("log", "", LOG).status for _ in range(40)]
            api.close()
            return found

    first = statuses()
    assert first == statuses()
    assert {200, 500, None} <= set(first)


def test_the_server_runs_in_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "tests.support.athina_server", "--faults", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        url = process.stdout.readline().strip()
        api = Client(base_url=url, key=KEY)
        assert api.deliver("log", "", LOG).status == 200
        with urllib.request.urlopen(f"{url}/accepted") as response:  # noqa: S310  loopback
            assert b"/api/v1/log/inference" in response.read()
        api.close()
        process.stdin.close()
        assert process.wait(60) == 0


STATUS_LINES = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 503 x", b"HTTP/1.0 429", b"HTTP/1.1 abc", b"HTTP/9.9 200 OK"]
)
HEADERS = st.sampled_from(
    [
        b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 99999999999", b"Transfer-Encoding: chunked",
        b"Content-Encoding: gzip", b"Retry-After: " + b"9" * 300, b"Retry-After: soon", b"Location: http://127.0.0.1:1/",
        b"Connection: upgrade", b": nameless", b"no colon", b"\xff: \xfe",
    ]
)  # fmt: skip
ANSWERS = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda line, headers, body: b"\r\n".join([line, *headers, b"", body]),
        STATUS_LINES,
        st.lists(HEADERS, max_size=4),
        st.binary(max_size=50)
        | st.sampled_from([b"{}", b'{"data": {"prompt_run_id": "r"}}', b"5\r\nhello\r\n0\r\n\r\n"]),
    ),
)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(ANSWERS)
def test_any_answer_gets_a_verdict_in_time_and_harms_no_later_log(
    api: Client, server: AthinaServer, answer: bytes
) -> None:
    server.clear()
    began = time.monotonic()
    outcome = send(api, server, raw(answer))
    assert time.monotonic() - began < PATIENCE
    assert isinstance(verdict(outcome.status), Verdict)
    assert len(outcome.message) <= 500
    assert KEY not in outcome.message
    assert outcome.retry_after is None or 0 <= outcome.retry_after <= 3600
    server.clear()
    assert next_status(api) == 200
