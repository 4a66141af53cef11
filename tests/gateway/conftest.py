import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import httpx
import pytest

import athina_trace
from athina_trace._serving.server import listen, url_of
from athina_trace.gateway.app import create_gateway
from athina_trace.gateway.connections import Connections
from athina_trace.gateway.server import GatewayServer
from athina_trace.local_athina import LocalAthina
from athina_trace.local_athina.plugin import local_athina

__all__ = ["local_athina"]

KEY = "key-of-athina"
CLIENT = {"athina-api-key": "any"}
LOG = {"language_model_id": "m", "prompt": "p", "response": "r", "user_query": "q", "session_id": "s"}
PATH = "/api/v1/log/inference"

Serve = Callable[..., str]
patient = partial(Connections, turn_seconds=60.0)
"""Limits for a busy machine, on which a gateway answers late rather than not at all."""


@contextmanager
def serving(
    limits: Connections | None = None, *, before: Callable[[str], None] = lambda _url: None, **options: Any
) -> Iterator[str]:
    """Run a gateway with this process's settings on a free port; yield its address.

    `before` may connect before the gateway accepts.
    """
    limits = limits or patient()
    listener = listen("127.0.0.1", 0)
    url = url_of(listener).rstrip("/")
    server = GatewayServer(create_gateway(limits=limits, **options), limits)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    before(url)
    thread.start()
    try:
        yield url
    finally:
        server.should_exit = server.force_exit = True
        thread.join(60)
        listener.close()
        assert not thread.is_alive()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a gateway with options of `serving`; return its address."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(serving(**options))


@pytest.fixture
def gateway(local_athina: LocalAthina) -> Iterator[httpx.Client]:
    """Make a client of a gateway in front of `local_athina`."""
    athina_trace.configure(api_key=KEY, base_url=local_athina.url)
    with serving() as url, httpx.Client(base_url=url, headers=CLIENT, trust_env=False) as client:
        yield client


@pytest.fixture
def arrived(local_athina: LocalAthina) -> Callable[[], list[dict[str, Any]]]:
    """Return the logs that reached Athina through the gateway."""

    def logs() -> list[dict[str, Any]]:
        report = athina_trace.flush(60)
        assert report.waiting == 0, report
        return local_athina.logs()

    return logs
