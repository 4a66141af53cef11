"""Processes forked from one that has imported what they need, since importing takes half a second or more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

_SERVE = """
import gc, json, os, sys

gc.freeze()  # else each child, as it ends, would copy and examine all that was imported

for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if not child:
        for number, path in enumerate(asked["streams"]):
            os.dup2(os.open(path, os.O_RDWR), number)
        sys.stdin = open(0, encoding="utf-8", closefd=False)
        sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
        os.environ.clear()
        os.environ.update(asked["environment"])
        os.chdir(asked["folder"])
        sys.argv[1:] = asked["arguments"]
        sys.exit(main(asked["arguments"]))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class ForkedCommands:
    """An interpreter that has executed `preamble`, and whose children run `athina-trace`."""

    _main = "from athina_trace.cli.main import main"

    def __init__(self, environment: Mapping[str, str], preamble: str = "") -> None:
        """Start it in `environment`, since Python reads some variables only at start."""
        code = f"{preamble}\n{self._main}\n{_SERVE}"
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(
        self, *arguments: str, environment: Mapping[str, str], folder: str = "."
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; return its exit code and output."""
        with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as errors:
            code = self.run_on((os.devnull, out.name, errors.name), *arguments, environment=environment, folder=folder)
            texts = [Path(each.name).read_text(encoding="utf-8") for each in (out, errors)]
        return subprocess.CompletedProcess(arguments, code, *texts)

    def run_on(
        self, streams: tuple[str, str, str], *arguments: str, environment: Mapping[str, str], folder: str = "."
    ) -> int:
        """Run a command with these files as standard input, output and error; return its exit code."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"arguments": arguments, "environment": {**environment}, "streams": streams, "folder": folder}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


class ForkedPrograms(ForkedCommands):
    """An interpreter that has executed `preamble`, and whose children run the source that is their first argument."""

    _main = "def main(arguments): exec(arguments[0], globals())"


IMPORT_OPENAI = """
from openai import OpenAI
with OpenAI(api_key="any") as client:
    client.beta.threads.runs, client.chat.completions, client.conversations, client.responses
del client
"""
"""A preamble that loads the client and all that it loads at the first use of these."""
