"""All statements that read for pages and tables: each is bounded, and not slower for a larger file."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from athina_trace._delivery.sqlite import Connection, Row
from athina_trace.viewer.filters import STATES, Filters, clean
from athina_trace.viewer.log_fields import merge_updates, parse_object

PAGE = 50
"""Rows on a page of a list."""
_MAX_PAGE_BYTES = 2_000_000
"""Maximum bytes of logs on a page of a conversation; a larger log gets its own page."""
_MAX_WALK = 3000
"""Maximum number of matching logs that are read for a page of sessions."""
MAX_SORTED = 5000
"""Number of newest refused, and oldest waiting entries, that can be sorted by other columns than their age."""
_MAX_CHOICES = 100
MAX_STEPS = 200
"""Maximum number of steps shown in a turn."""

# The outbox's tables, attached as `box`; with `index.py` these are all statements that name them.
_DELIVERY = "e.state, e.status, e.reason, e.prompt_run_id, e.resolved"
_LOGS = f"SELECT l.*, {_DELIVERY} FROM log AS l JOIN box.entry AS e ON e.id = l.id"
_LOGS_BY_STATE = {
    state: f"SELECT l.*, {_DELIVERY} FROM box.entry AS e INDEXED BY {index} CROSS JOIN log AS l ON l.id = e.id"
    for state, index in (("waiting", "entry_oldest"), *((each, "entry_resolved") for each in STATES[1:]))
}
_STEPS = f"""
SELECT l.*, {_DELIVERY}, a.value AS function FROM log AS l JOIN box.entry AS e ON e.id = l.id
LEFT JOIN attribute AS a ON a.log = l.id AND a.name = 'function'
WHERE l.root = ? ORDER BY l.id LIMIT ?
"""
_HAS_LATER_MATCH = """
SELECT 1 FROM log AS l INDEXED BY log_session JOIN box.entry AS e ON e.id = l.id
WHERE l.session = ? AND l.id >= ? AND {condition} LIMIT 1
"""
_ENTRIES_OF_LOG = "SELECT id, kind, made, body, state, status, reason FROM box.entry WHERE reference = ? ORDER BY id"
_ENTRIES = """
SELECT e.id, e.kind, e.reference, e.made, e.resolved, e.status, e.reason, l.question, l.session, l.customer, n.attempts,
n.owner
FROM (SELECT id FROM box.entry WHERE {chosen}) AS chosen CROSS JOIN box.entry AS e ON e.id = chosen.id
LEFT JOIN log AS l ON l.id = e.id LEFT JOIN box.ordering_key AS n ON n.name = e.ordering_key
WHERE {after} {order} LIMIT ?
"""
_REFUSED_IDS = "SELECT id FROM box.entry WHERE reference = ? AND state = 'refused'"
_BY_STATE = "SELECT state, count(*) FROM box.entry WHERE state != 'waiting' GROUP BY state"
_WAITING_COUNT = "SELECT count(*) FROM box.entry WHERE state = 'waiting'"
_OLDEST_WAITING = "SELECT made FROM box.entry WHERE state = 'waiting' ORDER BY id LIMIT 1"
_RETRIES = """
SELECT count(*), min(due), max(attempts) FROM box.ordering_key WHERE owner IS NULL AND attempts > 0 AND due > ?
"""
_COUNTERS = "SELECT name, value FROM box.counter"
IMPORTED = "imported:"
"""Prefix of the names of notes with the digests of imported references."""
_IMPORTED = f"SELECT words FROM box.note WHERE name GLOB '{IMPORTED}*'"
_PAUSED = "SELECT words, since FROM box.note WHERE name = 'paused'"


class Page(NamedTuple):
    """Rows of a list, and the cursor of the next page; None on the last page."""

    rows: list[Row]
    next: int | None


class StoredLog(NamedTuple):
    """A log with its fields after later updates, and the entries of these updates."""

    row: Row
    fields: dict[str, Any]
    updates: list[Row]


class OutboxStatus(NamedTuple):
    """Counts of an outbox, with the names of `athina_trace.status()` if it has them.

    Attributes:
        made: logs, updates and feedback ever made.
        steps: logs of calls that were made inside another call.
        kept: delivered logs that are still in the outbox.
        delivered: logs, updates and feedback ever delivered.
        damaged: records of the journal that could not be read.
        retrying: conversations that wait for another attempt.
        next_attempt_at: the earliest of these, seconds since the epoch, as for the other times.
        attempts: the maximum number of attempts of any of these.
        bytes: the size of the outbox file, without free space in it.
    """

    made: int
    delivered: int
    waiting: int
    refused: int
    dropped: int
    possible_duplicates: int
    damaged: int
    logs: int
    steps: int
    sessions: int
    kept: int
    received: int
    retrying: int
    next_attempt_at: float | None
    attempts: int
    waiting_since: float | None
    bytes: int
    paused: str | None
    paused_since: float | None


class Sort(NamedTuple):
    """An order of a list: by a column, or in reverse with a minus before the name; "" is newest first.

    Attributes:
        name: the name of the column.
        key: its SQL expression; rows without a value come last.
        direction: `ASC` or `DESC`, for SQL.
    """

    name: str
    key: str
    direction: str

    @classmethod
    def of(cls, text: str, columns: dict[str, str]) -> Sort | None:
        """Read an order from an address; None if it is the default, or unknown."""
        name = text.removeprefix("-")
        if name not in columns:
            return None
        column = columns[name]
        is_text = name in TEXTS
        is_ascending = is_text != text.startswith("-")
        if is_text:
            last = "char(1114111)" if is_ascending else "''"
            return cls(text, f"coalesce(nullif({column}, ''), {last})", "ASC" if is_ascending else "DESC")
        return cls(text, f"coalesce({column}, {1e300 if is_ascending else -1e300})", "ASC" if is_ascending else "DESC")

    def order(self, number: str, *, backwards: bool = False) -> tuple[str, str]:
        """Return an ORDER BY, with `number` for ties, and a comparison for rows after a cursor."""
        direction = self.direction if not backwards else {"ASC": "DESC", "DESC": "ASC"}[self.direction]
        comparison = f"({self.key}, {number}) {'>' if direction == 'ASC' else '<'}"
        return f"ORDER BY {self.key} {direction}, {number} {direction}", comparison


LOG_COLUMNS = {
    "question": "l.question", "customer": "l.customer", "user": "l.user", "model": "l.model", "tokens": "l.tokens",
    "cost": "l.cost", "latency": "l.latency", "chunk": "l.first_chunk", "errors": "l.error IS NOT NULL",
    "feedback": "-l.feedback", "state": "e.state", "made": "l.made",
}  # fmt: skip
SESSION_COLUMNS = {
    "question": "s.question", "customer": "s.customer", "turns": "s.turns", "tokens": "s.tokens", "cost": "s.cost",
    "errors": "s.errors", "feedback": "s.disliked", "last": "s.last",
}  # fmt: skip
REFUSED_COLUMNS = {
    "question": "l.question", "reason": "coalesce(e.status, '') || ' ' || coalesce(e.reason, '')",
    "resolved": "e.resolved",
}  # fmt: skip
WAITING_COLUMNS = {
    "question": "l.question", "customer": "l.customer", "made": "e.made",
    "attempts": "CASE WHEN n.owner IS NULL THEN n.attempts ELSE 1e9 END",
}  # fmt: skip
TEXTS = {"question", "customer", "user", "model", "reason"}
"""Columns that are sorted from A to Z by default; all others have the largest value first."""
_BY_URGENCY = ("refused", "waiting", "received", "delivered")
"""States in their sort order: those that need attention first."""


def logs(
    db: Connection, filters: Filters, *, before: int | None = None, limit: int = PAGE, sort: Sort | None = None
) -> Page:
    """Return logs that match `filters`, newest first or in the order of `sort`, those after the log `before`."""
    if sort is not None:
        return _page(_sorted_logs(db, filters, sort, cursor=before, limit=limit + 1), limit, "id")
    return _page(_logs_by_id(db, filters, cursor=before, limit=limit + 1), limit, "id")


def _logs_by_id(
    db: Connection, filters: Filters, *, cursor: int | None, limit: int, is_ascending: bool = False
) -> list[Row]:
    """Return the newest logs or, if `is_ascending`, the oldest: those after the id `cursor` in this order."""
    start, key = _start(filters)
    condition, values = filters.sql()
    after = "1" if cursor is None else f"{key} {'>' if is_ascending else '<'} {cursor:d}"
    order = f"ORDER BY {key} {'ASC' if is_ascending else 'DESC'}"
    return db.execute(f"{start} WHERE {condition} AND {after} {order} LIMIT ?", (*values, limit)).fetchall()


def _logs_by_state(
    db: Connection, filters: Filters, *, cursor: int | None, limit: int, is_ascending: bool
) -> list[Row]:
    """Return logs sorted by their state. States are read one by one, so that no more than a page is read."""
    states = _BY_URGENCY[::-1] if is_ascending else _BY_URGENCY
    place = db.execute("SELECT state FROM box.entry WHERE id = ?", (cursor,)).fetchone()
    rows: list[Row] = []
    for state in states[states.index(place[0]) if place else 0 :]:
        if filters.state in ("", state) and len(rows) < limit:
            rows += _logs_by_id(
                db,
                replace(filters, state=state),
                cursor=cursor if place and place[0] == state else None,
                limit=limit - len(rows),
                is_ascending=is_ascending,
            )
    return rows


def _sorted_logs(
    db: Connection, filters: Filters, sort: Sort, *, cursor: int | None, limit: int, backwards: bool = False
) -> list[Row]:
    """Return the first logs in an order, or those after or, if `backwards`, before the id `cursor`."""
    if sort.name.removeprefix("-") == "state":
        is_ascending = (sort.direction == "ASC") != backwards
        return _logs_by_state(db, filters, cursor=cursor, limit=limit, is_ascending=is_ascending)
    order, comparison = sort.order("l.id", backwards=backwards)
    condition, values = filters.sql()
    place = db.execute(f"SELECT {sort.key}, l.id FROM log AS l WHERE l.id = ?", (cursor,)).fetchone()
    if place is not None:
        condition, values = f"{condition} AND {comparison} (?, ?)", [*values, *place]
    # Only the small table of logs is read and sorted; the entries of a page are looked up afterwards.
    source = "log AS l" if not filters.state else _start(filters)[0].partition(" FROM ")[2]
    return db.execute(
        f"SELECT l.*, {_DELIVERY} FROM (SELECT l.id AS chosen FROM {source} WHERE {condition} {order} LIMIT ?) "
        f"JOIN log AS l ON l.id = chosen JOIN box.entry AS e ON e.id = chosen {order}",
        (*values, limit),
    ).fetchall()


def log_neighbours(db: Connection, filters: Filters, sort: Sort | None, log_id: int) -> tuple[Row | None, Row | None]:
    """Return the neighbours of a log in the list with these filters and this order."""
    if sort is None:
        found = [_logs_by_id(db, filters, cursor=log_id, limit=1, is_ascending=each) for each in (True, False)]
    else:
        found = [_sorted_logs(db, filters, sort, cursor=log_id, limit=1, backwards=each) for each in (True, False)]
    before, after = (rows[0] if rows else None for rows in found)
    return before, after


def logs_after(db: Connection, filters: Filters, *, after: int, limit: int = 500) -> list[Row]:
    """Return logs that match `filters`, oldest first, those with an id above `after`."""
    condition, values = filters.sql()
    statement = f"{_LOGS} WHERE {condition} AND l.id > ? ORDER BY l.id LIMIT ?"
    return db.execute(statement, (*values, after, limit)).fetchall()


def sessions(
    db: Connection, filters: Filters, *, before: int | None = None, limit: int = PAGE, sort: Sort | None = None
) -> Page:
    """Return sessions with a log that matches `filters`, newest match first or in the order of `sort`."""
    if sort is not None:
        rows = _sorted_sessions(db, filters, sort, cursor=before, limit=limit + 1)
        return _page(rows, limit, "cursor")
    if not filters.active():
        rows = db.execute(
            "SELECT *, last_id AS cursor FROM session WHERE last_id < ? ORDER BY last_id DESC LIMIT ?",
            (_below(before), limit + 1),
        ).fetchall()
        return _page(rows, limit, "cursor")
    # Walk matching logs from the newest and keep each session once. Grouping them by session would read and sort
    # every match; the walk is bounded, and if it ends early, the page is shorter and the next one continues there.
    start, key = _start(filters)
    condition, values = filters.sql()
    walk = db.execute(
        f"{start} WHERE {condition} AND l.id < ? ORDER BY {key} DESC LIMIT {_MAX_WALK}", (*values, _below(before))
    ).fetchall()
    seen: set[str] = set()
    found: list[Row] = []
    for place, row in enumerate(walk):
        name = row["session"]
        if name in seen:
            continue
        seen.add(name)
        # A session with a match at or above the cursor was on an earlier page.
        shown_before = (
            before is not None
            and db.execute(_HAS_LATER_MATCH.format(condition=condition), (name, before, *values)).fetchone()
        )
        if not shown_before:
            found += db.execute("SELECT *, ? AS cursor FROM session WHERE name = ?", (row["id"], name))
        if len(found) == limit:
            return Page(found, row["id"] if place + 1 < len(walk) or len(walk) == _MAX_WALK else None)
    return Page(found, walk[-1]["id"] if len(walk) == _MAX_WALK else None)


def _sorted_sessions(
    db: Connection, filters: Filters, sort: Sort, *, cursor: int | None, limit: int, backwards: bool = False
) -> list[Row]:
    """Return the first sessions in an order, or those after or, if `backwards`, before the one with this last id."""
    order, comparison = sort.order("s.last_id", backwards=backwards)
    condition, values = filters.sql()
    source = "log AS l" if not filters.state else _start(filters)[0].partition(" FROM ")[2]
    where = f"s.name IN (SELECT l.session FROM {source} WHERE {condition})" if filters.active() else "1"
    place = db.execute(f"SELECT {sort.key}, s.last_id FROM session AS s WHERE s.last_id = ?", (cursor,)).fetchone()
    if place is not None:
        where, values = f"{where} AND {comparison} (?, ?)", [*values, *place]
    return db.execute(
        f"SELECT s.*, s.last_id AS cursor FROM session AS s WHERE {where} {order} LIMIT ?", (*values, limit)
    ).fetchall()


def session_neighbours(db: Connection, filters: Filters, sort: Sort | None, row: Row) -> tuple[Row | None, Row | None]:
    """Return the neighbours of a session in the list with these filters and this order."""
    if sort is None and filters.active():
        return _matching_neighbours(db, filters, row["name"])
    order = sort or Sort("", "s.last_id", "DESC")
    found = (
        _sorted_sessions(db, filters, order, cursor=row["last_id"], limit=1, backwards=backwards)
        for backwards in (True, False)
    )
    before, after = (rows[0] if rows else None for rows in found)
    return before, after


def _matching_neighbours(db: Connection, filters: Filters, name: str) -> tuple[Row | None, Row | None]:
    """Return the neighbours of a session in the list that is ordered by last matches."""
    condition, values = filters.sql()
    source = _start(filters)[0].partition(" FROM ")[2]
    last = f"SELECT max(l.id) FROM {source} WHERE l.session = ? AND {condition}"
    (place,) = db.execute(last, (name, *values)).fetchone()
    if place is None:  # it no longer matches
        return None, None
    newer = db.execute(
        f"SELECT l.id, l.session FROM {source} WHERE {condition} AND l.id > ? ORDER BY l.id LIMIT {_MAX_WALK}",
        (*values, place),
    )
    is_last = (row for row in newer if db.execute(last, (row["session"], *values)).fetchone()[0] == row["id"])
    before = next(is_last, None)
    after = sessions(db, filters, before=place, limit=1).rows
    return session(db, before["session"]) if before is not None else None, after[0] if after else None


def _start(filters: Filters) -> tuple[str, str]:
    """Return the start of a statement over logs and its sort key.

    Starts with the state, for which the outbox has indexes, unless another filter is likely to leave fewer rows.
    """
    narrow = (filters.q, filters.customer, filters.user, filters.session, filters.tool, filters.attribute)
    if any(narrow) or filters.state not in _LOGS_BY_STATE:
        return _LOGS, "l.id"
    return _LOGS_BY_STATE[filters.state], "e.id"


def _below(before: int | None) -> int:
    return 2**62 if before is None else before


def _page(rows: list[Row], limit: int, cursor: str) -> Page:
    return Page(rows[:limit], rows[limit - 1][cursor] if len(rows) > limit else None)


def session(db: Connection, name: str) -> Row | None:
    """Return the sums of a session; None if there is none of that name."""
    row: Row | None = db.execute("SELECT * FROM session WHERE name = ?", (clean(name),)).fetchone()
    return row


def turns(db: Connection, name: str, *, after: int = 0) -> tuple[list[StoredLog], int | None]:
    """Return a page of a session's turns in order, those with an id above `after`, and the next page's cursor."""
    rows = db.execute(
        f"{_LOGS} WHERE l.session = ? AND l.root IS NULL AND l.id > ? ORDER BY l.id LIMIT ?", (name, after, PAGE + 1)
    ).fetchall()
    size = 0
    fitting: list[Row] = []
    for row in rows[:PAGE]:
        size += row["size"]
        if fitting and size > _MAX_PAGE_BYTES:
            break
        fitting.append(row)
    return [stored_log(db, row) for row in fitting], fitting[-1]["id"] if len(fitting) < len(rows) else None


def steps(db: Connection, turn_id: int) -> list[Row]:
    """Return the calls that were made inside a turn, in the order in which they ended."""
    return db.execute(_STEPS, (turn_id, MAX_STEPS)).fetchall()


def count_turns(db: Connection, name: str, up_to: int) -> int:
    """Count the turns of a session up to and including the id `up_to`."""
    row = db.execute(
        "SELECT count(*) FROM log WHERE session = ? AND root IS NULL AND id <= ?", (name, up_to)
    ).fetchone()
    return int(row[0])


def page_with(db: Connection, name: str, turn_id: int) -> int:
    """Return the cursor of the page of a session that shows a turn."""
    before = count_turns(db, name, turn_id - 1) // PAGE * PAGE
    row = db.execute(
        "SELECT id FROM log WHERE session = ? AND root IS NULL ORDER BY id LIMIT 1 OFFSET ?", (name, max(0, before - 1))
    ).fetchone()
    return int(row[0]) if before and row else 0


def stored_log(db: Connection, row: Row) -> StoredLog:
    """Read the fields of a log, with its updates applied."""
    entries = db.execute(_ENTRIES_OF_LOG, (row["reference"],)).fetchall()
    own = next((entry for entry in entries if entry["id"] == row["id"]), None)
    updates = [entry for entry in entries if entry["kind"] != "log"]
    fields = parse_object(own["body"]) if own else {}
    return StoredLog(row, merge_updates(fields, (parse_object(entry["body"]) for entry in updates)), updates)


def log(db: Connection, key: str) -> StoredLog | None:
    """Find a log by its reference or its entry's number; None if there is none."""
    number = int(key) if is_integer(key) else -1
    for condition, value in (("l.reference = ?", clean(key)), ("l.id = ?", number)):
        row = db.execute(f"{_LOGS} WHERE {condition} ORDER BY l.id DESC LIMIT 1", (value,)).fetchone()
        if row is not None:
            return stored_log(db, row)
    return None


