"""`flush`: send waiting logs."""

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
        "flush", help="send waiting logs", description="Send waiting logs now, and print how many were sent."
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
    """Send waiting logs; return 1 if some still wait."""
    try:
        path = existing_outbox(options.outbox)
    except NothingLoggedError as error:
        terminal.say(str(error))  # not an error, for example at the end of a job that had nothing to do
        return 0
    settings = Settings.build()
    if settings.api_key is None and settings.relay is None:
        raise CommandError("there is no ATHINA_API_KEY, so nothing can be sent; everything is kept")
    if sqlite.missing is not None:  # a flush would use memory, and send nothing from the file
        raise CommandError(
            f"{sqlite.missing}, so logs in {path} cannot be sent: install a Python that has the module `sqlite3`"
        )
    _runtime.configure(outbox=path)
    waiting = _runtime.status().waiting
    terminal.say(f"{waiting} waiting in {path}")
    terminal.flush()
    # In short steps, to show progress.
    deadline = time.monotonic() + options.timeout
    while True:
        report = _runtime.flush(max(0.0, min(_STEP_SECONDS, deadline - time.monotonic())))
        # Waiting does not correct a wrong key: report the reason at once.
        if not report.waiting or report.paused or time.monotonic() >= deadline:
            break
        terminal.progress(f"{report.waiting} of {waiting} still waiting")
    terminal.progress("")
    _runtime.shutdown(0)  # the rest stays on disk
    hint = f", {report.refused} refused: athina-trace logs --state refused" if report.refused else ""
    terminal.say(f"{waiting - report.waiting} sent, {report.waiting} waiting{hint}")
    if report.paused:
        terminal.complain(f"nothing is sent ({report.paused}); check ATHINA_API_KEY and ATHINA_BASE_URL")
    return 0 if report.waiting == 0 else 1
