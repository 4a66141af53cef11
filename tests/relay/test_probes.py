"""A worker's answers to an orchestrator and to Prometheus: true numbers, no secrets; bad requests do not stop it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import pytest

from athina_trace._delivery.metrics import CONTENT_TYPE
from tests.delivery.test_metrics import values
from tests.relay.test_working import publish
from tests.support.athina_server import AthinaServer, answer, busy
from tests.support.nats_servers import NatsServers
from tests.support.waiting import until


def command(nats: NatsServers, athina: AthinaServer, *arguments: str, key: str = "key") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "athina_trace", "relay", *arguments],
        env={
            **os.environ,
            "ATHINA_RELAY": nats.url,
            "ATHINA_RELAY_PREFIX": nats.prefix,
            "ATHINA_API_KEY": key,
            "ATHINA_BASE_URL": athina.url,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def worker(nats: NatsServers, athina: AthinaServer, key: str = "key") -> Iterator[httpx.Client]:
    process = command(nats, athina, "--metrics-port", "0", key=key)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"metrics at (http://127\.0\.0\.1:\d+)/metrics", line)
        assert found, line
        with httpx.Client(base_url=found[1], trust_env=False, timeout=100) as client:
            yield client
    finally:
        process.kill()
        process.communicate()


def metrics(client: httpx.Client) -> dict[str, float]:
    response = client.get("/metrics")
    assert (response.status_code, response.headers["content-type"]) == (200, CONTENT_TYPE)
    return values(response.text)


def whole_metrics(client: httpx.Client) -> dict[str, float]:
    """Return metrics that include the relay's answer, for which a busy machine is sometimes too slow."""
    while "athina_trace_relay_waiting" not in (found := metrics(client)):
        time.sleep(0.05)
    return found


def test_the_metrics_count_what_happened(nats: NatsServers, athina: AthinaServer) -> None:
    nats.set_up(partitions=4)
    athina.when(lambda request: request.json["response"] == "bad", answer(400))
    athina.script(busy(0))
    publish(nats, ("s", "one"), ("s", "bad"), ("t", "two"))
    with worker(nats, athina) as client:
        until(lambda: metrics(client)["athina_trace_relay_delivered_total"] == 2)
        until(lambda: whole_metrics(client)["athina_trace_relay_waiting"] == 0)
        found = whole_metrics(client)
        assert found["athina_trace_relay_refused_total"] == 1
        assert found["athina_trace_relay_failed_total"] == 1
        assert found["athina_trace_request_seconds_count"] == len(athina.requests) == 4
        assert found["athina_trace_relay_oldest_waiting_seconds"] == 0
        assert found["athina_trace_relay_connected"] == 1
        assert found["athina_trace_deliveries_paused"] == found["athina_trace_requests_in_flight"] == 0
        assert (client.get("/readyz").text, client.get("/healthz").text) == ("ready\n", "ok\n")
        nats.signal(0, signal.SIGSTOP)
        try:
            assert client.get("/healthz").status_code == 200
            # Requests that were sent before the stop may still arrive.
            until(lambda: metrics(client)["athina_trace_relay_connected"] == 0)
            took = []
            for _ in range(3):
                began = time.monotonic()
                found = metrics(client)
                took.append(time.monotonic() - began)
            assert min(took) < 4.5  # a request to a NATS server may take five seconds
            assert "athina_trace_relay_waiting" not in found
            assert found["athina_trace_relay_delivered_total"] == 2
        finally:
            nats.signal(0, signal.SIGCONT)


def test_a_worker_with_a_wrong_key_is_alive_but_not_ready(nats: NatsServers, athina: AthinaServer) -> None:
    nats.set_up(partitions=2)
    athina.when(lambda request: request.headers["athina-api-key"] == "secret-but-wrong", answer(401))
    publish(nats, ("s", "one"))
    with worker(nats, athina, key="secret-but-wrong") as client:
        until(lambda: client.get("/readyz").status_code == 503 and "API key" in client.get("/readyz").text)
        assert client.get("/healthz").status_code == 200
        time.sleep(1.1)
        found = whole_metrics(client)
        assert found["athina_trace_deliveries_paused"] == 1
        assert found["athina_trace_relay_waiting"] == 1
        assert found["athina_trace_relay_oldest_waiting_seconds"] > 1
        for path in ("/readyz", "/metrics"):
            assert "secret" not in client.get(path).text


def test_a_worker_without_its_stream_is_alive_but_not_ready(nats: NatsServers, athina: AthinaServer) -> None:
    with worker(nats, athina) as client:
        assert client.get("/healthz").status_code == 200
        until(lambda: client.get("/readyz").status_code == 503)
        nats.set_up(partitions=2)
        until(lambda: client.get("/readyz").status_code == 200)


REQUESTS = (
    (b"POST /metrics HTTP/1.1\r\ncontent-length: 0\r\n\r\n", b"405"),
    (b"GET / HTTP/1.1\r\n\r\n", b"404"),
    (b"GET /healthz?verbose=1 HTTP/1.1\r\n\r\n", b"200"),
    (b"GET\r\n\r\n", b"405"),
    (b"\xff\xfe \xff\r\n\r\n", b"405"),
    (b"GET /" + b"x" * 100_000, b""),
)


def test_any_request_is_answered_or_disconnected(nats: NatsServers, athina: AthinaServer) -> None:
    nats.set_up(partitions=1)
    with worker(nats, athina) as client:
        for sent, status in REQUESTS:
            with socket.create_connection(("127.0.0.1", client.base_url.port or 0), 60) as raw:
                raw.sendall(sent)
                try:
                    received = raw.recv(100)
                except ConnectionResetError:
                    received = b""
            assert received[9:12] == status, sent
            assert client.get("/healthz").status_code == 200, sent


def test_silent_connections_are_bounded_and_closed(nats: NatsServers, athina: AthinaServer) -> None:
    nats.set_up(partitions=1)
    with worker(nats, athina) as client:
        port = client.base_url.port or 0
        mute = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(64)]
        with pytest.raises(httpx.HTTPError):
            client.get("/healthz")
        for each in mute:
            with each, suppress(ConnectionResetError):
                assert each.recv(1) == b""
        assert client.get("/healthz").status_code == 200


def test_a_port_in_use_is_reported(nats: NatsServers, athina: AthinaServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        out, _ = command(nats, athina, "--metrics-port", port).communicate(timeout=100)
    assert f"cannot listen on 127.0.0.1:{port}" in out
    assert "Traceback" not in out
