"""Output for developers on standard error: a note about the first log, and each log as it is made."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from athina_trace import _guard
from athina_trace._delivery.entry import new_entry
from athina_trace._pipeline.console import Console

PROGRAM = """
from athina_trace import athina_session, athina_trace, current_log, log_feedback, log_inference, update_log

@athina_trace
def answer(question):
    call = {"function": {"name": "track", "arguments": '{"parcel": 7}'}, "output": "on its way"}
    current_log().update(language_model_id="gpt-4o", prompt_tokens=12, completion_tokens=3, tool_calls=[call, "odd"])
    step("inner")
    return "Tomorrow.\\nBy 14:00. \\x1b]0;title\\x07"

@athina_trace
def step(text):
    return "x" * 1500

with athina_session("thread-17", customer_id="acme"):
    answer("Where is it?")
reference = log_inference(response="", error="RateLimitError: slow down", external_reference_id="ref-1")
log_feedback(reference, -1, "too slow")
update_log(external_reference_id=reference, expected_response="Soon.")
"""


def run(state: Path, *, terminal: bool, **settings: str) -> str:
    """Return what a program prints on standard error, a terminal or a pipe."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ATHINA", "PYTEST"))}
    environment = inherited | {"XDG_STATE_HOME": str(state), "PYTHONIOENCODING": "utf-8"} | settings
    command = [sys.executable, "-c", PROGRAM]
    if not terminal:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout == ""
        return done.stderr
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=theirs)
    finally:
        os.close(theirs)
    printed = b""
    with suppress(OSError):  # what Linux reports at the end
        while part := os.read(ours, 65_536):
            printed += part
    os.close(ours)
    assert process.wait(60) == 0
    return printed.decode().replace("\r\n", "\n")


def test_the_first_log_without_a_key_says_where_it_is(tmp_path: Path) -> None:
    printed = run(tmp_path, terminal=True, NO_COLOR="1")
    assert printed == (
        f"athina_trace: logs are kept in {tmp_path}/athina_trace/local.db; none is sent without ATHINA_API_KEY.\n"
        "  See them: athina-trace logs; as they are made: ATHINA_CONSOLE=1; hide this note: ATHINA_QUIET=1\n"
    )


@pytest.mark.parametrize(
    ("terminal", "settings"),
    [
        (False, {}),
        (True, {"ATHINA_QUIET": "1"}),
        (True, {"ATHINA_TRACE_ENABLED": "0"}),
        (True, {"PYTEST_CURRENT_TEST": "tests of the program (call)"}),
        (True, {"ATHINA_API_KEY": "key", "ATHINA_BASE_URL": "http://127.0.0.1:9", "ATHINA_EXIT_TIMEOUT": "0"}),
    ],
)
def test_nothing_is_shown_outside_a_terminal_or_if_disabled_or_unneeded(
    terminal: bool, settings: dict[str, str], tmp_path: Path
) -> None:
    assert run(tmp_path, terminal=terminal, **settings) == ""


def test_the_command_names_an_outbox_that_is_not_the_default(tmp_path: Path) -> None:
    path = tmp_path / "my logs.db"
    program = f"from athina_trace import configure\nconfigure(outbox={str(path)!r})\n{PROGRAM}"
    script = tmp_path / "program.py"
    script.write_text(program)
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ATHINA", "PYTEST"))}
    subprocess.run([sys.executable, script], env=environment, stderr=theirs, check=True, timeout=60)
    os.close(theirs)
    assert f"athina-trace logs --outbox '{path}'" in os.read(ours, 65_536).decode()
    os.close(ours)


def test_each_log_is_shown_when_it_is_made(tmp_path: Path) -> None:
    lines = run(tmp_path, terminal=False, ATHINA_CONSOLE="1").splitlines()
    step, answer = (number for number, line in enumerate(lines) if line.startswith("log  thread-17"))
    assert "step of" in lines[step]
    assert lines[step + 1] == "  user       inner"
    assert lines[step + 2] == f"  assistant  {'x' * 1000}… (500 more characters)"
    head = lines[answer].split(" · ")
    assert head[:4] == ["log  thread-17", "acme", "gpt-4o", "12 + 3 tokens"]
    assert head[4].endswith(" ms")
    assert lines[answer + 1 : answer + 6] == [
        "  user       Where is it?",
        '  tool       track({"parcel": 7}) → on its way',
        "  tool       odd",
        "  assistant  Tomorrow.",
        "             By 14:00. \ufffd]0;title\ufffd",
    ]
    assert lines[answer + 6 :] == [
        "log  unknown · ref-1",
        "  error      RateLimitError: slow down",
        "feedback  ref-1 · bad",
        "  comment    too slow",
        "update  ref-1",
        "  expected_response Soon.",
    ]


def test_a_terminal_gets_colours(tmp_path: Path) -> None:
    assert "\x1b[36m  user       Where is it?\x1b[0m\n" in run(tmp_path, terminal=True, ATHINA_CONSOLE="1")
    assert "\x1b" not in run(tmp_path, terminal=True, ATHINA_CONSOLE="1", NO_COLOR="1")


def test_a_log_that_cannot_be_shown_is_still_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    committed: list[object] = []
    console = Console(committed.append)
    entry = new_entry("key", "log", "ref", 0.0, {"response": "Grüße", "language_model_id": "m"})  # no reference inside
    monkeypatch.setattr(_guard, "strict", False)
    console(entry)
    monkeypatch.setattr(sys, "stderr", None)
    console(entry)
    assert committed == [entry, entry]
    assert _guard.faults == 1


def test_characters_that_a_terminal_cannot_encode_are_escaped(tmp_path: Path) -> None:
    printed = run(tmp_path, terminal=False, ATHINA_CONSOLE="1", PYTHONIOENCODING="ascii")
    assert "(" in printed
    assert "\\u2026 (500 more characters)" in printed
