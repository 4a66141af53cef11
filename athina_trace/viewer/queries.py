"""What pages and tables ask for: every statement that reads, each bounded, none of them growing with the file."""

from __future__ import annotations

import time
from collections.abc import Iterable
from sqlite3 import Connection, Row
from typing import Any, NamedTuple

from athina_trace.viewer.facts import load, merged
from athina_trace.viewer.filters import STATES, Filters

PAGE = 50
"""Rows on one page of a list."""
_PAGE_BYTES = 2_000_000
"""Bytes of logs on one page of a conversation; a larger log has a page of its own."""

_STATES = "e.state, e.status, e.reason, e.prompt_run_id, e.resolved"
_LOGS = f"SELECT l.*, {_STATES} FROM log AS l JOIN box.entry AS e ON e.id = l.id"
_FROM_STATE = {
    state: f"SELECT l.*, {_STATES} FROM box.entry AS e INDEXED BY {index} CROSS JOIN log AS l ON l.id = e.id"
    for state, index in (("waiting", "entry_oldest"), *((each, "entry_resolved") for each in STATES[1:]))
}
_WALK = 3000
"""Matching logs that one page of sessions looks through at most."""
_SESSIONS = "SELECT s.*, s.last_id AS cursor FROM session AS s"


class Page(NamedTuple):
    """Rows of a list, and where the next page begins; None on the last one."""

    rows: list[Row]
    next: int | None


class Turn(NamedTuple):
    """One log with its fields, as later updates left them."""

    row: Row
    fields: dict[str, Any]
    updates: list[Row]


def logs(db: Connection, filters: Filters, *, before: int | None = None, limit: int = PAGE) -> Page:
    """Logs that pass `filters`, newest first, those with an id below `before`."""
    condition, values = filters.sql()
    by = _key(filters)
    rows = db.execute(
        f"{_start(filters)} WHERE {condition} AND {by} < ? ORDER BY {by} DESC LIMIT ?",
        (*values, _below(before), limit + 1),
    ).fetchall()
    return _paged(rows, limit, "id")


def _start(filters: Filters) -> str:
    """The statement's beginning: by state, for which the outbox has indexes, unless something else leaves fewer."""
    narrow = filters.q or filters.customer or filters.session
    return _LOGS if narrow or filters.state not in _FROM_STATE else _FROM_STATE[filters.state]


def _key(filters: Filters) -> str:
    return "l.id" if _start(filters) is _LOGS else "e.id"


def logs_after(db: Connection, filters: Filters, *, after: int, limit: int = 500) -> list[Row]:
    """Logs that pass `filters`, oldest first, those with an id above `after`."""
    condition, values = filters.sql()
    statement = f"{_LOGS} WHERE {condition} AND l.id > ? ORDER BY l.id LIMIT ?"
    return db.execute(statement, (*values, after, limit)).fetchall()


def sessions(db: Connection, filters: Filters, *, before: int | None = None, limit: int = PAGE) -> Page:
    """Sessions with a log that passes `filters`, the last such log deciding their order, newest first."""
    if not filters.given():
        rows = db.execute(
            f"{_SESSIONS} WHERE s.last_id < ? ORDER BY s.last_id DESC LIMIT ?", (_below(before), limit + 1)
        ).fetchall()
        return _paged(rows, limit, "cursor")
    return _filtered_sessions(db, filters, before, limit)


def _filtered_sessions(db: Connection, filters: Filters, before: int | None, limit: int) -> Page:
    """Walk through matching logs from the newest on, and keep each session once.

    The walk has an end: where it comes to it, the page is shorter, and the next one goes on from there.
    """
    condition, values = filters.sql()
    walk = db.execute(
        f"{_start(filters)} WHERE {condition} AND l.id < ? ORDER BY {_key(filters)} DESC LIMIT {_WALK}",
        (*values, _below(before)),
    ).fetchall()
    met: set[str] = set()
    rows: list[Row] = []
    for place, row in enumerate(walk):
        if row["session"] not in met:
            met.add(row["session"])
            if not _was_shown(db, filters, row["session"], before):
                rows += db.execute("SELECT *, ? AS cursor FROM session WHERE name = ?", (row["id"], row["session"]))
        if len(rows) == limit:
            return Page(rows, row["id"] if place + 1 < len(walk) or len(walk) == _WALK else None)
    return Page(rows, walk[-1]["id"] if len(walk) == _WALK else None)


