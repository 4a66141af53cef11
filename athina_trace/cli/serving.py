"""Commands that show something in a browser: demo, ui, and serve, which plays Athina's part."""

from __future__ import annotations

import argparse
import math
import os
import secrets
import sys
import threading
import webbrowser
from contextlib import closing
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from athina_trace.cli.outboxes import add_outbox, path_of
from athina_trace.cli.terminal import Failure, Terminal
from athina_trace.local_athina.app import create_local_athina
from athina_trace.local_athina.faults import Faults
from athina_trace.local_athina.received import Received
from athina_trace.viewer import sample
from athina_trace.viewer.app import create_app
from athina_trace.viewer.server import Server, is_loopback, listen, url_of
from athina_trace.viewer.source import Source

UI_PORT = 7345
SERVE_PORT = 7346


def add(commands: Any) -> None:
    """Name the commands and their options."""
    command = commands.add_parser(
        "demo",
        help="fill an outbox of its own with sample conversations, and show them",
        description="Fill an outbox of its own with sample conversations, and show them. Nothing is sent anywhere.",
    )
    _add_place(command, UI_PORT)
    command.set_defaults(run=demo, outbox=None)
    command = commands.add_parser(
        "ui", help="look at the outbox in a browser", description="Show the outbox in a browser."
    )
    add_outbox(command)
    _add_place(command, UI_PORT)
    command.set_defaults(run=ui)
    _add_serve(commands)


def _add_serve(commands: Any) -> None:
    command = commands.add_parser(
        "serve",
        help="play Athina's part on this machine",
        description="Take logs as Athina does, and show them in a browser. Point programs here with ATHINA_BASE_URL "
        "and any ATHINA_API_KEY. Faults on demand try out how they bear an Athina that is slow or failing.",
    )
    command.add_argument(
        "--outbox", metavar="PATH", help="the file for what arrives (default: received.db beside the outboxes)"
    )
    command.add_argument(
        "--fail", type=_share, default=0.0, metavar="SHARE", help="answer this share of requests, 0 to 1, with --status"
    )
    command.add_argument(
        "--status",
        type=_status,
        default=503,
        metavar="CODE",
        help="the status of failures (default: %(default)s); given without --fail, all fail",
    )
    command.add_argument("--delay", type=_seconds, default=0.0, metavar="SECONDS", help="answer so much later")
    command.add_argument("--key", help="take this API key alone (default on loopback: any)")
    _add_place(command, SERVE_PORT)
    command.set_defaults(run=serve)


def _add_place(command: argparse.ArgumentParser, port: int) -> None:
    command.add_argument("--host", default="127.0.0.1", help="where to listen (default: this machine alone)")
    command.add_argument("--port", type=int, default=None, help=f"(default: {port}, or a free one where that is taken)")
    command.add_argument(
        "--token", help="ask visitors for this token (made up where the host is not this machine alone)"
    )
    command.add_argument("--name", action="append", default=[], help="a host name under which the pages are asked for")
    command.add_argument("--no-open", action="store_true", help="leave the browser alone")
    command.set_defaults(default_port=port)


def _share(text: str) -> float:
    return _number(text, 0, 1)


def _seconds(text: str) -> float:
    return _number(text, 0, 3600)


def _status(text: str) -> int:
    return int(_number(text, 200, 599))


def _number(text: str, least: float, most: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from {least} to {most}")
    return number


def demo(given: argparse.Namespace, terminal: Terminal) -> int:
    """Fill the sample outbox, then show it."""
    path = str(Path(path_of(given)).parent / "demo.db")
    number = sample.fill(path)
    terminal.say(f"{number} logs of {sample.SESSIONS} sample conversations are in {path}")
    given.outbox = path
    return ui(given, terminal) if terminal.is_terminal else _point(path, terminal)


def _point(path: str, terminal: Terminal) -> int:
    terminal.say(f"Look at them: athina-trace ui --outbox {path}")
    return 0


def ui(given: argparse.Namespace, terminal: Terminal) -> int:
    """Show an outbox until Ctrl-C."""
    token = _token(given)
    path = path_of(given)
    source = Source(path)
    has_engine = Path(path).stem not in ("local", "demo")
    return _serve(create_app(source, token=token, names=given.name, has_engine=has_engine), given, terminal, token)


def serve(given: argparse.Namespace, terminal: Terminal) -> int:
    """Play Athina's part until Ctrl-C."""
    token = _token(given)
    key = given.key or (None if is_loopback(given.host) else token)
    path = given.outbox or str(Path(path_of(argparse.Namespace(outbox=None))).parent / "received.db")
    faults = Faults(share=given.fail or float(given.status != 503), status=given.status, delay=given.delay)  # noqa: PLR2004
    with closing(Received(str(Path(path).expanduser()))) as received:
        app = create_local_athina(received, faults=faults, key=key, token=token, names=given.name)
        return _serve(app, given, terminal, token, f"ATHINA_API_KEY={key or 'any'}")


def _token(given: argparse.Namespace) -> str | None:
    """Strangers on the network are asked for a token; on this machine alone only who wants one."""
    if given.token is not None and not (given.token.isascii() and given.token.isalnum()):
        raise Failure("--token must consist of letters and digits")
    return given.token or (None if is_loopback(given.host) else secrets.token_hex(16))


def _serve(app: ASGIApp, given: argparse.Namespace, terminal: Terminal, token: str | None, key: str = "") -> int:
    port = given.default_port if given.port is None else given.port
    listener = listen(given.host, port, spare=given.port is None)
    server = Server(app, listener)
    if key:
        terminal.say(f"Local Athina listens. Point programs here: ATHINA_BASE_URL={server.url} {key}")
    terminal.say(f"Viewer: {url_of(listener, token=token)}   (Ctrl-C ends it)")
    terminal.flush()
    if terminal.is_terminal and not given.no_open and is_loopback(given.host):
        _open_soon(url_of(listener, token=token))
    try:
        server.serve_here()
    except KeyboardInterrupt:
        return 130
    finally:
        listener.close()
    return 0


def _open_soon(url: str) -> None:
    """Open the browser without waiting for it; the socket listens already, so that it may come at once."""
    if sys.platform.startswith("linux") and not any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    ):
        return  # a text browser would take the terminal over
    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
