"""Read-only commands: their output, and how they end."""

import csv
import dataclasses
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from athina_trace import Status
from athina_trace._delivery.sqlite_outbox import SqliteOutbox
from athina_trace._serialization import printable
from athina_trace.cli.main import _COMMANDS, parse
from athina_trace.cli.terminal import display_width, fit, safe_json
from athina_trace.viewer.filters import Filters
from tests.cli.conftest import PLAIN, Run, lines
from tests.support.forked import ForkedCommands
from tests.viewer.outboxes import feedback, log, put, settle


def test_help_lists_every_command_and_exit_code(run: Run) -> None:
    done = run("--help")
    assert done.returncode == 0
    for word in (*_COMMANDS, "exit codes", "130"):
        assert word in done.stdout


def test_the_examples_page_has_every_command() -> None:
    page = (Path(__file__).parents[2] / "examples" / "README.md").read_text(encoding="utf-8")
    table = page.partition("| `athina-trace …` | |")[2].partition("\n\n")[0]
    assert [name for name in _COMMANDS if not re.search(rf"`{name}[ `]", table)] == []


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("logs", "--state", "lost"),
        ("logs", "--feedback", "great"),
        ("logs", "--limit", "0"),
        ("logs", "--limit", "-1"),
        ("logs", "--limit", "many"),
        ("logs", "--since", "soon"),
        ("logs", "--until", ""),
        ("logs", "--slower", "long"),
        ("logs", "--kind", "both"),
        ("logs", "--nonsense"),
        ("sessions", "--limit", "1.5"),
        ("sessions", "--since", "2025-13-01"),
        ("export", "--since", "5y"),
        ("export", "--format", "xml"),
        ("show",),
        ("flush", "--timeout", "nan"),
        ("flush", "--timeout", "-1"),
        ("purge",),
        ("purge", "--state", "waiting", "--older-than", "long"),
        ("serve", "--fail", "2"),
        ("serve", "--status", "99"),
        ("serve", "--delay", "x"),
        ("serve", "--port", "65536"),
        ("ui", "--port", "-1"),
        ("ui", "--token", "no spaces"),
    ],
)
def test_invalid_options_are_reported_with_exit_code_2(run: Run, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "usage:" in done.stderr


@pytest.mark.parametrize(
    ("given", "hint"),
    [("lgos", "did you mean 'logs'?"), ("stat", "did you mean 'status'?"), ("xyzzy", "`athina-trace --help` lists")],
)
def test_an_unknown_command_suggests_the_nearest(run: Run, given: str, hint: str) -> None:
    done = run(given, "--json")
    assert done.returncode == 2
    assert f"there is no command '{given}'" in done.stderr
    assert hint in done.stderr


def test_an_invalid_setting_is_reported_with_exit_code_2(run: Run) -> None:
    done = run("status", ATHINA_CONNECTIONS="many")
    assert done.returncode == 2
    assert "ATHINA_CONNECTIONS='many'" in done.stderr


def test_a_missing_outbox_is_reported_with_the_existing_ones(run: Run, sampled: str) -> None:
    done = run("logs", "--outbox", str(Path(sampled).with_name("other.db")))
    assert done.returncode == 1
    assert sampled in done.stderr
    assert "Traceback" not in done.stderr


def test_logs_prints_tab_separated_lines_without_a_terminal(run: Run, sampled: str) -> None:
    done = run("logs", "--outbox", sampled, "--limit", "3")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(rows) == 3
    assert {len(row) for row in rows} == {9}
    assert rows[0][0] == "Hello, where is my parcel PX-48213?"
    assert rows[0][6] == "waiting"


def test_logs_as_json_lines_have_the_whole_log(run: Run, sampled: str) -> None:
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
        (["--user", "ana@verde.example", "--kind", "steps"], 11),
        (["--slower", "2s", "--kind", "turns"], None),
        (["--tool", "book_courier", "--tool-errors"], 1),
        (["--attribute", "function=support.plan"], 1),
    ],
)
def test_filters_select_logs(run: Run, sampled: str, filters: list[str], number: int | None) -> None:
    done = run("logs", "--outbox", sampled, "--json", "--limit", "1000", *filters)
    assert done.returncode == 0
    found = len(lines(done.stdout))
    assert found == number if number is not None else 0 < found < 100


