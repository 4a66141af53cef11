"""Two things to do with a socket that a library has opened."""

from __future__ import annotations

import select
import socket
from contextlib import suppress


def shut(connection: socket.socket) -> None:
    """End both directions of a connection that another thread is using."""
    with suppress(OSError):
        # The plain socket's method on purpose: TLS's own would change state under the thread that is reading.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def is_readable(connection: socket.socket) -> bool:
    """Whether the server has hung up meanwhile, or has sent what no request asked for."""
    if not hasattr(select, "poll"):  # Windows, whose `select` takes sockets of any number
        return bool(select.select([connection], [], [], 0)[0])
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
