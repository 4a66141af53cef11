"""The pages: each reads its data from one snapshot, and leaves the layout to a template."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response

from athina_trace._delivery import maintenance
from athina_trace._delivery.sqlite import Row
from athina_trace._serving.access import same
from athina_trace.viewer import compare, formatting, queries
from athina_trace.viewer.access import MAX_FORM
from athina_trace.viewer.attachments import attachments_of, decoded
from athina_trace.viewer.charts import LINE_COLUMNS, PERIODS, TIME_COLUMNS, load_charts, sorted_lines
from athina_trace.viewer.conversation import read_turn, steps_of
from athina_trace.viewer.filters import FEEDBACK, KINDS, STATES, VIEWS, Filters
from athina_trace.viewer.indexed_outbox import ReadSnapshot, Refresher
from athina_trace.viewer.log_fields import question_of, text_of
from athina_trace.viewer.markdown import mark, render
from athina_trace.viewer.search_text import snippet
from athina_trace.viewer.sorting import in_order

if TYPE_CHECKING:
    from athina_trace.relay.status import RelayStatus

_MAX_JSON = 200_000
"""Maximum characters of a log's JSON on its page; the whole JSON can be copied and saved."""
_MAX_MESSAGE = 200_000
"""Maximum characters of a text that are rendered as Markdown on a separate page."""
_MAX_SNIPPET_LOG = 200_000
"""Maximum bytes of a log in which a list searches for matches beyond the beginning of its texts."""
_WORKER_COLUMNS = {
    name: itemgetter(name) for name in ("name", "paused", "delivered", "refused", "failed", "held", "began")
}
_PARTITION_COLUMNS = {name: attrgetter(name) for name in ("number", "in_flight", "lag", "rate", "waiting_since")}


