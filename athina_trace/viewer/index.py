"""The index: a SQLite file beside the outbox, derived from it and never the other way round.

The program that logs pays nothing for it: the process that looks at the outbox fills it. It may be deleted at any time
and is rebuilt. It mirrors the outbox: what is deleted there is deleted here, too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from athina_trace.viewer import aggregates
from athina_trace.viewer.log_fields import LogRow, log_row, merge_updates, parse_object, searchable_text, text_of

VERSION = 3
CHUNK = 200
"""Entries that one transaction reads; between two, readers and other writers have their turn."""

SCHEMA = (
    """
CREATE TABLE log (
    id INTEGER PRIMARY KEY, made REAL, session TEXT, reference TEXT, customer TEXT, user TEXT, environment TEXT,
    slug TEXT, model TEXT, tokens INTEGER, cost REAL, latency INTEGER, error TEXT, question TEXT, answer TEXT,
    feedback INTEGER, size INTEGER
);
CREATE INDEX log_session ON log (session, id);
CREATE INDEX log_customer ON log (customer, id);
CREATE INDEX log_slug ON log (slug, id);
CREATE INDEX log_model ON log (model, id);
CREATE INDEX log_environment ON log (environment, id);
CREATE INDEX log_reference ON log (reference);
CREATE INDEX log_error ON log (id) WHERE error IS NOT NULL;
CREATE INDEX log_feedback ON log (id) WHERE feedback IS NOT NULL;
CREATE TABLE session (
    name TEXT PRIMARY KEY, customer TEXT, user TEXT, environment TEXT, question TEXT, turns INTEGER, tokens INTEGER,
    cost REAL, errors INTEGER, liked INTEGER, disliked INTEGER, began REAL, last REAL, last_id INTEGER
);
CREATE INDEX session_last ON session (last_id);
CREATE VIRTUAL TABLE words USING fts5 (
    question, answer, rest, content = '', tokenize = 'unicode61 remove_diacritics 2'
);
CREATE VIRTUAL TABLE comments USING fts5 (comment, tokenize = 'unicode61 remove_diacritics 2');
CREATE TABLE progress (outbox_file TEXT, last_id INTEGER, deleted INTEGER);
INSERT INTO progress VALUES ('', 0, 0);
"""
    + aggregates.SCHEMA
)

_PUT_LOG = f"INSERT OR REPLACE INTO log VALUES ({', '.join('?' * len(LogRow._fields))})"
_ADD_TO_SESSION = """
INSERT INTO session
SELECT
    session, customer, user, environment, question, 1, coalesce(tokens, 0), cost, error IS NOT NULL,
    coalesce(feedback > 0, 0), coalesce(feedback < 0, 0), made, made, id
FROM log WHERE id = ?
ON CONFLICT (name) DO UPDATE SET
    customer = coalesce(excluded.customer, customer), user = coalesce(excluded.user, user),
    environment = coalesce(excluded.environment, environment), turns = turns + 1, tokens = tokens + excluded.tokens,
    cost = CASE WHEN excluded.cost IS NULL THEN cost ELSE coalesce(cost, 0) + excluded.cost END,
    errors = errors + excluded.errors, liked = liked + excluded.liked, disliked = disliked + excluded.disliked,
    began = min(began, excluded.began), last = max(last, excluded.last),
    last_id = max(last_id, excluded.last_id)
