import io
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from athina_trace.cli.main import main
from athina_trace.local_athina.plugin import local_athina
from athina_trace.viewer import sample
from tests.support.forked import ForkedCommands

__all__ = ["local_athina"]

Run = Callable[..., "subprocess.CompletedProcess[str]"]

PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("ATHINA")} | {
    "ATHINA_BASE_URL": "http://127.0.0.1:9",
    "PYTHONIOENCODING": "utf-8",
    "NO_PROXY": "*",
}
"""An environment without this machine's settings, and an address where nobody listens: nothing leaves the machine."""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return PLAIN | {"XDG_STATE_HOME": str(tmp_path / "state")}


@pytest.fixture(scope="module")
def forked() -> Iterator[ForkedCommands]:
    with ForkedCommands(PLAIN) as commands:
        yield commands


@pytest.fixture
def run(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line in this process."""
    for name in [name for name in os.environ if name.startswith("ATHINA")]:
        monkeypatch.delenv(name)

    def called(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        for name, value in (environment | settings).items():
            monkeypatch.setenv(name, value)
        out, errors = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(errors):
            try:
                code = main(arguments)
            except SystemExit as ended:  # raised by argparse
                code = int(ended.code or 0)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), errors.getvalue())

    return called


@pytest.fixture
def run_apart(forked: ForkedCommands, environment: dict[str, str]) -> Run:
    """Run the command line in its own process."""
    return lambda *arguments, **settings: forked.run(*arguments, environment=environment | settings)


@pytest.fixture(scope="session")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Make the sample outbox, for read-only commands."""
    path = str(tmp_path_factory.mktemp("sampled") / "demo.db")
    sample.fill(path)
    return path


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
