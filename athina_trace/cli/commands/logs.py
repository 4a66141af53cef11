"""`logs`: list logs, the newest last."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from sqlite3 import Connection, Row
from typing import Any

from athina_trace.cli.options import add_filters, add_outbox, delivery_of, filters_of, open_outbox, positive
from athina_trace.cli.terminal import Column, Terminal
from athina_trace.viewer import formatting, queries

_FOLLOW_SECONDS = 0.5
_COLUMNS = (
    Column("Question"),
    Column("Answer", shown_from=150),
    Column("Customer", 24, shown_from=150),
    Column("Model", 20, shown_from=150),
    Column("Tokens", 8, right=True, shown_from=150),
    Column("Latency", 8, right=True, shown_from=150),
    Column("State", 9),
    Column("Made", 20),
    Column("Reference", 36),
)


def add(commands: Any) -> None:
    """Define the options."""
    command = commands.add_parser("logs", help="list logs, the newest last", description="List logs, the newest last.")
    add_outbox(command)
    add_filters(command)
    command.add_argument("--limit", type=positive, default=20, help="at most so many (default: %(default)s)")
    command.add_argument("--json", action="store_true", help="JSON lines")
    command.add_argument("--follow", action="store_true", help="continue with new ones until Ctrl-C")
    command.set_defaults(run=run)


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """List logs; with --follow, until Ctrl-C."""
    filters = filters_of(options)

    def show(db: Connection, rows: Sequence[Row]) -> None:
        if options.json:
            for row in rows:
                about = {"id": row["id"], "made": formatting.iso_time(row["made"]), "reference": row["reference"]}
                terminal.json({**about, **delivery_of(row), "log": queries.stored_log(db, row).fields})
        elif rows:
            terminal.table(_COLUMNS, map(_cells, rows))
        terminal.flush()

    with open_outbox(options.outbox, terminal) as outbox:
        with outbox.open() as db:
            rows = queries.logs(db, filters, limit=options.limit).rows[::-1]
            show(db, rows)
        while options.follow:
            last = rows[-1]["id"] if rows else 0
            time.sleep(_FOLLOW_SECONDS)
            outbox.refresh()
            with outbox.open() as db:
                new = queries.logs_after(db, filters, after=last)
                show(db, new)
            rows = new or rows
    return 0


def _cells(row: Row) -> tuple[object, ...]:
    return (
        row["question"],
        row["error"] or row["answer"],
        row["customer"],
        row["model"],
        row["tokens"],
        formatting.duration(row["latency"]),
        row["state"],
        formatting.iso_time(row["made"]),
        row["reference"],
    )
