"""Completion, in the shells themselves."""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Run


def in_bash(script: str, *words: str) -> set[str]:
    quoted = " ".join(f"'{word}'" for word in words)
    asked = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _athina_trace"
    command = f"{script}\n{asked}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    bash = shutil.which("bash") or ""
    done = subprocess.run([bash, "-c", command], capture_output=True, text=True, timeout=100, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_commands_options_values_and_files(run: Run, tmp_path: Path) -> None:
    script = run("completion", "bash").stdout
    assert in_bash(script, "athina-trace", "s") == {"serve", "sessions", "show", "status"}
    assert in_bash(script, "athina-trace", "logs", "--s") == {
        "--session", "--slug", "--slower", "--since", "--state",
    }  # fmt: skip
    assert in_bash(script, "athina-trace", "logs", "--state", "re") == {"refused", "received"}
    assert in_bash(script, "athina-trace", "logs", "--limit", "") == set()
    assert in_bash(script, "athina-trace", "completion", "f") == {"fish"}
    (tmp_path / "outbox.db").touch()
    assert in_bash(script, "athina-trace", "import", f"{tmp_path}/o") == {f"{tmp_path}/outbox.db"}
    assert in_bash(script, "athina-trace", "status", "--outbox", f"{tmp_path}/o") == {f"{tmp_path}/outbox.db"}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_zsh_and_fish_load_their_scripts_without_errors(run: Run, tmp_path: Path, shell: str) -> None:
    script = run("completion", shell).stdout
    for part in ("sessions", "--state" if shell == "zsh" else "-l state", "waiting refused delivered received"):
        assert part in script
    interpreter = shutil.which(shell)
    if interpreter is None:
        pytest.skip(f"{shell} is not on this machine")
    path = tmp_path / "script"
    path.write_text(script)
    commands = {
        "zsh": f"autoload -U compinit && compinit -u -d {tmp_path}/dump && source {path}",
        "fish": f"source {path}; complete --do-complete 'athina-trace logs --state re'; "
        "complete --do-complete 'athina-trace completion f'; "
        f"complete --do-complete 'athina-trace import {tmp_path}/scr'",
    }
    command = [interpreter, "-f" if shell == "zsh" else "--no-config", "-c", commands[shell]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert done.stderr == ""
    if shell == "fish":
        assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [
            "received", "refused", "fish", str(path),
        ]  # fmt: skip


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not on this machine")
def test_zsh_completes_typed_words(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text(run("completion", "zsh").stdout)
    child, terminal = pty.fork()
    if not child:
        os.chdir(tmp_path)
        os.execvpe("zsh", ["zsh", "-f", "-i"], {**os.environ, "TERM": "dumb", "HOME": str(tmp_path)})  # noqa: S606, S607

    def answer(typed: str, expected: str) -> None:
        os.write(terminal, typed.encode())
        said, deadline = "", time.monotonic() + 60
        while not re.search(expected, said):
            assert time.monotonic() < deadline, said
            if select.select([terminal], [], [], 0.1)[0]:
                said += os.read(terminal, 65_536).decode(errors="replace")

    try:
        answer(f"autoload -U compinit && compinit -u -D && source {path} && print rea''dy\n", r"ready\r?\n")
        for typed, expected in (
            ("athina-trace stat\t", "athina-trace status "),
            ("athina-trace logs --slu\t", "--slug"),
            ("athina-trace logs --state rec\t", "--state received "),
            ("athina-trace completion f\t", "completion fish "),
            ("athina-trace import scr\t", "script "),
        ):
            answer(typed, expected)
            os.write(terminal, b"\x15")  # Ctrl-U empties the line
    finally:
        os.close(terminal)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
