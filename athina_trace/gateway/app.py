"""The gateway as an ASGI application: access, routes and metrics."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from athina_trace import _runtime
from athina_trace._delivery.metrics import CONTENT_TYPE, Histogram, Metric, Sample, exposition, histogram
from athina_trace._serving.access import is_cross_site, is_own_host, same
from athina_trace._serving.athina_api import RefusedRequest
from athina_trace.gateway import connections
from athina_trace.gateway.athina import ForwardingApi
from athina_trace.gateway.bodies import MAX_BODY, Bodies
from athina_trace.gateway.commits import Commits
from athina_trace.gateway.connections import Connections
from athina_trace.gateway.otlp import Traces
from athina_trace.gateway.traces import SpanLogs

_OPEN: Final = ("/healthz", "/readyz")
"""Paths without a token: an orchestrator's probes have none, and the answers contain no data."""
_COUNTED: Final = (*_OPEN, "/metrics", "/v1/traces")


def create_gateway(
    *,
    token: str | None = None,
    names: frozenset[str] = frozenset(),
    max_body: int = MAX_BODY,
    limits: Connections | None = None,
) -> Starlette:
    """Create an application that takes logs into the outbox of this process's settings.

    Args:
        token: the token that clients must send as their `athina-api-key` or as a bearer token; None: any may send.
        names: host names, besides `localhost`, that clients may use if there is no token.
        max_body: maximum size of a body in bytes, decompressed.
        limits: the server's connections, for the metrics.
    """
    bodies, commits, counts = Bodies(max_body), Commits(), AnswerCounts(limits)
    routes = [
        *ForwardingApi(bodies, commits).routes(),
        Route("/v1/traces", Traces(bodies, SpanLogs(commits).take).export, methods=["POST"]),
        Route("/healthz", _healthz),
        Route("/readyz", _readyz),
        Route("/metrics", counts.metrics),
    ]
    middleware = [
        # Outermost, so that requests which the next one refuses are also counted and timed.
        Middleware(_Counted, counts=counts, bodies=bodies),
        Middleware(_Guarded, token=token, names=names | {"localhost"}),
    ]
    app = Starlette(routes=routes, middleware=middleware)
    app.state.commits = commits
    return app


class AnswerCounts:
    """Counts of requests by endpoint and status."""

    def __init__(self, limits: Connections | None) -> None:
        self._limits = limits
        self._answers: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, Histogram] = {}

    def add(self, path: str, status: int, seconds: float) -> None:
        """Count an answer."""
        # Not the path itself: anyone may invent paths, and each would create a new series.
        endpoint = "/api" if path.startswith("/api/") else path if path in _COUNTED else "other"
        self._answers[endpoint, status] += 1
        if endpoint not in self._seconds:
            self._seconds[endpoint] = Histogram()
        self._seconds[endpoint].observe(seconds)

    async def metrics(self, _request: Request) -> Response:
        """Return the metrics of deliveries and of this server."""
        answers = [
            Sample(count, {"endpoint": endpoint, "status": str(status)})
            for (endpoint, status), count in self._answers.items()
        ]
        mine = [
            Metric("athina_trace_gateway_answers_total", "counter", "Answers to clients.", answers),
            histogram(
                "athina_trace_gateway_seconds",
                "Time from a request's head to its answer.",
                [({"endpoint": endpoint}, seconds) for endpoint, seconds in self._seconds.items()],
            ),
        ]
        if self._limits is not None:
            connected, refused, slow = len(self._limits.open), self._limits.refused, self._limits.slow
            mine += [
                Metric(
                    "athina_trace_gateway_connections", "gauge", "Open connections of clients.", [Sample(connected)]
                ),
                Metric(
                    "athina_trace_gateway_connections_closed_total",
                    "counter",
                    "Connections closed because there were too many, or because the client was too slow.",
                    [Sample(refused, {"reason": "too many"}), Sample(slow, {"reason": "too slow"})],
                ),
            ]
        # Off the event loop: the counts are in the store, which another process may be writing to.
        of_deliveries = await asyncio.to_thread(_runtime.metrics)
        return Response(of_deliveries + exposition(mine), headers={"content-type": CONTENT_TYPE})


async def _healthz(_request: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _readyz(request: Request) -> Response:
    """Answer whether logs can be kept: not if the last one could not be, or if tracing is off."""
    if _runtime.active() is None:
        return PlainTextResponse(f"not ready: {_runtime.status().paused}\n", 503)
    # An overloaded gateway is still ready: otherwise the others would get its load, and soon none would be ready.
    if request.app.state.commits.failed_lately:
        return PlainTextResponse("not ready: a log could not be stored a moment ago, see /metrics\n", 503)
    return PlainTextResponse("ready\n")


class _Counted:
    """Counts answers, updates the connection's time limits, and releases bodies."""

    def __init__(self, app: ASGIApp, *, counts: AnswerCounts, bodies: Bodies) -> None:
        self._app = app
        self._counts = counts
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        connection, began, status = connections.current(), time.perf_counter(), 500
        is_read = False

        async def received() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = is_read or not message.get("more_body", False)
            return message

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # Do not wait for the rest of a refused body.
                if not is_read and scope["method"] not in ("GET", "HEAD"):
                    MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        if connection is not None:
            connection.request_begins()
        try:
            await self._app(scope, received, answered)
        finally:
            self._bodies.release(scope)
            if connection is not None:
                connection.request_ends()
            self._counts.add(scope["path"], status, time.perf_counter() - began)


class _Guarded:
    """Refuses requests without the token or, if there is none, those that a website made a browser send."""

    def __init__(self, app: ASGIApp, *, token: str | None, names: frozenset[str]) -> None:
        self._app = app
        self._token = token
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._refused(scope) if scope["type"] == "http" else None
        await (refused.answer() if refused else self._app)(scope, receive, send)

    def _refused(self, scope: Scope) -> RefusedRequest | None:
        if scope["path"] in _OPEN:
            return None
        headers = Headers(scope=scope)
        # With a token, names and sites do not matter: no website knows the token.
        if self._token is None:
            if not is_own_host(headers.get("host", ""), self._names):
                return RefusedRequest(421, "Misdirected Request", "this host name is not the gateway's; see --name")
            if is_cross_site(scope):
                return RefusedRequest(403, "Forbidden", "this request comes from a page of another site")
            return None
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = headers.get("athina-api-key", bearer if scheme.lower() == "bearer" else "")
        if same(given, self._token):
            return None
        message = "neither athina-api-key nor a bearer token in authorization is this gateway's token"
        return RefusedRequest(401, "Unauthorized", message)
