"""The command line where only the required packages are installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.athina_server import AthinaServer
from tests.viewer.outboxes import log, put, settle

EXTRAS = ("jinja2", "markdown_it", "markupsafe", "pygments", "rich", "starlette", "uvicorn")
BASE_ONLY = (
    f"import sys\nfor name in {EXTRAS!r}: sys.modules[name] = None\n"
    "from athina_trace.cli.main import main\nsys.exit(main(sys.argv[1:]))"
)
"""An interpreter in which importing an extra package fails as it does where it is not installed."""


def on_base(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", BASE_ONLY, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


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
def test_what_a_server_room_needs_runs_on_the_base_install(
    environment: dict[str, str], tmp_path: Path, arguments: tuple[str, ...], code: int, expected: str
) -> None:
    path = tmp_path / "outbox.db"
    put(path, log(), refused := log())
    settle(path, refused=[refused.reference])
    done = on_base(environment | {"ATHINA_OUTBOX": str(path)}, *arguments)
    assert (done.returncode, done.stderr) == (code, "")
    assert expected in done.stdout


def test_flush_runs_on_the_base_install(environment: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    put(path, log())
    with AthinaServer() as athina:
        settings = {"ATHINA_OUTBOX": str(path), "ATHINA_API_KEY": "k", "ATHINA_BASE_URL": athina.url}
        done = on_base(environment | settings, "flush")
        assert (done.returncode, done.stderr) == (0, "")
        assert len(athina.accepted) == 1


@pytest.mark.parametrize("command", ["ui", "serve", "demo"])
def test_what_serves_pages_names_what_to_install(environment: dict[str, str], command: str) -> None:
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'uvicorn' else find(name, *a)\n"
        f"from athina_trace.cli.main import main; sys.exit(main(['{command}']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 2
    assert f"the command {command} needs uvicorn" in done.stderr
    assert "pip install 'athina-trace[ui]'" in done.stderr
