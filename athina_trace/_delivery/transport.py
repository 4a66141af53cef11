"""The direct connection to a server, over a plain socket: it takes a sixth of the CPU time of httpx."""

from __future__ import annotations

import encodings.idna  # noqa: F401 - else the first request imports it, in a thread that a fork may interrupt
import re
import socket
import time
from contextlib import suppress
from urllib.parse import urlsplit

from athina_trace._delivery import tls_forks, trust
from athina_trace._delivery.http1 import read_response
from athina_trace._delivery.response import IDLE_SECONDS, HttpResponse, NotSentError
from athina_trace._delivery.sockets import connect, identity_of, is_readable, limit_waits, shut

_PORTS = {"http": 80, "https": 443}
_UNFIT = re.compile(r"[^\x21-\x7e]")
"""Characters that a request line or header cannot contain."""


class DirectTransport:
    """One connection, opened on demand, and reopened if it was lost."""

    def __init__(self, base: str, headers: dict[str, str], *, connect: float, read: float) -> None:
        """Take the base URL, the headers, and the timeouts in seconds: to connect, and to read the next bytes.

        Raises `ValueError` if `base` is not an http or https URL.
        """
        parts = urlsplit(base)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(f"{base!r} is not an http or https URL")
        self._host = parts.hostname.encode("idna").decode()
        if _UNFIT.search(self._host + parts.path):
            raise ValueError(f"{base!r} holds characters that no request can carry")
        self._is_secure = parts.scheme == "https"
        self._port = parts.port or _PORTS[parts.scheme]
        self._prefix = parts.path
        at = parts.netloc.rpartition("@")[2]
        fields = {"Host": at if at.isascii() else at.lower().replace(parts.hostname, self._host), **headers}
        self._fields = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._connect_seconds = connect
        self._read_seconds = read
        self._used = 0.0
        self._socket: socket.socket | None = None
        self._identity: object = None
        self._is_aborted = False

    def send(self, method: str, path: str, body: bytes) -> HttpResponse:
        """Send a request and read the answer. Raises `NotSentError`, or what networks and broken answers raise."""
        self._is_aborted = False
        connected = self._kept()
        if connected is None:
            try:
                connected = self._connect()
            except Exception as error:
                raise NotSentError from error
        head = f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._fields}Content-Length: {len(body)}\r\n\r\n"
        is_sent = is_kept = False
        try:
            # A server that does not read all of a large body hangs up or stalls, but may have answered before: 413.
            with suppress(BrokenPipeError, ConnectionResetError, BlockingIOError, TimeoutError):
                connected.sendall(head.encode("ascii") + body)
                is_sent = True
            answer, may_continue = read_response(connected.recv)
            is_kept = is_sent and may_continue
        except EOFError as error:
            if self._is_aborted:
                raise TimeoutError("the answer was not complete in time") from error
            raise
        except BlockingIOError as error:
            raise TimeoutError(f"nothing was received for {self._read_seconds:g} seconds") from error
        finally:
            if not is_kept:
                self.close()
        self._used = time.monotonic()
        return answer

    def _kept(self) -> socket.socket | None:
        """Return the open connection; None if there is none that can be reused."""
        connected = self._socket
        if connected is None:
            return None
        if identity_of(connected) != self._identity:
            connected.detach()  # daemons close all descriptors: the number may be the program's by now
        elif time.monotonic() - self._used <= IDLE_SECONDS and not is_readable(connected):
            return connected
        self.close()
        return None

    def _connect(self) -> socket.socket:
        self._socket = plain = connect(self._host, self._port, self._connect_seconds)
        try:
            self._identity = identity_of(plain)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Keep-alive probes end a connection whose peer has silently vanished.
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connected = plain
            if self._is_secure:
                with tls_forks.postponed():
                    # In two steps, so that `abort` finds the socket during the handshake.
                    self._socket = connected = secure = trust.context().wrap_socket(
                        plain, server_hostname=self._host, do_handshake_on_connect=False
                    )
                    secure.do_handshake()
            limit_waits(connected, self._read_seconds)
        except BaseException:
            self.close()
            raise
        return connected

    def abort(self) -> None:
        """End the current request as if the server had hung up. For another thread to call."""
        self._is_aborted = True
        if (connected := self._socket) is not None:
            shut(connected)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        connected, self._socket = self._socket, None
        if connected is not None:
            connected.close()
