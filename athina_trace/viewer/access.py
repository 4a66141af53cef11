"""Access to the pages: by the requested host name, the site that a request comes from, and a token."""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from athina_trace._serving.access import is_cross_site, is_own_host, same

COOKIE = "athina_trace_viewer"
MAX_QUERY = 4_096
MAX_FORM = 65_536

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # Not "no-referrer": with it, browsers omit the origin from our own forms as well.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class AccessMiddleware:
    """Refuse requests from other sites, under other host names, or without the token; add security headers."""

    def __init__(self, app: ASGIApp, *, token: str | None, names: frozenset[str], open_to: tuple[str, ...]) -> None:
        """Protect `app`.

        Args:
            app: the application.
            token: the token that visitors need; None: no token.
            names: host names of the pages, besides `localhost` and numeric addresses.
            open_to: prefixes of paths that check their own key instead of the token.
        """
        self._app = app
        self._open_to = open_to
        self._token = token
        self._names = names | {"localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to the pages, or refuse it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await (self._refuse(scope) or self._app)(scope, receive, send_with_headers)

    def _refuse(self, scope: Scope) -> Response | None:
        """Return a refusal, or the redirect that stores the token; None if the request may pass."""
        headers = Headers(scope=scope)
        if len(scope["query_string"]) > MAX_QUERY:
            return PlainTextResponse("This address is too long.", 414)
        if not is_own_host(headers.get("host", ""), self._names):
            return PlainTextResponse("This host name is not one of the viewer's. Use the address that it printed.", 421)
        if scope["method"] not in ("GET", "HEAD") and is_cross_site(scope):
            return PlainTextResponse("This request comes from another site.", 403)
        if self._token is None or scope["path"].startswith(self._open_to):
            return None
        return self._check_token(scope, headers, self._token)

    def _check_token(self, scope: Scope, headers: Headers, token: str) -> Response | None:
        """Accept the token in a cookie, as a bearer token, or once in the URL, from where it moves into a cookie."""
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if (cookie and same(cookie.value, token)) or (scheme.lower() == "bearer" and same(bearer, token)):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if scope["method"] != "GET" or not same(dict(query).get("token", ""), token):
            return PlainTextResponse("This viewer asks for a token. Open the whole address that it printed.", 401)
        # Redirect to the same page without the token, which would stay in the browser's history.
        path = "/" + scope["path"].lstrip("/\\")
        rest = urlencode([pair for pair in query if pair[0] != "token"])
        response = RedirectResponse(f"{path}?{rest}" if rest else path, 303)
        response.set_cookie(COOKIE, token, httponly=True, samesite="strict")
        return response
