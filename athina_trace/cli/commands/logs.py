"""`logs`: list logs, the newest last."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from typing import Any

from athina_trace._delivery.sqlite import Connection, Row
from athina_trace.cli.json_records import log_record
from athina_trace.cli.options import add_filters, add_outbox, explain_nothing, filters_of, open_outbox, positive
from athina_trace.cli.terminal import Column, Terminal
from athina_trace.viewer import formatting, queries

_FOLLOW_SECONDS = 0.5
# At 80 columns, enough to find a bad answer; wider terminals show more. `show` accepts the number, since references are
# too long for a table.
_COLUMNS = (
    Column("Question"),
    Column("Answer"),
    Column("Customer", 18, shown_from=120),
    Column("Model", 18, shown_from=140),
    Column("Tokens", 7, right=True, shown_from=140),
    Column("Latency", 8, right=True, shown_from=100),
    Column("Feedback", 8, shown_from=110, plain=False),
    Column("State", 9),
    Column("Made", 10, right=True, plain=False),
    Column("Made at", shown_from=None),
    Column("No.", 7, right=True, plain=False),
    Column("Reference", 36, shown_from=200),
)


def add(commands: Any) -> None:
    """Define the options."""
    command = commands.add_parser("logs", help="list logs, the newest last", description="List logs, the newest last.")
    add_outbox(command, relay=True)
    add_filters(command)
    command.add_argument("--limit", type=positive, default=20, help="how many at most (default: %(default)s)")
    command.add_argument("--json", action="store_true", help="JSON lines; times are seconds since the epoch")
    command.add_argument("--follow", action="store_true", help="continue with new ones until Ctrl-C")
    command.set_defaults(run=run)


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """List logs; with --follow, until Ctrl-C."""
    filters = filters_of(options)

    def show(db: Connection, rows: Sequence[Row]) -> None:
        if options.json:
            for row in rows:
                terminal.json(log_record(queries.stored_log(db, row)))
        elif rows:
            terminal.table(_COLUMNS, _cells(rows))
        terminal.flush()

    with open_outbox(options.outbox, terminal) as outbox:
        with outbox.open() as db:
            rows = queries.logs(db, filters, limit=options.limit).rows[::-1]
            show(db, rows)
            if not rows and not options.json:
                explain_nothing(db, filters, terminal)
        while options.follow:
            last = rows[-1]["id"] if rows else 0
            time.sleep(_FOLLOW_SECONDS)
            terminal.raise_where_unread()
            outbox.refresh()
            with outbox.open() as db:
                new = queries.logs_after(db, filters, after=last)
                show(db, new)
            rows = new or rows  # the last one shown is where the next look begins
    return 0


def _cells(rows: Sequence[Row]) -> Iterator[tuple[object, ...]]:
    now = time.time()
    for row in rows:
        yield (
            row["question"],
            row["error"] or row["answer"],
            row["customer"],
            row["model"],
            row["tokens"],
            formatting.duration(row["latency"]),
            formatting.feedback(row["feedback"]),
            row["state"],
            formatting.time_ago(row["made"], now=now),
            formatting.iso_time(row["made"]),
            row["id"],
            row["reference"],
        )
