"""Fixtures of every test: an own environment, a fresh runtime, and our own errors raised instead of swallowed."""

from __future__ import annotations

import gc
import inspect
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import certifi
import httpx
import pytest
from hypothesis import HealthCheck, given, settings, strategies

import athina_trace
from athina_trace import _guard, _runtime
from athina_trace._capture import answer_logs
from tests.support.athina_server import AthinaServer

# A busy machine must not fail tests: neither by Hypothesis's deadline, nor by httpx's default timeout of five seconds.
settings.register_profile("unhurried", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
_patience: httpx.Timeout = inspect.signature(httpx.Client).parameters["timeout"].default
_patience.connect = _patience.read = _patience.write = _patience.pool = 60.0

# A shell has its background jobs ignore Ctrl-C, and so would the processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

KEY = "marker-key-5f1c"


def pytest_collection_finish() -> None:
    """Take what was imported and collected out of the garbage collector's sight: it would look at it many times."""
    # Hypothesis looks for who holds its generator of random numbers, once: it must find what is about to be hidden.
    given(strategies.none())(lambda _: None)()
    gc.collect()
    gc.freeze()


_WAITING = ("a_leader", "machines_are_killed", "stay_claimed", "by_a_killed_worker", "delivery_page", "endless_answer")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with tests that mostly wait: at the end, the other workers would have nothing left to do meanwhile."""
    items.sort(key=lambda item: not any(part in item.name for part in _WAITING))


@pytest.fixture(scope="session", autouse=True)
def _few_authorities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let each HTTP client, of a child process too, read one certificate: to read all takes longer than many tests."""
    first, end, _ = Path(certifi.where()).read_text(encoding="utf-8").partition("-----END CERTIFICATE-----\n")
    path = tmp_path_factory.mktemp("authorities") / "one.pem"
    path.write_text(first + end, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(certifi, "where", lambda: str(path))
        patched.setenv("SSL_CERT_FILE", str(path))
        yield


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in [name for name in os.environ if name.startswith("ATHINA_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(_guard, "strict", True)
    _guard.reset()
    answer_logs.reset()
    yield
    runtime = _runtime._runtime
    if runtime is not None:
        runtime.delivery.close(0)
        runtime.delivery.worker.join(10)  # what it does or says at its end belongs to no other test
    _runtime._runtime, _runtime._may_trace = None, True
    _runtime._retry_at, _runtime._trouble, _runtime._dropped = float("-inf"), None, 0
    _runtime._afterwards.clear()


@pytest.fixture
def athina() -> Iterator[AthinaServer]:
    """A local Athina that accepts everything, unless told otherwise."""
    with AthinaServer() as server:
        yield server


@pytest.fixture
def delivered(athina: AthinaServer) -> Callable[[], list[dict[str, Any]]]:
    """Configure delivery to the local Athina; calling the fixture returns the logs that arrived, in order."""
    athina_trace.configure(api_key=KEY, base_url=athina.url)

    def logs() -> list[dict[str, Any]]:
        report = athina_trace.flush(60)
        assert report.waiting == 0, report
        return [request.json for request in athina.accepted]

    return logs


@pytest.fixture
def local() -> Callable[[], list[dict[str, Any]]]:
    """Keep logs in memory and send nothing; calling the fixture returns them, in order."""
    athina_trace.configure(outbox=":memory:")
    return lambda: athina_trace.recent_logs(10_000)
