"""Filters, orders, neighbours and comparisons, each compared with a naive implementation over the same logs."""

import json
import random
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from html import unescape
from operator import itemgetter
from pathlib import Path
from typing import Any

import httpx
import pytest

from athina_trace._serving.server import Server, listen
from athina_trace.relay.status import PartitionStatus, RelayStatus
from athina_trace.viewer import compare, queries
from athina_trace.viewer.app import create_app
from athina_trace.viewer.filters import VIEWS, Filters, parse_duration, parse_moment
from athina_trace.viewer.indexed_outbox import IndexedOutbox
from athina_trace.viewer.queries import LOG_COLUMNS, SESSION_COLUMNS, Sort
from tests.viewer.outboxes import NOON, log, opened, put, settle

CHANCE = random.Random(5)


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"id": f"id-{name}", "type": "function", "function": {"name": name, "arguments": "{}"}, **more}


def some_log(number: int) -> dict[str, Any]:
    return {
        "session_id": f"s{number % 17}",
        "user_query": f"question {number}",
        "customer_id": CHANCE.choice(["acme", "boxes", None]),
        "customer_user_id": CHANCE.choice(["ann", "bob"]),
        "prompt_slug": CHANCE.choice(["help/v1", "help/v2"]),
        "language_model_id": CHANCE.choice(["gpt-4o", "gpt-4.1", "other"]),
        "total_tokens": CHANCE.choice([None, 5, 50, 500]),
        "cost": CHANCE.choice([None, 0.1, 0.2]),
        "response_time": CHANCE.choice([None, 200, 9_000, 10_000, 12_000]),
        "user_feedback": CHANCE.choice([None, 1, -1, 0]),
        "error": CHANCE.choice([None, None, "boom"]),
        "custom_attributes": {"plan": CHANCE.choice(["free", "paid"]), "retries": CHANCE.choice([0, 1])},
        "tool_calls": CHANCE.choice(
            [None, [tool("track")], [tool("track", output="Error: no parcel")], [tool("book"), tool("track")]]
        ),
    }


FIELDS = [{name: value for name, value in some_log(number).items() if value is not None} for number in range(120)]
LOGS = [log(None, made=NOON + number * 60, **fields) for number, fields in enumerate(FIELDS)]
BODIES = [json.loads(entry.body) for entry in LOGS]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("triage") / "outbox.db"
    put(path, *LOGS)
    settle(path, delivered=[entry.reference for entry in LOGS[::2]], refused=[entry.reference for entry in LOGS[1::8]])
    return path


def names(body: dict[str, Any]) -> list[str]:
    return [call["function"]["name"] for call in body.get("tool_calls") or []]


def failed(body: dict[str, Any]) -> bool:
    return any("output" in call for call in body.get("tool_calls") or [])


@pytest.mark.parametrize(
    ("filters", "fits"),
    [
        ({"user": "ann"}, lambda body: body["customer_user_id"] == "ann"),
        ({"slower": "10s"}, lambda body: body.get("response_time", 0) > 10_000),
        ({"slower": "8.5 s"}, lambda body: body.get("response_time", 0) > 8_500),
        ({"slower": "100ms"}, lambda body: body.get("response_time", 0) > 100),
        ({"slower": "slow"}, lambda body: True),
        ({"tool": "track"}, lambda body: "track" in names(body)),
        ({"tool": "book"}, lambda body: "book" in names(body)),
        ({"tool_errors": "1"}, failed),
        ({"tool": "track", "tool_errors": "1"}, failed),
        ({"tool": "book", "tool_errors": "1"}, lambda body: False),
        ({"attribute": "plan=paid"}, lambda body: body["custom_attributes"]["plan"] == "paid"),
        ({"attribute": " retries = 1 "}, lambda body: body["custom_attributes"]["retries"] == 1),
        ({"attribute": "plan"}, lambda body: True),
        ({"attribute": "nothing"}, lambda body: False),
        ({"kind": "turns"}, lambda body: True),
        ({"kind": "steps"}, lambda body: False),
        ({"kind": "nonsense"}, lambda body: False),
        (
            {"feedback": "disliked", "slower": "10s"},
            lambda body: body.get("user_feedback") == -1 and body.get("response_time", 0) > 10_000,
        ),
    ],
)
def test_each_filter_selects_the_matching_logs(filled: Path, filters: dict[str, str], fits: Any) -> None:
    with opened(filled) as source, source.open() as db:
        found = [row["reference"] for row in queries.logs(db, Filters(**filters), limit=1000).rows]
        assert found[::-1] == [body["external_reference_id"] for body in BODIES if fits(body)]
        sessions = {row["name"] for row in queries.sessions(db, Filters(**filters), limit=1000).rows}
        assert sessions == {body["session_id"] for body in BODIES if fits(body)}


