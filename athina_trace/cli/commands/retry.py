"""`retry`: queue refused logs again."""

from __future__ import annotations

import argparse
from typing import Any

from athina_trace._delivery import maintenance
from athina_trace.cli.extras import require_packages
from athina_trace.cli.options import RELAY, add_outbox, open_outbox
from athina_trace.cli.terminal import Terminal, UsageError
from athina_trace.viewer import formatting, queries


def add(commands: Any) -> None:
    """Define the options."""
    command = commands.add_parser(
        "retry",
        help="send refused logs again",
        description="Queue refused logs again. A running program sends them, or `athina-trace flush`.",
    )
    command.add_argument("reference", nargs="*", help="the external_reference_id of each log")
    command.add_argument("--all", action="store_true", help="all refused logs")
    add_outbox(command, relay=True)
    command.set_defaults(run=run)


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Queue refused logs again; return 1 if there are none."""
    # Exactly one of the two: no accidental `--all`, and no references beside it.
    if bool(options.reference) == options.all:
        raise UsageError("name the references of refused logs, or --all")
    if options.outbox == RELAY:
        retried = _retry_in_relay(options.reference or None)
        terminal.say(f"{formatting.integer(retried)} published again" if retried else "none of those was refused")
        return 0 if retried else 1
    with open_outbox(options.outbox, terminal) as outbox:
        with outbox.open() as db:
            ids = None if options.all else queries.refused_ids(db, options.reference)
        retried = maintenance.retry(outbox.path, ids)
    terminal.say(f"{formatting.integer(retried)} waiting again" if retried else "none of those was refused")
    return 0 if retried else 1


def _retry_in_relay(references: list[str] | None) -> int:
    require_packages("nats", "the relay")
    from athina_trace.cli.relay_connection import ask_relay  # noqa: PLC0415 - an optional extra
    from athina_trace.relay.refused import retry  # noqa: PLC0415 - an optional extra

    return ask_relay(lambda client, names: retry(client, names, references))
