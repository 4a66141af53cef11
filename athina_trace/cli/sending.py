"""Commands about delivery: flush sends what waits, retry sends again what was refused."""

from __future__ import annotations

import argparse
import time
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from athina_trace import _runtime
from athina_trace._delivery import maintenance
from athina_trace.cli.outboxes import add_outbox, existing, opened
from athina_trace.cli.terminal import Failure, Terminal
from athina_trace.settings import Settings
from athina_trace.viewer import forms, queries

_GLANCE_SECONDS = 0.25
_LINE_SECONDS = 5.0


def add(commands: Any) -> None:
    """Name the commands and their options."""
    command = commands.add_parser(
        "flush", help="send what waits", description="Send what waits, now, and tell how far that came."
    )
    command.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="give up after (default: %(default)s)"
    )
    add_outbox(command)
    command.set_defaults(run=flush)
    command = commands.add_parser(
        "retry",
        help="send again what Athina refused",
        description="Let refused logs wait again. A running program sends them, or `athina-trace flush`.",
    )
    command.add_argument("reference", nargs="*", help="the external_reference_id of each log")
    command.add_argument("--all", action="store_true", help="all that were refused")
    add_outbox(command)
    command.set_defaults(run=retry)


def flush(given: argparse.Namespace, terminal: Terminal) -> int:
    """Send what waits; 1 where something still does."""
    path = existing(given)
    if Settings.build().api_key is None:
        raise Failure("there is no ATHINA_API_KEY, so nothing can be sent; everything is kept")
    _runtime.configure(outbox=path)
    waiting = _runtime.status().waiting
    terminal.say(f"{waiting} waiting in {path}")
    left, refused, paused = _watched(waiting, given.timeout, terminal)
    _runtime.shutdown(0)
    hint = f", {refused} refused: athina-trace logs --state refused" if refused else ""
    terminal.say(f"{waiting - left} gone, {left} waiting{hint}")
    if paused:
        terminal.complain(f"nothing is sent ({paused}); check ATHINA_API_KEY and ATHINA_BASE_URL")
    return 0 if left == 0 else 1


def _watched(waiting: int, timeout: float, terminal: Terminal) -> tuple[int, int, str | None]:
    """Flush in short pieces, and show how far it came: a bar on a terminal, now and then a line elsewhere.

    Gives how many still wait, how many were refused, and why nothing is sent.
    """
    ends = time.monotonic() + max(0.0, timeout)
    said = time.monotonic()
    columns = (TextColumn("Sending"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=terminal.console, disable=not terminal.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=waiting)
        while True:
            report = _runtime.flush(max(0.0, min(_GLANCE_SECONDS, ends - time.monotonic())))
            progress.update(task, completed=max(0, waiting - report.waiting))
            if not report.waiting or report.paused or time.monotonic() >= ends:
                return report.waiting, report.refused, report.paused
            if not terminal.is_terminal and time.monotonic() - said > _LINE_SECONDS:
                said = time.monotonic()
                terminal.say(f"{report.waiting} still waiting")
                terminal.flush()


def retry(given: argparse.Namespace, terminal: Terminal) -> int:
    """Let refused logs wait again; 1 where there was none."""
    if bool(given.reference) == given.all:
        raise Failure("say which: references, or --all")
    with opened(given) as source:
        with source.open() as db:
            numbers = None if given.all else queries.refused_numbers(db, given.reference)
        done = maintenance.retry(source.path, numbers)
    terminal.say(f"{forms.amount(done)} waiting again" if done else "none of those was refused")
    return 0 if done else 1
