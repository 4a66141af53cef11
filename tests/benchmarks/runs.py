"""Runs: a worker or a statement in its own process, and the sink that it sends to."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

ROOT = Path(__file__).parents[2]
LONGEST = 30.0
"""Seconds after which a worker is ended."""
_ALONE = {"PYDANTIC_DISABLE_PLUGINS": "__all__"}
"""Else everybody who has a pydantic model would load Logfire, which stands in the same environment as its plugin."""
_FOREIGN = ("ATHINA", "LANGFUSE", "LANGSMITH", "LOGFIRE", "OTEL", "PYTHON")


@contextmanager
def sink(port: int = 0) -> Iterator[str]:
    """Run a sink in its own process; yield its base URL."""
    command = [sys.executable, "-m", "tests.benchmarks.sink", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


def ask(url: str, what: str) -> dict[str, Any]:
    with urlopen(f"{url}/bench/{what}", timeout=LONGEST) as answer:  # noqa: S310 - our own sink
        return dict(json.load(answer))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def state() -> Iterator[Path]:
    """Make a folder for the files of one contestant."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def work(module: str, *arguments: object, at: Path, longest: float = LONGEST) -> dict[str, Any]:
    """Run a worker; return what it printed, and how many seconds its exit took after its reported end."""
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", *map(str, arguments)]
    try:
        done = subprocess.run(command, cwd=at, env=_environment(at), capture_output=True, timeout=longest, check=False)
        printed, ended = done.stdout, time.time()
    except subprocess.TimeoutExpired as error:
        printed, ended = error.stdout or b"", time.time()
    lines = [line for line in printed.decode(errors="replace").splitlines() if line.startswith("{")]
    result = dict(json.loads(lines[-1])) if lines else {}
    return {**result, "exit": ended - result["ended"]} if "ended" in result else result


def _environment(at: Path) -> dict[str, str]:
    """Return the environment without any contestant's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return {**kept, **_ALONE, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(at), "HOME": str(at)}


def milliseconds(statement: str) -> float:
    with state() as folder:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True, cwd=ROOT, env=_environment(folder))
        return (time.perf_counter() - began) * 1000