@pytest.mark.parametrize("command", ["logs", "sessions", "export"])
def test_every_filter_of_the_viewer_is_a_command_line_option(command: str) -> None:
    options = vars(parse([command]))
    assert {field.name for field in dataclasses.fields(Filters)} <= set(options)


def test_an_invalid_time_is_reported(run: Run, sampled: str) -> None:
    done = run("logs", "--outbox", sampled, "--since", "someday")
    assert done.returncode == 2
    assert "--since: 'someday' is not a time" in done.stderr
    recent = run("logs", "--outbox", sampled, "--since", "yesterday", "--json", "--limit", "1000")
    assert 0 < len(lines(recent.stdout)) < 142


def test_sessions_and_status_print_their_counts(run: Run, sampled: str) -> None:
    sessions = lines(run("sessions", "--outbox", sampled, "--json", "--limit", "100").stdout)
    assert len(sessions) == 64
    assert sessions[0]["turns"] == 3
    status = json.loads(run("status", "--outbox", sampled, "--json").stdout)
    assert (status["sessions"], status["refused"]) == (64, 3)
    assert "refused      3\n" in run("status", "--outbox", sampled).stdout


def test_show_prints_one_log(run: Run, sampled: str) -> None:
    done = run("show", "sample-063-0", "--outbox", sampled)
    assert "Tool track_parcel" in done.stdout
    assert "disney-usa-2314832" in done.stdout
    fields = json.loads(run("show", "sample-063-0", "--json", "--outbox", sampled).stdout)
    assert fields["external_reference_id"] == "sample-063-0"
    missing = run("show", "nothing", "--outbox", sampled)
    assert missing.returncode == 1
    assert "there is no log 'nothing'" in missing.stderr


ATTACHED = [
    {"type": "text", "text": "Where is it?"},
    {"type": "image", "title": "label.png", "source": {"type": "url", "url": "https://a.example/label.png"}},
    {"type": "image_url", "image_url": {"url": "<5000 base64 characters of image/png>"}},
]