KEYS: dict[str, Any] = {name: itemgetter(name) for name in LOG_COLUMNS} | {
    "chunk": itemgetter("first_chunk"),
    "errors": lambda row: row["error"] is not None,
    "state": lambda row: ["delivered", "received", "waiting", "refused"].index(row["state"]),
}


@pytest.mark.parametrize(
    "filters", [{}, {"customer": "acme"}, {"state": "refused"}, {"state": "waiting"}, {"q": "question"}]
)
@pytest.mark.parametrize("minus", ["", "-"])
@pytest.mark.parametrize("name", LOG_COLUMNS)
def test_logs_can_be_sorted_by_any_column_page_by_page(
    filled: Path, filters: dict[str, str], name: str, minus: str
) -> None:
    sort = Sort.of(minus + name, LOG_COLUMNS)
    assert sort is not None
    with opened(filled) as source, source.open() as db:
        everything = queries.logs(db, Filters(**filters), limit=1000).rows
        pages: list[Any] = []
        before = None
        while True:
            page = queries.logs(db, Filters(**filters), before=before, limit=7, sort=sort)
            pages += page.rows
            if page.next is None:
                break
            before = page.next
    assert {row["id"] for row in pages} == {row["id"] for row in everything}
    assert len(pages) == len(everything) > 7
    values = [KEYS[name](row) for row in pages]
    known = [value for value in values if value not in (None, "")]
    assert all(value in (None, "") for value in values[len(known) :])  # missing values come last
    usual = [-value for value in known] if name == "feedback" else known
    is_text = name in ("question", "customer", "user", "model")
    if name == "state" and not filters:
        assert len(set(values)) == 3
    assert usual == sorted(usual, reverse=is_text == bool(minus))


@pytest.mark.parametrize("filters", [{}, {"customer": "acme"}, {"errors": "1"}, {"state": "waiting"}])
@pytest.mark.parametrize("text", ["", *SESSION_COLUMNS, "-cost"])
def test_next_and_previous_follow_the_list_of_sessions(filled: Path, filters: dict[str, str], text: str) -> None:
    sort = Sort.of(text, SESSION_COLUMNS)
    with opened(filled) as source, source.open() as db:
        rows = queries.sessions(db, Filters(**filters), limit=1000, sort=sort).rows
        walked = [queries.session_neighbours(db, Filters(**filters), sort, row) for row in rows]
    order = [None, *(row["name"] for row in rows), None]
    assert [tuple(row["name"] if row else None for row in pair) for pair in walked] == list(
        zip(order, order[2:], strict=False)
    )
    assert len(rows) > 2


@pytest.mark.parametrize("filters", [{}, {"feedback": "disliked"}, {"q": "question", "slower": "5s"}])
@pytest.mark.parametrize("text", ["", "latency", "-cost", "customer", "state", "-state"])
def test_next_and_previous_follow_the_list_of_logs(filled: Path, filters: dict[str, str], text: str) -> None:
    sort = Sort.of(text, LOG_COLUMNS)
    with opened(filled) as source, source.open() as db:
        rows = queries.logs(db, Filters(**filters), limit=1000, sort=sort).rows
        walked = [queries.log_neighbours(db, Filters(**filters), sort, row["id"]) for row in rows]
    order = [None, *(row["id"] for row in rows), None]
    assert [tuple(row["id"] if row else None for row in pair) for pair in walked] == list(
        zip(order, order[2:], strict=False)
    )
    assert len(rows) > 2


def test_a_session_that_no_longer_matches_has_no_neighbours(filled: Path) -> None:
    with opened(filled) as source, source.open() as db:
        row = queries.sessions(db, Filters()).rows[0]
        assert queries.session_neighbours(db, Filters(customer="nobody"), None, row) == (None, None)


@pytest.mark.parametrize("text", ["nonsense", "", "-", "--cost", "cost; DROP TABLE log"])
def test_an_unknown_order_falls_back_to_the_default(text: str) -> None:
    assert Sort.of(text, LOG_COLUMNS) is None


def test_views_can_be_applied_and_removed(shown: httpx.Client, path: Path) -> None:
    put(path, log("a"))
    page = unescape(shown.get("/logs?feedback=disliked&q=x&sort=latency").text)
    views = page.partition('class="views"')[2]
    links = {name: address for address, name in re.findall(r'<a href="(/logs[^"]*)"[^>]*>([^<]+)</a>', views)}
    assert links["Disliked"] == "/logs?q=x&sort=latency"
    assert links["Errors"] == "/logs?q=x&feedback=disliked&errors=1&sort=latency"
    assert links["Yesterday"] == "/logs?q=x&feedback=disliked&since=yesterday&until=today&sort=latency"
    assert set(VIEWS) <= set(links)


