"""`demo`: fill a separate outbox with sample conversations, and show them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from athina_trace.cli.commands import ui
from athina_trace.cli.extras import require_packages
from athina_trace.cli.options import outbox_path
from athina_trace.cli.server_options import add_server_options
from athina_trace.cli.terminal import Terminal
from athina_trace.viewer import sample


def add(commands: Any) -> None:
    """Define the options."""
    command = commands.add_parser(
        "demo",
        help="show sample conversations in a separate outbox",
        description="Fill a separate outbox with sample conversations, and show them. Nothing is sent anywhere.",
    )
    add_server_options(command, port=ui.PORT)
    command.set_defaults(run=run)


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Fill the sample outbox, then show it if there is a terminal."""
    require_packages("ui", "the command demo")
    # Beside the user's outboxes, but never one of them: the sample replaces its content.
    path = str(Path(outbox_path(None)).parent / "demo.db")
    logs = sample.fill(path)
    terminal.say(f"{logs} logs of {sample.SESSIONS} sample conversations are in {path}")
    if not terminal.is_terminal:  # a script would wait for ever for the viewer to end
        terminal.say(f"To see them: athina-trace ui --outbox {path}")
        return 0
    options.outbox = path
    return ui.run(options, terminal)
