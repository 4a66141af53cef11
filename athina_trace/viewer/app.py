"""The viewer as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from athina_trace.viewer.access import AccessMiddleware
from athina_trace.viewer.indexed_outbox import IndexedOutbox, Refresher
from athina_trace.viewer.pages import Pages

if TYPE_CHECKING:
    from athina_trace.relay.status import RelayStatus


def create_app(  # noqa: PLR0913 - settings of one application, all by name
    outbox: IndexedOutbox,
    *,
    title: str = "",
    token: str | None = None,
    names: Sequence[str] = (),
    has_engine: bool = True,
    example_key: str | None = None,
    relay_status: Callable[[], RelayStatus | str] | None = None,
    more_routes: Sequence[BaseRoute] = (),
    open_to: tuple[str, ...] = (),
) -> Starlette:
    """Serve the pages of `outbox`, which is closed when the application ends.

    Args:
        outbox: the outbox to show.
        title: the title at the top of each page (default: the name of the file).
        token: see `AccessMiddleware`, as for `names` and `open_to`.
        names: host names of the pages.
        has_engine: whether waiting logs in this outbox are meant to be sent.
        example_key: for a server that receives logs, the API key in the example on its empty page.
        relay_status: if logs go to a relay, returns its status, or a sentence that says why it is unknown.
        more_routes: additional routes.
        open_to: prefixes of paths without a token.
    """
    refresher = Refresher(outbox)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001 - a lifespan's signature
        refresher.start()
        yield
        refresher.stop()

    title = title or Path(outbox.path).name
    pages = Pages(refresher, title=title, has_engine=has_engine, example_key=example_key, relay_status=relay_status)
    routes = [
        *more_routes,
        Route("/", pages.sessions),
        Route("/session", pages.session),
        Route("/logs", pages.logs),
        Route("/log", pages.log),
        Route("/log.json", pages.log_json),
        Route("/text", pages.text),
        Route("/message", pages.message),
        Route("/image", pages.image),
        Route("/charts", pages.charts),
        Route("/compare", pages.compare),
        Route("/delivery", pages.delivery),
        Route("/live", pages.live),
        Route("/retry", pages.retry, methods=["POST"]),
        Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
    ]
    # Protects everything, including static files and additional routes.
    access = Middleware(AccessMiddleware, token=token, names=frozenset(names), open_to=open_to)
    return Starlette(routes=routes, middleware=[access], lifespan=lifespan, exception_handlers={404: pages.not_found})
