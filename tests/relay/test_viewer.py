"""The viewer's delivery page with a relay: it shows the relay's state, and opens whatever the relay does."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from os import environ
from pathlib import Path

import httpx
import pytest

from athina_trace.cli.commands import ui
from tests.relay.test_working import publish
from tests.support.athina_server import AthinaServer, answer
from tests.support.nats_servers import NatsServers, RunningWorker
from tests.support.waiting import until


@contextmanager
def viewer(folder: Path, **variables: str) -> Iterator[httpx.Client]:
    """Run `athina-trace ui` in its own process."""
    command = ["-m", "athina_trace", "ui", "--no-open", "--port", "0", "--outbox", str(folder / "outbox.db")]
    with subprocess.Popen(
        [sys.executable, *command], env={**environ, **variables}, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[1]
            with httpx.Client(base_url=address, trust_env=False, timeout=100) as client:
                yield client
        finally:
            process.kill()


def delivery_page(client: httpx.Client) -> str:
    page = client.get("/delivery")
    assert page.status_code == 200, page.text
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page.text)).split())


def test_the_delivery_page_shows_the_relays_status(nats: NatsServers, athina: AthinaServer, tmp_path: Path) -> None:
    with viewer(tmp_path, ATHINA_RELAY=nats.url, ATHINA_RELAY_PREFIX=nats.prefix) as client:
        assert "run `athina-trace relay --setup`" in delivery_page(client)
        nats.set_up(partitions=2, max_bytes=50_000_000)
        publish(nats, ("s", "one"), ("s", "two"), ("s", "bad"))
        until(lambda: "No worker answers" in delivery_page(client))
        page = delivery_page(client)
        assert "Waiting 3 Oldest" in page
        assert "On disk, of 50.0 MB" in page
        assert "Partitions 2" in page
        athina.when(lambda request: request.json["response"] == "bad", answer(400))
        with RunningWorker(nats, athina.url) as running:
            until(lambda: running.worker.counters.refused == 1)
            until(lambda: f"{running.worker.name} delivers 2 1 0 0" in delivery_page(client))
        assert "athina-trace logs --relay" in delivery_page(client)


def test_the_delivery_page_opens_while_the_relay_is_down_or_hangs(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with viewer(tmp_path, ATHINA_RELAY=f"nats://user:s3cret@{address}") as client:
            began = time.monotonic()
            page = delivery_page(client)
            assert time.monotonic() - began < 15
            assert f"the relay at nats://{address} did not answer in time" in page
            assert "Nothing was refused." in page
            assert "s3cret" not in page
            mute.close()
            until(lambda: "check ATHINA_RELAY" in delivery_page(client) and "in time" not in delivery_page(client))


def test_the_delivery_page_opens_with_invalid_relay_settings(tmp_path: Path) -> None:
    settings = {"ATHINA_RELAY": "tls://127.0.0.1:1", "ATHINA_RELAY_CERTIFICATE": str(tmp_path / "none.pem")}
    with viewer(tmp_path, **settings) as client:
        assert "check ATHINA_RELAY_CERTIFICATE" in delivery_page(client)


def test_the_delivery_page_names_the_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHINA_RELAY", "nats://127.0.0.1:4222")
    monkeypatch.setitem(sys.modules, "nats", None)
    relay_status = ui._relay_status()
    assert relay_status is not None
    assert "pip install 'athina-trace[nats]'" in str(relay_status())


def test_without_a_relay_the_delivery_page_does_not_mention_one(tmp_path: Path) -> None:
    with viewer(tmp_path, ATHINA_RELAY="") as client:
        page = delivery_page(client)
    assert "Nothing was refused." in page
    assert "elay" not in page
