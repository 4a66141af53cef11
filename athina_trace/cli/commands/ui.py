"""`ui`: show the outbox in a browser."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from athina_trace.cli.extras import require_packages
from athina_trace.cli.options import add_outbox, outbox_path
from athina_trace.cli.server_options import add_server_options
from athina_trace.cli.terminal import Terminal, UsageError
from athina_trace.settings import Settings
from athina_trace.viewer.indexed_outbox import IndexedOutbox

if TYPE_CHECKING:
    from athina_trace.relay.status import RelayStatus

PORT = 7345


def add(commands: Any) -> None:
    """Define the options."""
    command = commands.add_parser(
        "ui", help="show the outbox in a browser", description="Show the outbox in a browser."
    )
    add_outbox(command)
    add_server_options(command, port=PORT)
    command.set_defaults(run=run)


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Show an outbox until Ctrl-C."""
    require_packages("ui", "the command ui")
    from athina_trace.cli import web_server  # noqa: PLC0415 - an optional extra
    from athina_trace.viewer.app import create_app  # noqa: PLC0415 - an optional extra

    token = web_server.access_token(options)
    path = outbox_path(options.outbox)
    # The outboxes of programs without a key and of the demo: logs there are not meant to be sent, so the page does
    # not warn that they wait.
    has_engine = Path(path).stem not in ("local", "demo")
    app = create_app(
        IndexedOutbox(path), token=token, names=options.name, has_engine=has_engine, relay_status=_relay_status()
    )
    return web_server.serve(app, options, terminal, token)


def _relay_status() -> Callable[[], RelayStatus | str] | None:
    """Return a function that returns the status of the relay in the settings; None if there is none."""
    if Settings.build().relay is None:
        return None
    try:
        require_packages("nats", "the relay")
    except UsageError as error:
        reason = str(error)
        return lambda: reason
    from athina_trace.cli.relay_connection import RelayWatch  # noqa: PLC0415 - an optional extra

    return RelayWatch().status
