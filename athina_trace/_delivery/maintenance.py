"""What people do to a store by hand: send refused entries again, delete what is no longer wanted.

Each function works on a live outbox in one short transaction, and leaves the counters adding up.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

_AT_ONCE = 1000
_EMPTY_LANES = (
    "DELETE FROM lane WHERE owner IS NULL "
    "AND NOT EXISTS (SELECT 1 FROM entry WHERE lane = lane.name AND state = 'waiting')"
)


@contextmanager
def _writing(path: str) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10.0)) as db:
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")


def retry(path: str, numbers: Sequence[int] | None = None) -> int:
    """Let refused entries of the store at `path` wait again: those with these ids, or all. Gives their number."""
    with _writing(path) as db:
        chosen = _chosen(db, "refused", numbers)
        lanes = [db.execute("SELECT lane FROM entry WHERE id = ?", one).fetchone() for one in chosen]
        db.executemany("UPDATE entry SET state = 'waiting' WHERE id = ?", chosen)
        db.executemany("INSERT OR IGNORE INTO lane (name) VALUES (?)", lanes)
        _count(db, "refused", -len(chosen))
    return len(chosen)


def purge(path: str, state: str, *, before: float) -> int:
    """Delete the entries of one state that were made before a time (seconds since the epoch). Gives their number."""
    done = 0
    while number := _purge_some(path, state, before):
        done += number
    return done


def _purge_some(path: str, state: str, before: float) -> int:
    """Delete so few that nobody waits for it."""
    with _writing(path) as db:
        chosen = db.execute(
            "SELECT id FROM entry WHERE state = ? AND made < ? LIMIT ?", (state, before, _AT_ONCE)
        ).fetchall()
        db.executemany("DELETE FROM entry WHERE id = ?", chosen)
        db.execute(_EMPTY_LANES)
        if state in ("waiting", "refused"):
            _count(db, "made", -len(chosen))
        if state == "refused":
            _count(db, "refused", -len(chosen))
    return len(chosen)


def _chosen(db: sqlite3.Connection, state: str, numbers: Sequence[int] | None) -> list[tuple[int]]:
    if numbers is None:
        return db.execute("SELECT id FROM entry WHERE state = ?", (state,)).fetchall()
    found = (
        db.execute("SELECT id FROM entry WHERE id = ? AND state = ?", (number, state)).fetchone() for number in numbers
    )
    return [row for row in found if row is not None]


def _count(db: sqlite3.Connection, name: str, by: int) -> None:
    db.execute("UPDATE counter SET value = value + ? WHERE name = ?", (by, name))
