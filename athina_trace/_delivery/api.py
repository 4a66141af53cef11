"""Athina's logging API over HTTP: bytes go out, an `Outcome` comes back, and no exception ever does."""

from __future__ import annotations

import encodings.idna  # noqa: F401
import os
import socket
import time
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.request import getproxies, proxy_bypass

# These three would be loaded by the first request, in a thread which a fork may catch in the middle of it.
import certifi  # noqa: F401
import httpcore  # noqa: F401
import httpx

from athina_trace._delivery import forks
from athina_trace._delivery.answer import Outcome, bounded
from athina_trace._delivery.answer import read as read_answer
from athina_trace._delivery.routes import Kind, route

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

__all__ = ["Api", "Kind", "Outcome", "route"]

_ANSWER: Final = 65_536
"""Bytes of an answer's body that are read; the connection of a longer one is closed instead of being read to
its end."""

_IDLE: Final = 30.0
"""Seconds for which an unused connection is kept. Load balancers close theirs after 60 and more."""

_UNREADABLE_KEY: Final = Outcome(
    401, message="the API key holds characters that no HTTP header can carry: check ATHINA_API_KEY"
)
_UNSENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)
"""Errors that come before anything was sent."""
_LIMITS: Final = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=_IDLE)
# TCP_NODELAY is httpcore's own; keep-alive probes end connections whose peer has vanished without a word.
_SOCKET: Final = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]


