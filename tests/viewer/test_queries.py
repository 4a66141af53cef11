"""Filters, search and paging, each compared with a naive implementation over the same logs."""

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athina_trace.viewer import queries
from athina_trace.viewer.filters import Filters, parse_duration, parse_time
from tests.viewer.outboxes import NOON, log, opened, put

NOW = datetime(2025, 6, 30, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("24h", NOW.timestamp() - 86_400),
        ("90m", NOW.timestamp() - 5_400),
        ("2w", NOW.timestamp() - 14 * 86_400),
        ("2025-06-30T12:00:00+00:00", NOW.timestamp()),
        ("2025-06-30T12:00:00Z", NOW.timestamp()),
        ("", None),
        ("soon", None),
        ("999999w", NOW.timestamp() - 999_999 * 604_800),
    ],
)
def test_times_are_read_in_common_notations(text: str, expected: float | None) -> None:
    assert parse_time(text, now=NOW) == expected


@given(st.text(max_size=60))
def test_no_search_or_time_is_ever_an_error(searched: Connection, text: str) -> None:
    parse_time(text, now=NOW)
    parse_duration(text)
    queries.logs(searched, Filters.of({"q": text}))
    queries.logs(searched, Filters.of({"attribute": text, "slower": text, "kind": text}))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    path = tmp_path_factory.mktemp("searched") / "outbox.db"
    put(path, *LOGS)
    with opened(path) as source, source.open() as db:
        yield db


KINDS: list[dict[str, Any]] = [
    {"customer_id": "acme", "user_query": "Where is my parcel?", "environment": "prod"},
    {"customer_id": "acme", "user_query": "Refund please", "error": "Boom: no refund"},
    {"customer_id": "boxes", "response": "Grüße aus Köln", "environment": "prod"},
    {"prompt_slug": "claims/v1", "language_model_id": "gpt-4.1", "context": ["the river bank"]},
    {"customer_id": "boxes", "user_query": "أين طردي؟", "environment": "test"},
    {"customer_id": "acme", "response": "the bank of the river", "status_code": 500},
]
LOGS = [log(f"s{number % 4}", made=NOON + number * 60, **fields) for number, fields in enumerate(KINDS * 5)]


def found(path: Path, **filters: str) -> list[str]:
    with opened(path) as source, source.open() as db:
        rows = queries.logs(db, Filters(**filters), limit=100).rows
        return [row["reference"] for row in reversed(rows)]


def expected(**fields: Any) -> list[str]:
    bodies = [json.loads(entry.body) for entry in LOGS]
    return [
        body["external_reference_id"]
        for body in bodies
        if all(body.get(name) == value for name, value in fields.items())
    ]


def test_filters_select_the_matching_logs(path: Path) -> None:
    put(path, *LOGS)
    assert found(path) == expected()
    assert found(path, customer="acme") == expected(customer_id="acme")
    assert found(path, customer="acme", environment="prod") == expected(customer_id="acme", environment="prod")
    assert found(path, slug="claims/v1") == found(path, model="gpt-4.1") == expected(prompt_slug="claims/v1")
    assert found(path, session="s2") == expected(session_id="s2")
    assert len(found(path, errors="1")) == 10
    assert found(path, customer="nobody") == []
    assert found(path, state="nonsense") == []


def test_a_period_has_a_beginning_and_an_end(path: Path) -> None:
    put(path, *LOGS)
    begin, end = (datetime.fromtimestamp(NOON + minute * 60, timezone.utc).isoformat() for minute in (10, 12))
    assert found(path, since=begin, until=end) == [entry.reference for entry in LOGS[10:13]]


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("parcel", 5),
        ("parc", 5),  # a prefix
        ("parcel refund", 0),  # every word
        ("bank river", 10),  # in any order, in the answer or in the context
        ('"river bank"', 5),  # a phrase
        ("gruße koln", 5),  # without marks
        ("طردي", 5),
        ("acme", 15),  # names
        ("AND OR NOT *", 0),
        ('"', 30),  # nothing was asked
        ("';--", 30),
    ],
)
def test_the_search_finds_words(path: Path, words: str, number: int) -> None:
    put(path, *LOGS)
    assert len(found(path, q=words)) == number


@pytest.mark.parametrize("filters", [{}, {"customer": "acme"}, {"errors": "1"}, {"q": "bank"}, {"state": "waiting"}])
def test_pages_of_logs_together_are_the_list(path: Path, filters: dict[str, str]) -> None:
    put(path, *LOGS)
    whole = found(path, **filters)
    pages: list[str] = []
    before: int | None = None
    with opened(path) as source, source.open() as db:
        while True:
            page = queries.logs(db, Filters(**filters), before=before, limit=4)
            pages += [row["reference"] for row in page.rows]
            if page.next is None:
                break
            before = page.next
    assert pages[::-1] == whole


@pytest.mark.parametrize("filters", [{}, {"customer": "c1"}, {"errors": "1"}, {"q": "where"}, {"state": "waiting"}])
def test_pages_of_sessions_contain_each_once(path: Path, filters: dict[str, str]) -> None:
    entries = [
        log(f"s{number % 40}", customer_id=f"c{number % 3}", error="x" if number % 5 == 0 else "")
        for number in range(200)
    ]
    put(path, *entries)
    names: list[str] = []
    before: int | None = None
    with opened(path) as source, source.open() as db:
        whole = [row["name"] for row in queries.sessions(db, Filters(**filters), limit=1000).rows]
        while True:
            page = queries.sessions(db, Filters(**filters), before=before, limit=7)
            names += [row["name"] for row in page.rows]
            if page.next is None:
                break
            before = page.next
    assert names == whole
    assert len(set(names)) == len(names) > 0


def test_a_conversation_is_split_into_pages_of_limited_size(path: Path) -> None:
    put(path, *(log("long", response="x" * 700_000) for _ in range(5)))
    with opened(path) as source, source.open() as db:
        first, following = queries.turns(db, "long")
        assert len(first) == 2
        assert following is not None
        second, _ = queries.turns(db, "long", after=following)
        assert second[0].row["id"] == first[-1].row["id"] + 1


def test_the_filter_choices_are_the_existing_values(path: Path) -> None:
    put(path, *LOGS)
    with opened(path) as source, source.open() as db:
        assert queries.choices(db) == {
            "customer": ["acme", "boxes"],
            "user": [],
            "environment": ["prod", "test"],
            "slug": ["claims/v1"],
            "model": ["gpt-4.1", "gpt-4o-mini"],
            "tool": [],
            "attribute": [],
        }


def test_a_list_never_reads_the_whole_outbox(path: Path) -> None:
    """Every query plan uses an index: none sorts, or reads all entries with their bodies."""
    put(path, *LOGS)
    with opened(path) as source, source.open() as db:
        plans: list[str] = []
        db.set_trace_callback(plans.append)
        for filters in ({}, {"customer": "acme"}, {"state": "refused"}, {"state": "waiting"}, {"session": "s1"}):
            queries.logs(db, Filters(**filters))
            queries.logs(db, Filters(**filters), sort=queries.Sort.of("state", queries.LOG_COLUMNS))
            queries.logs(db, Filters(**filters), sort=queries.Sort.of("-state", queries.LOG_COLUMNS))
            queries.sessions(db, Filters(**filters))
        queries.refused(db)
        queries.waiting(db)
        db.set_trace_callback(None)
        for statement in plans:
            steps = [row["detail"] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}")]
            assert not [step for step in steps if "TEMP B-TREE" in step], statement
            assert not [step for step in steps if step.startswith("SCAN e") and "INDEX" not in step], statement
