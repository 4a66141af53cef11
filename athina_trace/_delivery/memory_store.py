"""The store of an outbox in memory: does with dictionaries what `store.Store` does with SQLite.

It is used if no disk can be used, or if Python was built without SQLite. Tables hold immutable values, so that a failed
transaction can restore what it had replaced; everything else is an index, which is rebuilt from the tables.
"""

from __future__ import annotations

import heapq
import threading
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import chain, islice
from typing import Any, Literal, NamedTuple

from athina_trace._delivery.entry import Entry, Lease, Stored, without_nul
from athina_trace._delivery.segment import Mark, Piece
from athina_trace._delivery.stats import Counts

_ROW_BYTES = 500
"""The approximate size of an entry without its body."""


class _Row(NamedTuple):
    entry: Entry
    resolved: float = 0.0


class _Key(NamedTuple):
    owner: int | None
    due: float
    attempts: int
    turn: int


class MemoryStore:
    """Entries of one process. All times are passed in, as seconds since the epoch."""

    empty_bytes = 0

    def __init__(self) -> None:
        self._tables = _Transactions(self._index)
        self._waiting: dict[int, _Row] = {}
        self._delivered: dict[int, _Row] = {}
        self._refused: dict[int, _Row] = {}
        self._keys: dict[str, _Key] = {}
        self._numbers: dict[str, int] = {}
        """Counters and other numbers."""
        self._index()

    def _index(self) -> None:
        self._waiting = dict(sorted(self._waiting.items()))
        self._of_key: dict[str, dict[int, None]] = defaultdict(dict)
        self._of_reference: dict[str, dict[int, str]] = defaultdict(dict)
        for number, row in sorted({**self._delivered, **self._refused, **self._waiting}.items()):
            self._of_reference[row.entry.reference][number] = row.entry.ordering_key
        for number, row in self._waiting.items():
            self._of_key[row.entry.ordering_key][number] = None
        free = sorted((key.due, key.turn, name) for name, key in self._keys.items() if key.owner is None)
        self._ready = [each for each in free if not each[0]]
        self._later = free[len(self._ready) :]

    def transaction(self) -> AbstractContextManager[None]:
        """Run the block as a transaction. Nested ones join the outermost."""
        return self._tables.transaction()

    def is_inside(self) -> bool:
        """Return whether this thread is inside already: we run on top, in a finalizer or a signal handler."""
        lock: Any = self._tables.lock
        return bool(lock._is_owned())  # noqa: SLF001 - as the library's conditions ask

    def on_commit(self, work: Callable[[], object]) -> None:
        """Call `work` once the current transaction is committed, not if it is rolled back."""
        self._tables.on_commit.append(work)

    def add(self, entries: Sequence[Entry]) -> None:
        """Append `entries` to their ordering keys. Updates and feedback get the key of their log."""
        for entry in entries:
            number = self._numbers.get("last", 0) + 1
            known = next(iter(self._of_reference[entry.reference].values()), entry.ordering_key)
            key = entry.ordering_key if entry.kind == "log" else known
            self._tables.set(self._numbers, "last", number)
            body = without_nul(entry.body)
            self._tables.set(self._waiting, number, _Row(entry._replace(ordering_key=key, body=body)))
            self._of_key[key][number] = None
            self._of_reference[entry.reference][number] = key
            self.count("bytes", _ROW_BYTES + len(body))
            if key not in self._keys:
                self._free(key)
        self.count("made", len(entries))

    def _free(self, name: str, *, due: float = 0.0, attempts: int = 0) -> None:
        self.count("turns")
        key = _Key(None, due, attempts, self._numbers["turns"])
        self._tables.set(self._keys, name, key)
        heapq.heappush(self._later if due else self._ready, (due, key.turn, name))

    def next_due(self) -> float | None:
        """Return when the next free key is due; None if no key is free."""
        for heap in (self._ready, self._later):
            while heap:
                due, turn, name = heap[0]
                key = self._keys.get(name)
                if key is not None and key.owner is None and key.turn == turn:
                    return due
                heapq.heappop(heap)  # it has been leased or forgotten
        return None

    def _newest(self, now: float) -> str | None:
        """Return the newest free key that is due and has not failed. Its heap item is skipped later, as outdated."""
        free = (
            (key.turn, name)
            for name, key in self._keys.items()
            if key.owner is None and key.due <= now and not key.attempts
        )
        return max(free, default=(0, None))[1]

    def lease(self, owner: int, now: float, *, keys: int, batch: int, room: float, newest: bool = False) -> list[Lease]:
        """Lease up to `keys` ordering keys that are due, in turn, each with up to `batch` of its oldest entries.

        `room` limits the total bytes: the entry that exceeds it is the last. `newest`: prefer the newest keys that have
        not failed.
        """
        while self._later and self._later[0][0] <= now:
            _, turn, name = heapq.heappop(self._later)
            key = self._keys.get(name)
            if key is not None and key.owner is None and key.turn == turn:
                self._tables.set(self._keys, name, key._replace(due=0.0))
                heapq.heappush(self._ready, (0.0, turn, name))
        leases: list[Lease] = []
        while len(leases) < keys and room > 0 and (due := self.next_due()) is not None and due <= now:
            name = (self._newest(now) if newest else None) or heapq.heappop(self._ready)[2]
            _, _, attempts, turn = self._keys[name]
            entries: list[Stored] = []
            for number in islice(self._of_key[name], batch):
                entry = self._waiting[number].entry
                entries.append(Stored(number, entry.kind, entry.reference, entry.body))
                room -= len(entry.body)
                if room <= 0:
                    break
            self._tables.set(self._keys, name, _Key(owner, due, attempts, turn))
            leases.append(Lease(name, attempts, entries))
        return leases

    def _resolve(self, entry: Stored, into: dict[int, _Row] | None, now: float) -> bool:
        row = self._waiting.get(entry.id)
        if row is None:
            return False
        self._tables.set(self._waiting, entry.id, None)
        del self._of_key[row.entry.ordering_key][entry.id]
        if into is None:
            self._forget(entry.id, row)
        else:
            self._tables.set(into, entry.id, row._replace(resolved=now))
        return True

    def _forget(self, number: int, row: _Row) -> None:
        self.count("bytes", -_ROW_BYTES - len(row.entry.body))
        del self._of_reference[row.entry.reference][number]
        if not self._of_reference[row.entry.reference]:
            del self._of_reference[row.entry.reference]

    def delivered(self, entries: Sequence[tuple[Stored, str | None]], now: float, *, keep: bool) -> None:
        """Delete delivered entries, or keep them for inspection."""
        for entry, _ in entries:
            done = self._resolve(entry, self._delivered if keep else None, now)
            self.count("delivered", done)
            if keep:
                self.count("delivered_bytes", done * len(entry.body))

    def refused(self, entry: Stored, now: float, *, status: int | None, reason: str) -> None:  # noqa: ARG002 - not stored in memory
        """Keep `entry`, which Athina will never accept as it is."""
        if self._resolve(entry, self._refused, now):
            self.count("refused")
            self.count("refused_bytes", len(entry.body))

    def release(self, *ordering_keys: str, due: float = 0.0, attempts: int = 0) -> None:
        """Release leased keys, which are due again at `due`; a key without entries is forgotten."""
        for name in ordering_keys:
            if self._of_key.get(name):
                self._free(name, due=due, attempts=attempts)
            else:
                self._tables.set(self._keys, name, None)
                self._of_key.pop(name, None)

    def release_all(self, owner: int) -> None:
        """Release all leases of `owner`."""
        for name, key in list(self._keys.items()):
            if key.owner == owner:
                self._free(name, due=key.due, attempts=key.attempts)

    def clamp_due_times(self, now: float, *, longest: float = 0.0) -> None:
        """Make keys due now that are due more than `longest` seconds later, since the clock was set back."""
        for name, key in list(self._keys.items()):
            if key.owner is None and key.due > now + longest:
                self._free(name, due=now, attempts=key.attempts)

    def make_due(self, now: float, *, within: float) -> None:
        """Make keys due now that would be due within so many seconds."""
        for name, key in list(self._keys.items()):
            if key.owner is None and now < key.due <= now + within:
                self._free(name, due=now, attempts=key.attempts)

    def newest(self, limit: int) -> list[bytes]:
        """Return the bodies of the newest logs in any state, oldest first."""
        with self._tables.lock:
            rows = chain(self._waiting.items(), self._delivered.items(), self._refused.items())
            logs = ((number, row.entry.body) for number, row in rows if row.entry.kind == "log")
            return [body for _, body in reversed(heapq.nlargest(limit, logs))]

    def drop_resolved(self, state: Literal["delivered", "refused"], *, before: float, over: float) -> int:
        """Delete the oldest entries of a state: those resolved `before` a time, and those beyond `over` bytes.

        Refused entries count as dropped. Returns the number of entries.
        """
        table = self._delivered if state == "delivered" else self._refused
        counter, gone = f"{state}_bytes", 0
        for number, row in sorted(table.items()):
            if self._numbers[counter] <= over and row.resolved >= before:
                break
            self._tables.set(table, number, None)
            self._forget(number, row)
            self.count(counter, -len(row.entry.body))
            gone += 1
        if state == "refused":
            self.count("refused", -gone)
            self.count("dropped", gone)
        return gone

    def last(self) -> int:
        """Return the id of the newest entry ever added."""
        return self._numbers.get("last", 0)

    def oldest_waiting(self) -> float:
        """Return the id of the oldest waiting entry; infinity if none waits."""
        with self._tables.lock:
            return next(iter(self._waiting), float("inf"))

    def waiting_since(self) -> float | None:
        """Return when the oldest waiting entry was made, seconds since the epoch; None if none waits."""
        with self._tables.lock:
            return next((row.entry.made for row in self._waiting.values()), None)

    def waiting(self) -> Iterator[Entry]:
        """Iterate over all waiting entries, in order. For a store without an engine."""
        with self._tables.lock:
            return iter([row.entry for row in self._waiting.values()])

    def marks(self) -> dict[str, Mark]:
        """Return how far the journal has been collected, in entries."""
        return {name: Mark(offset) for name, offset in self.offsets().items()}

    def offsets(self) -> dict[str, int]:
        """Return the number of collected entries, under the name of the journal's only segment."""
        return {"memory": self._numbers["collected"]} if "collected" in self._numbers else {}

    def fingerprints(self, segment: str) -> array[int]:  # noqa: ARG002 - a segment in memory is never truncated
        """Return none: a journal in memory needs no fingerprints."""
        return array("I")

    def remember(self, piece: Piece) -> None:
        """Note that `piece` was collected."""
        self._tables.set(self._numbers, "collected", piece.mark.offset)

    def forget(self, segments: Sequence[str]) -> None:
        """Do nothing: the segment is never deleted."""

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        self._tables.set(self._numbers, name, self._numbers.get(name, 0) + by)

    def note(self, name: str, words: str | None, now: float) -> None:
        """Do nothing: no other process could read it."""

    def counts(self) -> Counts:
        """Return all counts."""
        with self._tables.lock:
            return Counts.of(self._numbers)

    def size(self) -> int:
        """Return the approximate bytes in use."""
        return self._numbers.get("bytes", 0)

    def give_back(self) -> bool:
        """Return True: memory is free as soon as an entry is deleted."""
        return True

    def is_current(self) -> bool:
        """Return True: there is no file that could be replaced."""
        return True

    def close(self) -> None:
        """Do nothing: there is nothing to close, and waiting entries can still be read."""


class _Transactions:
    """Transactions over tables: each former value is recorded, and restored if the transaction fails."""

    def __init__(self, on_rollback: Callable[[], None]) -> None:
        self.lock = threading.RLock()
        self.on_commit: list[Callable[[], object]] = []
        self._on_rollback = on_rollback
        self._former: list[tuple[dict[Any, Any], Any, Any]] | None = None
        """Table, key and former value of each change in the current transaction; None outside of one."""

    def set(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        """Set a value in a table; None deletes it."""
        if self._former is not None:
            self._former.append((table, key, table.get(key)))
        _put(table, key, value)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block as a transaction. Nested ones join the outermost."""
        with self.lock:
            if self._former is not None:
                yield
                return
            self._former = []
            try:
                yield
            except BaseException:
                self.on_commit.clear()
                for table, key, value in reversed(self._former):
                    _put(table, key, value)
                self._on_rollback()
                raise
            finally:
                self._former = None
            committed, self.on_commit = self.on_commit, []
            for each in committed:
                each()


def _put(table: dict[Any, Any], key: Any, value: Any) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value