def is_integer(text: str) -> bool:
    """Return whether `text` is a whole number within SQLite's range."""
    return text.isascii() and text.isdigit() and len(text) < 19  # noqa: PLR2004 - fits 64 bits


def has_log(db: Connection, reference: str) -> bool:
    """Return whether there is a log with this reference."""
    found = db.execute("SELECT 1 FROM log WHERE reference = ? LIMIT 1", (clean(reference),)).fetchone()
    return found is not None


def imported(db: Connection) -> set[str]:
    """Return the digests of all references that were ever imported into this outbox."""
    return {digest for (words,) in db.execute(_IMPORTED) for digest in words.split()}


def choices(db: Connection) -> dict[str, list[str]]:
    """Return values to filter by: the first hundred of each kind."""
    found = {name: _distinct(db, "log", name) for name in ("customer", "user", "environment", "slug", "model")}
    found["tool"] = _distinct(db, "tool", "name")
    pairs: list[str] = []
    for name in _distinct(db, "attribute", "name"):
        pairs += [f"{name}={value}" for value in _distinct(db, "attribute", "value", within=name)]
        if len(pairs) >= _MAX_CHOICES:
            break
    found["attribute"] = pairs[:_MAX_CHOICES]
    return found


def _distinct(db: Connection, table: str, column: str, *, within: str | None = None) -> list[str]:
    # A recursive query hops from one value to the next along the index; DISTINCT would read every row.
    inside = "1" if within is None else "name = :within"
    rows = db.execute(
        f"WITH RECURSIVE each (value) AS (SELECT min({column}) FROM {table} WHERE {inside} UNION ALL "
        f"SELECT (SELECT min({column}) FROM {table} WHERE {inside} AND {column} > value) FROM each "
        f"WHERE value IS NOT NULL LIMIT {_MAX_CHOICES + 1}) SELECT value FROM each WHERE value IS NOT NULL",
        {"within": within} if within is not None else {},
    )
    return [row[0] for row in rows]