class Api:
    """One connection to Athina, for one sender thread at a time; `expire` may be called from another.

    It speaks through httpx's transport, without a client around it: no cookies, no redirects, no decoding and
    no second layer of retries are wanted here, and leaving them out saves a third of the CPU that a request
    costs. The connection is made by the first request and made anew whenever it was lost. After a fork the
    child needs an `Api` of its own.
    """

    __slots__ = (
        "_base",
        "_began",
        "_clock",
        "_headers",
        "_secrets",
        "_socket",
        "_timeouts",
        "_total",
        "_transport",
        "_version",
    )

    def __init__(  # noqa: PLR0913  settings of one thing, all by name
        self,
        *,
        base_url: str,
        key: str,
        api_version: str = "v1",
        connect: float = 5.0,
        read: float = 10.0,
        total: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the destination and the patience with it; nothing is opened yet.

        `connect` and `read` are seconds for a single step: a connection made, the next bytes sent or
        received. `total` is seconds for a whole request, which bounds a server that sends a byte now and
        then; see `expire`. `clock` is monotonic.
        """
        self._base = base_url.rstrip("/")
        self._version = api_version
        self._timeouts = {"connect": connect, "read": read, "write": read, "pool": connect}
        self._total = total
        self._clock = clock
        self._headers = _headers(key)
        self._secrets: tuple[str, ...] = (key,)
        self._transport: httpx.HTTPTransport | None = None
        self._socket: socket.socket | None = None
        self._began: float | None = None

    def deliver(self, kind: Kind, target: str, body: bytes) -> Outcome:
        """Send one entry of the outbox: `send` with the method and path that `route` gives for it."""
        return self.send(*route(kind, target, version=self._version), body)

    def send(self, method: str, path: str, body: bytes) -> Outcome:
        """Send `body`, JSON, to `path` and tell what came of it.

        Only what is no `Exception`, such as `KeyboardInterrupt`, passes.

        The `Outcome` has no status where no answer came, so that the log will be tried again, with these
        exceptions: a path that is too long for a URL counts as 414, and a key that fits into no header as
        401, because trying again would help neither.
        """
        if not self._headers:
            return _UNREADABLE_KEY
        self._began = self._clock()
        try:
            return self._exchange(method, path, body)
        except httpx.InvalidURL as error:
            # A base URL or a proxy that is none says nothing about the log; only once both were read is it
            # the path.
            return Outcome(None if self._transport is None else 414, message=self._told(error))
        except Exception as error:  # noqa: BLE001  whatever a network, a proxy or a broken answer can raise is an outcome here
            return Outcome(None, message=self._told(error), doubtful=not isinstance(error, _UNSENT))
        finally:
            self._began = None

    def expire(self, *, now: float | None = None) -> bool:
        """Cut the connection of a request under way for over `total` seconds at `now`; tell whether one was.

        For another thread to call now and then: a server that sends its headers byte by byte, or "100
        Continue" for ever, keeps the sending thread inside a single read. The request then ends as if the
        server had hung up. `now=math.inf` cuts any request.
        """
        began, connection = self._began, self._socket
        if began is None or (self._clock() if now is None else now) - began <= self._total:
            return False
        # The same float, not an equal one: the request may have ended meanwhile, and the next one is not
        # overdue.
        if connection is not None and self._began is began:
            _cut(connection)
        return True

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        transport, self._transport, self._socket = self._transport, None, None
        if transport is not None:
            transport.close()

    def _exchange(self, method: str, path: str, body: bytes) -> Outcome:
        response = self._connected().handle_request(self._request(method, path, body))
        try:
            content = self._body(response)
        finally:
            _release(response)
        return read_answer(response.status_code, response.headers, content, now=time.time(), secrets=self._secrets)

    def _connected(self) -> httpx.HTTPTransport:
        if self._transport is None:
            proxy = _proxy(self._base)
            self._secrets = (*self._secrets[:1], *_password(proxy))
            with forks.postponed():
                self._transport = _transport(self._base, proxy)
        return self._transport

    def _request(self, method: str, path: str, body: bytes) -> httpx.Request:
        url = _url(self._base + path)
        headers = [(b"Host", url.netloc), *self._headers, (b"Content-Length", b"%d" % len(body))]
        extensions = {"timeout": self._timeouts, "trace": self._trace}
        return httpx.Request(method, url, headers=headers, stream=httpx.ByteStream(body), extensions=extensions)

    def _body(self, response: httpx.Response) -> bytes:
        """Read the answer's body as it came, at most `_ANSWER` bytes and `total` seconds of it.

        The status was received by then and decides alone, so that a body that breaks off is simply shorter.
        """
        received = bytearray()
        with suppress(httpx.HTTPError):
            for chunk in cast("httpx.SyncByteStream", response.stream):
                received += chunk
                if len(received) > _ANSWER or self.expire():
                    break
        return bytes(received[:_ANSWER])

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        # httpx's documented hook, and its only way to the socket before an answer has begun. TLS wraps the
        # socket in another one.
        if ".start_tls." in event:
            (forks.postpone if event.endswith(".started") else forks.allow)()
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")

    def _told(self, error: Exception) -> str:
        return bounded(f"{type(error).__name__}: {error}", secrets=self._secrets)


def _headers(key: str) -> list[tuple[bytes, bytes]]:
    """Give the headers that every request carries; none where `key` fits into no header."""
    if not (key and key.isascii() and key.isprintable()):
        return []
    return [
        (b"athina-api-key", key.encode("ascii")),
        (b"Content-Type", b"application/json"),
        (b"Accept", b"application/json"),
        (b"Accept-Encoding", b"identity"),
        (b"User-Agent", b"athina-trace/" + _version().encode("ascii", "replace")),
    ]


@lru_cache(maxsize=1)
def _version() -> str:
    try:
        return installed_version("athina-trace")
    except PackageNotFoundError:
        return "unknown"


@lru_cache(maxsize=8)
def _url(url: str) -> httpx.URL:
    return httpx.URL(url)


def _proxy(base: str) -> str | None:
    """Find the proxy that the environment names for `base`, read as the standard library does."""
    url, proxies = httpx.URL(base), getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    if not found or proxy_bypass(url.netloc.decode("ascii")):
        return None
    return found if "://" in found else f"http://{found}"


def _password(proxy: str | None) -> list[str]:
    return [httpx.URL(proxy).password] if proxy else []


def _transport(base: str, proxy: str | None) -> httpx.HTTPTransport:
    # Loading certificates takes tens of milliseconds and a megabyte: only where something is to be verified,
    # and once.
    verify = (
        _trust(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        if httpx.URL(base).scheme == "https"
        else False
    )
    return httpx.HTTPTransport(verify=verify, limits=_LIMITS, proxy=proxy, socket_options=_SOCKET)


@lru_cache(maxsize=2)
def _trust(_file: str | None, _directory: str | None) -> ssl.SSLContext:
    """Load the certificates to trust; the parameters are there so that a change of them is noticed."""
    return httpx.create_ssl_context()


def _release(response: httpx.Response) -> None:
    """Give the connection back: kept where the answer was read to its end, closed otherwise."""
    with suppress(Exception):
        response.close()


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        # The plain socket's method on purpose: TLS's own would change state under the thread that is reading.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
