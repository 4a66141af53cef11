"""`show`: print one log."""

from __future__ import annotations

import argparse
from typing import Any

from athina_trace.cli.options import add_outbox, open_outbox
from athina_trace.cli.terminal import CommandError, Terminal
from athina_trace.viewer import formatting, queries
from athina_trace.viewer.conversation import read_turn


def add(commands: Any) -> None:
    """Define the options."""
    command = commands.add_parser("show", help="show one log", description="Show one log, whole.")
    command.add_argument("reference", help="its external_reference_id or its number")
    command.add_argument("--json", action="store_true", help="the JSON as it is sent")
    add_outbox(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Print one log."""
    with open_outbox(options.outbox, terminal) as outbox, outbox.open() as db:
        log = queries.log(db, options.reference)
        if log is None:
            raise CommandError(
                f"there is no log {options.reference!r} in {outbox.path}; `athina-trace logs` lists them"
            )
    if options.json:
        terminal.json(log.fields, indent=2)
        return 0
    turn, row = read_turn(log), log.row
    texts = [
        *(("System", each.shown) for each in turn.system),
        ("User", turn.question.shown),
        *(("Context", each.shown) for each in turn.context),
        *((f"Tool {each.name}", f"{each.arguments.shown}\n→ {each.output.shown}") for each in turn.tools),
        ("Assistant", turn.answer.shown),
        ("Expected", turn.expected.shown),
        ("Error", turn.error.shown),
    ]
    for title, text in texts:
        if text:
            terminal.say(title, style="bold")
            terminal.say(f"{text}\n")
    for name in ("model", "tokens", "session", "customer", "user", "environment", "slug", "state", "reason"):
        if row[name] is not None:
            terminal.say(f"{name:<12} {row[name]}")
    terminal.say(f"{'latency':<12} {formatting.duration(row['latency'])}")
    terminal.say(f"{'made':<12} {formatting.readable_time(row['made'])}")
    terminal.say(f"{'reference':<12} {row['reference']}")
    return 0
