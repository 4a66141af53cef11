"""The viewer as an ASGI application, and the server that shows it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from athina_trace.viewer.guard import Guard
from athina_trace.viewer.pages import Pages
from athina_trace.viewer.source import Keeper, Source

_STATIC = Path(__file__).parent / "static"


def create_app(  # noqa: PLR0913 - settings of one thing, all by name
    source: Source,
    *,
    title: str = "",
    token: str | None = None,
    names: Sequence[str] = (),
    has_engine: bool = True,
    more: Sequence[BaseRoute] = (),
    open_to: tuple[str, ...] = (),
) -> Starlette:
    """Show `source`, under this `title`. `token`, `names` and `open_to`: see `guard.Guard`.

    `has_engine`: whether what waits here is meant to be sent; `more`: routes that stand beside the pages.
    The source is closed when the application ends.
    """
    keeper = Keeper(source)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001 - a lifespan's shape
        keeper.start()
        yield
        keeper.stop()

    pages = Pages(keeper, title=title or Path(source.path).name, has_engine=has_engine)
    guard = Middleware(Guard, token=token, names=frozenset(names), open_to=open_to)
    return Starlette(
        routes=[*more, *routes(pages)], middleware=[guard], lifespan=lifespan, exception_handlers={404: pages.missing}
    )


def routes(pages: Pages) -> list[BaseRoute]:
    """Where each page stands."""
    gets = {
        "/": pages.sessions,
        "/session": pages.session,
        "/logs": pages.logs,
        "/log": pages.log,
        "/log.json": pages.log_json,
        "/text": pages.text,
        "/charts": pages.charts,
        "/delivery": pages.delivery,
        "/live": pages.live,
    }
    return [
        *(Route(path, endpoint) for path, endpoint in gets.items()),
        Route("/retry", pages.retry, methods=["POST"]),
        Mount("/static", StaticFiles(directory=_STATIC)),
    ]