class Pages:
    """All pages of one outbox."""

    def __init__(
        self,
        refresher: Refresher,
        *,
        title: str,
        has_engine: bool,
        example_key: str | None,
        relay_status: Callable[[], RelayStatus | str] | None,
    ) -> None:
        """Take the arguments of `create_app`."""
        self._refresher = refresher
        self._title = title
        self._has_engine = has_engine
        self._example_key = example_key
        self._relay_status = relay_status
        # In each of our forms: another site can post a form, but cannot read a page to find this token.
        self._form_secret = secrets.token_urlsafe(24)
        self._templates = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=StrictUndefined,  # a misspelt name is an error, not empty output
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
            percent=formatting.percent,
            unmarked=formatting.unmarked,
            mark=mark,
        )
        self._templates.globals.update(
            markdown=render,
            markdown_once=render.__wrapped__,
            price=formatting.price,
            states=STATES,
            feedback_kinds=list(FEEDBACK),
            kinds=list(KINDS),
            views=VIEWS,
            max_steps=queries.MAX_STEPS,
            max_sorted=queries.MAX_SORTED,
            texts={*queries.TEXTS, "name", "paused"},
            periods=PERIODS,
        )

    # -- lists

    def sessions(self, request: Request) -> Response:
        """Show all sessions, or those with a log that matches the filters."""
        return self._list(request, "sessions", queries.sessions, queries.SESSION_COLUMNS)

    def logs(self, request: Request) -> Response:
        """Show all logs, or those that match the filters, newest first."""
        return self._list(request, "logs", queries.logs, queries.LOG_COLUMNS)

    def _list(self, request: Request, name: str, query: Callable[..., Any], columns: dict[str, str]) -> Response:
        filters, before = Filters.of(request.query_params), _integer(request, "before")
        sort = queries.Sort.of(request.query_params.get("sort", ""), columns)
        with self._refresher.reading() as snapshot:
            page = query(snapshot.db, filters, before=before, sort=sort)
            return self._render(
                name,
                snapshot,
                page=page,
                snippets=_snippets(snapshot, page.rows, filters.q) if name == "logs" else {},
                choices=queries.choices(snapshot.db),
                filters=filters,
                sort=sort.name if sort else "",
                before=before,
                server_url=_server_url(request),
                example_key=self._example_key,
                path=self._refresher.outbox.path,
            )

    # -- one conversation, one log

    def session(self, request: Request) -> Response:
        """Show a conversation, turn by turn, with its neighbours in the list from which it was opened."""
        name, after = request.query_params.get("id", ""), _integer(request, "after") or 0
        filters = Filters.of(request.query_params)
        with self._refresher.reading() as snapshot:
            db = snapshot.db
            session = queries.session(db, name)
            if session is None:
                return self._render("missing", snapshot, status=404)
            chosen = queries.log(db, request.query_params.get("at", ""))
            chosen_row = chosen.row if chosen and chosen.row["session"] == session["name"] else None
            turn = (chosen_row["root"] or chosen_row["id"]) if chosen_row is not None else None
            if turn is not None:
                after = queries.page_with(db, session["name"], turn)
            logs, following = queries.turns(db, session["name"], after=after)
            if turn is not None and turn not in {log.row["id"] for log in logs}:
                # Large turns before it filled the page, so it starts a new page.
                after = turn - 1
                logs, following = queries.turns(db, session["name"], after=after)
            return self._render(
                "session",
                snapshot,
                name=name,
                session=session,
                turns=[(read_turn(log), steps_of(queries.steps(db, log.row["id"]), log.row)) for log in logs],
                chosen=chosen_row["id"] if chosen_row is not None else None,
                first=queries.count_turns(db, name, up_to=after) + 1,
                after=after,
                next=following,
                search=filters.q,
                neighbours=_neighbours(request, snapshot, filters, session, chosen_row),
            )

    def log(self, request: Request) -> Response:
        """Show one log, as it is sent."""
        with self._refresher.reading() as snapshot:
            log = queries.log(snapshot.db, request.query_params.get("id", ""))
            if log is None:
                return self._render("missing", snapshot, status=404)
            text = json.dumps(log.fields, ensure_ascii=False, indent=2)
            return self._render(
                "log",
                snapshot,
                log=log,
                turn=read_turn(log),
                tree=steps_of(queries.steps(snapshot.db, log.row["id"]), log.row),
                json=text[:_MAX_JSON],
                length=len(text),
                limit=_MAX_JSON,
            )

    def log_json(self, request: Request) -> Response:
        """Send a log's JSON, to be copied or saved."""
        log = self._find_log(request)
        if log is None:
            return PlainTextResponse("There is no such log.", 404)
        return Response(json.dumps(log.fields, ensure_ascii=False, indent=2), media_type="application/json")

    def text(self, request: Request) -> Response:
        """Send a complete field of a log, as plain text."""
        name = request.query_params.get("field", "")
        log = self._find_log(request)
        if log is None or name not in log.fields:
            return PlainTextResponse("There is no such text.", 404)
        return PlainTextResponse(text_of(log.fields[name]))

    def message(self, request: Request) -> Response:
        """Show a complete long answer, as the conversation would show it."""
        name = request.query_params.get("field", "")
        with self._refresher.reading() as snapshot:
            log = queries.log(snapshot.db, request.query_params.get("id", ""))
            if log is None or name not in ("response", "expected_response"):
                return self._render("missing", snapshot, status=404)
            text = text_of(log.fields.get(name))
            return self._render(
                "message", snapshot, log=log, field=name, text=text[:_MAX_MESSAGE], length=len(text), limit=_MAX_MESSAGE
            )

    def image(self, request: Request) -> Response:
        """Send an image of a question, by its index among the attachments."""
        number = _integer(request, "n") or 0
        log = self._find_log(request)
        attachments = attachments_of(log.fields) if log is not None else []
        image = decoded(attachments[number]) if number < len(attachments) else None
        if image is None:
            return PlainTextResponse("There is no such image.", 404)
        media_type, data = image
        return Response(data, media_type=media_type)

    def _find_log(self, request: Request) -> queries.StoredLog | None:
        with self._refresher.reading() as snapshot:
            return queries.log(snapshot.db, request.query_params.get("id", ""))

    # -- charts, comparison, delivery

    def charts(self, request: Request) -> Response:
        """Show totals over time."""
        by, period, sort, by_time = (request.query_params.get(name, "") for name in ("by", "period", "sort", "by_time"))
        with self._refresher.reading() as snapshot:
            charts = load_charts(
                snapshot.db, by=by, period=period or "all", steps=request.query_params.get("calls") == "all"
            )
            sort = sort if sort.removeprefix("-") in LINE_COLUMNS else ("errors" if by == "tool" else "")
            return self._render(
                "charts",
                snapshot,
                charts=charts,
                data=charts.data(),
                rows=sorted_lines(charts.lines, sort),
                sort=sort,
                columns=in_order(charts.busy_columns(), by_time, TIME_COLUMNS),
                by_time=by_time,
            )

    def compare(self, request: Request) -> Response:
        """Show two sessions, or two values of a dimension, side by side."""
        by, period, sort = (request.query_params.get(name, "") for name in ("by", "period", "sort"))
        picked = [value for name in ("a", "b", "pick") for value in request.query_params.getlist(name) if value]
        with self._refresher.reading() as snapshot:
            comparison = compare.load(snapshot.db, by=by, picked=picked, period=period or "all", sort=sort)
            return self._render(
                "compare", snapshot, comparison=comparison, kinds_of_things=compare.KINDS, orders=compare.ORDERS
            )

    def delivery(self, request: Request) -> Response:
        """Show waiting logs, and refused ones with the server's answer, here and in the relay."""
        before, retried = _integer(request, "before"), _integer(request, "again")
        sorts = {name: request.query_params.get(name, "") for name in ("refused", "waiting", "workers", "partitions")}
        relay = self._relay_status() if self._relay_status is not None else None
        with self._refresher.reading() as snapshot:
            return self._render(
                "delivery",
                snapshot,
                refused=queries.refused(
                    snapshot.db, before=before, sort=queries.Sort.of(sorts["refused"], queries.REFUSED_COLUMNS)
                ),
                waiting=queries.waiting(snapshot.db, sort=queries.Sort.of(sorts["waiting"], queries.WAITING_COLUMNS)),
                in_order=in_order,
                worker_columns=_WORKER_COLUMNS,
                partition_columns=_PARTITION_COLUMNS,
                sorts=sorts,
                before=before,
                retried=retried,
                relay=relay,
            )

    async def retry(self, request: Request) -> Response:
        """Queue refused entries again: the one whose id is in the form, or all."""
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
        if chosen != "all" and not queries.is_integer(chosen):
            return PlainTextResponse("The form names no log.", 400)
        ids = None if chosen == "all" else [int(chosen)]
        # In a thread, since SQLite may wait for another writer.
        retried = await run_in_threadpool(maintenance.retry, self._refresher.outbox.path, ids)
        return RedirectResponse(f"/delivery?again={retried}", 303)

    def live(self, request: Request) -> Response:  # noqa: ARG002 - an endpoint's signature
        """Send a number that changes whenever a page changes."""
        self._refresher.request()
        outbox = self._refresher.outbox
        return JSONResponse({"version": outbox.version, "backlog": outbox.backlog})

    def not_found(self, request: Request, error: Exception) -> Response:  # noqa: ARG002 - a handler's signature
        """Show that there is no such page."""
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


