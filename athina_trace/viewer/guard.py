"""What keeps a page from strangers: whose name the browser asked for, where a post comes from, a token, a policy.

A page that listens on loopback can still be reached by any website that its owner visits: by a name that resolves to
127.0.0.1 (DNS rebinding), or by a form that posts here. Each is turned away before it reaches a page.
"""

from __future__ import annotations

import ipaddress
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "athina_trace_viewer"
LONGEST_QUERY = 4_096
LONGEST_FORM = 65_536

POLICY = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # Not "no-referrer": with it browsers leave the origin out of our own forms, too.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """The middleware in front of all pages. `token`: what a visitor must bring; None where none is asked for."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str | None = None,
        names: frozenset[str] = frozenset(),
        open_to: tuple[str, ...] = (),
    ) -> None:
        """`names`: host names, beside `localhost` and addresses in digits, under which the pages may be asked for.

        `open_to`: beginnings of paths that ask for a key of their own instead of the token.
        """
        self._app = app
        self._open_to = open_to
        self._token = token
        self._names = names | {"localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through to the pages, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, _with_policy(send))

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if len(scope["query_string"]) > LONGEST_QUERY:
            return PlainTextResponse("This address is too long.", 414)
        if not self._is_ours(headers.get("host", "")):
            return PlainTextResponse("This host name is not one of the viewer's. Use the address that it printed.", 421)
        if scope["method"] not in ("GET", "HEAD") and is_foreign(scope):
            return PlainTextResponse("This request comes from another site.", 403)
        if self._token is None or scope["path"].startswith(self._open_to):
            return None
        return self._ask(scope, headers)

    def _is_ours(self, host: str) -> bool:
        """A name that somebody else could point here is not ours; an address in digits cannot be pointed."""
        name = _host(f"//{host}") if _is_plain(host) else None
        return name is not None and (name in self._names or _is_address(name))

    def _ask(self, scope: Scope, headers: Headers) -> Response | None:
        """Let a visitor in who brings the token: in a cookie, as a bearer, or once in the address."""
        token = self._token or ""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if _same(_cookie(headers.get("cookie", "")), token) or (scheme.lower() == "bearer" and _same(bearer, token)):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if scope["method"] == "GET" and _same(dict(query).get("token", ""), token):
            return _welcome(scope["path"], [pair for pair in query if pair[0] != "token"], token)
        return PlainTextResponse("This viewer asks for a token. Open the whole address that it printed.", 401)


def is_foreign(scope: Scope) -> bool:
    """Whether a browser says that a request comes from a page of another site."""
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
    scheme, _, place = origin.partition("://")
    return scheme not in ("http", "https") or place != headers.get("host", "")


def _with_policy(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in POLICY.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sent


def _welcome(path: str, query: list[tuple[str, str]], token: str) -> Response:
    """The same page without the token in its address, which would stay in the browser's history."""
    safe = "/" + path.lstrip("/\\")
    response = RedirectResponse(f"{safe}?{urlencode(query)}" if query else safe, 303)
    response.set_cookie(COOKIE, token, httponly=True, samesite="strict")
    return response


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _same(given: str, wanted: str) -> bool:
    return secrets.compare_digest(given.encode(), wanted.encode())


def _host(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _is_plain(host: str) -> bool:
    return 0 < len(host) <= 255 and not set(host) & set("/\\@?# \t")  # noqa: PLR2004 - the longest name in the DNS


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
