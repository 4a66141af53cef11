"""Python processes that tests start with a script, watch, and end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

ROOT = Path(__file__).parents[2]


def start(script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start `script` (Python source) with `arguments` and these environment variables beside our own."""
    return subprocess.Popen(
        [sys.executable, "-c", dedent(script), *arguments],
        # By default, a program's exit waits for two seconds, which is not enough on a busy machine.
        env={**os.environ, "PYTHONPATH": str(ROOT), "ATHINA_EXIT_TIMEOUT": "20", **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], *, timeout: float = 100.0) -> tuple[str, str]:
    """Wait for a process; return its standard output and error. Its exit code must be 0."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"did not end within {timeout} s: {out}{err}") from None
    assert process.returncode == 0, f"exit code {process.returncode}: {out}{err}"
    return out, err


def run(script: str, *arguments: str, timeout: Any = 100.0, **environment: str) -> tuple[str, str]:
    """Start and finish. `timeout` is in seconds; its type is Any since `**environment` might hold it, too."""
    return finish(start(script, *arguments, **environment), timeout=timeout)
