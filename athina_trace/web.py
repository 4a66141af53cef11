"""Middleware for web applications: each request is a scope, from its first byte to its last.

`ASGIMiddleware` is for Starlette, FastAPI, Django's ASGI and all other ASGI applications, `WSGIMiddleware` for Flask,
Django and all other WSGI applications. No framework is imported. What a handler sets, for example with `set_customer`,
ends with its request, even if threads and connections are reused.

Session and customer come from `identify`, a function of the request, or from `headers`, which are trusted only if they
come from a peer named in `trusted`: anyone can send any header.
"""

from __future__ import annotations

import contextvars
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from functools import cached_property
from typing import Any, Final, Generic, TypeAlias, TypeVar

from athina_trace import _guard
from athina_trace.context import athina_session, share_with_threads

__all__ = ["ASGIMiddleware", "Identify", "Request", "WSGIMiddleware"]

FIELDS: Final = ("session_id", "customer_id", "customer_user_id", "environment", "prompt_slug")
_LONGEST: Final = 256
_ANYONE: Final = "*"

ASGIScope: TypeAlias = MutableMapping[str, Any]
ASGIReceive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
ASGISend: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[ASGIScope, ASGIReceive, ASGISend], Awaitable[None]]
WSGIApp: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_App = TypeVar("_App")


class Request:
    """The request, as far as it is known before the application runs; `identify` is given one."""

    def __init__(self, source: Mapping[str, Any], headers: Callable[[], dict[str, str]], peer: str | None) -> None:
        self.source = source
        """The ASGI scope or the WSGI environ itself."""
        self.peer = peer
        """Address of the connected peer; None if the server does not provide it."""
        self._headers = headers

    @cached_property
    def headers(self) -> dict[str, str]:
        """The headers, with names in lower case; the values of repeated headers are joined with commas."""
        return self._headers()

    @property
    def path(self) -> str:
        """The path, decoded."""
        return str(self.source.get("path", self.source.get("PATH_INFO", "")))

    @property
    def state(self) -> Any:
        """The state that ASGI servers and middleware keep for the request; an empty mapping under WSGI."""
        return self.source.get("state", {})

    @property
    def user(self) -> Any:
        """The user that an outer authentication middleware found (ASGI), or `REMOTE_USER` (WSGI); else None."""
        return self.source.get("user", self.source.get("REMOTE_USER"))


Identify: TypeAlias = Callable[[Request], "Mapping[str, object] | None"]
"""Returns any of `session_id`, `customer_id`, `customer_user_id`, `environment`, `prompt_slug`."""


class _Middleware(Generic[_App]):
    """What both kinds of middleware share: the scope of a request."""

    def __init__(
        self,
        app: _App,
        *,
        identify: Identify | None = None,
        headers: Mapping[str, str] | None = None,
        trusted: Iterable[str] = (),
    ) -> None:
        self.app = app
        self._identify = identify
        self._headers = {name.lower(): field for name, field in (headers or {}).items()}
        given = [trusted] if isinstance(trusted, str) else list(trusted)
        self._anyone = _ANYONE in given
        self._trusted = [ipaddress.ip_network(network, strict=False) for network in given if network != _ANYONE]
        unknown = set(self._headers.values()) - set(FIELDS)
        if unknown:
            raise TypeError(f"headers=... names {sorted(unknown)}, known fields are {', '.join(FIELDS)}")
        if self._headers and not given:
            raise TypeError(
                "headers=... needs trusted=...: the networks of the proxies that set them, such as ['10.0.0.0/8'], or "
                "'*' where nothing else can connect; without it, any client could forge them"
            )

    def _scope_of(self, request: Request) -> athina_session:
        """Return the scope of `request`; if `identify` fails, one without identity."""
        try:
            found = {**self._from_headers(request), **((self._identify(request) if self._identify else None) or {})}
            fields: dict[str, Any] = {name: found[name] for name in FIELDS if found.get(name) is not None}
        except Exception as error:  # noqa: BLE001 - the function is the user's, and the request must be served
            _guard.raise_if_the_programs(error)
            _guard.log_throttled(
                logging.WARNING, "identify", "identify(request) raised %r: the request has no customer", error
            )
            # The handler may still set the customer itself.
            fields = {}
        session = fields.pop("session_id", None)
        return athina_session(session, **fields)

    def _from_headers(self, request: Request) -> dict[str, object]:
        """Return the fields in the headers, if the peer is trusted."""
        if not self._headers:
            return {}
        if not self._anyone:
            try:
                address = ipaddress.ip_address(request.peer or "")
            except ValueError:
                return {}  # a Unix socket, or a test client
            # A server that listens on IPv6 sees IPv4 peers as ::ffff:10.0.0.1.
            address = getattr(address, "ipv4_mapped", None) or address
            if not any(address in network for network in self._trusted):
                return {}
        found = {field: request.headers.get(name, "").strip() for name, field in self._headers.items()}
        return {field: value for field, value in found.items() if 0 < len(value) <= _LONGEST and value.isprintable()}