def test_active_filters_can_be_removed_one_by_one(shown: httpx.Client, path: Path) -> None:
    put(path, log("a"))
    page = unescape(shown.get("/logs?q=x&customer=acme&slower=3s&feedback=disliked").text)
    chosen = page.partition('<p class="chosen">')[2].partition("</p>")[0]
    assert re.findall('href="([^"]+)"', chosen) == [
        "/logs?q=x&feedback=disliked&slower=3s",
        "/logs?q=x&customer=acme&feedback=disliked",
        "/logs",
    ]
    assert '<p class="chosen">' not in shown.get("/logs").text


def test_days_begin_at_local_midnight() -> None:
    now = datetime(2025, 6, 30, 15, 30, tzinfo=timezone.utc)
    today, yesterday = (parse_moment(day, now=now) for day in ("today", "Yesterday"))
    assert today is not None
    assert yesterday is not None
    assert datetime.fromtimestamp(today).hour == 0  # noqa: DTZ006 - midnight of this machine is the subject
    assert 0 <= now.timestamp() - today < 86_400
    assert 23 * 3600 <= today - yesterday <= 25 * 3600


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("10s", 10_000),
        ("1.5 s", 1500),
        ("800ms", 800),
        ("2min", 120_000),
        ("3", 3000),
        ("", None),
        ("x", None),
        ("-1s", None),
    ],
)
def test_durations_are_read_in_common_notations(text: str, milliseconds: int | None) -> None:
    assert parse_duration(text) == milliseconds


def test_two_slugs_and_two_sessions_are_compared_by_their_logs(filled: Path) -> None:
    with opened(filled) as source, source.open() as db:
        for by, field, values in (
            ("slug", "prompt_slug", ["help/v1", "help/v2"]),
            ("session", "session_id", ["s3", "s5"]),
        ):
            comparison = compare.load(db, by=by, picked=values, period="all")
            assert [side.name for side in comparison.sides] == values
            for side in comparison.sides:
                own = [body for body in BODIES if body.get(field) == side.name]
                assert side.total.calls == len(own)
                assert side.total.errors == sum("error" in body for body in own)
                assert side.total.tokens == sum(body.get("total_tokens", 0) for body in own)
                assert side.total.cost == pytest.approx(sum(body.get("cost", 0) for body in own))
                assert side.total.liked == sum(body.get("user_feedback") == 1 for body in own)
                assert side.total.disliked == sum(body.get("user_feedback") == -1 for body in own)
                slowest = max(body.get("response_time", 0) for body in own)
                assert side.latencies.p95 == pytest.approx(slowest, rel=0.3)
                assert 0 < len(side.answers) <= 5
                assert side.per_call(side.total.tokens) == side.total.tokens / len(own)


def test_the_most_similar_names_are_compared_by_default(path: Path) -> None:
    slugs = ["help/v1"] * 5 + ["billing/v1"] * 4 + ["help/v2"]
    put(path, *(log("a", prompt_slug=slug) for slug in slugs))
    with opened(path) as source, source.open() as db:
        sides = compare.load(db, by="slug", picked=[], period="all").sides
        assert [side.name for side in sides] == ["help/v1", "help/v2"]
        sides = compare.load(db, by="slug", picked=["billing/v1", "help/v2"], period="all").sides
        assert [side.name for side in sides] == ["billing/v1", "help/v2"]


@pytest.mark.parametrize(
    "address",
    ["/compare", "/compare?by=session", "/compare?by=nonsense&period=never", "/compare?by=session&a=gone&b=gone"],
)
def test_an_impossible_comparison_has_an_explaining_page(path: Path, shown: httpx.Client, address: str) -> None:
    assert "There are no two to compare." in shown.get(address).text
    put(path, log("a", prompt_slug="one"))
    assert shown.get(address).status_code == 200


def test_a_conversation_links_back_to_its_list(path: Path, shown: httpx.Client) -> None:
    put(path, *(log(name, user_query=name, user_feedback=-1) for name in "abc"), log("d"))
    for list_name, first in (("sessions", "/"), ("logs", "/logs")):
        page = unescape(shown.get(f"{first}?feedback=disliked").text)
        link = re.search(r'href="(/session\?id=b[^"]+)"', page)
        assert link is not None
        talk = unescape(shown.get(link[1].partition("#")[0]).text)
        assert f'href="{first}?feedback=disliked">' in talk
        next_link, previous = (
            re.search(rf'<a rel="{relation}" href="(/session\?[^"]+)"', talk) for relation in ("next", "prev")
        )
        assert next_link is not None
        assert previous is not None
        assert "id=a" in next_link[1]
        assert "id=c" in previous[1]
        assert f"list={list_name}" in next_link[1]
        last = unescape(shown.get(next_link[1].partition("#")[0]).text)
        assert '<span class="none">Next →</span>' in last


