"""The store: SQLite, used by engines only. Entries by ordering key, who leases which key, what was collected.

What the engine asks of the file is here; `maintenance` has what people do to it by hand, and the viewer has readers of
its own. A `Store` belongs to one engine; several processes may have one on the same file.
"""

from __future__ import annotations

import logging
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from athina_trace import _guard
from athina_trace._delivery.database import Database
from athina_trace._delivery.entry import Entry, Lease, Stored, without_nul
from athina_trace._delivery.migrations import MIGRATIONS
from athina_trace._delivery.routes import KINDS
from athina_trace._delivery.segment import Mark, Piece
from athina_trace._delivery.stats import Counts

_AT_ONCE = 1000
"""How many entries are dropped in one transaction."""
_ROWS = 150
"""In one statement: SQLite takes 999 values at least."""


class Store(Database):
    """Entries at rest. All times are seconds since the epoch, and passed in."""

    empty_bytes = 73_728
    """What a file takes before anything is in it."""

    def __init__(self, path: str) -> None:
        """Open or make the file at `path`. Raises `OutboxError` or `sqlite3.Error`."""
        self._counted: Counter[str] = Counter()
        super().__init__(path, MIGRATIONS)
        with self.locked():
            self.identity = bytes(self._db.execute("SELECT store FROM identity").fetchone()[0])
            """What makes this store another than one that takes its place; a backup keeps it."""

    def add(self, entries: Sequence[Entry]) -> None:
        """Append `entries` to their ordering keys. An update follows its log under that log's key."""
        keys = {entry.reference: entry.ordering_key for entry in reversed(entries) if entry.kind == "log"}
        rows: list[tuple[object, ...]] = []
        for entry in entries:
            key = entry.ordering_key if entry.kind == "log" else keys.get(entry.reference)
            if key is None:  # the log came earlier, or is unknown here
                found = self._db.execute(
                    "SELECT ordering_key FROM entry WHERE reference = ? ORDER BY id LIMIT 1", (entry.reference,)
                ).fetchone()
                key = found[0] if found else entry.ordering_key
            rows.append((key, entry.kind, entry.reference, entry.made, without_nul(entry.body)))
        # Many rows in one statement: each lets go of the interpreter, and waits 5 ms for it where the program computes.
        for some in (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)):
            places = ", ".join(["(?, ?, ?, ?, ?)"] * len(some))
            insert = f"INSERT INTO entry (ordering_key, kind, reference, made, body) VALUES {places}"  # noqa: S608
            self._db.execute(insert, [value for row in some for value in row])
            names = list(dict.fromkeys(row[0] for row in some))
            places = ", ".join(["(?)"] * len(names))
            self._db.execute(f"INSERT OR IGNORE INTO ordering_key (name) VALUES {places}", names)  # noqa: S608
        self.count("made", len(entries))

    def lease(self, owner: int, now: float, *, keys: int, batch: int, room: float) -> list[Lease]:
        """Take up to `keys` ordering keys that are due, oldest first, each with up to `batch` of its oldest entries.

        `room` bounds their bytes together: the entry that exceeds it is the last.
        """
        rows = self._db.execute(
            "SELECT name, attempts FROM ordering_key WHERE owner IS NULL AND due <= ? ORDER BY due, id LIMIT ?",
            (now, keys),
        ).fetchall()
        leases: list[Lease] = []
        # Keys in the order in which they came due, so that a busy conversation does not hold up the others.
        for name, attempts in rows:
            if room <= 0:
                break
            entries = self._oldest(name, batch, room, now)
            room -= sum(len(entry.body) for entry in entries)
            if entries:
                leases.append(Lease(name, attempts, entries))
            else:  # its last owner died after the last entry
                self.release(name)
        self._db.executemany(
            "UPDATE ordering_key SET owner = ? WHERE name = ?", ((owner, lease.ordering_key) for lease in leases)
        )
        return leases

    def _oldest(self, ordering_key: str, batch: int, room: float, now: float) -> list[Stored]:
        rows = self._db.execute(
            "SELECT id, kind, reference, body FROM entry WHERE ordering_key = ? AND state = 'waiting' "
            "ORDER BY id LIMIT ?",
            (ordering_key, batch),
        ).fetchall()
        entries: list[Stored] = []
        for row in rows:
            entry = Stored(*row)
            if entry.kind not in KINDS:
                # Of a newer version, or changed on the disk. It must not hold up those behind it.
                self.refused(entry, now, status=None, reason=f"unknown kind {entry.kind!r}, which was not sent")
                _guard.log_throttled(
                    logging.WARNING,
                    "unknown kind",
                    "the outbox %s holds an entry of the kind %r, which this version of athina_trace does not know: it "
                    "is kept aside, see `athina-trace logs --state refused`",
                    self.path,
                    entry.kind,
                )
                continue
            entries.append(entry)
            room -= len(entry.body)
            if room <= 0:
                break
        return entries

    def delivered(self, entry: Stored, now: float, *, keep: bool, prompt_run_id: str | None) -> None:
        """Athina has `entry`: delete it, or keep it to be looked at."""
        if keep:
            done = self._resolve(entry, "delivered", now, None, None, prompt_run_id)
            self.count("delivered_bytes", done * len(entry.body))
        else:
            done = self._db.execute("DELETE FROM entry WHERE id = ? AND state = 'waiting'", (entry.id,)).rowcount
        self.count("delivered", done)

    def refused(self, entry: Stored, now: float, *, status: int | None, reason: str) -> None:
        """Athina will never take `entry` as it is: keep it with the server's words."""
        done = self._resolve(entry, "refused", now, status, reason, None)
        self.count("refused", done)
        self.count("refused_bytes", done * len(entry.body))

    def _resolve(
        self, entry: Stored, state: str, now: float, status: int | None, reason: str | None, run: str | None
    ) -> int:
        """Give a waiting entry its last state; 0 where it was purged meanwhile: each counter moves with its row."""
        return self._db.execute(
            "UPDATE entry SET state = ?, status = ?, reason = ?, prompt_run_id = ?, resolved = ? "
            "WHERE id = ? AND state = 'waiting'",
            (state, status, reason, run, now, entry.id),
        ).rowcount

    def reference_of(self, entry: int) -> str | None:
        """The reference of a waiting entry; None where no entry with that id waits."""
        row = self._db.execute("SELECT reference FROM entry WHERE id = ? AND state = 'waiting'", (entry,)).fetchone()
        return None if row is None else str(row[0])

    def acknowledge(self, ids: Iterable[int]) -> None:
        """Athina has these waiting entries, as a dead owner has noted."""
        for number in ids:
            gone = self._db.execute("DELETE FROM entry WHERE id = ? AND state = 'waiting'", (number,)).rowcount
            self.count("delivered", gone)

    def release(self, ordering_key: str, *, due: float = 0.0, attempts: int = 0) -> None:
        """Give a leased key back, to be leased again when `due`, after others; a key without entries is forgotten."""
        gone = self._db.execute(
            "DELETE FROM ordering_key WHERE name = ? AND NOT EXISTS "
            "(SELECT 1 FROM entry WHERE ordering_key = name AND state = 'waiting')",
            (ordering_key,),
        ).rowcount
        if not gone:
            # With a new id, since those that are due at once come in the order of their ids.
            self._db.execute(
                "UPDATE ordering_key SET owner = NULL, due = ?, attempts = ?, "
                "id = (SELECT max(id) + 1 FROM ordering_key) WHERE name = ?",
                (due, attempts, ordering_key),
            )

    def owners(self) -> list[int]:
        """All who lease a key."""
        return [row[0] for row in self._db.execute("SELECT DISTINCT owner FROM ordering_key WHERE owner IS NOT NULL")]

    def release_all(self, owner: int) -> None:
        """Free what `owner` leases."""
        self._db.execute("UPDATE ordering_key SET owner = NULL WHERE owner = ?", (owner,))

    def next_due(self) -> float | None:
        """When the next free key is due; None where no key is free."""
        row = self._db.execute("SELECT min(due) FROM ordering_key WHERE owner IS NULL").fetchone()
        return None if row[0] is None else float(row[0])

    def clamp_due_times(self, now: float, *, longest: float = 0.0) -> None:
        """Make due now what is due more than `longest` seconds later: the clock was set back."""
        self._db.execute("UPDATE ordering_key SET due = ? WHERE owner IS NULL AND due > ?", (now, now + longest))

    def newest(self, limit: int) -> list[bytes]:
        """The bodies of the newest logs, oldest first, in any state."""
        with self.locked():
            rows = self._db.execute(
                "SELECT body FROM entry WHERE kind = 'log' ORDER BY id DESC LIMIT ?", (limit,)
            ).fetchall()
        return [row[0] for row in reversed(rows)]

    def drop_resolved(self, state: Literal["delivered", "refused"], *, before: float, over: float) -> int:
        """Forget the oldest entries of a state: those resolved `before` a time, and those beyond `over` bytes.

        Refused ones are counted as dropped. Gives their number, few at once, so that the file is not locked for long.
        """
        counter = f"{state}_bytes"
        known = self._db.execute("SELECT value FROM counter WHERE name = ?", (counter,)).fetchone()
        # What this transaction has counted is written at its end.
        excess = (known[0] if known else 0) + self._counted[counter] - over
        chosen: list[tuple[int]] = []
        freed = 0
        for number, size, resolved in self._db.execute(
            # SQLite uses an index over a part of the rows only where the statement repeats what makes that part.
            "SELECT id, length(body), resolved FROM entry WHERE state = ? AND state != 'waiting' ORDER BY id LIMIT ?",
            (state, _AT_ONCE),
        ):
            if freed >= excess and resolved >= before:
                break
            freed += size
            chosen.append((number,))
        self._db.executemany("DELETE FROM entry WHERE id = ?", chosen)
        self.count(counter, -freed)
        if state == "refused":
            self.count("refused", -len(chosen))
            self.count("dropped", len(chosen))
        return len(chosen)

    def last(self) -> int:
        """The id of the newest entry ever added."""
        with self.locked():
            row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'entry'").fetchone()
        return int(row[0]) if row else 0

    def oldest_waiting(self) -> float:
        """The id of the oldest entry that waits; infinite where none does."""
        with self.locked():
            row = self._db.execute("SELECT min(id) FROM entry WHERE state = 'waiting'").fetchone()
        return float("inf") if row[0] is None else float(row[0])

    def waiting_since(self) -> float | None:
        """When the oldest entry that waits was made, seconds since the epoch; None where none waits."""
        with self.locked():
            row = self._db.execute("SELECT made FROM entry WHERE state = 'waiting' ORDER BY id LIMIT 1").fetchone()
        return None if row is None else float(row[0])

    def waiting(self) -> Iterator[Entry]:
        """Every entry that waits, in order. For a store without an engine."""
        with self.locked():
            rows = self._db.execute(
                "SELECT ordering_key, kind, reference, made, body FROM entry WHERE state = 'waiting' ORDER BY id"
            )
            yield from (Entry(*row) for row in rows)

    def marks(self) -> dict[str, Mark]:
        """How far each segment was collected."""
        with self.locked():
            return {name: Mark(*mark) for name, *mark in self._db.execute("SELECT name, collected, tail FROM segment")}

    def offsets(self) -> dict[str, int]:
        """Segment → bytes collected."""
        return {name: mark.offset for name, mark in self.marks().items()}

    def fingerprints(self, segment: str) -> array[int]:
        """Those of all lines collected of a segment, in order."""
        found: array[int] = array("I")
        for (lines,) in self._db.execute("SELECT lines FROM fingerprint WHERE segment = ? ORDER BY start", (segment,)):
            found.frombytes(lines)
        return found

    def remember(self, piece: Piece) -> None:
        """`piece` was collected."""
        if piece.kept is not None:
            kept = self.fingerprints(piece.segment)[: piece.kept]
            self._db.execute("DELETE FROM fingerprint WHERE segment = ?", (piece.segment,))
            # Before all others: pieces begin at zero or later.
            self._db.execute("INSERT INTO fingerprint VALUES (?, -1, ?)", (piece.segment, kept.tobytes()))
        if piece.fingerprints:
            self._db.execute(
                "INSERT OR REPLACE INTO fingerprint VALUES (?, ?, ?)",
                (piece.segment, piece.start, piece.fingerprints.tobytes()),
            )
        self._db.execute("INSERT OR REPLACE INTO segment VALUES (?, ?, ?)", (piece.segment, *piece.mark))
        self.count("damaged", piece.damaged)

    def forget(self, segments: Sequence[str]) -> None:
        """These segments are gone."""
        names = [(name,) for name in segments]
        self._db.executemany("DELETE FROM segment WHERE name = ?", names)
        self._db.executemany("DELETE FROM fingerprint WHERE segment = ?", names)

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter, at the end of the transaction."""
        self._counted[name] += by

    def _before_commit(self) -> None:
        self._db.executemany(
            "INSERT INTO counter VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            ((name, by) for name, by in self._counted.items() if by),
        )
        self._counted.clear()

    def _after_rollback(self) -> None:
        self._counted.clear()

    def note(self, name: str, words: str | None, now: float) -> None:
        """Leave word for those who look at this file from another process; None takes it back."""
        # Deleted first: the time must be when the words began to hold.
        self._db.execute("DELETE FROM note WHERE name = ?", (name,))
        if words is not None:
            self._db.execute("INSERT INTO note VALUES (?, ?, ?)", (name, words, now))

    def counts(self) -> Counts:
        """All counters; what is neither delivered, refused nor dropped waits."""
        with self.locked():
            return Counts.of(dict(self._db.execute("SELECT name, value FROM counter")))
