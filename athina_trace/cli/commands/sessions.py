"""`sessions`: list conversations, the newest first."""

from __future__ import annotations

import argparse
import time
from typing import Any

from athina_trace.cli.json_records import session_record
from athina_trace.cli.options import add_filters, add_outbox, explain_nothing, filters_of, open_outbox, positive
from athina_trace.cli.terminal import Column, Terminal
from athina_trace.viewer import formatting, queries

_COLUMNS = (
    Column("First question"),
    Column("Customer", 18),
    Column("Turns", 5, right=True),
    Column("Tokens", 8, right=True, shown_from=140),
    Column("Errors", 6, right=True),
    Column("Liked", 5, right=True, shown_from=120, plain=False),
    Column("Disliked", 8, right=True, shown_from=120, plain=False),
    Column("Last", 10, right=True, plain=False),
    Column("Last at", shown_from=None),
    Column("Session", 36, shown_from=120),
)


def add(commands: Any) -> None:
    """Define the options."""
    description = "list conversations, the newest first"
    command = commands.add_parser("sessions", help=description, description=f"{description.capitalize()}.")
    add_outbox(command, relay=True)
    add_filters(command)
    command.add_argument("--limit", type=positive, default=20, help="how many at most (default: %(default)s)")
    command.add_argument("--json", action="store_true", help="JSON lines; times are seconds since the epoch")
    command.set_defaults(run=run)


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """List conversations."""
    filters = filters_of(options)
    with open_outbox(options.outbox, terminal) as outbox, outbox.open() as db:
        rows = queries.sessions(db, filters, limit=options.limit).rows
        if options.json:
            for row in rows:
                terminal.json(session_record(row))
        elif rows:
            now, names = time.time(), ("question", "customer", "turns", "tokens", "errors", "liked", "disliked")
            times = ((formatting.time_ago(row["last"], now=now), formatting.iso_time(row["last"])) for row in rows)
            cells = (
                (*(row[name] for name in names), *last, row["name"]) for row, last in zip(rows, times, strict=True)
            )
            terminal.table(_COLUMNS, cells)
        else:
            explain_nothing(db, filters, terminal)
    return 0
