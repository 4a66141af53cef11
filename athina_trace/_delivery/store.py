"""The store, in SQLite: entries by ordering key, the leases of keys, and how far the journal was collected.

This module has the queries of engines; `maintenance` has manual operations, and the viewer its own readers. A `Store`
belongs to one engine; several processes may have one on the same file.

Each statement, and each row that it returns, releases the interpreter (GIL), and if the program computes, waits 5 ms to
get it back. So there are few statements, each for many rows, and a result comes as a single row.
"""

from __future__ import annotations

import logging
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Literal, TypeVar, cast

from athina_trace import _guard
from athina_trace._delivery.database import Database
from athina_trace._delivery.entry import Entry, Lease, Stored, without_nul
from athina_trace._delivery.migrations import MIGRATIONS
from athina_trace._delivery.routes import KINDS, Kind
from athina_trace._delivery.segment import Mark, Piece
from athina_trace._delivery.stats import Counts

_AT_ONCE = 1000
"""The maximum of entries dropped in one transaction."""
_VALUES = 999
"""The maximum of values in one statement that every SQLite accepts."""

_T = TypeVar("_T")


def _chunks(rows: Sequence[_T], values: int) -> Iterator[Sequence[_T]]:
    """Split `rows` for statements with `values` parameters per row and a few more: SQLite limits their number."""
    size = (_VALUES - 9) // values
    return (rows[start : start + size] for start in range(0, len(rows), size))


