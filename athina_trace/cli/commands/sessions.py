"""`sessions`: list conversations, the newest first."""

from __future__ import annotations

import argparse
from typing import Any

from athina_trace.cli.options import add_filters, add_outbox, filters_of, open_outbox, positive
from athina_trace.cli.terminal import Column, Terminal
from athina_trace.viewer import formatting, queries

_COLUMNS = (
    Column("First question"),
    Column("Customer", 24),
    Column("Turns", 6, right=True),
    Column("Tokens", 8, right=True),
    Column("Errors", 6, right=True),
    Column("Last activity", 20),
    Column("Session", 36, shown_from=120),
)


def add(commands: Any) -> None:
    """Define the options."""
    description = "list conversations, the newest first"
    command = commands.add_parser("sessions", help=description, description=f"{description.capitalize()}.")
    add_outbox(command)
    add_filters(command)
    command.add_argument("--limit", type=positive, default=20, help="at most so many (default: %(default)s)")
    command.add_argument("--json", action="store_true", help="JSON lines")
    command.set_defaults(run=run)


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """List conversations."""
    with open_outbox(options.outbox, terminal) as outbox, outbox.open() as db:
        rows = queries.sessions(db, filters_of(options), limit=options.limit).rows
        if options.json:
            for row in rows:
                values = dict(zip(row.keys(), row, strict=True))
                terminal.json({name: value for name, value in values.items() if name not in ("cursor", "last_id")})
        else:
            names = ("question", "customer", "turns", "tokens", "errors")
            cells = ((*(row[name] for name in names), formatting.iso_time(row["last"]), row["name"]) for row in rows)
            terminal.table(_COLUMNS, cells)
    return 0
