"""Serve an application from the command line until Ctrl-C, and open the browser. Needs the extra `ui`."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import threading
import webbrowser

from starlette.types import ASGIApp

from athina_trace._serving.server import Server, is_loopback, listen, url_of
from athina_trace.cli.terminal import Terminal


def access_token(options: argparse.Namespace) -> str | None:
    """Return the chosen token; else a random one if other machines can reach the pages, or None."""
    token: str | None = options.token
    return token or (None if is_loopback(options.host) else secrets.token_hex(16))


def serve(
    app: ASGIApp, options: argparse.Namespace, terminal: Terminal, token: str | None, *, environment: str = ""
) -> int:
    """Serve `app` until Ctrl-C.

    Args:
        app: the application.
        options: those of `add_server_options`.
        terminal: prints the address.
        token: the token that visitors need.
        environment: for a local Athina, further variables that programs need.
    """
    port = options.default_port if options.port is None else options.port
    listener = listen(options.host, port, or_any_port=options.port is None)
    server = Server(app, listener)
    url = url_of(listener, token=token)
    if environment:
        terminal.say(f"Local Athina is listening. Point programs here: ATHINA_BASE_URL={server.url} {environment}")
    terminal.say(f"Viewer: {url}   (Ctrl-C ends it)")
    terminal.flush()
    # The socket already listens, so the browser cannot be too early. Without a display, Python would start a text
    # browser, which takes over the terminal.
    displays = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    has_display = not sys.platform.startswith("linux") or any(os.environ.get(name) for name in displays)
    if terminal.is_terminal and has_display and not options.no_open and is_loopback(options.host):
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
    try:
        server.serve_here()
    except KeyboardInterrupt:
        return 130
    finally:
        listener.close()
    return 0