class Store(Database):
    """Entries on disk. All times are passed in, as seconds since the epoch."""

    empty_bytes = 73_728
    """The size of an empty store."""

    def __init__(self, path: str) -> None:
        """Open or create the file at `path`. Raises `OutboxError` or `sqlite3.Error`."""
        self._counted: Counter[str] = Counter()
        super().__init__(path, MIGRATIONS)
        with self.locked():
            self.identity = bytes(self._db.execute("SELECT store FROM identity").fetchone()[0])
            """Distinguishes this store from one that replaces it; a backup has the same."""

    def add(self, entries: Sequence[Entry]) -> None:
        """Append `entries` to their ordering keys. Updates and feedback get the key of their log."""
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
        for some in _chunks(rows, 5):
            places = ", ".join(["(?, ?, ?, ?, ?)"] * len(some))
            insert = f"INSERT INTO entry (ordering_key, kind, reference, made, body) VALUES {places}"  # noqa: S608
            self._db.execute(insert, [value for row in some for value in row])
            names = list(dict.fromkeys(row[0] for row in some))
            places = ", ".join(["(?)"] * len(names))
            self._db.execute(f"INSERT OR IGNORE INTO ordering_key (name) VALUES {places}", names)  # noqa: S608
        self.count("made", len(entries))

    def lease(self, owner: int, now: float, *, keys: int, batch: int, room: float, newest: bool = False) -> list[Lease]:
        """Lease up to `keys` ordering keys that are due, in turn, each with up to `batch` of its oldest entries.

        `room` limits the total bytes: the entry that exceeds it is the last. `newest`: prefer the newest keys that have
        not failed.
        """
        # Keys that waited queue by id among those that did not have to wait, of which there are always more under load.
        self._db.execute("UPDATE ordering_key SET due = 0 WHERE owner IS NULL AND due > 0 AND due <= ?", (now,))
        turn = "attempts > 0, CASE attempts WHEN 0 THEN -id ELSE id END" if newest else "due, id"
        found = self._rows(
            ("free.name", "free.attempts", "coalesce(entry.id, 0)", "coalesce(length(entry.body), 0)"),
            f"FROM (SELECT * FROM ordering_key WHERE owner IS NULL AND due <= ? ORDER BY {turn} LIMIT ?) AS free "  # noqa: S608
            "LEFT JOIN entry ON entry.id IN (SELECT id FROM entry AS oldest WHERE oldest.ordering_key = free.name "
            "AND oldest.state = 'waiting' ORDER BY oldest.id LIMIT ?) ORDER BY free.due, free.id, entry.id",
            (now, keys, batch),
        )
        chosen: dict[str, tuple[int, list[int]]] = {}
        for name, attempts, number, size in found:
            if room <= 0:
                break
            chosen.setdefault(name.decode(), (int(attempts), []))[1].append(int(number))
            room -= int(size)
        entries = self._known([number for _, numbers in chosen.values() for number in numbers], now)
        leases: list[Lease] = []
        for key, (failures, numbers) in chosen.items():
            oldest = [entries[number] for number in numbers if number in entries]
            if oldest:
                leases.append(Lease(key, failures, oldest))
            else:  # its last owner died after the last entry, or all entries are of unknown kinds
                self.release(key)
        for some in _chunks([lease.ordering_key for lease in leases], 1):
            places = ", ".join("?" * len(some))
            self._db.execute(f"UPDATE ordering_key SET owner = ? WHERE name IN ({places})", (owner, *some))  # noqa: S608
        return leases

    def _known(self, numbers: Sequence[int], now: float) -> dict[int, Stored]:
        """Return the entries with these ids; those of an unknown kind are refused."""
        entries: dict[int, Stored] = {}
        for some in _chunks(numbers, 1):
            source = f"FROM entry WHERE id IN ({', '.join('?' * len(some))})"
            for number, kind, reference, body in self._rows(("id", "kind", "reference", "body"), source, some):
                entry = Stored(int(number), cast("Kind", kind.decode()), reference.decode(), body)
                if entry.kind in KINDS:
                    entries[entry.id] = entry
                    continue
                # From a newer version, or damaged on disk. It must not block the entries behind it.
                self.refused(entry, now, status=None, reason=f"unknown kind {entry.kind!r}: not sent")
                _guard.log_throttled(
                    logging.WARNING,
                    "unknown kind",
                    "the outbox %s holds an entry of the kind %r, which this version of athina_trace does not know: it "
                    "is kept as refused, see `athina-trace logs --state refused`",
                    self.path,
                    entry.kind,
                )
        return entries

    def delivered(self, entries: Sequence[tuple[Stored, str | None]], now: float, *, keep: bool) -> None:
        """Delete delivered entries, or keep them for inspection, each with its `prompt_run_id`."""
        if not keep:
            self.delete_delivered([entry.id for entry, _ in entries])
            return
        for some in _chunks(entries, 3):
            ids = [entry.id for entry, _ in some]
            places = f"({', '.join('?' * len(ids))}) AND state = 'waiting'"
            # Queried before the update: entries that were purged meanwhile do not count.
            query = f"SELECT coalesce(sum(length(body)), 0) FROM entry WHERE id IN {places}"  # noqa: S608
            self.count("delivered_bytes", self._db.execute(query, ids).fetchone()[0])
            names = [value for entry, name in some if name is not None for value in (entry.id, name)]
            name = f"CASE id {'WHEN ? THEN ? ' * (len(names) // 2)}END" if names else "NULL"
            done = self._db.execute(
                f"UPDATE entry SET state = 'delivered', resolved = ?, prompt_run_id = {name} WHERE id IN {places}",  # noqa: S608
                (now, *names, *ids),
            ).rowcount
            self.count("delivered", done)

    def delete_delivered(self, ids: Sequence[int]) -> None:
        """Delete the waiting entries with these ids, and count them as delivered."""
        for some in _chunks(ids, 1):
            places = ", ".join("?" * len(some))
            done = self._db.execute(f"DELETE FROM entry WHERE id IN ({places}) AND state = 'waiting'", some)  # noqa: S608
            self.count("delivered", done.rowcount)

    def refused(self, entry: Stored, now: float, *, status: int | None, reason: str) -> None:
        """Keep `entry`, which Athina will never accept as it is, with the server's message."""
        done = self._db.execute(
            "UPDATE entry SET state = 'refused', status = ?, reason = ?, resolved = ? "
            "WHERE id = ? AND state = 'waiting'",
            (status, reason, now, entry.id),
        ).rowcount  # 0 if it was purged meanwhile: counters change only with their rows
        self.count("refused", done)
        self.count("refused_bytes", done * len(entry.body))

    def reference_of(self, entry: int) -> str | None:
        """Return the reference of a waiting entry; None if no entry with this id waits."""
        row = self._db.execute("SELECT reference FROM entry WHERE id = ? AND state = 'waiting'", (entry,)).fetchone()
        return None if row is None else str(row[0])

    def release(self, *ordering_keys: str, due: float = 0.0, attempts: int = 0) -> None:
        """Release leased keys, which are due again at `due`, behind others; a key without entries is forgotten."""
        for some in _chunks(ordering_keys, 3):
            places = ", ".join("?" * len(some))
            gone = self._db.execute(
                f"DELETE FROM ordering_key WHERE name IN ({places}) AND NOT EXISTS "  # noqa: S608
                "(SELECT 1 FROM entry WHERE ordering_key = name AND state = 'waiting')",
                some,
            ).rowcount
            if gone < len(some):
                # New ids put them behind the others, since keys that are due at once are leased in the order of ids.
                last = self._db.execute("SELECT max(id) FROM ordering_key").fetchone()[0]
                ids = [value for place, name in enumerate(some, last + 1) for value in (name, place)]
                new = f"CASE name {'WHEN ? THEN ? ' * len(some)}END"
                self._db.execute(
                    f"UPDATE ordering_key SET owner = NULL, due = ?, attempts = ?, id = {new} WHERE name IN ({places})",  # noqa: S608
                    (due, attempts, *ids, *some),
                )

    def owners(self) -> list[int]:
        """Return all owners of leases."""
        return [row[0] for row in self._db.execute("SELECT DISTINCT owner FROM ordering_key WHERE owner IS NOT NULL")]

    def release_all(self, owner: int) -> None:
        """Release all leases of `owner`."""
        self._db.execute("UPDATE ordering_key SET owner = NULL WHERE owner = ?", (owner,))

    def next_due(self) -> float | None:
        """Return when the next free key is due; None if no key is free."""
        row = self._db.execute("SELECT min(due) FROM ordering_key WHERE owner IS NULL").fetchone()
        return None if row[0] is None else float(row[0])

    def clamp_due_times(self, now: float, *, longest: float = 0.0) -> None:
        """Make keys due now that are due more than `longest` seconds later, since the clock was set back."""
        self._db.execute("UPDATE ordering_key SET due = ? WHERE owner IS NULL AND due > ?", (now, now + longest))

    def make_due(self, now: float, *, within: float) -> None:
        """Make keys due now that would be due within so many seconds."""
        self._db.execute(
            "UPDATE ordering_key SET due = ? WHERE owner IS NULL AND due > ? AND due <= ?", (now, now, now + within)
        )

    def newest(self, limit: int) -> list[bytes]:
        """Return the bodies of the newest logs in any state, oldest first."""
        with self.locked():
            rows = self._db.execute(
                "SELECT body FROM entry WHERE kind = 'log' ORDER BY id DESC LIMIT ?", (limit,)
            ).fetchall()
        return [row[0] for row in reversed(rows)]

    def drop_resolved(self, state: Literal["delivered", "refused"], *, before: float, over: float) -> int:
        """Delete the oldest entries of a state: those resolved `before` a time, and those beyond `over` bytes.

        Refused entries count as dropped. Deletes at most `_AT_ONCE`, so that the file is not locked for long, and
        returns their number.
        """
        counter = f"{state}_bytes"
        known = self._db.execute("SELECT value FROM counter WHERE name = ?", (counter,)).fetchone()
        # The counts of this transaction are written only at its end.
        excess = (known[0] if known else 0) + self._counted[counter] - over
        chosen: list[tuple[int]] = []
        freed = 0
        for number, size, resolved in self._db.execute(
            # SQLite uses a partial index only if the statement repeats the index's condition.
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
        """Return the id of the newest entry ever added."""
        with self.locked():
            row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'entry'").fetchone()
        return int(row[0]) if row else 0

    def oldest_waiting(self) -> float:
        """Return the id of the oldest waiting entry; infinity if none waits."""
        with self.locked():
            row = self._db.execute("SELECT min(id) FROM entry WHERE state = 'waiting'").fetchone()
        return float("inf") if row[0] is None else float(row[0])

    def waiting_since(self) -> float | None:
        """Return when the oldest waiting entry was made, seconds since the epoch; None if none waits."""
        with self.locked():
            row = self._db.execute("SELECT made FROM entry WHERE state = 'waiting' ORDER BY id LIMIT 1").fetchone()
        return None if row is None else float(row[0])

    def first_waiting(self, most: int) -> dict[int, Entry]:
        """Return the oldest waiting entries, by id."""
        rows = self._db.execute(
            "SELECT id, ordering_key, kind, reference, made, body FROM entry WHERE state = 'waiting' "
            "ORDER BY id LIMIT ?",
            (most,),
        )
        return {row[0]: Entry(*row[1:]) for row in rows}

    def waiting(self) -> Iterator[Entry]:
        """Iterate over all waiting entries, in order. For a store without an engine."""
        with self.locked():
            rows = self._db.execute(
                "SELECT ordering_key, kind, reference, made, body FROM entry WHERE state = 'waiting' ORDER BY id"
            )
            yield from (Entry(*row) for row in rows)

    def marks(self) -> dict[str, Mark]:
        """Return how far each segment has been collected."""
        with self.locked():
            return {name: Mark(*mark) for name, *mark in self._db.execute("SELECT name, collected, tail FROM segment")}

    def offsets(self) -> dict[str, int]:
        """Return the collected bytes of each segment."""
        return {name: mark.offset for name, mark in self.marks().items()}

    def fingerprints(self, segment: str) -> array[int]:
        """Return the fingerprints of all collected lines of a segment, in order."""
        found: array[int] = array("I")
        for (lines,) in self._db.execute("SELECT lines FROM fingerprint WHERE segment = ? ORDER BY start", (segment,)):
            found.frombytes(lines)
        return found

    def remember(self, piece: Piece) -> None:
        """Note that `piece` was collected."""
        if piece.kept is not None:
            kept = self.fingerprints(piece.segment)[: piece.kept]
            self._db.execute("DELETE FROM fingerprint WHERE segment = ?", (piece.segment,))
            # At -1, before all others: pieces start at 0 or later.
            self._db.execute("INSERT INTO fingerprint VALUES (?, -1, ?)", (piece.segment, kept.tobytes()))
        if piece.fingerprints:
            self._db.execute(
                "INSERT OR REPLACE INTO fingerprint VALUES (?, ?, ?)",
                (piece.segment, piece.start, piece.fingerprints.tobytes()),
            )
        self._db.execute("INSERT OR REPLACE INTO segment VALUES (?, ?, ?)", (piece.segment, *piece.mark))
        self.count("damaged", piece.damaged)

    def forget(self, segments: Sequence[str]) -> None:
        """Forget segments that no longer exist."""
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
        """Leave a note for other processes that read this file; None removes it."""
        # A new row, so that its time is when these words began to apply.
        self._db.execute("DELETE FROM note WHERE name = ?", (name,))
        if words is not None:
            self._db.execute("INSERT INTO note VALUES (?, ?, ?)", (name, words, now))

    def counts(self) -> Counts:
        """Return all counts."""
        with self.locked():
            found = self._rows(("name", "value"), "FROM counter")
        return Counts.of({name.decode(): int(value) for name, value in found})

    def _rows(
        self, columns: Sequence[str], source: str, parameters: Sequence[object] = ()
    ) -> Iterator[tuple[bytes, ...]]:
        """Return the rows of a query, fetched as one row; all columns come as bytes, and none may be NULL."""
        names = ", ".join(f"CAST({column} AS BLOB) AS c{number}" for number, column in enumerate(columns))
        joined = ", ".join(
            f"group_concat(length(c{number})), CAST(group_concat(c{number}, '') AS BLOB)"
            for number in range(len(columns))
        )
        query = f"SELECT {joined} FROM (SELECT {names} {source})"  # noqa: S608
        found = self._db.execute(query, parameters).fetchone()
        ends = ([0, *accumulate(map(int, lengths.split(",")))] if lengths else [] for lengths in found[::2])
        pieces = (
            [data[start:end] for start, end in pairwise(each)] for each, data in zip(ends, found[1::2], strict=True)
        )
        return zip(*pieces, strict=True)