def outbox_status(db: Connection) -> OutboxStatus:
    """Return the counts of the outbox."""

    def one(statement: str) -> Any:
        row = db.execute(statement).fetchone()
        return row[0] if row else None

    states = dict(db.execute(_BY_STATE).fetchall())
    counters = dict(db.execute(_COUNTERS).fetchall())
    retrying, next_attempt_at, attempts = db.execute(_RETRIES, (time.time(),)).fetchone()
    paused, paused_since = db.execute(_PAUSED).fetchone() or (None, None)
    return OutboxStatus(
        made=counters.get("made", 0),
        delivered=counters.get("delivered", 0),
        waiting=one(_WAITING_COUNT),
        refused=states.get("refused", 0),
        dropped=counters.get("dropped", 0),
        possible_duplicates=counters.get("possible_duplicates", 0),
        damaged=counters.get("damaged", 0),
        logs=one("SELECT count(*) FROM log"),
        steps=one("SELECT count(*) FROM log WHERE root IS NOT NULL"),
        sessions=one("SELECT count(*) FROM session"),
        kept=states.get("delivered", 0),
        received=states.get("received", 0),
        retrying=retrying,
        next_attempt_at=next_attempt_at,
        attempts=attempts or 0,
        waiting_since=one(_OLDEST_WAITING),
        bytes=(one("PRAGMA box.page_count") - one("PRAGMA box.freelist_count")) * one("PRAGMA box.page_size"),
        paused=paused,
        paused_since=paused_since,
    )


