"""Options of the commands that serve pages."""

from __future__ import annotations

import argparse
import secrets

from athina_trace.cli.options import whole_between


def add_server_options(command: argparse.ArgumentParser, *, port: int) -> None:
    """Add the options about address and access."""
    command.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only)")
    command.add_argument("--port", type=port_number, help=f"(default: {port}, or a free one if that is taken)")
    command.add_argument(
        "--token",
        type=_token,
        nargs="?",
        const=secrets.token_hex(16),
        help="require a token; without a value, a random one (default: a random one unless on loopback)",
    )
    command.add_argument("--name", action="append", default=[], help="a host name to serve; may be repeated")
    command.add_argument("--no-open", action="store_true", help="do not open the browser")
    command.set_defaults(default_port=port)


port_number = whole_between(0, 65_535)
"""Parses a port; 0 means any free one."""


def _token(text: str) -> str:
    # It is part of a URL and of a cookie, where other characters would need quoting.
    if not (text.isascii() and text.isalnum()):
        raise argparse.ArgumentTypeError("it must consist of letters and digits")
    return text
