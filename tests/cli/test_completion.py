"""Completion, in the shells themselves."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Run


def in_bash(script: str, *words: str) -> set[str]:
    quoted = " ".join(f"'{word}'" for word in words)
    asked = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _athina_trace"
    command = f"{script}\n{asked}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    bash = shutil.which("bash") or ""
    done = subprocess.run([bash, "-c", command], capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_commands_options_values_and_files(run: Run, tmp_path: Path) -> None:
    script = run("completion", "bash").stdout
    assert in_bash(script, "athina-trace", "s") == {"serve", "sessions", "show", "status"}
    assert in_bash(script, "athina-trace", "logs", "--s") == {"--session", "--slug", "--since", "--state"}
    assert in_bash(script, "athina-trace", "logs", "--state", "re") == {"refused", "received"}
    assert in_bash(script, "athina-trace", "logs", "--limit", "") == set()
    (tmp_path / "outbox.db").touch()
    assert in_bash(script, "athina-trace", "status", "--outbox", f"{tmp_path}/o") == {f"{tmp_path}/outbox.db"}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_the_script_without_complaint(run: Run, tmp_path: Path, shell: str) -> None:
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
        "fish": f"source {path}; complete --do-complete 'athina-trace logs --state re'",
    }
    command = [interpreter, "-f" if shell == "zsh" else "--no-config", "-c", commands[shell]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr == ""
    if shell == "fish":
        assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["received", "refused"]
