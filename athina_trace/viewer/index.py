"""The index: a file beside the outbox, made of what the outbox holds and never the other way round.

The program that logs pays nothing for it: whoever looks fills it. It may be deleted at any time, and is made anew.
It mirrors the outbox: what is gone there goes here, too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from athina_trace.viewer import tallies
from athina_trace.viewer.facts import Facts, facts, load, merged, words_of

VERSION = 2
CHUNK = 200
"""Entries that one transaction takes in; between two, readers and other writers have their turn."""

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
CREATE TABLE other (id INTEGER PRIMARY KEY, reference TEXT);
CREATE TABLE session (
    name TEXT PRIMARY KEY, customer TEXT, user TEXT, environment TEXT, question TEXT, turns INTEGER, tokens INTEGER,
    cost REAL, errors INTEGER, began REAL, last REAL, last_id INTEGER
);
CREATE INDEX session_last ON session (last_id);
CREATE VIRTUAL TABLE words USING fts5 (
    question, answer, rest, content = '', tokenize = 'unicode61 remove_diacritics 2'
);
CREATE TABLE mark (file TEXT, last INTEGER, stale INTEGER);
INSERT INTO mark VALUES ('', 0, 0);
"""
    + tallies.SCHEMA
)

_LOG = f"INSERT OR REPLACE INTO log VALUES ({', '.join('?' * len(Facts._fields))})"
_SESSION = """
INSERT INTO session
SELECT session, customer, user, environment, question, 1, coalesce(tokens, 0), cost, error IS NOT NULL, made, made, id
FROM log WHERE id = ?
ON CONFLICT (name) DO UPDATE SET
    customer = coalesce(excluded.customer, customer), user = coalesce(excluded.user, user),
    environment = coalesce(excluded.environment, environment), turns = turns + 1, tokens = tokens + excluded.tokens,
    cost = CASE WHEN excluded.cost IS NULL THEN cost ELSE coalesce(cost, 0) + excluded.cost END,
    errors = errors + excluded.errors, began = min(began, excluded.began), last = max(last, excluded.last),
    last_id = max(last_id, excluded.last_id)
"""
_GONE = """
SELECT l.id FROM log AS l WHERE NOT EXISTS (
    SELECT 1 FROM box.entry AS e INDEXED BY entry_reference WHERE e.reference = l.reference AND e.id = l.id
)
"""


def read_only(path: str | Path) -> str:
    """The address under which SQLite opens a file for reading alone."""
    return f"file:{quote(str(path))}?mode=ro"


