"""Frameworks as they are today, against a server with a script; run by `make test-integrations`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from athina_trace.testing import captured_logs
from tests.openai.server import Server
from tests.support.changed import as_changed

# Of prices it would otherwise ask the network; read when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

_NEEDS = {
    "test_langchain.py": "langchain_openai",
    "test_openai_agents.py": "agents",
    "test_litellm.py": "litellm",
}
# The suite itself runs without these packages.
collect_ignore = [name for name, package in _NEEDS.items() if find_spec(package) is None]

Logs = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        yield made


@pytest.fixture
def logs() -> Iterator[Logs]:
    """Calling it gives the logs so far, each with the changes that followed it."""
    with captured_logs() as captured:
        yield lambda: as_changed(captured)