def _was_shown(db: Connection, filters: Filters, name: str, before: int | None) -> bool:
    """Whether an earlier page has shown this session: a log of it at or above the cursor passes, too."""
    if before is None:
        return False
    condition, values = filters.sql()
    found = db.execute(
        f"SELECT 1 FROM log AS l INDEXED BY log_session JOIN box.entry AS e ON e.id = l.id "
        f"WHERE l.session = ? AND l.id >= ? AND {condition} LIMIT 1",
        (name, before, *values),
    ).fetchone()
    return found is not None


def _below(before: int | None) -> int:
    return 2**62 if before is None else before


def _paged(rows: list[Row], limit: int, cursor: str) -> Page:
    return Page(rows[:limit], rows[limit - 1][cursor] if len(rows) > limit else None)


def session(db: Connection, name: str) -> Row | None:
    """The sums of one session; None where there is none of that name."""
    row: Row | None = db.execute(f"{_SESSIONS} WHERE s.name = ?", (name,)).fetchone()
    return row


def turns(db: Connection, name: str, *, after: int = 0) -> tuple[list[Turn], int | None]:
    """The logs of a session in order, those behind the id `after`, and where the next page begins."""
    rows = db.execute(
        f"{_LOGS} WHERE l.session = ? AND l.id > ? ORDER BY l.id LIMIT ?", (name, after, PAGE + 1)
    ).fetchall()
    shown = _fitting(rows)
    return [turn(db, row) for row in shown], shown[-1]["id"] if len(shown) < len(rows) else None


def _fitting(rows: list[Row]) -> list[Row]:
    size = 0
    shown: list[Row] = []
    for row in rows[:PAGE]:
        size += row["size"]
        if shown and size > _PAGE_BYTES:
            break
        shown.append(row)
    return shown


def place(db: Connection, name: str, number: int) -> int:
    """How many logs of a session stand up to and including the id `number`."""
    row = db.execute("SELECT count(*) FROM log WHERE session = ? AND id <= ?", (name, number)).fetchone()
    return int(row[0])


def turn(db: Connection, row: Row) -> Turn:
    """A log with all that is known of it."""
    bodies = db.execute(
        "SELECT id, kind, made, body, state, status, reason FROM box.entry WHERE reference = ? ORDER BY id",
        (row["reference"],),
    ).fetchall()
    own = next((each for each in bodies if each["id"] == row["id"]), None)
    later = [each for each in bodies if each["kind"] != "log"]
    fields = load(own["body"]) if own else {}
    return Turn(row, merged(fields, (load(each["body"]) for each in later)), later)


def log(db: Connection, key: str) -> Turn | None:
    """One log, by its entry's number, its reference, or Athina's `prompt_run_id`; None where there is none."""
    number = int(key) if key.isascii() and key.isdigit() and len(key) < 19 else -1  # noqa: PLR2004 - SQLite's integers
    for condition, value in (("l.reference = ?", key), ("l.id = ?", number)):
        row = db.execute(f"{_LOGS} WHERE {condition} ORDER BY l.id DESC LIMIT 1", (value,)).fetchone()
        if row is not None:
            return turn(db, row)
    return None


def choices(db: Connection) -> dict[str, list[str]]:
    """What customers, environments, slugs and models there are: the first hundred of each."""
    return {name: [row[0] for row in _distinct(db, name)] for name in ("customer", "environment", "slug", "model")}


