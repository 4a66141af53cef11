"""One NATS server for all tests of a module; each test has its own streams, under its own prefix."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.support.nats_servers import NatsServers

_numbers = count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServers]:
    folder: Path = tmp_path_factory.mktemp("nats")
    with NatsServers(folder) as servers:
        yield servers


@pytest.fixture
def nats(server: NatsServers) -> NatsServers:
    """Return the server, with a prefix that no other test has; nothing is set up under it."""
    server.prefix = f"test{next(_numbers)}"
    return server
