"""Deliveries over https: trusted certificates, and children that are forked while OpenSSL is busy."""

from __future__ import annotations

import math
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

import athina_trace
from athina_trace._delivery import trust
from athina_trace._delivery.client import Client
from athina_trace._delivery.response import Outcome
from tests.support.athina_server import AthinaServer
from tests.support.processes import run


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def https(authority: trustme.CA) -> Iterator[AthinaServer]:
    """A local Athina whose certificate `authority` signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with AthinaServer(tls=context) as server:
        yield server


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path) -> str:
    """A file with the certificate of `authority`."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


def test_a_log_is_delivered_over_https(https: AthinaServer, trusted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", trusted)
    athina_trace.configure(api_key="key", base_url=https.url)
    athina_trace.log_inference(user_query="safe?", response="safe")
    assert athina_trace.flush(60)
    assert [request.json["response"] for request in https.accepted] == ["safe"]


def test_nothing_is_sent_to_a_server_that_is_not_trusted(https: AthinaServer) -> None:
    api = Client(base_url=https.url, key="key")
    outcome = api.deliver("log", "", b"{}")
    assert outcome.status is None
    assert "CERTIFICATE_VERIFY_FAILED" in outcome.message
    assert not outcome.possible_duplicate
    assert not https.requests


@pytest.mark.parametrize(
    ("base", "proxy"),
    [("https://{}", None), ("http://far", "https://{}"), ("https://far", "https://{}"), ("https://far", "http://{}")],
)
def test_a_handshake_that_does_not_end_can_be_aborted(
    base: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket times out only if no byte comes for long. The last case is a handshake through a tunnel."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        for variable in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
            monkeypatch.delenv(variable, raising=False)
            monkeypatch.delenv(variable.upper(), raising=False)
            if proxy and variable.startswith("http"):
                monkeypatch.setenv(variable, proxy.format(address))
        api = Client(base_url=base.format(address), key="key", connect=60.0)
        outcomes: list[Outcome] = []
        sender = threading.Thread(target=lambda: outcomes.append(api.deliver("log", "", b"{}")))
        sender.start()
        with listener.accept()[0] as accepted:
            if accepted.recv(1) == b"C":  # ONNECT: else it is the first byte of a handshake
                while not accepted.recv(4096).endswith(b"\r\n\r\n"):
                    pass
                accepted.send(b"HTTP/1.1 200 x\r\n\r\n")
                assert accepted.recv(1)
            accepted.send(b"\x16\x03\x03\x40\x00")  # the head of a long answer
            for _ in range(500):
                with suppress(OSError):
                    accepted.send(b"\x02")
                api.expire(now=math.inf)
                sender.join(0.02)
                if outcomes:
                    break
            aborted = list(outcomes)  # before anything is closed here
        sender.join(30)
    assert [(outcome.status, outcome.possible_duplicate) for outcome in aborted] == [(None, False)]
    api.close()


@pytest.fixture
def _fresh_trust(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Unset the variables that name certificates, and clear the cached context."""
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(variable, raising=False)
    trust._context.cache_clear()
    yield
    trust._context.cache_clear()


def _system_has(file: str | None, folder: str | None) -> Any:
    paths: Any = ssl.DefaultVerifyPaths
    return paths(file, folder, "SSL_CERT_FILE", "", "SSL_CERT_DIR", "")


@pytest.mark.usefixtures("_fresh_trust")
def test_the_systems_certificates_are_trusted(trusted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: _system_has(trusted, None))
    assert not trust.needs_httpx()
    expected = ssl.create_default_context()
    assert trust.context().get_ca_certs() == expected.get_ca_certs()
    assert trust.context().verify_mode is ssl.CERT_REQUIRED


@pytest.mark.usefixtures("_fresh_trust")
@pytest.mark.parametrize("has_folder", [False, True])
def test_if_the_system_has_no_certificates_those_of_httpx_are_trusted(
    has_folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        ssl, "get_default_verify_paths", lambda: _system_has(None, str(tmp_path) if has_folder else None)
    )
    assert trust.needs_httpx()
    assert trust.context().get_ca_certs() == httpx.create_ssl_context(trust_env=False).get_ca_certs()
    assert trust.context().check_hostname
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert not trust.needs_httpx()


@pytest.fixture
def tunnel(authority: trustme.CA, request: pytest.FixtureRequest) -> Iterator[str]:
    """A proxy that opens one tunnel to any host; reached over TLS if the parameter is "https"."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def secured(plain: socket.socket) -> socket.socket:
        return context.wrap_socket(plain, server_side=True) if request.param == "https" else plain

    def serve() -> None:
        with suppress(OSError), listener.accept()[0] as plain, secured(plain) as client:
            host, port = client.recv(65_536).split()[1].decode().split(":")
            with socket.create_connection((host, int(port))) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=copy, args=(server, client), daemon=True)
                back.start()
                copy(client, server)
                back.join(60)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"{request.param}://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(60)


@pytest.mark.parametrize("tunnel", ["http", "https"], indirect=True)
def test_a_proxy_sees_nothing_of_what_is_sent_through_it(
    https: AthinaServer, trusted: str, tunnel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", trusted)
    monkeypatch.setenv("https_proxy", tunnel)
    monkeypatch.delenv("no_proxy", raising=False)
    api = Client(base_url=https.url, key="key")
    assert [api.deliver("log", "", b"{}").status for _ in range(2)] == [200, 200]
    assert [request.path for request in https.accepted] == ["/api/v1/log/inference"] * 2
    assert https.connections == 1
    api.close()


def test_children_forked_while_connections_are_made_deliver(https: AthinaServer, trusted: str, tmp_path: Path) -> None:
    """One of our own locks plays OpenSSL's: a child in which it is held can never connect."""
    script = """
    import athina_trace, os, ssl, sys, threading, time
    from athina_trace._delivery import tls_forks

    tls_forks._LONGEST_SECONDS = 60.0  # a busy machine may wake a thread only after the tenth of a second that it is
    openssl = threading.Lock()
    at_work = threading.Event()
    make, shake = ssl.SSLContext.__new__, ssl.SSLSocket.do_handshake

    def slowly(function):
        def slow(*args, **more):
            with openssl:
                at_work.set()
                time.sleep(0.1)
            return function(*args, **more)
        return slow

    ssl.SSLContext.__new__ = slowly(make)
    ssl.SSLSocket.do_handshake = slowly(shake)

    statuses = []
    for number in range(4):
        at_work.clear()
        athina_trace.configure(base_url=f"{os.environ['ATHINA_BASE_URL']}/{number}")  # to be connected to anew
        athina_trace.log_inference(response=f"parent{number}")
        assert at_work.wait(60)
        child = os.fork()
        if not child:
            athina_trace.log_inference(response=f"child{number}")
            os._exit(0 if athina_trace.flush(60) else 1)
        statuses.append(os.waitpid(child, 0)[1])
    assert athina_trace.flush(60)
    assert statuses == [0] * 4, statuses
    """
    outbox = str(tmp_path / "outbox.db")
    run(script, ATHINA_API_KEY="key", ATHINA_BASE_URL=https.url, ATHINA_OUTBOX=outbox, SSL_CERT_FILE=trusted)
    responses = sorted(request.json["response"] for request in https.accepted)
    assert responses == sorted(f"{who}{number}" for who in ("child", "parent") for number in range(4))
