"""The command line with only the required packages installed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import PLAIN
from tests.support.athina_server import AthinaServer
from tests.support.forked import ForkedCommands
from tests.viewer.outboxes import log, put, settle

EXTRAS = ("jinja2", "markdown_it", "markupsafe", "pygments", "rich", "starlette", "uvicorn")


@pytest.fixture(scope="module")
def base() -> Iterator[ForkedCommands]:
    """Start an interpreter in which importing an optional package fails as if it were not installed."""
    with ForkedCommands(PLAIN, f"import sys\nfor name in {EXTRAS!r}: sys.modules[name] = None") as commands:
        yield commands


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("--version",), 0, "athina-trace 0."),
        (("--help",), 0, "exit codes"),
        (("status",), 0, "waiting"),
        (("status", "--json"), 0, '"waiting"'),
        (("logs",), 0, "Where is it?"),
        (("logs", "--json"), 0, "In Leipzig."),
        (("sessions",), 0, "s1"),
        (("show", "1"), 0, "In Leipzig."),
        (("export",), 0, "In Leipzig."),
        (("export", "--format", "csv"), 0, "In Leipzig."),
        (("retry", "--all"), 0, "1 waiting again"),
        (("purge", "--state", "refused", "--yes"), 0, "1 deleted"),
        (("check",), 1, "!!  key"),
        (("import", os.devnull), 0, "0 new logs"),
        (("completion", "bash"), 0, "complete -F"),
    ],
)
def test_server_commands_run_on_the_base_install(
    base: ForkedCommands,
    environment: dict[str, str],
    tmp_path: Path,
    arguments: tuple[str, ...],
    code: int,
    expected: str,
) -> None:
    path = tmp_path / "outbox.db"
    put(path, log(), refused := log())
    settle(path, refused=[refused.reference])
    done = base.run(*arguments, environment=environment | {"ATHINA_OUTBOX": str(path)})
    assert (done.returncode, done.stderr) == (code, "")
    assert expected in done.stdout


def test_flush_runs_on_the_base_install(base: ForkedCommands, environment: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    put(path, log())
    with AthinaServer() as athina:
        settings = {"ATHINA_OUTBOX": str(path), "ATHINA_API_KEY": "k", "ATHINA_BASE_URL": athina.url}
        done = base.run("flush", environment=environment | settings)
        assert (done.returncode, done.stderr) == (0, "")
        assert len(athina.accepted) == 1


@pytest.fixture(scope="module")
def without_uvicorn() -> Iterator[ForkedCommands]:
    code = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'uvicorn' else find(name, *a)"
    )
    with ForkedCommands(PLAIN, code) as commands:
        yield commands


@pytest.mark.parametrize("command", ["ui", "serve", "demo"])
def test_commands_that_serve_pages_name_the_missing_extra(
    without_uvicorn: ForkedCommands, environment: dict[str, str], command: str
) -> None:
    done = without_uvicorn.run(command, environment=environment)
    assert done.returncode == 2
    assert f"the command {command} needs uvicorn" in done.stderr
    assert "pip install 'athina-trace[ui]'" in done.stderr
