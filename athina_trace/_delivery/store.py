"""The store: SQLite, used by engines only. Entries by ordering key, who leases which key, what was collected.

What the engine asks of the file is here; `maintenance` has what people do to it by hand, and the viewer has readers of
its own. A `Store` belongs to one engine; several processes may have one on the same file.

Each statement, and each row that it gives, lets go of the interpreter, and waits 5 ms to have it back where the program
computes. So there are few statements, each about many rows, and what they find comes in one.
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
"""How many entries are dropped in one transaction."""
_VALUES = 999
"""In one statement: what every SQLite takes."""

_T = TypeVar("_T")


def _chunks(rows: Sequence[_T], values: int) -> Iterator[Sequence[_T]]:
    """Split `rows` for statements that take `values` of each and a few more: SQLite bounds their number."""
    size = (_VALUES - 9) // values
    return (rows[start : start + size] for start in range(0, len(rows), size))


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
        for some in _chunks(rows, 5):
            places = ", ".join(["(?, ?, ?, ?, ?)"] * len(some))
            insert = f"INSERT INTO entry (ordering_key, kind, reference, made, body) VALUES {places}"  # noqa: S608
            self._db.execute(insert, [value for row in some for value in row])
            names = list(dict.fromkeys(row[0] for row in some))
            places = ", ".join(["(?)"] * len(names))
            self._db.execute(f"INSERT OR IGNORE INTO ordering_key (name) VALUES {places}", names)  # noqa: S608
        self.count("made", len(entries))

    def lease(self, owner: int, now: float, *, keys: int, batch: int, room: float, newest: bool = False) -> list[Lease]:
        """Take up to `keys` ordering keys that are due, in their turn, each with up to `batch` of its oldest entries.

        `room` bounds their bytes together: the entry that exceeds it is the last. `newest`: the newest of those that
        did not fail come first.
        """
        # They take their turn, by their ids, among those that did not have to wait: under load there are always more.
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
            else:  # its last owner died after the last entry, or none is of a known kind
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
        return entries

    def delivered(self, entries: Sequence[tuple[Stored, str | None]], now: float, *, keep: bool) -> None:
        """Delete these, which Athina has, each with the name that it gave, or keep them to be looked at."""
        if not keep:
            self.delete_delivered([entry.id for entry, _ in entries])
            return
        for some in _chunks(entries, 3):
            ids = [entry.id for entry, _ in some]
            places = f"({', '.join('?' * len(ids))}) AND state = 'waiting'"
            # Asked before: an entry that was purged meanwhile counts nowhere.
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
        """Delete the waiting entries with these ids, which Athina has."""
        for some in _chunks(ids, 1):
            places = ", ".join("?" * len(some))
            done = self._db.execute(f"DELETE FROM entry WHERE id IN ({places}) AND state = 'waiting'", some)  # noqa: S608
            self.count("delivered", done.rowcount)

    def refused(self, entry: Stored, now: float, *, status: int | None, reason: str) -> None:
        """Keep `entry`, which Athina will never take as it is, with the server's words."""
        done = self._db.execute(
            "UPDATE entry SET state = 'refused', status = ?, reason = ?, resolved = ? "
            "WHERE id = ? AND state = 'waiting'",
            (status, reason, now, entry.id),
        ).rowcount  # 0 where it was purged meanwhile: each counter moves with its row
        self.count("refused", done)
        self.count("refused_bytes", done * len(entry.body))

    def reference_of(self, entry: int) -> str | None:
        """Return the reference of a waiting entry; None where no entry with that id waits."""
        row = self._db.execute("SELECT reference FROM entry WHERE id = ? AND state = 'waiting'", (entry,)).fetchone()
        return None if row is None else str(row[0])

    def release(self, *ordering_keys: str, due: float = 0.0, attempts: int = 0) -> None:
        """Give leased keys back, to be leased again when `due`, after others; a key without entries is forgotten."""
        for some in _chunks(ordering_keys, 3):
            places = ", ".join("?" * len(some))
            gone = self._db.execute(
                f"DELETE FROM ordering_key WHERE name IN ({places}) AND NOT EXISTS "  # noqa: S608
                "(SELECT 1 FROM entry WHERE ordering_key = name AND state = 'waiting')",
                some,
            ).rowcount
            if gone < len(some):
                # With new ids, since those that are due at once come in the order of their ids.
                last = self._db.execute("SELECT max(id) FROM ordering_key").fetchone()[0]
                ids = [value for place, name in enumerate(some, last + 1) for value in (name, place)]
                new = f"CASE name {'WHEN ? THEN ? ' * len(some)}END"
                self._db.execute(
                    f"UPDATE ordering_key SET owner = NULL, due = ?, attempts = ?, id = {new} WHERE name IN ({places})",  # noqa: S608
                    (due, attempts, *ids, *some),
                )

    def owners(self) -> list[int]:
        """Return all owners that lease a key."""
        return [row[0] for row in self._db.execute("SELECT DISTINCT owner FROM ordering_key WHERE owner IS NOT NULL")]

    def release_all(self, owner: int) -> None:
        """Free what `owner` leases."""
        self._db.execute("UPDATE ordering_key SET owner = NULL WHERE owner = ?", (owner,))

    def next_due(self) -> float | None:
        """Return when the next free key is due; None where no key is free."""
        row = self._db.execute("SELECT min(due) FROM ordering_key WHERE owner IS NULL").fetchone()
        return None if row[0] is None else float(row[0])

    def clamp_due_times(self, now: float, *, longest: float = 0.0) -> None:
        """Make due now what is due more than `longest` seconds later: the clock was set back."""
        self._db.execute("UPDATE ordering_key SET due = ? WHERE owner IS NULL AND due > ?", (now, now + longest))

    def make_due(self, now: float, *, within: float) -> None:
        """Make due now what is due within so many seconds."""
        self._db.execute(
            "UPDATE ordering_key SET due = ? WHERE owner IS NULL AND due > ? AND due <= ?", (now, now, now + within)
        )

    def newest(self, limit: int) -> list[bytes]:
        """Return the bodies of the newest logs, oldest first, in any state."""
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
        """Return the id of the newest entry ever added."""
        with self.locked():
            row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'entry'").fetchone()
        return int(row[0]) if row else 0

    def oldest_waiting(self) -> float:
        """Return the id of the oldest entry that waits; infinite where none does."""
        with self.locked():
            row = self._db.execute("SELECT min(id) FROM entry WHERE state = 'waiting'").fetchone()
        return float("inf") if row[0] is None else float(row[0])

    def waiting_since(self) -> float | None:
        """Return when the oldest entry that waits was made, seconds since the epoch; None where none waits."""
        with self.locked():
            row = self._db.execute("SELECT made FROM entry WHERE state = 'waiting' ORDER BY id LIMIT 1").fetchone()
        return None if row is None else float(row[0])

    def first_waiting(self, most: int) -> dict[int, Entry]:
        """Return the oldest entries that wait, by id."""
        rows = self._db.execute(
            "SELECT id, ordering_key, kind, reference, made, body FROM entry WHERE state = 'waiting' "
            "ORDER BY id LIMIT ?",
            (most,),
        )
        return {row[0]: Entry(*row[1:]) for row in rows}

    def waiting(self) -> Iterator[Entry]:
        """Iterate over every entry that waits, in order. For a store without an engine."""
        with self.locked():
            rows = self._db.execute(
                "SELECT ordering_key, kind, reference, made, body FROM entry WHERE state = 'waiting' ORDER BY id"
            )
            yield from (Entry(*row) for row in rows)

    def marks(self) -> dict[str, Mark]:
        """Return how far each segment was collected."""
        with self.locked():
            return {name: Mark(*mark) for name, *mark in self._db.execute("SELECT name, collected, tail FROM segment")}

    def offsets(self) -> dict[str, int]:
        """Return segment → bytes collected."""
        return {name: mark.offset for name, mark in self.marks().items()}

    def fingerprints(self, segment: str) -> array[int]:
        """Return those of all lines collected of a segment, in order."""
        found: array[int] = array("I")
        for (lines,) in self._db.execute("SELECT lines FROM fingerprint WHERE segment = ? ORDER BY start", (segment,)):
            found.frombytes(lines)
        return found

    def remember(self, piece: Piece) -> None:
        """Note that `piece` was collected."""
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
        """Forget these segments, which are gone."""
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
        """Leave a note for readers of this file in other processes; None removes it."""
        # Deleted first: the time must be when the words began to hold.
        self._db.execute("DELETE FROM note WHERE name = ?", (name,))
        if words is not None:
            self._db.execute("INSERT INTO note VALUES (?, ?, ?)", (name, words, now))

    def counts(self) -> Counts:
        """Return all counters; what is neither delivered, refused nor dropped waits."""
        with self.locked():
            found = self._rows(("name", "value"), "FROM counter")
        return Counts.of({name.decode(): int(value) for name, value in found})

    def _rows(
        self, columns: Sequence[str], source: str, parameters: Sequence[object] = ()
    ) -> Iterator[tuple[bytes, ...]]:
        """Return the rows of a query, all columns as bytes, which SQLite hands over as one; none may be NULL."""
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
