"""The store: SQLite, used by engines only. Entries by lane, who holds which lane, how far journals were collected.

Every statement stands here. A `Store` belongs to one engine; several processes may have one on the same file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from athina_trace._delivery.database import Database
from athina_trace._delivery.entry import Entry, Lease, Stored
from athina_trace._delivery.stats import Counts

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


_ROWS = 150
"""In one statement: SQLite takes 999 values at least."""


class Store(Database):
    """Entries at rest. All times are seconds since the epoch, and passed in."""

    def __init__(self, path: str) -> None:
        """Open or make the file at `path` (":memory:" for none). Raises `OutboxError` or `sqlite3.Error`."""
        self._counted: Counter[str] = Counter()
        super().__init__(path, MIGRATIONS)

    def add(self, entries: Sequence[Entry]) -> None:
        """Append `entries` to their lanes. An update follows its log into that log's lane."""
        lanes = {entry.reference: entry.lane for entry in reversed(entries) if entry.kind == "log"}
        rows = [(self._lane_of(e, lanes), e.kind, e.reference, e.made, e.body) for e in entries]
        # Many rows in one statement: each lets go of the interpreter, and waits 5 ms for it where the program computes.
        for some in (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)):
            places = ", ".join(["(?, ?, ?, ?, ?)"] * len(some))
            insert = f"INSERT INTO entry (lane, kind, reference, made, body) VALUES {places}"  # noqa: S608
            self._db.execute(insert, [value for row in some for value in row])
            names = list(dict.fromkeys(row[0] for row in some))
            places = ", ".join(["(?)"] * len(names))
            self._db.execute(f"INSERT OR IGNORE INTO lane (name) VALUES {places}", names)  # noqa: S608
        self.count("made", len(entries))

    def _lane_of(self, entry: Entry, lanes: Mapping[str, str]) -> str:
        """The lane of the log that `entry` is about: `lanes` tells those of the logs that come with it."""
        if entry.kind == "log":
            return entry.lane
        if entry.reference in lanes:
            return lanes[entry.reference]
        row = self._db.execute(
            "SELECT lane FROM entry WHERE reference = ? ORDER BY id LIMIT 1", (entry.reference,)
        ).fetchone()
        return str(row[0]) if row else entry.lane

    def lease(self, owner: int, now: float, *, lanes: int, batch: int, room: float) -> list[Lease]:
        """Take up to `lanes` lanes that are due, oldest first, each with up to `batch` of its oldest entries.

        `room` bounds their bytes together: the entry that exceeds it is the last.
        """
        rows = self._db.execute(
            "SELECT name, attempts FROM lane WHERE owner IS NULL AND due <= ? ORDER BY due, id LIMIT ?", (now, lanes)
        ).fetchall()
        leases: list[Lease] = []
        for name, attempts in rows:
            if room <= 0:
                break
            entries = self._oldest(name, batch, room)
            room -= sum(len(entry.body) for entry in entries)
            if entries:
                leases.append(Lease(name, attempts, entries))
            else:  # its last owner died after the last entry
                self.release(name)
        self._db.executemany("UPDATE lane SET owner = ? WHERE name = ?", ((owner, lease.lane) for lease in leases))
        return leases

    def _oldest(self, lane: str, batch: int, room: float) -> list[Stored]:
        rows = self._db.execute(
            "SELECT id, kind, reference, body FROM entry WHERE lane = ? AND state = 'waiting' ORDER BY id LIMIT ?",
            (lane, batch),
        )
        entries: list[Stored] = []
        for row in rows:
            entries.append(Stored(*row))
            room -= len(entries[-1].body)
            if room <= 0:
                break
        return entries

    def delivered(self, entry: Stored, now: float, *, keep: bool, prompt_run_id: str | None) -> None:
        """Athina has `entry`: delete it, or keep it to be looked at."""
        if keep:
            self._settle(entry, "delivered", now, None, None, prompt_run_id)
        else:
            self._db.execute("DELETE FROM entry WHERE id = ?", (entry.id,))
        self.count("delivered")

    def answered(self, ids: Iterable[int]) -> None:
        """Athina has these, as a dead owner was told; what is settled already stays as it is."""
        for number in ids:
            gone = self._db.execute("DELETE FROM entry WHERE id = ? AND state = 'waiting'", (number,)).rowcount
            self.count("delivered", gone)

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

    def next_due(self) -> float | None:
        """When the next free lane is due; None where no lane is free."""
        row = self._db.execute("SELECT min(due) FROM lane WHERE owner IS NULL").fetchone()
        return None if row[0] is None else float(row[0])

    def hasten(self, now: float, *, longest: float = 0.0) -> None:
        """Make due now whatever is due more than `longest` seconds later: the clock was set back."""
        self._db.execute("UPDATE lane SET due = ? WHERE owner IS NULL AND due > ?", (now, now + longest))

    def newest(self, limit: int) -> list[bytes]:
        """The bodies of the newest logs, oldest first, whatever their state."""
        with self.lock:
            rows = self._db.execute(
                "SELECT body FROM entry WHERE kind = 'log' ORDER BY id DESC LIMIT ?", (limit,)
            ).fetchall()
        return [row[0] for row in reversed(rows)]

    def expire(self, before: float) -> None:
        """Forget what was delivered before that time (seconds since the epoch)."""
        self._db.execute("DELETE FROM entry WHERE state = 'delivered' AND settled < ?", (before,))

    def last(self) -> int:
        """The id of the newest entry ever added."""
        with self.lock:
            row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'entry'").fetchone()
        return int(row[0]) if row else 0

    def oldest_waiting(self) -> float:
        """The id of the oldest entry that waits; infinite where none does."""
        with self.lock:
            row = self._db.execute("SELECT min(id) FROM entry WHERE state = 'waiting'").fetchone()
        return float("inf") if row[0] is None else float(row[0])

    def waiting_since(self) -> float | None:
        """When the oldest entry that waits was made, seconds since the epoch; None where none waits."""
        with self.lock:
            row = self._db.execute("SELECT made FROM entry WHERE state = 'waiting' ORDER BY id LIMIT 1").fetchone()
        return None if row is None else float(row[0])

    def waiting(self) -> Iterator[Entry]:
        """Every entry that waits, in order. For a store that nobody delivers from any more."""
        with self.lock:
            rows = self._db.execute(
                "SELECT lane, kind, reference, made, body FROM entry WHERE state = 'waiting' ORDER BY id"
            )
            yield from (Entry(*row) for row in rows)

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
        """Add to a counter, at the end of the transaction."""
        self._counted[name] += by

    def _before_commit(self) -> None:
        self._db.executemany(
            "INSERT INTO counter VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            self._counted.items(),
        )
        self._counted.clear()

    def _after_rollback(self) -> None:
        self._counted.clear()

    def note(self, name: str, words: str | None, now: float) -> None:
        """Leave word for whoever looks at this file from another process; None takes it back."""
        self._db.execute("DELETE FROM note WHERE name = ?", (name,))
        if words is not None:
            self._db.execute("INSERT INTO note VALUES (?, ?, ?)", (name, words, now))

    def counts(self) -> Counts:
        """All counters; what is neither delivered, refused nor dropped waits."""
        with self.lock:
            values = Counter(dict(self._db.execute("SELECT name, value FROM counter")))
        made, delivered, refused, dropped = (values[name] for name in ("made", "delivered", "refused", "dropped"))
        waiting = made - delivered - refused - dropped
        return Counts(made, delivered, waiting, refused, dropped, values["doubtful"])
