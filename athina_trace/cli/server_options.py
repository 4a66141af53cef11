"""Options of the commands that serve pages, and the packages that they need."""

from __future__ import annotations

import argparse
import importlib.util

from athina_trace.cli.options import whole_between
from athina_trace.cli.terminal import UsageError

_PACKAGES = {
    "ui": ("jinja2", "markdown_it", "starlette", "uvicorn"),
    "gateway": ("google.protobuf", "httptools", "opentelemetry.proto", "starlette", "uvicorn"),
}
"""Extra → the packages that it brings."""


def add_server_options(command: argparse.ArgumentParser, *, port: int) -> None:
    """Add the options that say where to listen and for whom."""
    command.add_argument("--host", default="127.0.0.1", help="where to listen (default: this machine alone)")
    command.add_argument("--port", type=port_number, help=f"(default: {port}, or a free one where that is taken)")
    command.add_argument("--token", type=_token, help="what visitors must bring (default: a random one off loopback)")
    command.add_argument("--name", action="append", default=[], help="a host name of the pages; may be repeated")
    command.add_argument("--no-open", action="store_true", help="do not open the browser")
    command.set_defaults(default_port=port)


port_number = whole_between(0, 65_535)
"""Parses a port; 0 means any free one."""


def _token(text: str) -> str:
    # It is part of an address and of a cookie, where other characters would need quoting.
    if not (text.isascii() and text.isalnum()):
        raise argparse.ArgumentTypeError("it must consist of letters and digits")
    return text


def require_packages(command: str, extra: str = "ui") -> None:
    """Raise `UsageError` where a package that a server needs is missing."""
    missing: list[str] = []
    for name in _PACKAGES[extra]:
        try:
            is_missing = importlib.util.find_spec(name) is None
        except ModuleNotFoundError:  # not even what it is in
            is_missing = True
        if is_missing:
            missing.append(name)
    if missing:
        raise UsageError(
            f"the command {command} needs {', '.join(missing)}, which come with: pip install 'athina-trace[{extra}]'"
        )
