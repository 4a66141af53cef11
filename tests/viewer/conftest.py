from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, sync_playwright

from athina_trace._serving.server import Server, listen
from athina_trace.viewer import sample
from athina_trace.viewer.app import create_app
from athina_trace.viewer.indexed_outbox import IndexedOutbox
from tests.viewer.chromium import CHROMIUM, FLAGS


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pages wait for the newest logs however busy the machine is."""
    for name in ("_PAGE_SECONDS", "_FIRST_PAGE_SECONDS"):
        monkeypatch.setattr(f"athina_trace.viewer.indexed_outbox.{name}", 60.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture(scope="module")
def sample_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = str(tmp_path_factory.mktemp("sample") / "demo.db")
    sample.fill(path)
    with Server(create_app(IndexedOutbox(path)), listen("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def client(sample_server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sample_server.url, trust_env=False) as made:
        yield made


@pytest.fixture
def shown(path: Path) -> Iterator[httpx.Client]:
    """Serve the outbox at `path` in a viewer; yield a client of it."""
    with (
        Server(create_app(IndexedOutbox(str(path))), listen("127.0.0.1", 0)) as server,
        httpx.Client(base_url=server.url, trust_env=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()
