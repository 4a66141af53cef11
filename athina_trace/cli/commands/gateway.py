"""`gateway`: one address that receives the logs of programs in any language."""

from __future__ import annotations

import argparse
import os
from typing import Any

from athina_trace import _runtime
from athina_trace._delivery import sqlite
from athina_trace.cli.extras import require_packages
from athina_trace.cli.options import positive
from athina_trace.cli.server_options import port_number
from athina_trace.cli.terminal import Terminal, UsageError
from athina_trace.settings import MEMORY

_PORT = 7347
_TOKEN_VARIABLE = "ATHINA_GATEWAY_TOKEN"  # noqa: S105 - the variable's name, not a token
_LEAST_TOKEN = 16


def add(commands: Any) -> None:
    """Define the options."""
    command = commands.add_parser(
        "gateway",
        help="receive logs over HTTP, from programs in any language",
        description="Receive logs through Athina's own API and OTLP, keep them in the outbox of the environment's "
        "settings, and deliver them from there. A request is answered once its log is on disk. Unless the gateway "
        f"listens on loopback, clients must send the token in the variable {_TOKEN_VARIABLE}, as their ATHINA_API_KEY "
        "or as a bearer token.",
    )
    command.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only)")
    command.add_argument("--port", type=port_number, default=_PORT, help="(default: %(default)s; 0: any free one)")
    command.add_argument(
        "--name",
        action="append",
        default=[],
        help="a host name that programs on this machine may use without a token; may be repeated",
    )
    command.add_argument(
        "--connections",
        type=positive,
        default=1000,
        metavar="N",
        help="maximum number of connections (default: %(default)s)",
    )
    command.add_argument(
        "--max-body",
        type=positive,
        default=10_000_000,
        metavar="BYTES",
        help="maximum size of a body, decompressed (default: %(default)s)",
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Receive logs until SIGTERM or Ctrl-C."""
    require_packages("gateway", "the command gateway")
    from athina_trace._serving.server import is_loopback, listen, url_of  # noqa: PLC0415 - an optional extra
    from athina_trace.gateway.app import create_gateway  # noqa: PLC0415 - an optional extra
    from athina_trace.gateway.connections import Connections  # noqa: PLC0415 - an optional extra
    from athina_trace.gateway.server import GatewayServer, allow_files  # noqa: PLC0415 - an optional extra

    token = os.environ.get(_TOKEN_VARIABLE, "").strip() or None
    if token is None and not is_loopback(options.host):
        raise UsageError(
            f"other machines can reach {options.host}: set {_TOKEN_VARIABLE} to a token that clients must send, such "
            "as the output of `openssl rand -hex 16`, or listen on 127.0.0.1"
        )
    if token is not None and not (token.isascii() and token.isprintable() and len(token) >= _LEAST_TOKEN):
        raise UsageError(f"{_TOKEN_VARIABLE} must have at least {_LEAST_TOKEN} characters, all of them printable ASCII")
    settings = _runtime.configure()
    if not settings.enabled:
        raise UsageError("ATHINA_TRACE_ENABLED is off: a gateway would accept no logs")
    in_memory, remedy = f"ATHINA_OUTBOX={MEMORY}", "name a file"
    if sqlite.missing is not None:
        in_memory, remedy = f"{sqlite.missing}, so a gateway", "install a Python that has the module `sqlite3`"
    is_durable = settings.outbox_path() != MEMORY and sqlite.missing is None
    if not is_durable and not settings.flush_each_call:
        raise UsageError(
            f"{in_memory} would lose acknowledged logs: {remedy}, or set ATHINA_FLUSH_EACH_CALL=1, so that each "
            "answer waits for delivery"
        )
    limits = Connections(allow_files(options.connections))
    app = create_gateway(token=token, names=frozenset(options.name), max_body=options.max_body, limits=limits)
    listener = listen(options.host, options.port)
    terminal.say(f"Gateway is listening. Point programs here: ATHINA_BASE_URL={url_of(listener).rstrip('/')}")
    where = f"sent to {settings.base_url}" if settings.api_key else "not sent, since ATHINA_API_KEY is not set"
    where = "sent to the relay" if settings.relay else where
    terminal.say(f"Logs are kept in {settings.outbox_path() if is_durable else 'memory'} and {where}.")
    if limits.limit < options.connections:
        terminal.complain(f"open files are limited (ulimit -n), so at most {limits.limit} connections are accepted")
    terminal.flush()
    return GatewayServer(app, limits).serve_until_signal(listener)