"""

# The outbox's tables, attached as `box`; with `queries.py` these are all statements that name them.
_NEW_ENTRIES = "SELECT id, kind, reference, made, body FROM box.entry WHERE id > ? ORDER BY id LIMIT ?"
_BODIES = "SELECT body FROM box.entry WHERE reference = ? ORDER BY id"
_NEWEST_ID = "SELECT max(id) FROM box.entry"
_NEWEST_ID_EVER = "SELECT seq FROM box.sqlite_sequence WHERE name = 'entry'"
_DELETED_LOGS = """
SELECT l.id FROM log AS l WHERE NOT EXISTS (
    SELECT 1 FROM box.entry AS e INDEXED BY entry_reference WHERE e.reference = l.reference AND e.id = l.id
)
"""

_Entry = tuple[int, str, str, float, bytes]


def read_only(path: str | Path) -> str:
    """Return the URI with which SQLite opens a file for reading only."""
    return f"file:{quote(str(path))}?mode=ro"


class Index:
    """A connection that writes to an index file."""

    def __init__(self, path: str, outbox: str) -> None:
        """Open or make the index at `path` of the outbox file `outbox`, which is opened for reading only."""
        self.path = path
        self._outbox = outbox
        Path(path).touch(mode=0o600)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0, uri=True)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = OFF")  # what a power loss damages is rebuilt
        self._db.execute("PRAGMA cache_size = -32000")
        self._db.execute("ATTACH ? AS box", (read_only(outbox),))
        if self._db.execute("PRAGMA main.user_version").fetchone()[0] != VERSION:
            self.clear()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def clear(self) -> None:
        """Start over with an empty index."""
        with self._transaction():
            names = self._db.execute(
                "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'words_%' "
                "AND name NOT LIKE 'comments_%'"
            ).fetchall()
            for (name,) in names:
                self._db.execute(f"DROP TABLE main.{name}")
            for statement in SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.execute("UPDATE progress SET outbox_file = ?", (self._outbox_file(),))
            self._db.execute(f"PRAGMA main.user_version = {VERSION}")
        with suppress(sqlite3.OperationalError):  # beside a reader: free pages are overwritten later
            # Deleted texts stay legible in free pages until the file is rewritten.
            self._db.execute("VACUUM main")
            self._db.execute("PRAGMA main.wal_checkpoint(TRUNCATE)").fetchall()

    def _outbox_file(self) -> str:
        """Return what distinguishes one outbox file from the next under the same name."""
        return str(Path(self._outbox).stat().st_ino)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def outbox_version(self) -> int:
        """Return a number that every commit of another process to the outbox changes."""
        return int(self._db.execute("PRAGMA box.data_version").fetchone()[0])

    def backlog(self) -> int:
        """Return about how many entries are still to be read."""
        (last_id,) = self._db.execute("SELECT last_id FROM progress").fetchone()
        (newest,) = self._db.execute(_NEWEST_ID).fetchone()
        return max(0, int(newest or 0) - int(last_id))

    def clear_if_replaced(self) -> None:
        """Start over where the outbox is another file than before, under the same name."""
        file, last_id = self._db.execute("SELECT outbox_file, last_id FROM progress").fetchone()
        newest = self._db.execute(_NEWEST_ID_EVER).fetchone()
        if file != self._outbox_file() or last_id > (newest[0] if newest else 0):
            self.clear()

    def ingest(self) -> int:
        """Read the next entries, at most `CHUNK`; return how many there were."""
        with self._transaction():
            (last_id,) = self._db.execute("SELECT last_id FROM progress").fetchone()
            entries = self._db.execute(_NEW_ENTRIES, (last_id, CHUNK)).fetchall()
            if entries:
                self._add_logs([entry for entry in entries if entry[1] == "log"])
                self._apply_updates([entry for entry in entries if entry[1] != "log"])
                self._db.execute("UPDATE progress SET last_id = ?", (entries[-1][0],))
        return len(entries)

    def _add_logs(self, entries: Sequence[_Entry]) -> None:
        logs = [(entry_id, made, reference, body, parse_object(body)) for entry_id, _, reference, made, body in entries]
        rows = [log_row(number, made, ref, fields, size=len(body)) for number, made, ref, body, fields in logs]
        words = ((entry_id, *searchable_text(reference, fields)) for entry_id, _, reference, _, fields in logs)
        self._db.executemany(_PUT_LOG, rows)
        self._db.executemany(_ADD_TO_SESSION, ((row.id,) for row in rows))
        self._db.executemany("INSERT INTO words (rowid, question, answer, rest) VALUES (?, ?, ?, ?)", words)
        # In a table of their own, which can replace a row: comments come after their logs.
        self._put_comments((entry_id, fields) for entry_id, _, _, _, fields in logs)
        aggregates.add_rows(self._db, rows)

    def _apply_updates(self, entries: Sequence[_Entry]) -> None:
        """Rebuild the rows of the logs that later updates and feedback are about."""
        # A chunk often holds several updates of one log; its row is rebuilt once.
        for reference in dict.fromkeys(entry[2] for entry in entries):
            for old in map(
                LogRow._make, self._db.execute("SELECT * FROM log WHERE reference = ?", (reference,)).fetchall()
            ):
                first, *later = [parse_object(body) for (body,) in self._db.execute(_BODIES, (reference,))] or [{}]
                fields = merge_updates(first, later)
                new = log_row(old.id, old.made, reference, fields, size=old.size)
                aggregates.add_rows(self._db, [old], sign=-1)
                aggregates.add_rows(self._db, [new])
                self._db.execute(_PUT_LOG, new)
                self._put_comments([(new.id, fields)])
                self._sum_sessions({old.session, new.session})

    def _put_comments(self, logs: Iterable[tuple[int, dict[str, Any]]]) -> None:
        comments = ((entry_id, text_of(fields.get("user_feedback_comment"))) for entry_id, fields in logs)
        self._db.executemany(
            "INSERT OR REPLACE INTO comments (rowid, comment) VALUES (?, ?)", (each for each in comments if each[1])
        )

    def _sum_sessions(self, names: set[str]) -> None:
        """Recompute the sums of these sessions from their logs."""
        for name in names:
            self._db.execute("DELETE FROM session WHERE name = ?", (name,))
            ids = self._db.execute("SELECT id FROM log WHERE session = ? ORDER BY id", (name,)).fetchall()
            self._db.executemany(_ADD_TO_SESSION, ids)

    def remove_deleted(self) -> int:
        """Remove the logs that are gone from the outbox; return how many."""
        gone = self._db.execute(_DELETED_LOGS).fetchall()
        for start in range(0, len(gone), CHUNK):
            ids = gone[start : start + CHUNK]
            with self._transaction():
                found = (self._db.execute("SELECT * FROM log WHERE id = ?", one).fetchone() for one in ids)
                rows = [LogRow._make(row) for row in found]
                aggregates.add_rows(self._db, rows, sign=-1)
                self._db.executemany("DELETE FROM log WHERE id = ?", ids)
                self._db.executemany("DELETE FROM comments WHERE rowid = ?", ids)
                self._db.execute("UPDATE progress SET deleted = deleted + ?", (len(rows),))
                self._sum_sessions({row.session for row in rows})
        # A contentless FTS5 table cannot delete single rows: once most of its words are stale, the index is rebuilt.
        (deleted,) = self._db.execute("SELECT deleted FROM progress").fetchone()
        if deleted > CHUNK + self._db.execute("SELECT count(*) FROM log").fetchone()[0]:
            self.clear()
        return len(gone)
