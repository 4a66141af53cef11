"""Connects to hosts, and checks, limits and shuts down sockets that a library has opened.

Each system call that may block releases the interpreter (GIL), and a compute-bound program keeps it for 5 ms.
`getsockopt` does not release it, so on Linux it is used instead of `fstat` and `poll`.
"""

from __future__ import annotations

import _socket
import os
import select
import socket
import struct
import sys
from contextlib import suppress

from athina_trace._delivery.files import identity

# Options of Linux, see socket(7); Python has no names for two of them.
_IS_LINUX = sys.platform == "linux"
_SO_MEMINFO = 55
_SO_COOKIE = 57
"""A number that no other socket of this kernel ever has."""
_TCP_INFO = 11
_ESTABLISHED = b"\x01"
_NOTHING = bytes(4)

_SOON_SECONDS = 0.5
"""How long an address may take before the next one is tried: longer than a packet takes around the earth and back."""
_late: dict[tuple[str, int], set[object]] = {}
"""By host and port, the addresses that did not answer soon when they were last tried."""


def connect(host: str, port: int, seconds: float) -> socket.socket:
    """Connect to the first address of `host` that answers, waiting at most `seconds` for a single one.

    An address that leads nowhere, as IPv6 does behind some firewalls, must not delay each connection: addresses that
    did not answer soon are tried last the next time. Raises OSError.
    """
    # Called as the standard library does: programs replace it, by functions that take no keywords or return a tuple.
    found = list(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM))
    late = _late.setdefault((host, port), set())
    late.intersection_update([address for *_, address in found])
    found.sort(key=lambda each: each[-1] in late)
    failures = [OSError(f"{host} has no address")]
    try:
        for patience in (min(_SOON_SECONDS, seconds), seconds) if len(found) > 1 else (seconds,):
            for each in list(found):
                family, kind, protocol, _, address = each
                try:
                    connection = socket.socket(family, kind, protocol)
                    try:
                        connection.settimeout(patience)
                        connection.connect(address)
                    except BaseException:
                        connection.close()
                        raise
                except TimeoutError as error:
                    late.add(address)
                    failures.append(error)
                except OSError as error:
                    found.remove(each)
                    failures.append(error)
                else:
                    late.discard(address)
                    connection.settimeout(seconds)  # for what comes next, such as a handshake
                    return connection
        raise failures[-1]
    finally:
        failures.clear()  # whose tracebacks refer to this frame


def identity_of(connection: socket.socket) -> object:
    """Return what identifies a connection; None if it is closed, or the system has no identity for it."""
    try:
        if _IS_LINUX:
            return connection.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8)
    except OSError:
        pass  # not a socket, or an older kernel
    try:
        return identity(os.fstat(connection.fileno()))
    except OSError:
        return None


def is_readable(connection: socket.socket) -> bool:
    """Return whether the server has hung up, or has sent data without a request."""
    try:
        if _IS_LINUX:
            return (
                connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1) != _ESTABLISHED
                or connection.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4) != _NOTHING  # bytes received and not read
            )
    except OSError:
        pass  # an older kernel
    if not hasattr(select, "poll"):  # Windows, whose `select` takes sockets of any number
        return bool(select.select([connection], [], [], 0)[0])
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def limit_waits(connection: socket.socket, seconds: float) -> None:
    """Limit how long each call blocks, after which it raises `TimeoutError` or `BlockingIOError`."""
    connection.settimeout(seconds)
    # For a timeout, Python makes another system call (`poll`) before each; the kernel's own timeouts need none. They
    # do not work with OpenSSL and gevent.
    if _IS_LINUX and type(connection).recv is _socket.socket.recv:
        limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        with suppress(OSError):  # a system whose `struct timeval` has another size
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            connection.settimeout(None)


def shut(connection: socket.socket) -> None:
    """Shut down both directions of a connection that another thread is using."""
    with suppress(OSError):
        # The plain socket's method on purpose: that of TLS would change state under the thread that is reading.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
