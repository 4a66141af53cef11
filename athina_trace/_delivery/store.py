"""The store: SQLite, used by engines only. Entries by lane, who holds which lane, how far journals were collected.

Every statement stands here. A `Store` belongs to one engine; several processes may have one on the same file.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from athina_trace._delivery.entry import Entry, Lease, Stored
from athina_trace.errors import OutboxError

MIGRATIONS = [
    """
    CREATE TABLE entry (
        id INTEGER PRIMARY KEY AUTOINCREMENT, lane TEXT NOT NULL, kind TEXT NOT NULL, reference TEXT NOT NULL,
        made REAL NOT NULL, body BLOB NOT NULL, state TEXT NOT NULL DEFAULT 'waiting',
        status INTEGER, reason TEXT, prompt_run_id TEXT, settled REAL
    );
    CREATE INDEX entry_waiting ON entry (lane, id) WHERE state = 'waiting';
    CREATE INDEX entry_oldest ON entry (id) WHERE state = 'waiting';
    CREATE INDEX entry_settled ON entry (state, id) WHERE state != 'waiting';
    CREATE INDEX entry_reference ON entry (reference);
    CREATE TABLE lane (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
        due REAL NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0, owner INTEGER
    );
    CREATE INDEX lane_ready ON lane (due, id) WHERE owner IS NULL;
    CREATE INDEX lane_owner ON lane (owner) WHERE owner IS NOT NULL;
    CREATE TABLE segment (name TEXT PRIMARY KEY, collected INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    """,
    "CREATE TABLE note (name TEXT PRIMARY KEY, words TEXT NOT NULL, since REAL NOT NULL)",
]
"""The schema's history: entry n brings a file from version n to n + 1."""

_LONGEST_WAIT = 4000.0
"""Seconds. No deferral is longer: a lane that is due later than this was written by a clock since set back."""


class Counts(NamedTuple):
    """Numbers of entries, over all processes of an outbox since it was made."""

    made: int = 0
    delivered: int = 0
    waiting: int = 0
    refused: int = 0
    dropped: int = 0


class Store:
    """Entries at rest. All times are seconds since the epoch, and passed in."""

    def __init__(self, path: str) -> None:
        """Open or make the file at `path` (":memory:" for none). Raises `OutboxError` or `sqlite3.Error`."""
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise OutboxError(f"the outbox has schema {version}, made by a newer athina_trace than this one")
        if version == 0:
            self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        if version < len(MIGRATIONS):
            self._migrate()

    def _migrate(self) -> None:
        with self.transaction():
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            for script in MIGRATIONS[version:]:
                for statement in script.split(";"):
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, with no other process in between. Transactions nest into the outermost one."""
        with self._lock:
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def add(self, entries: Sequence[Entry]) -> None:
        """Append `entries` to their lanes. An update follows its log into that log's lane."""
        rows = [(self._lane_of(e), e.kind, e.reference, e.made, e.body) for e in entries]
        self._db.executemany("INSERT INTO entry (lane, kind, reference, made, body) VALUES (?, ?, ?, ?, ?)", rows)
        self._db.executemany("INSERT OR IGNORE INTO lane (name) VALUES (?)", ((row[0],) for row in rows))
        self.count("made", len(entries))

    def _lane_of(self, entry: Entry) -> str:
        if entry.kind == "log":
            return entry.lane
        row = self._db.execute(
            "SELECT lane FROM entry WHERE reference = ? ORDER BY id LIMIT 1", (entry.reference,)
        ).fetchone()
        return str(row[0]) if row else entry.lane

    def lease(self, owner: int, now: float, *, lanes: int, batch: int) -> list[Lease]:
        """Take up to `lanes` lanes that are due, oldest first, each with up to `batch` of its oldest entries."""
        rows = self._db.execute(
            "SELECT name, attempts FROM lane WHERE owner IS NULL AND (due <= ? OR due > ?) ORDER BY due, id LIMIT ?",
            (now, now + _LONGEST_WAIT, lanes),
        ).fetchall()
        self._db.executemany("UPDATE lane SET owner = ? WHERE name = ?", ((owner, name) for name, _ in rows))
        return [Lease(name, attempts, self._oldest(name, batch)) for name, attempts in rows]

    def _oldest(self, lane: str, batch: int) -> list[Stored]:
        rows = self._db.execute(
            "SELECT id, kind, reference, body FROM entry WHERE lane = ? AND state = 'waiting' ORDER BY id LIMIT ?",
            (lane, batch),
        )
        return [Stored(*row) for row in rows]

    def delivered(self, entry: Stored, now: float, *, keep: bool, prompt_run_id: str | None) -> None:
        """Athina has `entry`: delete it, or keep it to be looked at."""
        if keep:
            self._settle(entry, "delivered", now, None, None, prompt_run_id)
        else:
            self._db.execute("DELETE FROM entry WHERE id = ?", (entry.id,))
        self.count("delivered")

    def refused(self, entry: Stored, now: float, *, status: int | None, reason: str) -> None:
        """Athina will never take `entry` as it is: keep it with the server's words."""
        self._settle(entry, "refused", now, status, reason, None)
        self.count("refused")

    def _settle(
        self, entry: Stored, state: str, now: float, status: int | None, reason: str | None, run: str | None
    ) -> None:
        self._db.execute(
            "UPDATE entry SET state = ?, status = ?, reason = ?, prompt_run_id = ?, settled = ? WHERE id = ?",
            (state, status, reason, run, now, entry.id),
        )

    def release(self, lane: str, *, due: float = 0.0, attempts: int = 0) -> None:
        """Give a leased lane back, to be leased again when `due`; a lane without entries is forgotten."""
        self._db.execute("UPDATE lane SET owner = NULL, due = ?, attempts = ? WHERE name = ?", (due, attempts, lane))
        self._db.execute(
            "DELETE FROM lane WHERE name = ? AND NOT EXISTS "
            "(SELECT 1 FROM entry WHERE lane = lane.name AND state = 'waiting')",
            (lane,),
        )

    def owners(self) -> list[int]:
        """Everyone who holds a lane."""
        return [row[0] for row in self._db.execute("SELECT DISTINCT owner FROM lane WHERE owner IS NOT NULL")]

    def disown(self, owner: int) -> None:
        """Free whatever `owner` holds."""
        self._db.execute("UPDATE lane SET owner = NULL WHERE owner = ?", (owner,))

    def next_due(self, now: float) -> float | None:
        """When the next free lane is due; None where no lane is free."""
        row = self._db.execute("SELECT min(due) FROM lane WHERE owner IS NULL").fetchone()
        if row[0] is None:
            return None
        return float(row[0]) if row[0] <= now + _LONGEST_WAIT else now

    def newest(self, limit: int) -> list[bytes]:
        """The bodies of the newest logs, oldest first, whatever their state."""
        with self._lock:
            rows = self._db.execute(
                "SELECT body FROM entry WHERE kind = 'log' ORDER BY id DESC LIMIT ?", (limit,)
            ).fetchall()
        return [row[0] for row in reversed(rows)]

    def expire(self, before: float) -> None:
        """Forget what was delivered before that time (seconds since the epoch)."""
        self._db.execute("DELETE FROM entry WHERE state = 'delivered' AND settled < ?", (before,))

    def last(self) -> int:
        """The id of the newest entry ever added."""
        with self._lock:
            row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'entry'").fetchone()
        return int(row[0]) if row else 0

    def oldest_waiting(self) -> float:
        """The id of the oldest entry that waits; infinite where none does."""
        with self._lock:
            row = self._db.execute("SELECT min(id) FROM entry WHERE state = 'waiting'").fetchone()
        return float("inf") if row[0] is None else float(row[0])

    def retry_refused(self) -> int:
        """Let every refused entry wait again, behind its lane; their number."""
        with self.transaction():
            lanes = self._db.execute("SELECT DISTINCT lane FROM entry WHERE state = 'refused'").fetchall()
            number = self._db.execute("UPDATE entry SET state = 'waiting' WHERE state = 'refused'").rowcount
            self._db.executemany("INSERT OR IGNORE INTO lane (name) VALUES (?)", lanes)
            self.count("refused", -number)
        return number

    def offsets(self) -> dict[str, int]:
        """Segment → bytes collected."""
        return dict(self._db.execute("SELECT name, collected FROM segment"))

    def remember(self, segment: str, collected: int) -> None:
        """`segment` was collected up to the byte `collected`."""
        self._db.execute("INSERT OR REPLACE INTO segment VALUES (?, ?)", (segment, collected))

    def forget(self, segments: Sequence[str]) -> None:
        """These segments are gone."""
        self._db.executemany("DELETE FROM segment WHERE name = ?", ((name,) for name in segments))

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        if by:
            self._db.execute(
                "INSERT INTO counter VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
                (name, by),
            )

    def note(self, name: str, words: str | None, now: float) -> None:
        """Leave word for whoever looks at this file from another process; None takes it back."""
        self._db.execute("DELETE FROM note WHERE name = ?", (name,))
        if words is not None:
            self._db.execute("INSERT INTO note VALUES (?, ?, ?)", (name, words, now))

    def counts(self) -> Counts:
        """All counters; what is neither delivered nor refused waits."""
        with self._lock:
            values = dict(self._db.execute("SELECT name, value FROM counter"))
        made, delivered, refused = (values.get(name, 0) for name in ("made", "delivered", "refused"))
        return Counts(made, delivered, made - delivered - refused, refused, values.get("dropped", 0))

    def size(self) -> int:
        """Bytes that entries and indexes take."""
        pages, free, page = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * page)

    def shrink(self) -> None:
        """Give freed pages back to the file system."""
        self._db.execute("PRAGMA incremental_vacuum").fetchall()
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()
