"""`export`: copy logs to a file."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from athina_trace._serialization import printable
from athina_trace.cli.json_records import dataset_record, delivery_record, log_record
from athina_trace.cli.options import add_filters, add_outbox, filters_of, open_outbox
from athina_trace.cli.terminal import Terminal, safe_json
from athina_trace.inference_log import InferenceLog
from athina_trace.schema import ALIASES
from athina_trace.viewer import formatting, queries
from athina_trace.viewer.filters import Filters
from athina_trace.viewer.indexed_outbox import IndexedOutbox

_CHUNK = 200
_COLUMNS = ("id", "made_at", "state", "status", "reason", "prompt_run_id", *InferenceLog.model_fields)
_DATASET = ("query", "context", "response", "expected_response", "user_feedback", "user_feedback_comment")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Text that a spreadsheet would take for a formula."""


def add(commands: Any) -> None:
    """Define the options."""
    command = commands.add_parser("export", help="copy logs to a file", description="Copy logs, the oldest first.")
    command.add_argument("--format", choices=("jsonl", "csv"), default="jsonl", help="(default: %(default)s)")
    command.add_argument("--output", metavar="FILE", help="(default: standard output)")
    command.add_argument(
        "--dataset",
        action="store_true",
        help="rows of an Athina dataset: query, context, response, expected_response, and the users' feedback",
    )
    add_outbox(command, relay=True)
    add_filters(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Copy logs; with --output, print how many."""
    number = 0
    with open_outbox(options.outbox, terminal) as outbox, ExitStack() as stack:
        file: TextIO = sys.stdout
        if options.output:
            # Private before the first byte is written, since these are conversations.
            Path(options.output).touch(mode=0o600)
            Path(options.output).chmod(0o600)
            file = stack.enter_context(Path(options.output).open("w", encoding="utf-8", newline=""))
        columns = _DATASET if options.dataset else _COLUMNS
        table = csv.writer(file, lineterminator="\n")
        if options.format == "csv":
            table.writerow(columns)
        for log in _read_logs(outbox, filters_of(options)):
            number += 1
            if options.format == "csv":
                values = dataset_record(log) if options.dataset else _flat_record(log)
                # Python 3.10 cannot write or read NUL in CSV; logs do not contain it.
                cells = [_cell(values.get(name)).replace("\0", "\ufffd") for name in columns]
                # CSV has no escapes: texts are exact in a file, but must not control a terminal.
                table.writerow(map(printable, cells) if file.isatty() else cells)
            else:
                file.write(safe_json(dataset_record(log) if options.dataset else log_record(log)) + "\n")
    if options.output:
        terminal.say(f"{formatting.integer(number)} logs are in {options.output}")
    return 0


def _read_logs(outbox: IndexedOutbox, filters: Filters) -> Iterator[queries.StoredLog]:
    """Yield all matching logs, in chunks, each with its own connection.

    One long read transaction would prevent the running program from truncating SQLite's write-ahead log.
    """
    after = 0
    while True:
        with outbox.open() as db:
            logs = [queries.stored_log(db, row) for row in queries.logs_after(db, filters, after=after, limit=_CHUNK)]
        if not logs:
            return
        yield from logs
        after = logs[-1].row["id"]


def _flat_record(log: queries.StoredLog) -> dict[str, Any]:
    """Return a log's fields and delivery state in one record, under one spelling."""
    fields = {ALIASES.get(name, name): value for name, value in log.fields.items()}
    # Spreadsheets recognise this format as a time.
    return {**fields, **delivery_record(log), "made_at": formatting.iso_time(log.row["made"])}


def _cell(value: Any) -> str:
    """Return a value as a cell that spreadsheets do not evaluate."""
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return json.dumps(value, ensure_ascii=False)