def _snippets(snapshot: ReadSnapshot, rows: list[Row], search: str) -> dict[int, str]:
    """Return by id a snippet with the search's match, for logs whose beginnings in the list do not show it."""
    found: dict[int, str] = {}
    for row in rows if search else []:
        shown = " ".join(row[name] or "" for name in ("question", "answer", "error", "comment"))
        if not snippet(shown, search, length=1) and row["size"] <= _MAX_SNIPPET_LOG:
            fields = queries.stored_log(snapshot.db, row).fields
            names = ("response", "context", "tool_calls", "expected_response")
            texts = [question_of(fields), *(text_of(fields.get(name)) for name in names)]
            found[row["id"]] = next((part for text in texts if (part := snippet(text, search, length=200))), "")
    return found


def _neighbours(
    request: Request, snapshot: ReadSnapshot, filters: Filters, session: Row, chosen: Row | None
) -> dict[str, Any] | None:
    """Return the list from which a conversation was opened, and the addresses of its neighbours there."""
    name = request.query_params.get("list", "")
    more = {"list": name, "sort": request.query_params.get("sort", "")}
    if name == "logs" and chosen is not None:
        sort = queries.Sort.of(more["sort"], queries.LOG_COLUMNS)
        pair = queries.log_neighbours(snapshot.db, filters, sort, chosen["id"])
        found = [
            row
            and f"/session?{urlencode({'id': row['session'], 'at': row['id']})}&{filters.query(**more)}#log-{row['id']}"
            for row in pair
        ]
    elif name == "sessions":
        sort = queries.Sort.of(more["sort"], queries.SESSION_COLUMNS)
        rows = queries.session_neighbours(snapshot.db, filters, sort, session)
        found = [row and f"/session?{urlencode({'id': row['name']})}&{filters.query(**more)}" for row in rows]
    else:
        return None
    path = "/logs" if name == "logs" else "/"
    return {"name": name, "list": f"{path}?{filters.query(sort=more['sort'])}".rstrip("?"), "pair": found}


def _server_url(request: Request) -> str:
    """Return the server's address according to its socket, since the Host header may be anything."""
    host, port = request.scope["server"]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _integer(request: Request, name: str) -> int | None:
    text = request.query_params.get(name, "")
    return int(text) if queries.is_integer(text) else None
