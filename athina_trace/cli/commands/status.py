"""`status`: print the counts of waiting, refused and delivered logs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from athina_trace.cli.options import add_outbox, open_outbox
from athina_trace.cli.terminal import Terminal
from athina_trace.viewer import formatting, queries


def add(commands: Any) -> None:
    """Define the options."""
    description = "counts of the outbox: waiting, refused, delivered"
    command = commands.add_parser("status", help=description, description=f"{description.capitalize()}.")
    command.add_argument("--json", action="store_true", help="one JSON object")
    add_outbox(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Print the counts."""
    with open_outbox(options.outbox, terminal) as outbox, outbox.open() as db:
        status = queries.outbox_status(db)
    if options.json:
        terminal.json({**status._asdict(), "outbox": outbox.path})
        return 0
    for name in ("waiting", "refused", "delivered", "received", "dropped", "damaged", "logs", "sessions"):
        if name in ("received", "damaged") and not getattr(status, name):
            continue  # only a local Athina receives logs, and few disks fail
        terminal.say(f"{name:<12} {formatting.integer(getattr(status, name))}")
    terminal.say(f"{'on disk':<12} {formatting.byte_size(status.bytes)}")
    if status.waiting_since is not None:
        terminal.say(f"{'oldest waits':<12} since {formatting.readable_time(status.waiting_since)}")
    if status.waiting and Path(outbox.path).stem == "local":
        terminal.say(f"{'key':<12} none: waiting logs stay here; set ATHINA_API_KEY to have new logs sent")
    if status.paused is not None:
        terminal.say(f"{'paused':<12} {status.paused} (since {formatting.readable_time(status.paused_since)})")
    if status.next_attempt_at is not None:
        next_try = formatting.readable_time(status.next_attempt_at)
        terminal.say(f"{'next try':<12} {next_try}, attempt {status.attempts + 1}")
    terminal.say(f"{'outbox':<12} {outbox.path}")
    return 0
