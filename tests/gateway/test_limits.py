"""The gateway under attack: requests that are too large, slow, many or malformed are refused, all others served."""

import gzip
import json
import resource
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import athina_trace
from athina_trace.gateway import commits
from tests.gateway.conftest import CLIENT, LOG, PATH, Serve, patient, serving
from tests.support.waiting import until

BODY = json.dumps(LOG).encode()
HEAD = f"POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\nathina-api-key: k\r\n"
TOKEN = "0123456789abcdef"


@pytest.fixture
def memory() -> None:
    athina_trace.configure(outbox=":memory:")


@pytest.fixture
def client(serve: Serve, memory: None) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=serve(), headers=CLIENT, trust_env=False) as client:
        yield client


def post(url: str, body: bytes = BODY, **headers: str) -> httpx.Response:
    """Send a request on its own connection."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{url}{PATH}", content=body, headers={**CLIENT, **names}, trust_env=False)


def raw(url: str) -> socket.socket:
    address = urlsplit(url)
    assert address.hostname
    assert address.port
    return socket.create_connection((address.hostname, address.port), timeout=100)


def rest(connection: socket.socket) -> bytes:
    """Return what the server sends until it closes, or until the socket's timeout."""
    received = b""
    with suppress(TimeoutError, ConnectionError):
        while chunk := connection.recv(65_536):
            received += chunk
    return received


def logged() -> int:
    return athina_trace.status().made


# ---- sizes


def test_gzip_bodies_are_accepted(client: httpx.Client) -> None:
    answer = client.post(PATH, content=gzip.compress(BODY), headers={"content-encoding": "gzip"})
    assert answer.status_code == 200
    assert logged() == 1


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", lambda: gzip.compress(b" " * 10_000_001), 413),
        ("gzip", lambda: gzip.compress(bytes(100_000_000), 1), 413),
        ("gzip", lambda: gzip.compress(BODY)[:-1], 400),
        ("gzip", lambda: gzip.compress(BODY) + b"more", 400),
        ("gzip", lambda: gzip.compress(BODY) * 2, 400),
        ("gzip", lambda: BODY, 400),
        ("gzip", lambda: b"", 400),
        ("deflate", lambda: zlib.compress(BODY), 415),
        ("gzip, gzip", lambda: gzip.compress(gzip.compress(BODY)), 415),
        ("identity", lambda: b" " * 10_000_001, 413),
        ("identity", lambda: b"[" * 1_000_000, 400),
        ("identity", lambda: b'{"a":' * 100_000, 400),
        ("identity", lambda: b"\xff\xfe" + BODY, 400),
        ("identity", lambda: b"9" * 5_000_000, 400),
        ("identity", lambda: b'"\\ud800' + b"[" * 100_000, 400),
        ("identity", lambda: BODY[:-1] + b', "context": [%s[]]}' % (b"[]," * 1_000_000), 413),
        ("identity", lambda: BODY[:-1] + b', "context": {%s"":""}}' % (b'"":"",' * 1_000_000), 413),
    ],
    ids=[
        *("large", "bomb", "cut", "longer", "twice", "not-zipped", "empty", "deflate", "zipped-twice", "large-plain"),
        *("deep-lists", "deep-objects", "no-text", "digits", "surrogate", "many-lists"),
        "many-names",
    ],
)
def test_invalid_bodies_are_refused(
    client: httpx.Client, encoding: str, body: Callable[[], bytes], status: int
) -> None:
    answer = client.post(PATH, content=body(), headers={"content-encoding": encoding})
    assert answer.status_code == status
    assert answer.json()["details"]["message"]
    assert client.get("/healthz").status_code == 200
    assert logged() == 0


def test_a_body_of_unknown_length_is_bounded(client: httpx.Client) -> None:
    with suppress(httpx.HTTPError):  # the client may still be sending when the connection is closed
        answer = client.post(PATH, content=(b" " * 100_000 for _ in range(1000)))
        assert answer.status_code == 413
    assert client.get("/healthz").status_code == 200


