"""The pages: each reads what it shows in one moment, and leaves the looks to a template."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response

from athina_trace._delivery import maintenance
from athina_trace.viewer import charts as charting
from athina_trace.viewer import forms, queries
from athina_trace.viewer.conversation import shown
from athina_trace.viewer.facts import text_of
from athina_trace.viewer.filters import STATES, Filters
from athina_trace.viewer.guard import LONGEST_FORM
from athina_trace.viewer.markdown import render
from athina_trace.viewer.source import Keeper

_JSON_SHOWN = 200_000
"""Characters of a log's JSON on its page; the whole of it can be copied and saved."""
_HERE = Path(__file__).parent


def environment() -> Environment:
    """The templates. Every value is escaped, and a name that is not there is an error."""
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        amount=forms.amount,
        bytes=forms.bytes_of,
        day=forms.day,
        duration=forms.duration,
        iso=forms.iso,
        money=forms.money,
    )
    made.globals.update(markdown=render, states=STATES, periods=list(charting.PERIODS))
    return made


class Pages:
    """All pages of one outbox. `title` names it; `note` tells what `retry` needs; `secret` signs the forms."""

    def __init__(self, keeper: Keeper, *, title: str, has_engine: bool = True) -> None:
        self._keeper = keeper
        self._title = title
        self._has_engine = has_engine
        self._secret = secrets.token_urlsafe(24)
        self._templates = environment()

    # -- lists

    def sessions(self, request: Request) -> Response:
        """All sessions, or those with a log that passes the filters."""
        filters, before = Filters.of(request.query_params), _number(request, "before")

        def read(db: Any) -> dict[str, Any]:
            return {"page": queries.sessions(db, filters, before=before), "choices": queries.choices(db)}

        return self._page("sessions.html", read, filters=filters, before=before, path="/")

    def logs(self, request: Request) -> Response:
        """All logs, newest first."""
        filters, before = Filters.of(request.query_params), _number(request, "before")

        def read(db: Any) -> dict[str, Any]:
            return {"page": queries.logs(db, filters, before=before), "choices": queries.choices(db)}

        return self._page("logs.html", read, filters=filters, before=before, path="/logs")

    # -- one conversation, one log

    def session(self, request: Request) -> Response:
        """A conversation, turn by turn."""
        name, after = request.query_params.get("id", ""), _number(request, "after") or 0

        def read(db: Any) -> dict[str, Any]:
            found, following = queries.turns(db, name, after=after)
            first = queries.place(db, name, after) + 1
            return {
                "session": queries.session(db, name),
                "turns": [shown(turn) for turn in found],
                "next": following,
                "first": first,
            }

        return self._page("session.html", read, missing="session", name=name, after=after)

    def log(self, request: Request) -> Response:
        """One log, as it is sent."""
        key = request.query_params.get("id", "")

        def read(db: Any) -> dict[str, Any]:
            found = queries.log(db, key)
            text = json.dumps(found.fields, ensure_ascii=False, indent=2) if found else ""
            return {"turn": found, "json": text[:_JSON_SHOWN], "length": len(text), "limit": _JSON_SHOWN}

        return self._page("log.html", read, missing="turn", name=key)

    def log_json(self, request: Request) -> Response:
        """One log's JSON and nothing else, to be copied or saved."""
        found = self._found(request)
        if found is None:
            return PlainTextResponse("There is no such log.", 404)
        text = json.dumps(found.fields, ensure_ascii=False, indent=2)
        return Response(text, media_type="application/json")

    def _found(self, request: Request) -> queries.Turn | None:
        with self._keeper.reading() as db:
            return queries.log(db, request.query_params.get("id", ""))

    def text(self, request: Request) -> Response:
        """One field of a log, whole, as plain text."""
        found = self._found(request)
        name = request.query_params.get("field", "")
        if found is None or name not in found.fields:
            return PlainTextResponse("There is no such text.", 404)
        value = found.fields[name]
        return PlainTextResponse(value if isinstance(value, str) else text_of(value))

    # -- charts, delivery

    def charts(self, request: Request) -> Response:
        """What happened over time."""
        by, period = (request.query_params.get(name, "all") for name in ("by", "period"))

        def read(db: Any) -> dict[str, Any]:
            drawn = charting.charts(db, by=by, period=period)
            shapes = {name: charting.bars(drawn, name) for name in ("calls", "errors", "tokens")}
            return {"drawn": drawn, "shapes": shapes, "curves": charting.curves(drawn)}

        return self._page("charts.html", read)

    def delivery(self, request: Request) -> Response:
        """What waits, and what was refused with the server's words."""
        before, again = _number(request, "before"), _number(request, "again")

        def read(db: Any) -> dict[str, Any]:
            return {"refused": queries.refused(db, before=before), "waiting": queries.waiting(db)}

        return self._page("delivery.html", read, before=before, again=again)

    async def retry(self, request: Request) -> Response:
        """Let refused entries wait again: the one whose number the form gives, or all."""
        form = await _form(request)
        if form is None or not secrets.compare_digest(form.get("secret", ""), self._secret):
            return PlainTextResponse("This form is out of date. Go back, reload the page, and try again.", 403)
        number = form.get("id", "")
        if number != "all" and not (number.isascii() and number.isdigit() and len(number) < 19):  # noqa: PLR2004
            return PlainTextResponse("Which one?", 400)
        numbers = None if number == "all" else [int(number)]
        done = await run_in_threadpool(maintenance.retry, self._keeper.source.path, numbers)
        return RedirectResponse(f"/delivery?again={done}", 303)

    def live(self, request: Request) -> Response:  # noqa: ARG002 - an endpoint's shape
        """A number that changes whenever a page would."""
        self._keeper.look()
        return JSONResponse({"version": self._keeper.source.version, "behind": self._keeper.source.behind})

    def missing(self, request: Request, error: Exception) -> Response:  # noqa: ARG002 - a handler's shape
        """There is no such page."""
        return self._page("missing.html", lambda _: {}, status=404)

    def _page(
        self,
        template: str,
        read: Callable[[Any], dict[str, Any]],
        *,
        missing: str = "",
        status: int = 200,
        **values: Any,
    ) -> Response:
        """Bring the newest in, read, and render; without the value called `missing` there is no such page."""
        with self._keeper.reading() as db:
            version = self._keeper.source.version
            found = {**read(db), "standing": queries.standing(db)}
        if missing and found[missing] is None:
            template, status = "missing.html", 404
        now = time.time()
        html = self._templates.get_template(template).render(
            **found,
            **values,
            title=self._title,
            now=now,
            ago=lambda when: forms.ago(when, now=now),
            version=version,
            behind=self._keeper.source.behind,
            secret=self._secret,
            has_engine=self._has_engine,
            page_name=template.removesuffix(".html"),
        )
        return HTMLResponse(html, status)


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None  # noqa: PLR2004


async def _form(request: Request) -> dict[str, str] | None:
    """The fields of a small form; None where it is no form or too long."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_FORM:
            return None
    try:
        return dict(parse_qsl(body.decode("ascii"), max_num_fields=20))
    except ValueError:
        return None
