"""The client of Athina's logging API: sends bytes, and returns an `Outcome` rather than raise an exception."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from athina_trace._delivery import trust
from athina_trace._delivery.response import HttpResponse, NotSentError, Outcome, bounded
from athina_trace._delivery.response import read as read_answer
from athina_trace._delivery.retry import Verdict, verdict
from athina_trace._delivery.routes import Kind, route
from athina_trace._delivery.transport import DirectTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from athina_trace.settings import Settings

_LONGEST_PATH: Final = 65_536
_UNREADABLE_KEY: Final = Outcome(
    401, message="the API key holds characters that no HTTP header can carry: check ATHINA_API_KEY"
)


class Transport(Protocol):
    """A connection to Athina: `transport.DirectTransport`, or `proxy_transport.ProxyTransport`."""

    def send(self, method: str, path: str, body: bytes) -> HttpResponse: ...

    def abort(self) -> None: ...

    def close(self) -> None: ...


class Client:
    """One connection to Athina, for one sender thread at a time; only `expire` may be called from another thread.

    The first request opens the connection, and later ones reopen it if it was lost. A forked child needs its own
    `Client`.
    """

    __slots__ = (
        "_base",
        "_began",
        "_clock",
        "_headers",
        "_patience",
        "_secrets",
        "_total",
        "_transport",
        "_version",
        "_via",
    )

    def __init__(  # noqa: PLR0913  settings, all by keyword
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
        """Take the destination and the timeouts; nothing is opened yet.

        `connect` and `read` are timeouts in seconds for a single step: opening a connection; sending or receiving the
        next bytes. `total` is the timeout for a whole request, against a server that sends a byte now and then; see
        `expire`. `clock` is monotonic.
        """
        self._base = base_url.rstrip("/")
        self._version = api_version
        self._patience = {"connect": connect, "read": read}
        self._total = total
        self._clock = clock
        self._headers = _headers(key)
        self._secrets: tuple[str, ...] = (key,)
        self._transport: Transport | None = None
        self._via = ""  # for messages: through which proxy
        self._began: float | None = None

    @classmethod
    def of(cls, settings: Settings) -> Client:
        """Return a client for the destination in the settings."""
        return cls(
            base_url=settings.base_url,
            key=settings.api_key.get_secret_value() if settings.api_key is not None else "",
            api_version=settings.api_version,
            total=settings.request_timeout,
        )

    @staticmethod
    def prepare(base_url: str) -> None:
        """Import what requests will need now, rather than in a thread that a fork may interrupt in the middle.

        Other packages, such as openai, look for httpx in `sys.modules`, and must not find it half imported either.
        """
        with suppress(ValueError):  # the first request reports it
            if proxy_of(base_url.rstrip("/")) is not None:
                import athina_trace._delivery.proxy_transport  # noqa: F401, PLC0415 - httpx is slow to import
            elif base_url.startswith("https://") and trust.needs_httpx():
                import_module("httpx")

    def deliver(self, kind: Kind, target: str, body: bytes) -> Outcome:
        """Send one entry of the outbox, with the method and path from `route`."""
        return self.send(*route(kind, target, version=self._version), body)

    def send(self, method: str, path: str, body: bytes) -> Outcome:
        """Send `body`, JSON, to `path`, and return the outcome.

        Never raises an `Exception`, only other `BaseException`s such as `KeyboardInterrupt`.

        If no answer came, the `Outcome` has no status, and the log is retried. Two errors get a status because
        retrying would not help: a path that is too long for a URL counts as 414, and a key that does not fit into a
        header as 401.
        """
        if not self._headers:
            return _UNREADABLE_KEY
        if len(path) > _LONGEST_PATH:
            return Outcome(414, message=f"the path has {len(path)} characters, more than any URL can carry")
        self._began = self._clock()
        try:
            self._transport = transport = self._transport or self._new_transport()
            outcome = read_answer(transport.send(method, path, body), now=time.time(), secrets=self._secrets)
            is_proxys = bool(self._via) and verdict(outcome.status) is Verdict.RETRY
            return replace(outcome, message=bounded(self._via + outcome.message)) if is_proxys else outcome
        except NotSentError as error:
            return self._failed(error.__cause__ or error, sent=False)
        except Exception as error:  # noqa: BLE001  any error of a network, a proxy or a broken answer is an outcome
            return self._failed(error, sent=self._transport is not None)
        finally:
            self._began = None

    def expire(self, *, now: float | None = None) -> bool:
        """Abort the current request if it has taken more than `total` seconds at `now`; return whether it had.

        Another thread calls this from time to time: a server that sends its headers byte by byte, or "100 Continue"
        forever, keeps the sending thread inside a single read. The request then ends as if the server had hung up.
        `now=math.inf` aborts any request.
        """
        began, transport = self._began, self._transport
        if began is None or (self._clock() if now is None else now) - began <= self._total:
            return False
        # The same float object, not an equal one: that request may have ended meanwhile, and the next one is not
        # overdue.
        if transport is not None and self._began is began:
            transport.abort()
        return True

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _new_transport(self) -> Transport:
        proxy = proxy_of(self._base)
        if proxy is None:
            self._via = ""
            return DirectTransport(self._base, self._headers, **self._patience)
        parts = urlsplit(proxy)
        self._secrets = (*self._secrets[:1], *filter(None, [parts.password]))
        self._via = f"through the proxy {parts.scheme}://{parts.netloc.rpartition('@')[2]}: "
        from athina_trace._delivery.proxy_transport import ProxyTransport  # noqa: PLC0415 - see `prepare`

        return ProxyTransport(self._base, proxy, self._headers, **self._patience)

    def _failed(self, error: BaseException, *, sent: bool) -> Outcome:
        if self._transport is not None:
            self._transport.close()
        words = bounded(f"{self._via}{type(error).__name__}: {error}", secrets=self._secrets)
        return Outcome(None, message=words, possible_duplicate=sent)


def _headers(key: str) -> dict[str, str]:
    """Return the headers of every request; none if `key` does not fit into a header."""
    if not (key and key.isascii() and key.isprintable()):
        return {}
    return {
        "athina-api-key": key,
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "athina-trace/" + _version().encode("ascii", "replace").decode(),
    }


@lru_cache(maxsize=1)
def _version() -> str:
    try:
        return installed_version("athina-trace")
    except PackageNotFoundError:
        return "unknown"


def proxy_of(base: str) -> str | None:
    """Return the proxy for `base` from the environment variables, as the standard library reads them."""
    parts, proxies = urlsplit(base), getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all")
    if not found or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return found if "://" in found else f"http://{found}"