def refused(db: Connection, *, before: int | None = None, sort: Sort | None = None) -> Page:
    """Return the refused entries of every kind, newest first or in the order of `sort`: those after `before`."""
    chosen = "state = 'refused' AND state != 'waiting'"
    if sort is None:
        statement = _ENTRIES.format(chosen=f"{chosen} AND id < ?", after="1", order="ORDER BY chosen.id DESC")
        return _page(db.execute(statement, (_below(before), PAGE + 1)).fetchall(), PAGE, "id")
    order, comparison = sort.order("e.id")
    place = db.execute(
        f"SELECT {sort.key}, e.id FROM box.entry AS e LEFT JOIN log AS l ON l.id = e.id WHERE e.id = ?", (before,)
    ).fetchone()
    statement = _ENTRIES.format(
        chosen=f"{chosen} ORDER BY id DESC LIMIT {MAX_SORTED}",
        after="1" if place is None else f"{comparison} (?, ?)",
        order=order,
    )
    return _page(db.execute(statement, (*(place or ()), PAGE + 1)).fetchall(), PAGE, "id")


def refused_ids(db: Connection, references: Iterable[str]) -> list[int]:
    """Return the ids of all refused entries about these logs."""
    return [row[0] for reference in references for row in db.execute(_REFUSED_IDS, (clean(reference),))]


def waiting(db: Connection, *, limit: int = 20, sort: Sort | None = None) -> list[Row]:
    """Return the oldest waiting entries, which are sent next, or the first in the order of `sort`."""
    chosen, order = "state = 'waiting'", "ORDER BY chosen.id"
    if sort is not None:
        chosen, order = f"{chosen} ORDER BY id LIMIT {MAX_SORTED}", sort.order("e.id")[0]
    return db.execute(_ENTRIES.format(chosen=chosen, after="1", order=order), (limit,)).fetchall()