class ASGIMiddleware(_Middleware[ASGIApp]):
    """Gives each HTTP request and WebSocket of an ASGI application a scope, until its background tasks end.

    Args:
        app: the application.
        identify: a function of the `Request`, such as
            `lambda request: {"customer_id": request.user.company, "customer_user_id": request.user.id}`;
            its errors are logged, and the request is served without identity.
        headers: header → field, such as `{"x-customer-id": "customer_id"}`; needs `trusted`.
        trusted: networks of the proxies whose `headers` are trusted, or `"*"`.

    Raises `TypeError` for `headers` without `trusted`, or with an unknown field, and `ValueError` for a
    malformed network.

    >>> async def app(scope, receive, send): ...
    >>> application = ASGIMiddleware(app, identify=lambda request: {"session_id": request.headers.get("x-chat")})
    """

    async def __call__(self, scope: ASGIScope, receive: ASGIReceive, send: ASGISend) -> None:
        """Serve one request, connection or lifespan."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return

        def headers() -> dict[str, str]:
            joined: dict[str, str] = {}
            for name, value in scope["headers"]:
                key, text = name.decode("latin-1").lower(), value.decode("latin-1")
                joined[key] = f"{joined[key]},{text}" if key in joined else text
            return joined

        client = scope.get("client")
        request = Request(scope, headers, client[0] if client else None)
        # Requests have their own tasks and contexts, so no copy of the context is needed.
        with self._scope_of(request):
            share_with_threads()
            await self.app(scope, receive, send)


class WSGIMiddleware(_Middleware[WSGIApp]):
    """Gives each request of a WSGI application a scope, until its response's iterator ends.

    The parameters and exceptions are those of `ASGIMiddleware`.

    >>> def app(environ, start_response): ...
    >>> application = WSGIMiddleware(app, headers={"X-Customer-Id": "customer_id"}, trusted=["10.0.0.0/8"])
    """

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request."""

        def headers() -> dict[str, str]:
            named = {key[5:]: value for key, value in environ.items() if key.startswith("HTTP_")}
            # CGI, and therefore WSGI, names these two headers without the prefix.
            named.update({key: environ[key] for key in ("CONTENT_TYPE", "CONTENT_LENGTH") if key in environ})
            return {key.replace("_", "-").lower(): str(value) for key, value in named.items()}

        request = Request(environ, headers, environ.get("REMOTE_ADDR") or None)
        # In a separate context, since the server iterates over the response later, between other work.
        context = contextvars.copy_context()
        context.run(self._scope_of(request).__enter__)
        body = context.run(self.app, environ, start_response)
        file_wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(body, (list, tuple)) or (isinstance(file_wrapper, type) and isinstance(body, file_wrapper)):
            return body  # the application has nothing left to run, and servers check for these types
        return _Body(body, context)


class _Body:
    """A response's iterable whose steps run in the request's context."""

    def __init__(self, body: Iterable[bytes], context: contextvars.Context) -> None:
        self._body, self._context = body, context
        self._iterator: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._iterator is None:
            self._iterator = self._context.run(iter, self._body)
        return self._context.run(next, self._iterator)

    def close(self) -> None:
        """Close the application's iterable, as WSGI servers do in the end."""
        close = getattr(self._body, "close", None)
        if close is not None:
            self._context.run(close)
