"""`show`: print one complete log."""

from __future__ import annotations

import argparse
from typing import Any

from athina_trace.cli.options import add_outbox, open_outbox
from athina_trace.cli.terminal import CommandError, Terminal
from athina_trace.viewer import formatting, queries
from athina_trace.viewer.conversation import NO_LIMITS, Turn, read_turn


def add(commands: Any) -> None:
    """Define the options."""
    command = commands.add_parser("show", help="show one log", description="Show one log, whole.")
    command.add_argument("reference", help="its external_reference_id or its number")
    command.add_argument("--json", action="store_true", help="the JSON as it is sent")
    add_outbox(command, relay=True)
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
    turn = read_turn(log, NO_LIMITS)
    for title, text in texts_of(turn):
        if text:
            terminal.say(title, style="bold")
            terminal.say(f"{text}\n")
    values = [(name, value) for name, value in values_of(turn) if value not in (None, "")]
    width = max(len(name) for name, _ in values)
    for name, value in values:
        first, *more = str(value).splitlines()
        terminal.say(f"{name:<{width}}  {first}")
        for line in more:
            terminal.say(f"{'':<{width}}  {line}")
    return 0


def texts_of(turn: Turn) -> list[tuple[str, str]]:
    """Return the texts of a turn with titles, in the order of a conversation."""
    return [
        *(("System", each.shown) for each in turn.system),
        *((f"Before ({each.role})", each.content.shown) for each in turn.history),
        ("User", turn.question.shown),
        (
            "Attached",
            "\n".join(" ".join(dict.fromkeys(filter(None, (it.name, it.url, it.note)))) for it in turn.attachments),
        ),
        *(("Context", each.shown) for each in turn.context),
        *((f"Tool {each.name}", f"{each.arguments.shown}\n→ {each.output.shown}") for each in turn.tools),
        ("Assistant", turn.answer.shown),
        ("Expected", turn.expected.shown),
        ("Error", turn.error.shown),
        ("Comment of the user", turn.comment.shown),
    ]


def values_of(turn: Turn) -> list[tuple[str, Any]]:
    """Return everything else by name: first what a list shows, then all other fields and custom attributes."""
    row = turn.log.row
    # Pairs rather than a dict, since a custom attribute may have the same name as a field.
    latency = None if row["latency"] is None else formatting.duration(row["latency"])
    return [
        ("model", row["model"]),
        ("tokens", row["tokens"]),
        ("latency", latency),
        ("feedback", formatting.feedback(row["feedback"])),
        *((name, row[name]) for name in ("session", "customer", "user", "environment", "slug")),
        *turn.details,
        ("state", row["state"]),
        ("answer status", row["status"]),
        ("reason", row["reason"]),
        ("prompt_run_id", row["prompt_run_id"]),
        ("made", formatting.readable_time(row["made"])),
        ("reference", row["reference"]),
        ("number", row["id"]),
    ]
