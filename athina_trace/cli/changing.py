"""Commands that take logs out: export copies them, purge deletes them."""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from athina_trace._delivery import maintenance
from athina_trace.cli.outboxes import add_filters, add_outbox, filters_of, opened, told
from athina_trace.cli.terminal import Failure, Terminal
from athina_trace.inference_log import InferenceLog
from athina_trace.schema import ALIASES
from athina_trace.viewer import forms, queries
from athina_trace.viewer.filters import STATES, Filters, moment
from athina_trace.viewer.source import Source

_COLUMNS = ("made", "reference", "state", "status", "reason", "prompt_run_id", *InferenceLog.model_fields)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet would take for a formula."""


def add(commands: Any) -> None:
    """Name the commands and their options."""
    command = commands.add_parser("export", help="copy logs to a file", description="Copy logs, the oldest first.")
    command.add_argument("--format", choices=("jsonl", "csv"), default="jsonl", help="(default: %(default)s)")
    command.add_argument("--output", metavar="FILE", help="(default: standard output)")
    add_outbox(command)
    add_filters(command)
    command.set_defaults(run=export)
    command = commands.add_parser("purge", help="delete logs", description="Delete logs of one state. Asks first.")
    command.add_argument("--state", choices=STATES, required=True, help="which ones; waiting ones were never sent")
    command.add_argument("--older-than", default="", metavar="AGE", help="such as 7d, 24h (default: any age)")
    command.add_argument("--yes", action="store_true", help="do not ask")
    add_outbox(command)
    command.set_defaults(run=purge)


def export(given: argparse.Namespace, terminal: Terminal) -> int:
    """Copy logs; says how many on standard error."""
    filters = filters_of(given)
    with opened(given) as source, _output(given.output) as file:
        write = _csv_writer(file) if given.format == "csv" else _json_writer(file)
        number = 0
        for turn in _all(source, filters):
            write(turn)
            number += 1
    if given.output:
        terminal.say(f"{forms.amount(number)} logs are in {given.output}")
    return 0


@contextmanager
def _output(path: str | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        Path(path).chmod(0o600)  # conversations are nobody else's business
        yield file


def _all(source: Source, filters: Filters) -> Iterator[queries.Turn]:
    """All logs that pass, read in short pieces: a long reading would keep the file from being tidied."""
    after = 0
    while True:
        with source.open() as db:
            rows = queries.logs_after(db, filters, after=after, limit=200)
            turns = [queries.turn(db, row) for row in rows]
        if not turns:
            return
        yield from turns
        after = turns[-1].row["id"]


def _about(turn: queries.Turn) -> dict[str, Any]:
    return {"made": forms.iso(turn.row["made"]), "reference": turn.row["reference"], **told(turn.row)}


def _json_writer(file: TextIO) -> Any:
    return lambda turn: file.write(json.dumps({**_about(turn), "log": turn.fields}, ensure_ascii=False) + "\n")


def _csv_writer(file: TextIO) -> Any:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)

    def write(turn: queries.Turn) -> None:
        known = {ALIASES.get(name, name): value for name, value in turn.fields.items()}
        values = {**known, **_about(turn)}
        writer.writerow([_cell(values.get(name)) for name in _COLUMNS])

    return write


def _cell(value: Any) -> str:
    """A value as one cell that no spreadsheet will run."""
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return json.dumps(value, ensure_ascii=False)


def purge(given: argparse.Namespace, terminal: Terminal) -> int:
    """Delete logs, once a person or --yes has agreed."""
    before = moment(given.older_than) if given.older_than else time.time() + 1
    if before is None:
        raise Failure(f"--older-than {given.older_than!r} is no age: say 90m, 24h or 7d")
    with opened(given) as source:
        what = f"{given.state} logs{f' older than {given.older_than}' if given.older_than else ''} in {source.path}"
        if not given.yes and not (terminal.can_ask and terminal.ask(f"Delete all {what}?")):
            raise Failure(f"nothing was deleted; to delete all {what} unasked, say --yes")
        done = maintenance.purge(source.path, given.state, before=before)
        source.forget()
    terminal.say(f"{forms.amount(done)} deleted")
    return 0
