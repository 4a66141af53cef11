"""The transport through a proxy, of any kind that httpx supports."""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, cast

import httpx

from athina_trace._delivery import tls_forks, trust
from athina_trace._delivery.response import IDLE_SECONDS, MOST_ANSWER_BYTES, HttpResponse, NotSentError
from athina_trace._delivery.sockets import identity_of, shut

_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)
"""Errors that occur before anything is sent."""
_LIMITS = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE_SECONDS)
# httpcore sets TCP_NODELAY itself; keep-alive probes end connections whose peer has silently vanished.
_SOCKET = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]


class ProxyTransport:
    """One connection, opened on demand, and reopened if it was lost.

    It uses httpx's transport without a client: cookies, redirects, decoding and retries are not wanted here.
    """

    def __init__(self, base: str, proxy: str, headers: dict[str, str], *, connect: float, read: float) -> None:
        """Take what `DirectTransport` takes. Raises `httpx.InvalidURL` or `ValueError` for an invalid URL."""
        self._base = base
        self._headers = {"Host": httpx.URL(base).netloc.decode("ascii"), **headers}
        self._timeouts = {"connect": connect, "read": read, "write": read, "pool": connect}
        self._socket: socket.socket | None = None
        self._handshaking: socket.socket | None = None
        self._identity: object = None
        with tls_forks.postponed():
            verify = trust.context() if httpx.URL(base).scheme == "https" else False
            self._transport = httpx.HTTPTransport(verify=verify, limits=_LIMITS, proxy=proxy, socket_options=_SOCKET)

    def send(self, method: str, path: str, body: bytes) -> HttpResponse:
        """Send a request and read the answer. Raises `NotSentError`, or what networks and broken answers raise."""
        if self._socket is not None and identity_of(self._socket) != self._identity:
            self._socket.detach()  # as `DirectTransport` does
            self.close()
        try:
            headers = {**self._headers, "Content-Length": str(len(body))}
            extensions = {"timeout": self._timeouts, "trace": self._trace}
            stream = httpx.ByteStream(body)
            request = httpx.Request(method, self._base + path, headers=headers, stream=stream, extensions=extensions)
            with _untraced():
                response = self._transport.handle_request(request)
        except _UNSENT as error:
            raise NotSentError from error
        try:
            return HttpResponse(response.status_code, response.headers, self._body(response))
        finally:
            # Keeps the connection if the answer was read to its end, and closes it otherwise.
            with suppress(Exception):
                response.close()

    def abort(self) -> None:
        """End the current request as if the server had hung up. For another thread to call."""
        for connected in (self._handshaking, self._socket):
            if connected is not None:
                shut(connected)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._socket = None
        self._transport.close()

    def _body(self, response: httpx.Response) -> bytes:
        """Read at most `MOST_ANSWER_BYTES` of the body. Only the status matters: a broken body is truncated."""
        received = bytearray()
        with suppress(httpx.HTTPError):
            for chunk in cast("httpx.SyncByteStream", response.stream):
                received += chunk
                if len(received) > MOST_ANSWER_BYTES:
                    break
        return bytes(received[:MOST_ANSWER_BYTES])

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        # httpx's documented hook, and the only access to the socket before an answer has begun. TLS wraps the
        # socket in another one.
        if event.endswith("start_tls.started"):
            tls_forks.postpone()
            # A handshake detaches the socket until it ends, unless it is TLS within TLS.
            if self._socket is not None and not isinstance(self._socket, ssl.SSLSocket):
                with suppress(OSError):  # no descriptors left: then this handshake cannot be aborted
                    self._handshaking = self._socket.dup()
        elif ".start_tls." in event:
            tls_forks.allow()
            handshaking, self._handshaking = self._handshaking, None
            if handshaking is not None:
                handshaking.close()  # else the duplicate would keep the connection open after its end
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._socket = connected = info["return_value"].get_extra_info("socket")
            self._identity = identity_of(connected)


@contextmanager
def _untraced() -> Iterator[None]:
    """Keep the request out of the program's traces: OpenTelemetry, if loaded, patches methods of httpx.

    Source: `suppress_instrumentation` of opentelemetry-instrumentation, which need not be installed.
    """
    context: Any = sys.modules.get("opentelemetry.context")
    if context is None:
        yield
        return
    token = context.attach(context.set_value("suppress_instrumentation", value=True))
    try:
        yield
    finally:
        context.detach(token)