def test_deeply_nested_data_is_refused(client: httpx.Client) -> None:
    deep: Any = "x"
    for _ in range(150):
        deep = {"a": [deep]}
    body = json.dumps({**LOG, "context": deep, "half": "\ud800"})
    assert client.post(PATH, content=body).status_code in (200, 400)
    wide = {**LOG, "context": [[] for _ in range(500_000)]}
    assert client.post(PATH, json=wide).status_code == 200
    assert len(json.dumps(athina_trace.recent_logs(1)[0])) < 1_000_000


@settings(suppress_health_check=list(HealthCheck), max_examples=50)
@given(body=st.binary(max_size=200) | st.text().map(lambda text: BODY[:-1] + text.encode("utf-8", "replace") + b"}"))
def test_any_bytes_get_a_response(client: httpx.Client, body: bytes) -> None:
    assert client.post(PATH, content=body).status_code in (200, 400)
    unzipped = client.post(PATH, content=body, headers={"content-encoding": "gzip"})
    assert unzipped.status_code == 400


def test_large_headers_are_refused(serve: Serve, memory: None) -> None:
    url = serve()
    with closing(raw(url)) as connection, suppress(ConnectionError):
        connection.sendall(HEAD.encode())
        for _ in range(100):
            connection.sendall(b"x-more: " + b"a" * 10_000 + b"\r\n")
    with closing(raw(url)) as connection:
        connection.sendall(HEAD.encode() + b"x-long: ")
        with suppress(ConnectionError):
            for _ in range(1000):
                connection.sendall(b"a" * 10_000)
            rest(connection)
    assert post(url).status_code == 200


