"""Beside the real packages of other tools that instrument OpenAI's client, before or after us: `make test-others`.

Each answer is logged once and completely, as without them, and removing our instrumentation leaves theirs.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import metadata
from typing import Any

import pytest

from tests.support.processes import run

from .beside import TOOLS


def is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


INSTALLED = [tool for tool, (distribution, _) in TOOLS.items() if is_installed(distribution)]
# Several tools depend on OpenTelemetry, and programs on structlog or Sentry: these alone prove nothing.
pytestmark = pytest.mark.skipif(len(INSTALLED) < len(TOOLS), reason="make test-others installs the other tools")


# These tools also parse an unparsed response before the program reads its body in pieces: it is logged once, but
# as incomplete.
READ_ELSEWHERE = {
    (tool, script)
    for tool in ("openinference", "openllmetry", "langsmith", "braintrust", "datadog")
    for script in ("chat_read_in_pieces", "response_read_in_pieces", "run_read_in_pieces", "read_in_pieces_async")
}


@lru_cache
def played(tool: str, order: str) -> dict[str, Any]:
    out, _ = run("import runpy; runpy.run_module('tests.openai.beside', run_name='__main__')", tool, order, timeout=300)
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("order", ["theirs-first", "ours-first"])
@pytest.mark.parametrize("tool", TOOLS)
def test_each_answer_is_logged_once_and_completely_beside_another_tool(tool: str, order: str) -> None:
    alone, theirs, both = played("none", "ours"), played(tool, "theirs-first")["without ours"], played(tool, order)
    for name, script in both["scripts"].items():
        # Differences that their wrapper alone causes are theirs.
        assert script["ended by"] == theirs[name]["ended by"], name
        expected = alone["scripts"][name]
        if (tool, name) in READ_ELSEWHERE:
            assert len(script["logs"]) == len(expected["logs"]), name
        elif script["ended by"] == expected["ended by"]:
            assert script["logs"] == expected["logs"], name
    assert both["theirs changed"] == []
    assert both["logged when removed"] == {}