def _distinct(db: Connection, name: str) -> Iterable[Row]:
    # From one value to the next along the index, instead of through every row.
    return db.execute(
        f"WITH RECURSIVE each (value) AS (SELECT min({name}) FROM log UNION ALL "
        f"SELECT (SELECT min({name}) FROM log WHERE {name} > value) FROM each WHERE value IS NOT NULL LIMIT 101) "
        "SELECT value FROM each WHERE value IS NOT NULL"
    ).fetchall()


class Standing(NamedTuple):
    """How an outbox stands. `kept`: delivered ones that are there; `deferred`: keys that wait for another try."""

    logs: int
    sessions: int
    waiting: int
    refused: int
    kept: int
    received: int
    delivered: int
    dropped: int
    deferred: int
    next_try: float | None
    attempts: int
    oldest_waiting: float | None
    bytes: int
    paused: str | None
    paused_since: float | None


def standing(db: Connection, *, now: float | None = None) -> Standing:
    """Count what is in the outbox."""
    states = dict(
        db.execute("SELECT state, count(*) FROM box.entry WHERE state != 'waiting' GROUP BY state").fetchall()
    )
    counters = dict(db.execute("SELECT name, value FROM box.counter").fetchall())
    deferred = db.execute(
        "SELECT count(*), min(due), max(attempts) FROM box.ordering_key "
        "WHERE owner IS NULL AND attempts > 0 AND due > ?",
        (time.time() if now is None else now,),
    ).fetchone()
    paused = db.execute("SELECT words, since FROM box.note WHERE name = 'paused'").fetchone() or (None, None)
    return Standing(
        logs=_one(db, "SELECT count(*) FROM log"),
        sessions=_one(db, "SELECT count(*) FROM session"),
        waiting=_one(db, "SELECT count(*) FROM box.entry WHERE state = 'waiting'"),
        refused=states.get("refused", 0),
        kept=states.get("delivered", 0),
        received=states.get("received", 0),
        delivered=counters.get("delivered", 0),
        dropped=counters.get("dropped", 0),
        deferred=deferred[0],
        next_try=deferred[1],
        attempts=deferred[2] or 0,
        oldest_waiting=_one(db, "SELECT made FROM box.entry WHERE state = 'waiting' ORDER BY id LIMIT 1"),
        bytes=_one(db, "PRAGMA box.page_count") * _one(db, "PRAGMA box.page_size"),
        paused=paused[0],
        paused_since=paused[1],
    )


def _one(db: Connection, statement: str) -> Any:
    row = db.execute(statement).fetchone()
    return row[0] if row else None


def refused(db: Connection, *, before: int | None = None) -> Page:
    """What Athina refused, of every kind, newest first."""
    rows = db.execute(
        "SELECT e.id, e.kind, e.reference, e.made, e.resolved, e.status, e.reason, l.question, l.session, l.customer "
        "FROM box.entry AS e LEFT JOIN log AS l ON l.id = e.id "
        "WHERE e.state = 'refused' AND e.state != 'waiting' AND e.id < ? ORDER BY e.id DESC LIMIT ?",
        (_below(before), PAGE + 1),
    ).fetchall()
    return _paged(rows, PAGE, "id")


def refused_numbers(db: Connection, references: Iterable[str]) -> list[int]:
    """The ids of all refused entries about these logs."""
    statement = "SELECT id FROM box.entry WHERE reference = ? AND state = 'refused'"
    return [row[0] for reference in references for row in db.execute(statement, (reference,))]


def waiting(db: Connection, *, limit: int = 20) -> list[Row]:
    """What leaves next: the oldest entries that wait."""
    return db.execute(
        "SELECT e.id, e.kind, e.reference, e.made, l.question, l.session, l.customer, n.attempts, n.due, n.owner "
        "FROM box.entry AS e LEFT JOIN log AS l ON l.id = e.id "
        "LEFT JOIN box.ordering_key AS n ON n.name = e.ordering_key "
        "WHERE e.state = 'waiting' ORDER BY e.id LIMIT ?",
        (limit,),
    ).fetchall()
