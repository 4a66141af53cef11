"""`purge`: delete logs of one state."""

from __future__ import annotations

import argparse
import time
from typing import Any

from athina_trace._delivery import maintenance
from athina_trace.cli.options import add_outbox, age, open_outbox
from athina_trace.cli.terminal import CommandError, Terminal
from athina_trace.viewer import formatting
from athina_trace.viewer.filters import STATES


def add(commands: Any) -> None:
    """Define the options."""
    command = commands.add_parser("purge", help="delete logs", description="Delete logs of one state. Asks first.")
    command.add_argument("--state", choices=STATES, required=True, help="the state; waiting logs have not been sent")
    command.add_argument("--older-than", type=age, metavar="AGE", help="minimum age, such as 7d or 24h (default: any)")
    command.add_argument("--yes", action="store_true", help="do not ask")
    add_outbox(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Delete logs, after confirmation by a person or --yes."""
    # Without an age, logs that are made while a person reads the question are included.
    before = options.older_than
    with open_outbox(options.outbox, terminal) as outbox:
        made = f" made before {formatting.readable_time(before)}" if before is not None else ""
        what = f"{options.state} logs{made} in {outbox.path}"
        if not options.yes and not (terminal.can_ask and terminal.ask(f"Delete all {what}?")):
            raise CommandError(f"nothing was deleted; to delete all {what} without being asked, add --yes")
        deleted = maintenance.purge(outbox.path, options.state, before=time.time() + 1 if before is None else before)
        # Otherwise the index would contain their texts until it is next updated.
        outbox.clear_index()
    terminal.say(f"{formatting.integer(deleted)} deleted")
    return 0
