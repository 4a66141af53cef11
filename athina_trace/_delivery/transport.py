"""The direct connection to a server, through the standard library's client: a third of the CPU that httpx takes."""

from __future__ import annotations

import encodings.idna  # noqa: F401 - else loaded by the first request, in a thread that a fork may catch in the middle
import http.client
import socket
import time
from contextlib import suppress
from typing import Any, cast
from urllib.parse import urlsplit

from athina_trace._delivery import forks, trust
from athina_trace._delivery.response import ANSWER, IDLE, Answer, NotSentError
from athina_trace._delivery.sockets import is_readable, shut

_INTERIM = range(102, 200)
_SCHEMES = {"http": 80, "https": 443}


class DirectTransport:
    """One connection, made when it is first needed and made again whenever it was lost."""

    def __init__(self, base: str, headers: dict[str, str], *, connect: float, read: float) -> None:
        """Take where to go, and how many seconds to wait for a connection, and for each next piece of an answer.

        Raises `ValueError` or `http.client.InvalidURL` where `base` is no URL of a server.
        """
        parts = urlsplit(base)
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise ValueError(f"{base!r} is no http or https URL")
        host = parts.hostname.encode("idna").decode()
        kind = _SecureConnection if parts.scheme == "https" else _Connection
        self._connection = kind(host, parts.port or _SCHEMES[parts.scheme], timeout=connect)
        self._prefix = parts.path
        at = parts.netloc.rpartition("@")[2]
        self._headers = {"Host": at if at.isascii() else at.lower().replace(parts.hostname, host), **headers}
        self._read = read
        self._used = 0.0
        self._socket: socket.socket | None = None
        self._is_aborted = False

    def send(self, method: str, path: str, body: bytes) -> Answer:
        """Send a request and read the answer. Raises `NotSentError`, or what networks and broken answers raise."""
        self._is_aborted = False
        connection = self._connection
        if connection.sock is not None and (time.monotonic() - self._used > IDLE or is_readable(connection.sock)):
            self.close()
        if connection.sock is None:
            try:
                connection.connect()
            except Exception as error:
                raise NotSentError from error
            self._socket = connected = cast("socket.socket", connection.sock)
            # Probes end a connection whose peer has vanished without a word.
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connected.settimeout(self._read)
        connection.putrequest(method, self._prefix + path, skip_host=True, skip_accept_encoding=True)
        for name, value in self._headers.items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        # A server that has read enough of a large body hangs up, but may have answered before: 413.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.send_held()
        response = connection.getresponse()
        if self._is_aborted:  # which looks to the library like the end of the headers
            raise TimeoutError("the answer did not come to its end in time")
        answer = Answer(response.status, response.headers, self._body(response))
        self._used = time.monotonic()
        return answer

    def abort(self) -> None:
        """End the request that is under way, as if the server had hung up. For another thread to call."""
        self._is_aborted = True
        if self._socket is not None:
            shut(self._socket)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._socket = None
        self._connection.close()

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        """Read the body, at most `ANSWER` bytes of it. The status decides alone: one that breaks off is shorter."""
        try:
            content = response.read(ANSWER + 1)
        except http.client.IncompleteRead as error:
            content = error.partial
        except (OSError, ValueError, http.client.HTTPException):
            content = b""
        if not response.isclosed():
            self.close()  # rather than read the rest
        return content[:ANSWER]


class _FinalResponse(http.client.HTTPResponse):
    """The library skips "100 Continue" alone; 102 and 103 come before the answer, too (RFC 9110, section 15.2)."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
            if status not in _INTERIM:
                return version, status, reason
            http.client.parse_headers(self.fp)


class _Connection(http.client.HTTPConnection):
    """The library's connection, which sends a request at once rather than its head and its body.

    That is one system call less, and one occasion less for a busy thread to keep the interpreter to itself.
    """

    response_class = _FinalResponse

    def __init__(self, host: str, port: int, *, timeout: float) -> None:
        super().__init__(host, port, timeout=timeout)
        self._held: list[bytes] = []

    def send(self, data: Any) -> None:
        """Hold what the library would send; it hands over bytes only."""
        self._held.append(data)

    def send_held(self) -> None:
        """Send it."""
        held, self._held = b"".join(self._held), []
        cast("socket.socket", self.sock).sendall(held)


class _SecureConnection(_Connection):
    """TLS with a handshake that no fork interrupts."""

    def connect(self) -> None:
        super().connect()
        with forks.postponed():
            self.sock = trust.context().wrap_socket(self.sock, server_hostname=self.host)
