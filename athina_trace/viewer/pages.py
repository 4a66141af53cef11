"""The pages: each reads what it shows from one snapshot, and leaves the layout to a template."""

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
from athina_trace._serving.access import same
from athina_trace.viewer import formatting, queries
from athina_trace.viewer.access import MAX_FORM
from athina_trace.viewer.charts import PERIODS, latency_curves, load_charts, stack_bars
from athina_trace.viewer.conversation import read_turn
from athina_trace.viewer.filters import FEEDBACK, STATES, Filters
from athina_trace.viewer.indexed_outbox import ReadSnapshot, Refresher
from athina_trace.viewer.log_fields import text_of
from athina_trace.viewer.markdown import render

_MAX_JSON = 200_000
"""Characters of a log's JSON on its page; all of it can be copied and saved."""


class Pages:
    """All pages of one outbox."""

    def __init__(
        self, refresher: Refresher, *, title: str, has_engine: bool = True, example_key: str | None = None
    ) -> None:
        """The arguments are those of `create_app`."""
        self._refresher = refresher
        self._title = title
        self._has_engine = has_engine
        self._example_key = example_key
        # In every form of ours: another site can post a form, but cannot read a page to find this.
        self._form_secret = secrets.token_urlsafe(24)
        self._templates = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=StrictUndefined,  # a misspelt name is an error, not an empty place
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(
            integer=formatting.integer,
            bytes=formatting.byte_size,
            readable=formatting.readable_time,
            duration=formatting.duration,
            iso=formatting.iso_time,
            money=formatting.money,
        )
        self._templates.globals.update(
            markdown=render, states=STATES, feedback_kinds=list(FEEDBACK), periods=list(PERIODS)
        )

    # -- lists

    def sessions(self, request: Request) -> Response:
        """All sessions, or those with a log that matches the filters."""
        return self._list(request, "sessions", queries.sessions)

    def logs(self, request: Request) -> Response:
        """All logs, or those that match the filters, newest first."""
        return self._list(request, "logs", queries.logs)

    def _list(self, request: Request, name: str, query: Callable[..., Any]) -> Response:
        filters, before = Filters.of(request.query_params), _integer(request, "before")
        with self._refresher.reading() as snapshot:
            return self._render(
                name,
                snapshot,
                page=query(snapshot.db, filters, before=before),
                choices=queries.choices(snapshot.db),
                filters=filters,
                before=before,
                server_url=_server_url(request),
                example_key=self._example_key,
                path=self._refresher.outbox.path,
            )

    # -- one conversation, one log

    def session(self, request: Request) -> Response:
        """A conversation, turn by turn."""
        name, after = request.query_params.get("id", ""), _integer(request, "after") or 0
        with self._refresher.reading() as snapshot:
            session = queries.session(snapshot.db, name)
            if session is None:
                return self._render("missing", snapshot, status=404)
            logs, following = queries.turns(snapshot.db, name, after=after)
            return self._render(
                "session",
                snapshot,
                name=name,
                session=session,
                turns=[read_turn(log) for log in logs],
                first=queries.count_turns(snapshot.db, name, up_to=after) + 1,
                after=after,
                next=following,
            )

    def log(self, request: Request) -> Response:
        """One log, as it is sent."""
        with self._refresher.reading() as snapshot:
            log = queries.log(snapshot.db, request.query_params.get("id", ""))
            if log is None:
                return self._render("missing", snapshot, status=404)
            text = json.dumps(log.fields, ensure_ascii=False, indent=2)
            return self._render("log", snapshot, log=log, json=text[:_MAX_JSON], length=len(text), limit=_MAX_JSON)

    def log_json(self, request: Request) -> Response:
        """One log's JSON and nothing else, to be copied or saved."""
        with self._refresher.reading() as snapshot:
            log = queries.log(snapshot.db, request.query_params.get("id", ""))
        if log is None:
            return PlainTextResponse("There is no such log.", 404)
        return Response(json.dumps(log.fields, ensure_ascii=False, indent=2), media_type="application/json")

    def text(self, request: Request) -> Response:
        """One field of a log, whole, as plain text."""
        name = request.query_params.get("field", "")
        with self._refresher.reading() as snapshot:
            log = queries.log(snapshot.db, request.query_params.get("id", ""))
        if log is None or name not in log.fields:
            return PlainTextResponse("There is no such text.", 404)
        return PlainTextResponse(text_of(log.fields[name]))

    # -- charts, delivery

    def charts(self, request: Request) -> Response:
        """Totals over time."""
        by, period = (request.query_params.get(name, "all") for name in ("by", "period"))
        with self._refresher.reading() as snapshot:
            charts = load_charts(snapshot.db, by=by, period=period)
            bars = {name: stack_bars(charts, name) for name in ("calls", "errors", "tokens")}
            return self._render("charts", snapshot, charts=charts, bars=bars, latency=latency_curves(charts))

    def delivery(self, request: Request) -> Response:
        """What waits, and what was refused with the server's answer."""
        before, retried = _integer(request, "before"), _integer(request, "again")
        with self._refresher.reading() as snapshot:
            refused, waiting = queries.refused(snapshot.db, before=before), queries.waiting(snapshot.db)
            return self._render("delivery", snapshot, refused=refused, waiting=waiting, before=before, retried=retried)

    async def retry(self, request: Request) -> Response:
        """Make refused entries wait again: the one whose id the form holds, or all."""
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_FORM:
                body = b""  # no form of ours
                break
        try:
            form = dict(parse_qsl(body.decode("ascii"), max_num_fields=20))
        except ValueError:
            form = {}
        if not same(form.get("secret", ""), self._form_secret):
            return PlainTextResponse("This form is out of date. Go back, reload the page, and try again.", 403)
        chosen = form.get("id", "")
        if chosen != "all" and not _is_integer(chosen):
            return PlainTextResponse("The form names no log.", 400)
        ids = None if chosen == "all" else [int(chosen)]
        # In a thread: SQLite may wait for another writer.
        retried = await run_in_threadpool(maintenance.retry, self._refresher.outbox.path, ids)
        return RedirectResponse(f"/delivery?again={retried}", 303)

    def live(self, request: Request) -> Response:  # noqa: ARG002 - an endpoint's signature
        """A number that changes whenever a page would."""
        self._refresher.request()
        outbox = self._refresher.outbox
        return JSONResponse({"version": outbox.version, "backlog": outbox.backlog})

    def not_found(self, request: Request, error: Exception) -> Response:  # noqa: ARG002 - a handler's signature
        """There is no such page."""
        with self._refresher.reading() as snapshot:
            return self._render("missing", snapshot, status=404)

    def _render(self, page_name: str, snapshot: ReadSnapshot, *, status: int = 200, **values: Any) -> Response:
        now = time.time()
        html = self._templates.get_template(f"{page_name}.html").render(
            **values,
            outbox=queries.outbox_status(snapshot.db),
            title=self._title,
            now=now,
            ago=lambda when: formatting.time_ago(when, now=now),
            version=snapshot.version,
            backlog=snapshot.backlog,
            form_secret=self._form_secret,
            has_engine=self._has_engine,
            page_name=page_name,
        )
        return HTMLResponse(html, status)


def _server_url(request: Request) -> str:
    """Return the server's address by its socket: the Host header may be anything."""
    host, port = request.scope["server"]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _integer(request: Request, name: str) -> int | None:
    text = request.query_params.get(name, "")
    return int(text) if _is_integer(text) else None


def _is_integer(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19  # noqa: PLR2004 - fits SQLite's 64 bits