def relay_status() -> RelayStatus:
    workers = [
        {"name": f"w{number}", "paused": "no key" if number == 1 else None, "delivered": number, "refused": 2 - number,
         "failed": 0, "held": 1, "began": NOON - number}
        for number in range(3)
    ]  # fmt: skip
    partitions = [
        PartitionStatus(number, 9 - number, in_flight=number == 1, waiting_since=NOON + number or None, rate=number)
        for number in range(3)
    ]
    return RelayStatus(NOON, "logs", 3, 1, 1, 0, 1.0, None, partitions, workers, [])


@pytest.fixture
def whole(filled: Path) -> Iterator[httpx.Client]:
    """A viewer with data for every table."""
    app = create_app(IndexedOutbox(str(filled)), relay_status=relay_status)
    with (
        Server(app, listen("127.0.0.1", 0)) as server,
        httpx.Client(base_url=server.url, trust_env=False) as client,
    ):
        yield client


@pytest.mark.parametrize(("address", "tables"), [("/", 1), ("/logs", 1), ("/charts?by=model", 2), ("/delivery", 4)])
def test_every_table_can_be_sorted_by_every_column(whole: httpx.Client, address: str, tables: int) -> None:
    bodies = re.findall(r"(?s)<thead>(.*?)</thead>\s*<tbody>(.*?)</tbody>", whole.get(address).text)
    assert len(bodies) == tables
    for place, (head, _) in enumerate(bodies):
        columns = re.findall(r"(?s)<th[^>]*>(.*?)</th>", head)
        links = [re.search('href="([^"]+)"', column) for column in columns]
        # Only a column of buttons cannot be sorted.
        assert [column for column, link in zip(columns, links, strict=True) if link is None] in (
            [],
            ['<span class="unseen">Action</span>'],
        )
        for link in filter(None, links):
            once = whole.get(unescape(link[1]))
            first, rows = re.findall(r"(?s)<thead>(.*?)</thead>\s*<tbody>(.*?)</tbody>", once.text)[place]
            sorted_column = re.search(r'aria-sort="(\w+)"><a href="([^"]+)"', first)
            assert sorted_column is not None
            other, turned = re.findall(
                r"(?s)<thead>(.*?)</thead>\s*<tbody>(.*?)</tbody>", whole.get(unescape(sorted_column[2])).text
            )[place]
            directions = {sorted_column[1], *re.findall(r'aria-sort="(\w+)"', other)}
            assert directions == {"ascending", "descending"}
            assert re.findall("<tr>", turned) == re.findall("<tr>", rows)


@pytest.mark.parametrize("name", queries.REFUSED_COLUMNS)
@pytest.mark.parametrize("minus", ["", "-"])
def test_refused_logs_are_sorted_page_by_page(
    filled: Path, name: str, minus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "PAGE", 4)
    sort = Sort.of(minus + name, queries.REFUSED_COLUMNS)
    with opened(filled) as source, source.open() as db:
        pages, before = [], None
        while True:
            page = queries.refused(db, before=before, sort=sort)
            pages += page.rows
            before = page.next
            if before is None:
                break
    assert {row["reference"] for row in pages} == {entry.reference for entry in LOGS[1::8]}
    values = [row[name] for row in pages]
    assert len(values) == 15
    assert values == sorted(values, reverse=(name == "resolved") != bool(minus))


def test_waiting_logs_are_sorted_among_the_oldest(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MAX_SORTED", 30)
    with opened(filled) as source, source.open() as db:
        oldest = [row["id"] for row in queries.waiting(db, limit=30)]
        assert oldest == sorted(oldest)
        rows = queries.waiting(db, limit=10, sort=Sort.of("question", queries.WAITING_COLUMNS))
        questions = [row["question"] for row in queries.waiting(db, limit=30)]
        assert [row["question"] for row in rows] == sorted(questions)[:10]


@pytest.mark.parametrize("sort", compare.ORDERS)
def test_answers_of_both_sides_can_be_sorted(filled: Path, sort: str) -> None:
    with opened(filled) as source, source.open() as db:
        comparison = compare.load(db, by="slug", picked=["help/v1", "help/v2"], period="all", sort=sort)
        for side in comparison.sides:
            expected = queries.logs(db, Filters(slug=side.name), sort=Sort.of(sort, LOG_COLUMNS)).rows[:5]
            assert [row["id"] for row in side.answers] == [row["id"] for row in expected]
            assert side.address == f"/logs?slug=help%2F{side.name[-2:]}{sort and '&sort='}{sort}"
    assert compare.ORDERS[comparison.sort] == compare.ORDERS[sort]
