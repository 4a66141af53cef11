"""`flush`: send what waits."""

from __future__ import annotations

import argparse
import time
from typing import Any

from athina_trace import _runtime
from athina_trace._delivery import sqlite
from athina_trace.cli.options import add_outbox, between, existing_outbox
from athina_trace.cli.terminal import CommandError, NothingLoggedError, Terminal
from athina_trace.settings import Settings

_STEP_SECONDS = 0.25
"""How often the progress is shown."""


def add(commands: Any) -> None:
    """Define the options."""
    command = commands.add_parser(
        "flush", help="send what waits", description="Send what waits, now, and report how much was sent."
    )
    command.add_argument(
        "--timeout",
        type=between(0, 86_400),
        default=60.0,
        metavar="SECONDS",
        help="give up after (default: %(default)s)",
    )
    add_outbox(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Send what waits; 1 where something still does."""
    try:
        path = existing_outbox(options.outbox)
    except NothingLoggedError as error:
        terminal.say(str(error))  # as at the end of a job that had nothing to do
        return 0
    settings = Settings.build()
    if settings.api_key is None and settings.relay is None:
        raise CommandError("there is no ATHINA_API_KEY, so nothing can be sent; everything is kept")
    if sqlite.missing is not None:  # a program would deliver from memory: nothing in the file would be sent
        raise CommandError(
            f"{sqlite.missing}, so that what waits in {path} is not sent: install a Python with its module `sqlite3`"
        )
    _runtime.configure(outbox=path)
    waiting = _runtime.status().waiting
    terminal.say(f"{waiting} waiting in {path}")
    terminal.flush()
    # In short steps between which progress is shown.
    deadline = time.monotonic() + options.timeout
    while True:
        report = _runtime.flush(max(0.0, min(_STEP_SECONDS, deadline - time.monotonic())))
        # A wrong key does not become right by waiting: the reason is worth more than the rest of the timeout.
        if not report.waiting or report.paused or time.monotonic() >= deadline:
            break
        terminal.progress(f"{report.waiting} of {waiting} still waiting")
    terminal.progress("")
    _runtime.shutdown(0)  # what is left stays on disk
    hint = f", {report.refused} refused: athina-trace logs --state refused" if report.refused else ""
    terminal.say(f"{waiting - report.waiting} sent, {report.waiting} waiting{hint}")
    if report.paused:
        terminal.complain(f"nothing is sent ({report.paused}); check ATHINA_API_KEY and ATHINA_BASE_URL")
    return 0 if report.waiting == 0 else 1
