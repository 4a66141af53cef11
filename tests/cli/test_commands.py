"""Commands that look: what they print, and how they end."""

import csv
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athina_trace.cli.terminal import safe_json, sanitize
from tests.cli.conftest import Run, lines
from tests.viewer.outboxes import log, put

COMMANDS = (
    "demo",
    "ui",
    "serve",
    "logs",
    "sessions",
    "show",
    "status",
    "flush",
    "retry",
    "export",
    "purge",
    "check",
)


def test_help_names_every_command_and_every_exit_code(run: Run) -> None:
    done = run("--help")
    assert done.returncode == 0
    for word in (*COMMANDS, "exit codes", "130"):
        assert word in done.stdout


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("logs", "--state", "lost"), ("serve", "--fail", "2")])
def test_wrong_options_are_told_and_end_with_2(run: Run, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_a_wrong_setting_is_told_and_ends_with_2(run: Run) -> None:
    done = run("status", ATHINA_CONNECTIONS="many")
    assert done.returncode == 2
    assert "ATHINA_CONNECTIONS='many'" in done.stderr


def test_an_outbox_that_is_not_there_is_told_with_those_that_are(run: Run, sampled: str) -> None:
    done = run("logs", "--outbox", str(Path(sampled).with_name("other.db")))
    assert done.returncode == 1
    assert sampled in done.stderr
    assert "Traceback" not in done.stderr


def test_logs_without_a_terminal_are_lines_with_tabs(run: Run, sampled: str) -> None:
    done = run("logs", "--outbox", sampled, "--limit", "3")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(rows) == 3
    assert {len(row) for row in rows} == {9}
    assert rows[0][0] == "Hello, where is my parcel PX-48213?"
    assert rows[0][6] == "waiting"


def test_logs_as_json_lines_hold_the_whole_log(run: Run, sampled: str) -> None:
    done = lines(run("logs", "--outbox", sampled, "--json", "--customer", "casa-verde", "--limit", "4").stdout)
    assert len(done) == 4
    for line in done:
        assert isinstance(line["log"], dict)
        assert line["log"]["customer_id"] == "casa-verde"
        assert line["state"] in ("waiting", "delivered", "refused")


@pytest.mark.parametrize(
    ("filters", "number"),
    [
        (["--state", "refused"], 3),
        (["--errors"], None),
        (["--text", "leipzig hub"], None),
        (["--since", "1h", "--slug", "customer-support/v1"], None),
        (["--customer", "nobody"], 0),
    ],
)
def test_filters_choose(run: Run, sampled: str, filters: list[str], number: int | None) -> None:
    done = run("logs", "--outbox", sampled, "--json", "--limit", "1000", *filters)
    assert done.returncode == 0
    found = len(lines(done.stdout))
    assert found == number if number is not None else 0 < found < 100


def test_a_time_that_is_none_is_told(run: Run, sampled: str) -> None:
    done = run("logs", "--outbox", sampled, "--since", "yesterday")
    assert done.returncode == 2
    assert "--since: 'yesterday' is no time" in done.stderr


def test_sessions_and_status(run: Run, sampled: str) -> None:
    sessions = lines(run("sessions", "--outbox", sampled, "--json", "--limit", "100").stdout)
    assert len(sessions) == 64
    assert sessions[0]["turns"] == 3
    status = json.loads(run("status", "--outbox", sampled, "--json").stdout)
    assert (status["sessions"], status["refused"]) == (64, 3)
    assert "refused      3\n" in run("status", "--outbox", sampled).stdout


def test_show_tells_one_log(run: Run, sampled: str) -> None:
    done = run("show", "sample-063-0", "--outbox", sampled)
    assert "Tool track_parcel" in done.stdout
    assert "disney-usa-2314832" in done.stdout
    fields = json.loads(run("show", "sample-063-0", "--json", "--outbox", sampled).stdout)
    assert fields["external_reference_id"] == "sample-063-0"
    missing = run("show", "nothing", "--outbox", sampled)
    assert missing.returncode == 1
    assert "there is no log 'nothing'" in missing.stderr


def test_export_writes_json_lines_and_tables(run: Run, sampled: str, tmp_path: Path) -> None:
    exported = lines(run("export", "--outbox", sampled).stdout)
    assert len(exported) == json.loads(run("status", "--outbox", sampled, "--json").stdout)["logs"]
    target = tmp_path / "logs.csv"
    done = run("export", "--outbox", sampled, "--format", "csv", "--output", str(target), "--errors")
    assert done.returncode == 0
    assert target.stat().st_mode & 0o077 == 0
    rows = list(csv.DictReader(io.StringIO(target.read_text(encoding="utf-8"))))
    assert rows
    assert all(row["error"] for row in rows)
    assert rows[0]["language_model_id"]


def test_a_cell_is_never_a_formula(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    put(path, log(user_query="=1+1", response="@cmd"))
    (row,) = csv.DictReader(io.StringIO(run("export", "--format", "csv", "--outbox", str(path)).stdout))
    assert (row["user_query"], row["response"]) == ("'=1+1", "'@cmd")


def test_a_reader_that_has_seen_enough_is_no_error(environment: dict[str, str], sampled: str) -> None:
    command = f"{sys.executable} -W error -m athina_trace export --outbox {sampled} | head -n 1"
    shell = ["bash", "-o", "pipefail", "-c", command]
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, timeout=40, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


def test_following_tells_new_logs_until_ctrl_c(environment: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    put(path, log(user_query="first"))
    command = [sys.executable, "-m", "athina_trace", "logs", "--follow", "--json", "--outbox", str(path)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["log"]["user_query"] == "first"
        put(path, log(user_query="second"))
        assert json.loads(process.stdout.readline())["log"]["user_query"] == "second"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read() == ""


def test_a_terminal_gets_a_table(environment: dict[str, str], sampled: str) -> None:
    done = on_a_terminal(environment | {"COLUMNS": "100", "TERM": "xterm"}, "logs", "--outbox", sampled, "--limit", "2")
    assert "Question" in done
    assert "waiting" in done
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done)
    assert max(len(line) for line in plain.splitlines()) <= 100


def on_a_terminal(environment: dict[str, str], *arguments: str) -> str:
    """What a command prints where its output is a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "athina_trace", *arguments]
    with subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said, ends = b"", time.monotonic() + 30
        while time.monotonic() < ends:
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    said += os.read(ours, 65_536)
                except OSError:  # the other end is closed
                    break
            elif process.poll() is not None:
                break
        os.close(ours)
    return said.decode()


NASTY = "\x1b]0;title\x07\x1b[2J \x9d0;c1\x9c \x7f \u202egnp.exe \u2028 \x00 end"


@pytest.mark.parametrize(
    "arguments",
    [
        ("logs",), ("logs", "--json"), ("sessions",), ("sessions", "--json"), ("show", "1"), ("show", "1", "--json"),
        ("export",), ("export", "--format", "csv"), ("status",),
    ],
)  # fmt: skip
def test_no_command_passes_a_control_character_of_a_log_to_the_terminal(
    environment: dict[str, str], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    path = tmp_path / f"{NASTY[:4]}outbox.db"
    names = ("user_query", "response", "customer_id", "language_model_id", "error", "context")
    fields: dict[str, Any] = dict.fromkeys(names, NASTY)
    put(path, log(NASTY, external_reference_id=NASTY, tool_calls=[{"name": NASTY, "arguments": NASTY}], **fields))
    shown = on_a_terminal(environment | {"COLUMNS": "200", "TERM": "xterm"}, *arguments, "--outbox", str(path))
    plain = re.sub(r"\x1b\[(\d+)?[mK]", "", shown).replace("\r", "")  # our own styles and progress
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e]", plain), plain
    assert plain


@given(
    st.recursive(
        st.text() | st.none() | st.integers() | st.booleans(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_for_a_terminal_means_the_same_and_holds_no_control_character(value: object) -> None:
    for indent in (None, 2):
        text = safe_json(value, indent=indent)
        assert json.loads(text) == value
        assert sanitize(text) == text


def test_an_export_to_a_file_keeps_every_character(run: Run, tmp_path: Path) -> None:
    path, target = tmp_path / "outbox.db", tmp_path / "logs"
    put(path, log(response=NASTY))
    run("export", "--format", "csv", "--outbox", str(path), "--output", str(target))
    with target.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["response"] == NASTY
    run("export", "--outbox", str(path), "--output", str(target))
    assert json.loads(target.read_text(encoding="utf-8"))["log"]["response"] == NASTY


@pytest.mark.parametrize("text", ["\x1b[31mred", "\x1b]0;title\x07", "a\rb", "\u202eabc", "\x9b31m", "\x00"])
def test_a_log_cannot_speak_to_the_terminal(text: str) -> None:
    assert not set(sanitize(text)) & set("\x1b\x07\r\u202e\x9b\x00")


def test_without_the_extra_it_says_what_to_install(environment: dict[str, str], tmp_path: Path) -> None:
    code = (
        "import sys; from importlib.machinery import PathFinder\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'uvicorn' else find(name, *a)\n"
        "from athina_trace.cli.main import main; sys.exit(main(['ui']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=40, check=False
    )
    assert done.returncode == 2
    assert "pip install 'athina-trace[ui]'" in done.stderr


def test_importing_the_package_brings_none_of_it() -> None:
    code = (
        "import sys, athina_trace; "
        "print([name for name in ('rich', 'starlette', 'uvicorn', 'jinja2', 'markdown_it') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=40, check=True)
    assert done.stdout.strip() == "[]"
