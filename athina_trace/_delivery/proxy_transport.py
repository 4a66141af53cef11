"""The transport through a proxy, of whatever kind httpx knows."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

import httpx

from athina_trace._delivery import forks, trust
from athina_trace._delivery.response import ANSWER, IDLE, Answer, NotSentError
from athina_trace._delivery.sockets import shut

_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)
"""Errors that come before anything was sent."""
_LIMITS = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE)
# TCP_NODELAY is httpcore's own; keep-alive probes end connections whose peer has vanished without a word.
_SOCKET = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]


class ProxyTransport:
    """One connection, made when it is first needed and made again whenever it was lost.

    It is httpx's transport without a client around it: cookies, redirects, decoding and retries are not wanted here.
    """

    def __init__(self, base: str, proxy: str, headers: dict[str, str], *, connect: float, read: float) -> None:
        """As `direct.DirectTransport`. Raises `httpx.InvalidURL` or `ValueError` where `base` or `proxy` is no URL."""
        self._base = base
        self._headers = {"Host": httpx.URL(base).netloc.decode("ascii"), **headers}
        self._timeouts = {"connect": connect, "read": read, "write": read, "pool": connect}
        self._socket: socket.socket | None = None
        with forks.postponed():
            verify = trust.context() if httpx.URL(base).scheme == "https" else False
            self._transport = httpx.HTTPTransport(verify=verify, limits=_LIMITS, proxy=proxy, socket_options=_SOCKET)

    def send(self, method: str, path: str, body: bytes) -> Answer:
        """Send a request and read the answer. Raises `NotSentError`, or what networks and broken answers raise."""
        try:
            headers = {**self._headers, "Content-Length": str(len(body))}
            extensions = {"timeout": self._timeouts, "trace": self._trace}
            stream = httpx.ByteStream(body)
            request = httpx.Request(method, self._base + path, headers=headers, stream=stream, extensions=extensions)
            response = self._transport.handle_request(request)
        except _UNSENT as error:
            raise NotSentError from error
        try:
            return Answer(response.status_code, response.headers, self._body(response))
        finally:
            # Kept where the answer was read to its end, closed otherwise.
            with suppress(Exception):
                response.close()

    def abort(self) -> None:
        """End the request that is under way, as if the server had hung up. For another thread to call."""
        if self._socket is not None:
            shut(self._socket)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._socket = None
        self._transport.close()

    def _body(self, response: httpx.Response) -> bytes:
        """Read the body, at most `ANSWER` bytes of it. The status decides alone: one that breaks off is shorter."""
        received = bytearray()
        with suppress(httpx.HTTPError):
            for chunk in cast("httpx.SyncByteStream", response.stream):
                received += chunk
                if len(received) > ANSWER:
                    break
        return bytes(received[:ANSWER])

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        # httpx's documented hook, and its only way to the socket before an answer has begun. TLS wraps the
        # socket in another one.
        if ".start_tls." in event:
            (forks.postpone if event.endswith(".started") else forks.allow)()
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")
