"""Manual maintenance of an outbox: retry refused entries, purge entries.

Each function works on a live outbox in short transactions, and updates each counter together with its rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from athina_trace._delivery.sqlite import sqlite3
from athina_trace._delivery.sqlite_outbox import SqliteOutbox

_AT_ONCE = 1000
_EMPTY_KEYS = (
    "DELETE FROM ordering_key WHERE owner IS NULL "
    "AND NOT EXISTS (SELECT 1 FROM entry WHERE ordering_key = name AND state = 'waiting')"
)
_CHOSEN = (
    "SELECT id, length(body) FROM entry WHERE state = ? AND made < ? "
    # Leased entries are in flight: Athina may be accepting them right now.
    "AND (state != 'waiting' OR NOT EXISTS "
    "(SELECT 1 FROM ordering_key WHERE name = entry.ordering_key AND owner IS NOT NULL)) LIMIT ?"
)


@contextmanager
def _writing(path: str) -> Iterator[sqlite3.Connection]:
    # As a context manager, a connection commits or rolls back.
    with closing(sqlite3.Connection(path, isolation_level=None, timeout=10.0)) as db, db:
        db.execute("BEGIN IMMEDIATE")
        yield db


def retry(path: str, numbers: Sequence[int] | None = None) -> int:
    """Retry refused entries of the store at `path`: those with these ids, or all. Return how many."""
    done = 0
    with _writing(path) as db:
        if numbers is None:
            numbers = [row[0] for row in db.execute("SELECT id FROM entry WHERE state = 'refused'")]
        for number in numbers:
            row = db.execute(
                "SELECT ordering_key, length(body) FROM entry WHERE id = ? AND state = 'refused'", (number,)
            ).fetchone()
            if row is not None:
                db.execute("UPDATE entry SET state = 'waiting' WHERE id = ?", (number,))
                db.execute("INSERT OR IGNORE INTO ordering_key (name) VALUES (?)", row[:1])
                _count(db, "refused", -1)
                _count(db, "refused_bytes", -row[1])
                done += 1
    return done


def purge(path: str, state: str, *, before: float) -> int:
    """Delete the entries of one state that were made before a time (seconds since the epoch); return the number.

    Waiting entries that a living process has leased are kept.
    """
    if state == "waiting":
        outbox = SqliteOutbox(path)
        try:
            with outbox.transaction():
                outbox.reclaim()  # leases of dead processes are not in flight
        finally:
            outbox.close()
    done = 0
    while True:
        # In small batches, so that no other process has to wait for long.
        with _writing(path) as db:
            chosen = db.execute(_CHOSEN, (state, before, _AT_ONCE)).fetchall()
            db.executemany("DELETE FROM entry WHERE id = ?", ((number,) for number, _ in chosen))
            db.execute(_EMPTY_KEYS)
            if state in ("waiting", "refused"):
                _count(db, "made", -len(chosen))
            if state == "refused":
                _count(db, "refused", -len(chosen))
            if state != "waiting":
                _count(db, f"{state}_bytes", -sum(size for _, size in chosen))
        if not chosen:
            return done
        done += len(chosen)


def _count(db: sqlite3.Connection, name: str, by: int) -> None:
    db.execute("UPDATE counter SET value = value + ? WHERE name = ?", (by, name))
