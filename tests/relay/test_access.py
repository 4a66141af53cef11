"""Access to a relay: TLS, client certificates, passwords, keys, and the documented permissions."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nkeys
import pytest
import trustme

import athina_trace
from athina_trace.relay.connection import Loop
from tests.relay.test_working import names_of
from tests.support.athina_server import AthinaServer, answer
from tests.support.nats_servers import NatsServers, RunningWorker
from tests.support.waiting import until

PAGE = (Path(__file__).parents[2] / "athina_trace" / "relay" / "README.md").read_text()


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """Make a certificate authority that clients and servers trust."""
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return made


@pytest.fixture
def secure(authority: trustme.CA, tmp_path: Path) -> Iterator[Callable[[str], NatsServers]]:
    """Start a server with TLS; `more` is added to the `tls` block of its configuration."""
    started: list[NatsServers] = []
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")

    def start(more: str) -> NatsServers:
        files = f'cert_file: "{tmp_path}/server.pem", key_file: "{tmp_path}/server.pem", ca_file: "{tmp_path}/ca.pem"'
        servers = NatsServers(tmp_path / "nats", config=f"tls {{ {files}{more} }}", scheme="tls")
        servers.__enter__()
        started.append(servers)
        return servers

    yield start
    for servers in started:
        servers.__exit__()


def logged(address: str, tmp_path: Path, *, seconds: float = 60.0, **settings: str) -> athina_trace.FlushReport:
    athina_trace.configure(relay=address, outbox=str(tmp_path / f"{len(settings)}.db"), **settings)
    athina_trace.log_inference(response="secret")
    return athina_trace.flush(seconds)


def test_logs_travel_encrypted(secure: Callable[[str], NatsServers], tmp_path: Path, athina: AthinaServer) -> None:
    servers = secure("")
    servers.set_up(partitions=1)
    assert logged(servers.url, tmp_path)
    with RunningWorker(servers, athina.url):
        athina.wait_for(1)


def test_an_untrusted_server_gets_nothing(
    secure: Callable[[str], NatsServers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = secure("")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "other.pem"))
    logged(servers.url, tmp_path, seconds=0)
    until(lambda: "CERTIFICATE_VERIFY_FAILED" in (athina_trace.status().last_error or ""))
    assert athina_trace.status().waiting == 1


def test_a_client_presents_its_certificate(
    secure: Callable[[str], NatsServers], authority: trustme.CA, tmp_path: Path
) -> None:
    servers = secure(", verify: true")
    own = tmp_path / "client.pem"
    authority.issue_cert("program").private_key_and_cert_chain_pem.write_to_path(own)
    servers.certificate = str(own)
    servers.set_up(partitions=1)
    logged(servers.url, tmp_path, seconds=0)
    until(lambda: athina_trace.status().last_error)
    assert athina_trace.status().waiting == 1
    assert logged(servers.url, tmp_path, relay_certificate=str(own))


def rights(of: str) -> list[str]:
    """Return the documented subjects, for programs or for workers."""
    (found,) = re.findall(rf"{of} (.+?)\.(?: |$)", " ".join(PAGE.partition("**Permissions**:")[2].split()))[:1]
    return re.findall(r"`([^`]+)`", found)


def test_programs_and_workers_need_only_the_documented_permissions(tmp_path: Path, athina: AthinaServer) -> None:
    program = [each for each in rights("programs publish to") if not each.startswith("_INBOX")]
    worker = [*program, *rights("Workers also need")]
    assert program == ["athina.*", "$JS.API.STREAM.INFO.athina"]
    subscribe = 'subscribe: ["_INBOX.>", "athina.workers"]'
    users = "\n".join(
        f"{{ user: {name}, password: p, permissions: {{ publish: [{', '.join(map(repr, subjects))}], {subscribe} }} }}"
        for name, subjects in (("program", program), ("worker", worker))
    ).replace("'", '"')
    config = f"authorization {{ users: [ {{ user: admin, password: p }}, {users} ] }}"
    with NatsServers(tmp_path / "nats", config=config, url_user="admin:p@") as servers:
        servers.set_up(partitions=2)
        assert logged(servers.url.replace("admin", "program"), tmp_path)
        athina.script(answer(400))
        with RunningWorker(servers, athina.url, relay=servers.url.replace("admin", "worker")) as running:
            until(lambda: running.worker.counters.refused == 1)
        assert len(servers.messages(servers.address.names, "athina-refused")) == 1
    assert names_of(athina) == []


def test_a_missing_permission_is_reported_as_a_credentials_problem(tmp_path: Path) -> None:
    allowed = 'publish: ["$JS.API.>"], subscribe: ["_INBOX.>"]'
    config = f"authorization {{ users: [ {{ user: u, password: p, permissions: {{ {allowed} }} }} ] }}"
    with NatsServers(tmp_path / "nats", config=config, url_user="u:p@") as servers:
        servers.set_up(partitions=2)
        report = logged(servers.url, tmp_path)
    assert report.waiting == 1
    assert "permissions violation" in (report.paused or "").lower()


class Identity:
    """A NATS key pair of an operator, an account or a user."""

    def __init__(self, kind: bytes) -> None:
        self.seed = nkeys.encode_seed(os.urandom(32), kind)
        self._keys = nkeys.from_seed(bytearray(self.seed))
        self.public = self._keys.public_key.decode()

    def sign(self, subject: str, claims: dict[str, object]) -> str:
        """Return a JWT for `subject`, as `nsc` makes them."""
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        body = {"jti": "1", "iat": 1, "iss": self.public, "name": "n", "sub": subject, "nats": {**claims, "version": 2}}
        text = ".".join(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (head, body))
        return f"{text}.{urlsafe_b64encode(self._keys.sign(text.encode())).decode().rstrip('=')}"


def test_a_credentials_file_is_used_for_authentication(tmp_path: Path) -> None:
    operator, account, user = map(
        Identity, (nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER)
    )
    system = Identity(nkeys.PREFIX_BYTE_ACCOUNT)
    most = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
    stored = ("mem_storage", "disk_storage", "streams", "consumer", "max_ack_pending")
    trusted = operator.sign(operator.public, {"type": "operator"})
    known = ", ".join(
        f"{each.public}: {operator.sign(each.public, {'type': 'account', 'limits': dict.fromkeys(limits, -1)})}"
        for each, limits in ((system, most), (account, (*most, *stored)))
    )
    config = f"operator: {trusted}\nresolver: MEMORY\nsystem_account: {system.public}\nresolver_preload {{ {known} }}"
    jwt = account.sign(user.public, {"type": "user", "subs": -1, "data": -1, "payload": -1})
    file = tmp_path / "user.creds"
    file.write_text(
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    with NatsServers(tmp_path / "nats", config=config) as servers:
        servers.credentials = str(file)
        servers.set_up(partitions=1)
        assert logged(servers.url, tmp_path).paused is not None
        assert logged(servers.url, tmp_path, relay_credentials=str(file))


def test_connections_are_closed_with_their_event_loop() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept: list[Any] = []

        async def forget() -> None:
            kept.extend(await asyncio.open_connection(*listener.getsockname()))

        Loop().run(forget())
        accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(60)
            assert accepted.recv(1) == b""
    assert kept[1].transport.is_closing()
