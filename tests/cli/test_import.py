"""Logs imported from a file: checked, confirmed, and sent once."""

import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from athina_trace.cli.commands.import_logs import _CHUNK as CHUNK
from tests.cli.conftest import Run, lines
from tests.viewer.outboxes import feedback, log, put, settle

LOG = {"language_model_id": "gpt-4o", "prompt": "Where?", "response": "In Leipzig.", "user_query": "Where?"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "logs.jsonl"


def write(file: Path, *records: Any) -> None:
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def logs_in(run: Run, path: Path) -> list[dict[str, Any]]:
    return [line["log"] for line in lines(run("export", "--outbox", str(path)).stdout)]


def test_an_export_is_imported_once_with_its_dates_and_feedback(
    run: Run, tmp_path: Path, path: Path, file: Path
) -> None:
    source = tmp_path / "source.db"
    entry = log("a", cost=0.25, custom_attributes={"plan": "gold"})
    put(source, entry, feedback(entry, 1, "thanks"), log("b", cost=0.5))
    run("export", "--outbox", str(source), "--output", str(file))
    done = run("import", str(file), "--yes", "--outbox", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 new logs of 2 sessions" in done.stdout
    assert "their calls cost $0.7500" in done.stdout
    assert "2 imported" in done.stdout
    first, _ = logs_in(run, path)
    assert first["external_reference_id"] == entry.reference
    assert (first["user_feedback"], first["user_feedback_comment"]) == (1, "thanks")
    assert first["custom_attributes"]["plan"] == "gold"
    assert first["custom_attributes"]["made_at"].startswith("2025-06-15T")
    again = run("import", str(file), "--yes", "--outbox", str(path))
    assert "0 new logs" in again.stdout
    assert len(logs_in(run, path)) == 2


def test_logs_already_imported_and_delivered_are_not_imported_again(run: Run, path: Path, file: Path) -> None:
    write(file, LOG, LOG, {**LOG, "external_reference_id": "r"})
    assert "3 imported" in run("import", str(file), "--yes", "--outbox", str(path)).stdout
    settle(path, forgotten=[fields["external_reference_id"] for fields in logs_in(run, path)])
    assert logs_in(run, path) == []
    write(file, LOG, LOG, {**LOG, "external_reference_id": "r"}, {**LOG, "response": "new"})
    assert "1 new logs" in run("import", str(file), "--yes", "--outbox", str(path)).stdout
    assert [fields["response"] for fields in logs_in(run, path)] == ["new"]


def test_delivered_logs_of_an_export_are_skipped_by_default(run: Run, tmp_path: Path, path: Path, file: Path) -> None:
    source = tmp_path / "source.db"
    put(source, entry := log("a"), log("b"))
    settle(source, delivered=[entry.reference])
    run("export", "--outbox", str(source), "--output", str(file))
    done = run("import", str(file), "--yes", "--outbox", str(path))
    assert "1 new logs" in done.stdout
    assert "1 were delivered before and are left out" in done.stdout
    assert "1 imported" in run("import", str(file), "--yes", "--delivered", "--outbox", str(path)).stdout


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "not JSON"),
        ("[]", "a JSON object is needed, not list"),
        ('{"prompt": "p", "response": "r"}', "language_model_id missing"),
        (json.dumps({**LOG, "respnse": "x"}), "unknown field 'respnse'"),
        (json.dumps({**LOG, "total_tokens": "many"}), "total_tokens: Input should be a valid integer"),
        (json.dumps({**LOG, "user_feedback": 5}), "user_feedback: Input should be 1, 0 or -1"),
        (json.dumps({**LOG, "made_at": "yesterday"}), "made_at 'yesterday' is not a time"),
    ],
)
def test_an_invalid_line_is_reported_and_nothing_is_imported(
    run: Run, path: Path, file: Path, line: str, expected: str
) -> None:
    file.write_text(f"{json.dumps(LOG)}\n\n{line}\n", encoding="utf-8")
    done = run("import", str(file), "--yes", "--outbox", str(path))
    assert done.returncode == 1
    assert f"line 3: {expected}" in done.stderr
    assert logs_in(run, path) == []


def test_import_asks_for_confirmation_and_a_dry_run_only_counts(run: Run, path: Path, file: Path) -> None:
    write(file, LOG)
    asked = run("import", str(file), "--outbox", str(path))
    assert asked.returncode == 1
    assert "add --yes" in asked.stderr
    counted = run("import", str(file), "--dry-run", "--outbox", str(path))
    assert (counted.returncode, counted.stderr) == (0, "")
    assert "1 new logs of 1 sessions" in counted.stdout
    assert logs_in(run, path) == []


def test_an_import_beyond_the_outbox_limit_is_refused(run: Run, path: Path, file: Path) -> None:
    write(file, *({**LOG, "response": "x" * 100_000, "session_id": str(number)} for number in range(30)))
    done = run("import", str(file), "--yes", "--outbox", str(path), ATHINA_MAX_OUTBOX_BYTES="2000000")
    assert done.returncode == 1
    assert "raise ATHINA_MAX_OUTBOX_BYTES" in done.stderr


def test_import_into_a_damaged_outbox_names_it_and_the_remedy(run: Run, path: Path, file: Path) -> None:
    write(file, LOG)
    path.write_bytes(b"no database" * 100)
    done = run("import", str(file), "--yes", "--outbox", str(path))
    assert done.returncode == 1
    assert f"{path}: file is not a database; the next program" in done.stderr


def chunks_in(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT count(*) FROM note WHERE name LIKE 'imported:%'").fetchone()[0])


def test_a_killed_import_can_be_resumed(environment: dict[str, str], run: Run, path: Path, file: Path) -> None:
    """It is killed in the middle of its third transaction."""
    write(file, *({**LOG, "response": f"{number} " + "x" * 2000} for number in range(4 * CHUNK)))
    dying = """if True:
        import os, signal, sys
        from athina_trace._delivery.store import Store
        from athina_trace.cli.main import main

        note, noted = Store.note, []
        def note_and_die(store, name, *given):
            note(store, name, *given)
            noted.extend([name] if name.startswith("imported:") else [])
            if len(noted) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
        Store.note = note_and_die
        main(sys.argv[1:])
    """
    command = [sys.executable, "-c", dying, "import", str(file), "--yes", "--outbox", str(path)]
    died = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, timeout=100, check=False)
    assert died.returncode == -signal.SIGKILL
    assert chunks_in(path) == 2
    done = run("import", str(file), "--yes", "--outbox", str(path))
    assert f"{2 * CHUNK} imported" in done.stdout.replace("\u202f", "")
    imported = [fields["response"].split()[0] for fields in logs_in(run, path)]
    assert sorted(imported, key=int) == [str(number) for number in range(4 * CHUNK)]
