"""`serve`: a local Athina that other programs can log to."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path
from typing import Any

from athina_trace.cli.extras import require_packages
from athina_trace.cli.options import between, outbox_path, whole_between
from athina_trace.cli.server_options import add_server_options
from athina_trace.cli.terminal import Terminal

_PORT = 7346
_DEFAULT_STATUS = 503


def add(commands: Any) -> None:
    """Define the options."""
    command = commands.add_parser(
        "serve",
        help="run a local Athina on this machine",
        description="Receive logs like Athina, and show them in a browser. Point programs here with ATHINA_BASE_URL "
        "and any ATHINA_API_KEY. Simulated faults show how they handle a slow or failing Athina.",
    )
    command.add_argument(
        "--outbox", metavar="PATH", help="the file for received logs (default: received.db beside the outboxes)"
    )
    command.add_argument(
        "--fail",
        type=between(0, 1),
        default=0.0,
        metavar="SHARE",
        help="answer this share of requests, 0 to 1, with --status",
    )
    command.add_argument(
        "--status",
        type=whole_between(200, 599),
        default=_DEFAULT_STATUS,
        metavar="CODE",
        help="the status of failures (default: %(default)s); without --fail, all requests fail",
    )
    command.add_argument("--delay", type=between(0, 3600), default=0.0, metavar="SECONDS", help="delay each answer")
    command.add_argument("--key", help="the only API key to accept (default on loopback: any)")
    add_server_options(command, port=_PORT)
    command.set_defaults(run=run)


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Run a local Athina until Ctrl-C."""
    require_packages("ui", "the command serve")
    from athina_trace._serving.server import is_loopback  # noqa: PLC0415 - an optional extra
    from athina_trace.cli import web_server  # noqa: PLC0415 - an optional extra
    from athina_trace.local_athina.api import create_local_athina  # noqa: PLC0415 - an optional extra
    from athina_trace.local_athina.faults import Faults  # noqa: PLC0415 - an optional extra
    from athina_trace.local_athina.received_logs import ReceivedLogs  # noqa: PLC0415 - an optional extra

    token = web_server.access_token(options)
    # If other machines can reach it, logging also needs a key: the visitors' token, unless another key is given.
    key = options.key or (None if is_loopback(options.host) else token)
    path = Path(options.outbox or Path(outbox_path(None)).parent / "received.db").expanduser()
    # A status without a share means that all requests fail.
    share = options.fail or float(options.status != _DEFAULT_STATUS)
    faults = Faults(share=share, status=options.status, delay=options.delay)
    if share or options.delay:
        delay = f", each answer {options.delay:g} s later" if options.delay else ""
        terminal.say(f"Faults on demand: {share:.0%} of all requests are answered with {options.status}{delay}.")

    # Flushed, since a program that starts this server may read the output through a pipe.
    def report(line: str) -> None:
        terminal.say(line)
        terminal.flush()

    with closing(ReceivedLogs(str(path))) as received:
        app = create_local_athina(received, faults=faults, key=key, token=token, names=options.name, report=report)
        code = web_server.serve(app, options, terminal, token, environment=f"ATHINA_API_KEY={key or 'any'}")
    if share or options.delay:
        terminal.say(f"{faults.requests} requests, {sum(faults.failed.values())} of them failed on demand.")
    return code