def test_show_prints_every_field_in_full(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    entry = log(
        response="x" * 200_000 + "THE END",
        prompt=[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Earlier question"},
                {"role": "assistant", "content": "Earlier answer"}, {"role": "user", "content": ATTACHED}],
        context=[f"document {number}" for number in range(120)],
        tool_calls=[{"function": {"name": f"tool{number}", "arguments": "{}"}} for number in range(120)],
        tools=[{"function": {"name": "track_parcel"}}],
        prompt_tokens=31, completion_tokens=11, cost=0.5, status_code=418, environment="staging",
        custom_attributes={"plan": "gold", "note": "y" * 5000 + "NOTE END", "reason": "the attribute's own"},
        functions=["f1"],
    )  # fmt: skip
    put(path, entry, feedback(entry, -1, "wrong parcel"))
    settle(path, refused=[entry.reference])
    shown = run("show", "1", "--outbox", str(path)).stdout
    for part in ("THE END", "Be kind.", "Earlier answer", "document 119", "Tool tool119", "track_parcel", "31", "11",
                 "0.5", "418", "status 418", "staging", "gold", "NOTE END", "the attribute's own", "f1", "disliked",
                 "wrong parcel", "400", "user_query: Expected string", entry.reference,
                 "label.png https://a.example/label.png\nimage/png 3.8 KB, not kept\n"):  # fmt: skip
        assert part in shown, part
    assert "…" not in shown


def test_names_and_times_are_spelled_alike_in_all_commands(run: Run, sampled: str) -> None:
    (line,) = lines(run("logs", "--outbox", sampled, "--json", "--limit", "1").stdout)
    session_id = line["log"]["session_id"]
    exported = lines(run("export", "--outbox", sampled, "--session", session_id).stdout)[-1]
    assert exported == line
    (session,) = lines(run("sessions", "--outbox", sampled, "--json", "--limit", "1").stdout)
    status = json.loads(run("status", "--outbox", sampled, "--json").stdout)
    names = {*line, *session, *status}
    assert names >= {"external_reference_id", "session_id", "customer_id", "total_tokens"}
    # The command cannot know what only the running program knows about its threads.
    shared = {field.name for field in dataclasses.fields(Status)} - {"faults", "senders", "last_error", "memory_only"}
    assert shared <= set(status)
    for record in (line, session, status):
        for name, value in record.items():
            if name.endswith(("_at", "_since")) and value is not None:
                assert isinstance(value, float), name
                assert abs(value - time.time()) < 86_400 * 30, name
    assert line["made_at"] == session["last_at"]


def test_status_agrees_with_status_of_the_program(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    put(path, log(), refused := log())
    settle(path, refused=[refused.reference])
    found = json.loads(run("status", "--json", "--outbox", str(path)).stdout)
    outbox = SqliteOutbox(str(path))
    counts, since, size = outbox.counts(), outbox.store.waiting_since(), outbox.store.size()
    outbox.close()
    assert (found["made"], found["delivered"], found["waiting"]) == (counts.made, counts.delivered, counts.waiting)
    assert (found["refused"], found["dropped"], found["waiting_since"]) == (counts.refused, counts.dropped, since)
    assert (found["bytes"], found["outbox"]) == (size, str(path))


def test_feedback_can_be_filtered_from_the_command_line(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    good, bad, plain = log("a"), log("b"), log("c")
    put(path, good, bad, plain, feedback(good, 1), feedback(bad, -1, "the wrong parcel"))

    def found(*options: str) -> list[object]:
        shown = lines(run("logs", "--json", "--outbox", str(path), *options).stdout)
        return [line["external_reference_id"] for line in shown]

    assert found("--feedback", "liked") == [good.reference]
    assert found("--feedback", "disliked") == [bad.reference]
    assert found("--feedback", "any") == [good.reference, bad.reference]
    assert found("--text", "wrong parcel") == [bad.reference]
    sessions = lines(run("sessions", "--json", "--outbox", str(path)).stdout)
    assert [(each["liked"], each["disliked"]) for each in sessions] == [(0, 0), (0, 1), (1, 0)]


def test_an_empty_list_explains_why(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    put(path, entry := log())
    for command in ("logs", "sessions"):
        assert "no log matches" in run(command, "--customer", "x", "--outbox", str(path)).stderr
    settle(path, forgotten=[entry.reference])
    for command in ("logs", "sessions"):
        done = run(command, "--outbox", str(path))
        assert (done.returncode, done.stdout) == (0, "")
        assert "1 entries were delivered and are no longer kept; ATHINA_KEEP_DELIVERED=48" in done.stderr


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


def test_an_exported_dataset_has_athinas_columns_and_the_feedback(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    entry = log("a", context=[{"text": "Leipzig hub"}, "scan"], expected_response="At the hub.", customer_id="acme")
    put(path, entry, log("b"), feedback(entry, -1, "too short"))
    row = {
        "query": "Where is it?",
        "context": ["Leipzig hub", "scan"],
        "response": "In Leipzig.",
        "expected_response": "At the hub.",
        "user_feedback": -1,
        "user_feedback_comment": "too short",
    }
    assert lines(run("export", "--dataset", "--feedback", "disliked", "--outbox", str(path)).stdout) == [row]
    table = run("export", "--dataset", "--format", "csv", "--customer", "acme", "--outbox", str(path)).stdout
    (cells,) = csv.DictReader(io.StringIO(table))
    assert cells == {**row, "context": '["Leipzig hub", "scan"]', "user_feedback": "'-1"[1:]}


def test_exported_cells_are_never_formulas(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    put(path, log(user_query="=1+1", response="@cmd"))
    (row,) = csv.DictReader(io.StringIO(run("export", "--format", "csv", "--outbox", str(path)).stdout))
    assert (row["user_query"], row["response"]) == ("'=1+1", "'@cmd")


def test_a_closed_pipe_is_no_error(environment: dict[str, str], sampled: str) -> None:
    command = f"{sys.executable} -W error -m athina_trace export --outbox {sampled} | head -n 1"
    shell = ["bash", "-o", "pipefail", "-c", command]
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


def test_follow_ends_when_its_pipe_is_closed(environment: dict[str, str], sampled: str) -> None:
    command = f"{sys.executable} -W error -m athina_trace logs --follow --outbox {sampled} | head -n 1"
    shell = ["bash", "-o", "pipefail", "-c", command]
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_command_succeeds_with_closed_standard_output(environment: dict[str, str], sampled: str) -> None:
    shell = ["bash", "-c", f"{sys.executable} -W error -m athina_trace logs --outbox {sampled} >&-"]
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_follow_continues_with_closed_standard_output(environment: dict[str, str], sampled: str) -> None:
    command = f"timeout 3 {sys.executable} -W error -m athina_trace logs --follow --outbox {sampled} >&-"
    shell = ["bash", "-c", command]
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (124, "")


@pytest.mark.parametrize("command", ["logs", "status", "check"])
def test_a_damaged_outbox_is_reported_by_name(run: Run, tmp_path: Path, command: str) -> None:
    path = tmp_path / "outbox.db"
    path.write_bytes(b"no database" * 1000)
    done = run(command, "--outbox", str(path))
    assert done.returncode == 1
    assert f"{path}: file is not a database; the next program" in done.stdout + done.stderr


def test_status_reports_that_nothing_is_sent_without_a_key(run: Run, tmp_path: Path) -> None:
    put(tmp_path / "local.db", log())
    put(tmp_path / "other.db", log())
    assert "ATHINA_API_KEY" in run("status", "--outbox", str(tmp_path / "local.db")).stdout
    assert "ATHINA_API_KEY" not in run("status", "--outbox", str(tmp_path / "other.db")).stdout


def test_follow_prints_new_logs_until_ctrl_c(environment: dict[str, str], tmp_path: Path) -> None:
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
        assert process.wait(60) == 130
        assert process.stderr.read() == ""


def test_a_terminal_gets_a_table(forked: ForkedCommands, environment: dict[str, str], sampled: str) -> None:
    settings = environment | {"COLUMNS": "100", "TERM": "xterm"}
    done = on_a_terminal(forked, settings, "logs", "--outbox", sampled, "--limit", "2")
    assert "Question" in done
    assert "waiting" in done
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done)
    assert max(len(line) for line in plain.splitlines()) <= 100


@pytest.mark.parametrize("columns", [80, 120, 200])
@pytest.mark.parametrize("command", ["logs", "sessions"])
def test_tables_fit_the_terminal_and_keep_what_matters(
    forked: ForkedCommands, environment: dict[str, str], tmp_path: Path, command: str, columns: int
) -> None:
    path = tmp_path / "outbox.db"
    long = "Where is my parcel? 我的包裹在哪里 e\u0301e\u0301 " * 9
    entry = log(
        "thread_1", user_query=long, response="It is in Leipzig. " * 30, customer_id="customer " * 9, made=time.time()
    )
    put(path, entry, feedback(entry, -1))
    settings = environment | {"COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "1"}
    shown = on_a_terminal(forked, settings, command, "--outbox", str(path)).replace("\r", "")
    heading, row = shown.splitlines()
    assert display_width(row) <= columns
    assert "Where is my parcel?" in row
    assert ("No." if command == "logs" else "Last") in heading
    if command == "logs":
        assert "It is in Leipzig" in row
        assert "waiting" in row
    assert ("disliked" in row or "Disliked" in heading) == (columns >= 120)


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [("abc", 5, "abc  "), ("abcdef", 5, "abcd…"), ("包裹在哪", 5, "包裹…"), ("e\u0301e\u0301", 3, "e\u0301e\u0301 ")],
)
def test_cells_are_cut_by_display_width(text: str, width: int, expected: str) -> None:
    assert fit(text, width) == expected
    assert display_width(fit(text, width, right=True)) == width


def on_a_terminal(forked: ForkedCommands, environment: dict[str, str], *arguments: str) -> str:
    """Return a command's output on a terminal."""
    try:
        ours, theirs = pty.openpty()
    except OSError as error:
        pytest.skip(f"this machine has no pseudo-terminals: {error}")
    printed = bytearray()

    def read() -> None:
        with suppress(OSError):  # the other end is closed
            while piece := os.read(ours, 65_536):
                printed.extend(piece)

    reader = threading.Thread(target=read)
    reader.start()
    name = f"/proc/{os.getpid()}/fd/{theirs}"  # works even if /dev/pts is not accessible
    forked.run_on((name, name, name), *arguments, environment=environment)
    os.close(theirs)
    reader.join()
    os.close(ours)
    return printed.decode()


NASTY = "\x1b]0;title\x07\x1b[2J \x9d0;c1\x9c \x7f \u202egnp.exe \u2028 \x00 end"


@pytest.mark.parametrize(
    "arguments",
    [
        ("logs",), ("logs", "--json"), ("sessions",), ("sessions", "--json"), ("show", "1"), ("show", "1", "--json"),
        ("export",), ("export", "--format", "csv"), ("status",),
    ],
)  # fmt: skip
def test_no_command_prints_control_characters_of_a_log_to_a_terminal(
    forked: ForkedCommands, environment: dict[str, str], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    path = tmp_path / f"{NASTY[:4]}outbox.db"
    names = ("user_query", "response", "customer_id", "language_model_id", "error", "context")
    fields: dict[str, Any] = dict.fromkeys(names, NASTY)
    put(path, log(NASTY, external_reference_id=NASTY, tool_calls=[{"name": NASTY, "arguments": NASTY}], **fields))
    settings = environment | {"COLUMNS": "200", "TERM": "xterm"}
    shown = on_a_terminal(forked, settings, *arguments, "--outbox", str(path))
    plain = re.sub(r"\x1b\[(\d+)?[mK]", "", shown).replace("\r", "")  # the commands' own styles and progress
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e]", plain), plain
    assert plain


@hypothesis.given(
    st.recursive(
        st.text() | st.none() | st.integers() | st.booleans(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_for_a_terminal_is_equal_and_has_no_control_characters(value: object) -> None:
    for indent in (None, 2):
        text = safe_json(value, indent=indent)
        assert json.loads(text) == value
        assert printable(text) == text


def test_an_export_to_a_file_keeps_every_character(run: Run, tmp_path: Path) -> None:
    path, target = tmp_path / "outbox.db", tmp_path / "logs"
    put(path, log(response=NASTY))
    run("export", "--format", "csv", "--outbox", str(path), "--output", str(target))
    with target.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    stored = NASTY.replace("\0", "\ufffd")
    assert row["response"] == stored
    run("export", "--outbox", str(path), "--output", str(target))
    assert json.loads(target.read_text(encoding="utf-8"))["log"]["response"] == stored


@pytest.mark.parametrize("text", ["\x1b[31mred", "\x1b]0;title\x07", "a\rb", "\u202eabc", "\x9b31m", "\x00"])
def test_terminal_escapes_in_a_log_are_removed(text: str) -> None:
    assert not set(printable(text)) & set("\x1b\x07\r\u202e\x9b\x00")


def test_importing_the_package_imports_no_viewer_dependency() -> None:
    code = (
        "import sys, athina_trace; "
        "print([name for name in ('rich', 'starlette', 'uvicorn', 'jinja2', 'markdown_it') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def without_sqlite() -> Iterator[ForkedCommands]:
    with ForkedCommands(PLAIN, "import sys; sys.modules['_sqlite3'] = None") as commands:
        yield commands


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--version",), 0), (("--help",), 0), (("completion", "bash"), 0), (("check",), 1), (("logs",), 1),
        (("show", "1"), 1), (("sessions",), 1), (("status",), 1), (("export",), 1), (("retry", "--all"), 1),
        (("purge", "--state", "waiting", "--yes"), 1), (("flush",), 1), (("demo",), 1), (("ui", "--port", "0"), 1),
        (("serve", "--port", "0"), 1), (("import", "logs.jsonl", "--yes"), 1), (("gateway", "--port", "0"), 2),
    ],
)  # fmt: skip
def test_a_python_without_sqlite_runs_what_it_can_and_names_what_is_missing(
    without_sqlite: ForkedCommands,
    environment: dict[str, str],
    tmp_path: Path,
    arguments: tuple[str, ...],
    code: int,
) -> None:
    path = tmp_path / "outbox.db"
    put(path, log())
    (tmp_path / "logs.jsonl").write_text('{"language_model_id": "m", "prompt": "q", "response": "a"}')
    settings = {"ATHINA_OUTBOX": str(path), "ATHINA_BASE_URL": "http://127.0.0.1:9", "ATHINA_API_KEY": "key"}
    done = without_sqlite.run(*arguments, environment=environment | settings, folder=str(tmp_path))
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    if code:
        assert "this Python was built without SQLite" in done.stdout + done.stderr
        assert "install a Python that has the module `sqlite3`" in " ".join((done.stdout + done.stderr).split())