def memory_of_this_process() -> int:
    """Return the memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def is_closed_by(connection: socket.socket, data: bytes) -> bool:
    """Return whether the server closes a connection on which this is sent repeatedly."""
    with suppress(ConnectionError):
        for _ in range(400):
            connection.sendall(data)
        return False
    return True


CHUNKED = HEAD.encode() + b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [
        (CHUNKED + b"2\r\n{}\r\n0\r\n", b"a: b\r\n" * 10_000),
        (CHUNKED + b"2\r\n{}\r\n0\r\na", b"a" * 60_000),
        (CHUNKED + b"1;", b"a" * 60_000),
        (CHUNKED, (b"1;" + b"a" * 10_000 + b"\r\n \r\n") * 6),
        (CHUNKED, b"1\r\n \r\n" * 10_000),
        (b"", b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" * 1000),
    ],
    ids=["trailers", "one-trailer", "extension", "extensions", "tiny-chunks", "pipelined"],
)
def test_data_outside_bodies_is_bounded(serve: Serve, memory: None, begins: bytes, goes_on: bytes) -> None:
    url = serve()
    before = memory_of_this_process()
    with closing(raw(url)) as connection:
        connection.sendall(begins)
        # The responses are not read.
        assert is_closed_by(connection, goes_on * 10)
    assert memory_of_this_process() - before < 100_000_000
    assert post(url).status_code == 200


def test_a_body_in_chunks_of_any_usual_size_is_read(serve: Serve, memory: None) -> None:
    for size, length in ((50, 1_000_000), (1000, 5_000_000), (1_000_000, 5_000_000)):
        body = json.dumps({**LOG, "context": "x" * length}).encode()
        chunks = (body[at : at + size] for at in range(0, len(body), size))
        answer = httpx.post(f"{serve()}{PATH}", content=chunks, headers=CLIENT, trust_env=False, timeout=100)
        assert answer.status_code == 200


def test_a_client_that_does_not_read_responses_is_disconnected(serve: Serve, memory: None) -> None:
    limits = patient(body_seconds=3.0)
    url = serve(limits=limits)
    with closing(socket.socket()) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((urlsplit(url).hostname, urlsplit(url).port))
        until(lambda: limits.open)
        (connection,) = limits.open
        transport = connection._transport
        assert transport is not None
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with suppress(ConnectionError):  # on a busy machine, the server may close before this thread sees a full buffer
            while limits.open and transport.get_write_buffer_size() < 65_536:
                client.sendall(b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
                time.sleep(0.02)
        # All requests are answered: no request timeout applies any more.
        until(lambda: not limits.open)
        assert limits.slow == 1
    assert post(url).status_code == 200


# ---- time


@pytest.mark.parametrize("sent", [b"", b"POST /api", HEAD.encode(), HEAD.encode() + b"content-length: 9\r\n\r\n{"])
def test_a_slow_sender_is_disconnected(serve: Serve, memory: None, sent: bytes) -> None:
    url = serve(limits=patient(head_seconds=0.2, body_seconds=0.2))
    with closing(raw(url)) as connection:
        connection.sendall(sent)
        assert rest(connection).startswith(b"HTTP/1.1 408 ")


def test_a_slow_second_request_is_disconnected_too(serve: Serve, memory: None) -> None:
    limits = patient()
    url = serve(limits=limits)
    with closing(raw(url)) as connection:
        connection.sendall(HEAD.encode() + b"content-length: %d\r\n\r\n" % len(BODY) + BODY)
        answered = b""
        while not answered.endswith(b"}"):  # head and body may arrive separately
            answered += connection.recv(65_536)
        assert answered.startswith(b"HTTP/1.1 200 ")
        limits.head_seconds = 0.3  # which the first request might exceed on a busy machine
        time.sleep(0.4)  # idle connections have more time
        connection.sendall(b"POST")
        assert rest(connection).startswith(b"HTTP/1.1 408 ")


def test_a_trickle_does_not_extend_the_timeout(serve: Serve, memory: None) -> None:
    url = serve(limits=patient(head_seconds=0.5))
    with closing(raw(url)) as connection:
        ends = time.monotonic() + 60
        with suppress(ConnectionError):
            while time.monotonic() < ends:
                connection.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() < ends


def test_connections_beyond_the_limit_are_refused(serve: Serve, memory: None) -> None:
    limits = patient(3)
    url = serve(limits=limits)
    busy = [raw(url) for _ in range(3)]
    try:
        for connection in busy:
            connection.sendall(HEAD.encode())
        # The count comes first: until all are there, the server's thread adds to the set that is iterated.
        until(lambda: len(limits.open) == 3 and all(each._head for each in limits.open))
        with closing(raw(url)) as one_more:
            assert rest(one_more).startswith(b"HTTP/1.1 503 ")
        assert limits.refused == 1
    finally:
        for connection in busy:
            connection.close()
    until(lambda: not limits.open)
    assert post(url).status_code == 200


def test_idle_connections_are_closed_for_new_ones(serve: Serve, memory: None) -> None:
    limits = patient(2)
    url = serve(limits=limits)
    idle = [raw(url) for _ in range(2)]
    while len(limits.open) < 2:
        time.sleep(0.01)
    assert post(url).status_code == 200
    assert limits.refused == 0
    for connection in idle:
        connection.close()


def test_connections_at_startup_are_accepted_or_refused(memory: None) -> None:
    clients: list[socket.socket] = []

    def connect(url: str) -> None:
        for _ in range(6):
            clients.append(raw(url))
            clients[-1].sendall(f"{HEAD}connection: close\r\ncontent-length: {len(BODY)}\r\n\r\n".encode() + BODY)

    with serving(patient(2), before=connect):
        statuses = sorted(rest(each).split(b" ", 2)[1] for each in clients)
    assert statuses == [b"200"] * 2 + [b"503"] * 4
    for each in clients:
        each.close()


def test_requests_that_wait_too_long_for_their_turn_are_refused(serve: Serve, memory: None) -> None:
    url = serve(limits=patient(turn_seconds=-1))
    with httpx.Client(base_url=url, headers=CLIENT, trust_env=False) as client:
        answers = [client.post(PATH, json=LOG) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [429, 429]
        assert answers[0].headers["retry-after"] == "1"
        assert "connection" not in answers[0].headers
        # The other gateways are as busy: readiness must not shift this one's load to them.
        assert client.get("/readyz").status_code == 200
    assert logged() == 0


# ---- access


def test_requests_need_the_token(serve: Serve, memory: None) -> None:
    url = serve(token=TOKEN)
    refused = {"": None, "a": "", "b": "wrong", "c": TOKEN[:-1], "d": TOKEN + "0", "e": "\xff"}
    for given_token in refused.values():
        headers = {} if given_token is None else {b"athina-api-key": given_token.encode("latin-1")}
        answer = httpx.post(f"{url}{PATH}", content=BODY, headers=headers, trust_env=False)
        assert answer.status_code == 401
        assert TOKEN not in answer.text
    assert httpx.get(f"{url}/metrics", trust_env=False).status_code == 401
    assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
    assert httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    assert logged() == 0
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert httpx.post(f"{url}{PATH}", content=BODY, headers=bearer, trust_env=False).status_code == 200
    assert post(url, athina_api_key=TOKEN).status_code == 200
    assert logged() == 2


@pytest.mark.parametrize(
    ("key", "length", "answer"),
    [
        (TOKEN, len(BODY), b"HTTP/1.1 100 Continue\r\n\r\n"),
        (TOKEN, 99_999_999_999, b"HTTP/1.1 413 "),
        ("wrong", len(BODY), b"HTTP/1.1 401 "),
    ],
)
def test_expect_continue_is_refused_for_unacceptable_bodies(
    serve: Serve, memory: None, key: str, length: int, answer: bytes
) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nhost: a\r\nathina-api-key: {key}\r\nexpect: 100-continue\r\n"
    with closing(raw(serve(token=TOKEN))) as connection:
        connection.sendall(f"{head}content-length: {length}\r\n\r\n".encode())
        received = connection.recv(65_536)
        assert received.startswith(answer)
        if b" 100 " in answer:
            connection.sendall(BODY)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
    assert logged() == (b" 100 " in answer)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),  # a name that resolves to 127.0.0.1
        ({"host": "gateway.internal"}, 200),
        ({"host": "localhost:80"}, 200),
        ({"host": "[::1]"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"athina-api-key": ""}, 200),
    ],
)
def test_requests_from_websites_are_refused_without_a_token(
    serve: Serve, memory: None, headers: dict[str, str], status: int
) -> None:
    url = serve(names=frozenset({"gateway.internal"}))
    answer = httpx.post(f"{url}{PATH}", content=BODY, headers={**CLIENT, **headers}, trust_env=False)
    assert answer.status_code == status


def test_a_form_post_without_a_key_is_refused(serve: Serve, memory: None) -> None:
    answer = httpx.post(f"{serve()}{PATH}", content=BODY, headers={"content-type": "text/plain"}, trust_env=False)
    assert answer.status_code == 401
    assert logged() == 0


# ---- request smuggling

INNER = f"POST {PATH} HTTP/1.1\r\nhost: a\r\nathina-api-key: k\r\ncontent-length: {len(BODY)}\r\n\r\n".encode() + BODY


@pytest.mark.parametrize(
    "shape",
    [
        f"content-length: {len(INNER)}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".encode() + INNER,
        f"content-length: 0\r\ncontent-length: {len(INNER)}\r\n\r\n".encode() + INNER,
        b"content-length: +0\r\n\r\n" + INNER,
        b"content-length: 0x0\r\n\r\n" + INNER,
        b"content-length : 0\r\n\r\n" + INNER,
        b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + INNER,
        b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n" + INNER,
        b"transfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + INNER,
        b"transfer-encoding: chunked\r\n\r\n0x5\r\nabcde\r\n0\r\n\r\n" + INNER,
        b"transfer-encoding: chunked\r\n\r\n-1\r\n" + INNER,
        b"transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n" + INNER,
        b"transfer-encoding: chunked\r\n\r\n5;a=\x00\r\nabcde\r\n" + INNER,
        b"x: a\x00b\r\ncontent-length: 0\r\n\r\n" + INNER,
        b" folded: a\r\n  b\r\ncontent-length: 0\r\n\r\n" + INNER,
        b"upgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 0\r\n\r\n" + INNER,
    ],
)
def test_request_smuggling_is_refused(serve: Serve, memory: None, shape: bytes) -> None:
    url = serve(limits=patient(head_seconds=0.3, body_seconds=0.3))
    with closing(raw(url)) as connection:
        connection.sendall(HEAD.encode() + shape)
        connection.settimeout(3)  # the connection may stay open after a response
        answer = rest(connection)
    assert logged() == 0, answer
    assert not answer or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 408 ")), answer
    until(lambda: post(url).status_code == 200)  # eventually: this request has no more time than the one before


@settings(suppress_health_check=list(HealthCheck), max_examples=40)
@given(data=st.binary(min_size=1, max_size=300) | st.binary(max_size=50).map(lambda end: HEAD.encode() + end))
def test_the_gateway_survives_any_input(steady: str, data: bytes) -> None:
    with closing(raw(steady)) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        rest(connection)
    # Eventually: on a busy machine, half a second may be too short.
    until(lambda: httpx.get(f"{steady}/healthz", trust_env=False).status_code == 200)


@pytest.fixture
def steady(memory: None) -> Iterator[str]:
    with serving(patient(head_seconds=0.5, body_seconds=0.5)) as url:
        yield url


def test_the_gateway_counts_its_responses(client: httpx.Client) -> None:
    client.post(PATH, json=LOG)
    client.post(PATH, content=b"{")
    client.get("/a/path/that/anybody/may/invent")
    answer = client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.text.splitlines()
    assert "athina_trace_logs_made_total 1" in lines
    assert 'athina_trace_gateway_answers_total{endpoint="/api",status="200"} 1' in lines
    assert 'athina_trace_gateway_answers_total{endpoint="/api",status="400"} 1' in lines
    assert 'athina_trace_gateway_answers_total{endpoint="other",status="404"} 1' in lines
    assert 'athina_trace_gateway_seconds_count{endpoint="/api"} 2' in lines
    assert "athina_trace_gateway_connections 1" in lines


# ---- logs that cannot be stored


def test_a_full_outbox_answers_429_with_retry_after(serve: Serve) -> None:
    athina_trace.configure(max_outbox_bytes=65_536)
    url = serve()
    answers = [post(url, json.dumps({**LOG, "context": "x" * 20_000}).encode()) for _ in range(12)]
    statuses = [answer.status_code for answer in answers]
    assert statuses[0] == 200
    full = answers[-1]
    assert full.status_code == 429
    assert int(full.headers["retry-after"]) > 0
    assert "max_outbox_bytes" in full.json()["details"]["message"]
    assert httpx.get(f"{url}/readyz", trust_env=False).status_code == 503
    # The client keeps it: nothing is lost, and nothing counts as dropped.
    assert athina_trace.status().dropped == 0
    assert athina_trace.status().made == statuses.count(200)


def test_if_the_disk_cannot_be_written_to_no_log_is_kept_in_memory(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "no-folder"
    folder.write_text("")
    athina_trace.configure(outbox=str(folder / "outbox.db"))
    url = serve()
    answer = post(url)
    assert answer.status_code == 503
    assert str(folder) in answer.json()["details"]["message"]
    assert httpx.get(f"{url}/readyz", trust_env=False).status_code == 503
    folder.unlink()
    assert post(url).status_code == 200
    assert athina_trace.status().made == 1


def test_probes_do_not_delay_readiness_after_a_failure(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "RETRY_SECONDS", 0.2)
    (tmp_path / "no-folder").write_text("")
    athina_trace.configure(outbox=str(tmp_path / "no-folder" / "outbox.db"))
    url = serve()
    assert post(url).status_code == 503
    until(lambda: httpx.get(f"{url}/readyz", trust_env=False).status_code == 200)


def test_without_a_disk_a_response_waits_for_the_delivery(
    serve: Serve, local_athina: Any, arrived: Callable[[], list[dict[str, Any]]]
) -> None:
    athina_trace.configure(
        api_key="k", base_url=local_athina.url, outbox=":memory:", flush_each_call=True, flush_timeout=60
    )
    url = serve()
    assert post(url).status_code == 200
    assert len(local_athina.logs()) == 1
    athina_trace.configure(
        api_key="k", base_url="http://127.0.0.1:9", outbox=":memory:", flush_each_call=True, flush_timeout=0.2
    )
    assert post(url).status_code == 503


def test_if_tracing_is_disabled_logs_are_refused(serve: Serve) -> None:
    athina_trace.configure(enabled=False)
    url = serve()
    assert post(url).status_code == 503
    assert httpx.get(f"{url}/readyz", trust_env=False).status_code == 503