class Index:
    """One writer's hold on an index file."""

    def __init__(self, path: str, outbox: str) -> None:
        """Open or make the index at `path` of the outbox file `outbox`, which is opened for reading alone."""
        self.outbox = outbox
        Path(path).touch(mode=0o600)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0, uri=True)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = OFF")  # it can be made anew
        self._db.execute("PRAGMA cache_size = -32000")
        self._db.execute("ATTACH ? AS box", (read_only(outbox),))
        if self._db.execute("PRAGMA main.user_version").fetchone()[0] != VERSION:
            self.clear()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def clear(self) -> None:
        """Begin anew with an empty index."""
        with self._writing():
            names = self._db.execute(
                "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'words_%'"
            ).fetchall()
            for (name,) in names:
                self._db.execute(f"DROP TABLE main.{name}")
            for statement in SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.execute("UPDATE mark SET file = ?", (self._file(),))
            self._db.execute(f"PRAGMA main.user_version = {VERSION}")
        with suppress(sqlite3.OperationalError):  # somebody reads: free pages are written over later
            # Deleted rows stay legible in free pages until the file is written anew.
            self._db.execute("VACUUM main")
            self._db.execute("PRAGMA main.wal_checkpoint(TRUNCATE)").fetchall()

    def _file(self) -> str:
        """What tells one outbox file from the next under the same name."""
        return str(Path(self.outbox).stat().st_ino)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def changed(self) -> int:
        """A number that another writer's commit to the outbox changes."""
        return int(self._db.execute("PRAGMA box.data_version").fetchone()[0])

    def behind(self) -> int:
        """About how many entries are still to be taken in."""
        last = self._db.execute("SELECT max(id) FROM box.entry").fetchone()[0] or 0
        return max(0, last - self._mark())

    def _mark(self) -> int:
        return int(self._db.execute("SELECT last FROM mark").fetchone()[0])

    def check(self) -> None:
        """Begin anew where the outbox is another one than before, under the same name."""
        file, last = self._db.execute("SELECT file, last FROM mark").fetchone()
        seq = self._db.execute("SELECT seq FROM box.sqlite_sequence WHERE name = 'entry'").fetchone()
        if file != self._file() or last > (seq[0] if seq else 0):
            self.clear()

    def take(self) -> int:
        """Take in the next entries, at most `CHUNK`; how many that were."""
        with self._writing():
            rows = self._db.execute(
                "SELECT id, kind, reference, made, body FROM box.entry WHERE id > ? ORDER BY id LIMIT ?",
                (self._mark(), CHUNK),
            ).fetchall()
            if rows:
                self._add([row for row in rows if row[1] == "log"])
                self._update([row for row in rows if row[1] != "log"])
                self._db.execute("UPDATE mark SET last = ?", (rows[-1][0],))
        return len(rows)

    def _add(self, rows: Sequence[tuple[int, str, str, float, bytes]]) -> None:
        loaded = [(number, made, reference, body, load(body)) for number, _, reference, made, body in rows]
        added = [facts(number, made, ref, fields, size=len(body)) for number, made, ref, body, fields in loaded]
        words = ((number, *words_of(reference, fields)) for number, _, reference, _, fields in loaded)
        self._db.executemany(_LOG, added)
        self._db.executemany(_SESSION, ((row.id,) for row in added))
        self._db.executemany("INSERT INTO words (rowid, question, answer, rest) VALUES (?, ?, ?, ?)", words)
        tallies.count(self._db, added)

    def _update(self, rows: Sequence[tuple[int, str, str, float, bytes]]) -> None:
        """Later changes of logs: the rows that they are about are read anew."""
        self._db.executemany("INSERT OR REPLACE INTO other VALUES (?, ?)", ((row[0], row[2]) for row in rows))
        for reference in dict.fromkeys(row[2] for row in rows):
            found = self._db.execute("SELECT * FROM log WHERE reference = ?", (reference,)).fetchall()
            for old in map(Facts._make, found):
                new = self._anew(old)
                tallies.count(self._db, [old], sign=-1)
                tallies.count(self._db, [new])
                self._db.execute(_LOG, new)
                self._sum({old.session, new.session})

    def _anew(self, row: Facts) -> Facts:
        bodies = self._db.execute("SELECT body FROM box.entry WHERE reference = ? ORDER BY id", (row.reference,))
        first, *later = [load(body) for (body,) in bodies] or [{}]
        return facts(row.id, row.made, row.reference, merged(first, iter(later)), size=row.size)

    def _sum(self, sessions: set[str]) -> None:
        """Sum these sessions up anew."""
        self._db.executemany("DELETE FROM session WHERE name = ?", ((name,) for name in sessions))
        for name in sessions:
            self._db.executemany(
                _SESSION, self._db.execute("SELECT id FROM log WHERE session = ? ORDER BY id", (name,)).fetchall()
            )

    def forget(self) -> int:
        """Let go of what is gone from the outbox; how many logs that were."""
        gone = self._db.execute(_GONE).fetchall()
        for start in range(0, len(gone), CHUNK):
            with self._writing():
                self._drop(gone[start : start + CHUNK])
        self._forget_words()
        return len(gone)

    def _drop(self, numbers: list[tuple[int]]) -> None:
        rows = [
            Facts._make(row) for number in numbers for row in self._db.execute("SELECT * FROM log WHERE id = ?", number)
        ]
        tallies.count(self._db, rows, sign=-1)
        self._db.executemany("DELETE FROM log WHERE id = ?", numbers)
        self._db.execute("UPDATE mark SET stale = stale + ?", (len(rows),))
        self._sum({row.session for row in rows})

    def _forget_words(self) -> None:
        """Words cannot be taken out one by one; once most of them belong to logs that are gone, all begin anew."""
        stale = self._db.execute("SELECT stale FROM mark").fetchone()[0]
        if stale > CHUNK + self._db.execute("SELECT count(*) FROM log").fetchone()[0]:
            self.clear()
