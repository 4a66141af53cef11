"""The outbox: a journal in front, a store behind. Callers put; one engine for each process does the rest."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import count
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from athina_trace import _guard
from athina_trace._delivery.entry import Entry, Lease, Stored
from athina_trace._delivery.journal import Journal, MemoryJournal
from athina_trace._delivery.memory_store import MemoryStore
from athina_trace._delivery.ownership import SoleOwner
from athina_trace._delivery.quota import Quota
from athina_trace._delivery.segment import COLLECT_BYTES
from athina_trace._delivery.stats import Counts

if TYPE_CHECKING:
    from athina_trace._delivery.store import Store

_DELIVERED_IN_MEMORY = 1_000_000
"""Bytes of delivered logs that an outbox in memory keeps at most."""


class LeaseOwner(Protocol):
    """One that leases: see `ownership`."""

    id: int

    def is_alive(self, owner: int) -> bool: ...

    def is_current(self) -> bool: ...

    def release(self) -> None: ...


_Opened = TypeVar("_Opened")


class _OnDemand(Generic[_Opened]):
    """What is opened by the thread that first needs it, and once more after it was let go of."""

    def __init__(self, open_: Callable[[], _Opened]) -> None:
        self._open = open_
        # The engine's thread and a caller of `flush` may come first at once; `cached_property` has no lock since 3.12.
        self._lock = threading.RLock()
        self.opened: _Opened | None = None

    def get(self) -> _Opened:
        """Return it, opened now if it was not."""
        with self._lock:
            opened = self.opened
            if opened is None:
                opened = self._open()
                # A finalizer or a signal handler may have needed it meanwhile, and put something there.
                self.opened = opened = opened if self.opened is None else self.opened
            return opened

    def take(self) -> _Opened | None:
        """Return it to be closed; None where it is not open."""
        with self._lock:
            opened, self.opened = self.opened, None
            return opened


class _Drops:
    """Entries that could not be put: counted by any thread, written down by the engine's."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._counted = self._written = 0

    def add(self) -> None:
        """Count one more."""
        self._counted = next(self._numbers)

    def are_written(self) -> bool:
        """Return whether the store knows of all of them."""
        return self._counted == self._written

    def write(self, store: Store | MemoryStore) -> bool:
        """Count in the store what was dropped since the last time; return whether anything was."""
        # Read once: a caller may drop another one meanwhile, which is then for the next time.
        counted = self._counted
        new = counted - self._written
        if new:
            store.count("dropped", new)
            store.count("made", new)
            store.on_commit(lambda: setattr(self, "_written", counted))
        return new > 0


class Outbox:
    """Entries on their way. `put` and `drop` are for any thread; everything else is the engine's.

    An ordering key is leased by one owner at a time, oldest entries first; each leased key is given back by `release`
    after its entries were `delivered` or `refused`, or not. What a dead owner held is free again.
    """

    path: str
    """Where it is; ":memory:" for nowhere."""
    unusable: str | None = None
    """Why this process can put entries here and never deliver them; None where it can."""

    def __init__(
        self,
        journal: Journal,
        open_store: Callable[[], Store | MemoryStore],
        open_owner: Callable[[], LeaseOwner],
        *,
        max_bytes: float = float("inf"),
        max_delivered_bytes: float = float("inf"),
    ) -> None:
        self._journal = journal
        self.put: Callable[[Entry], None] = journal.put
        """Commits an entry: it survives this process once this returns. Raises `OutboxError`."""
        self._store = _OnDemand(open_store)
        self._lease_owner = _OnDemand(open_owner)
        self._drops = _Drops()
        self.is_behind = False
        """Whether the journal held more than was collected last."""
        self.quota = Quota(
            self.path, journal, self._store.get, max_bytes=max_bytes, max_delivered_bytes=max_delivered_bytes
        )

    @property
    def store(self) -> Store | MemoryStore:
        """The store, opened when the engine first needs it: a caller never waits for SQLite."""
        return self._store.get()

    @property
    def _owner(self) -> LeaseOwner:
        return self._lease_owner.get()

    def drop(self) -> None:
        """Count an entry that could not be put; the next `collect` writes it down, or `close`."""
        self._drops.add()

    def transaction(self) -> AbstractContextManager[None]:
        """Do all or nothing of what is inside."""
        return self.store.transaction()

    def collect(self) -> int:
        """Move what was put, by any process, from the journal to the store; return how many entries that were."""
        moved = damaged = 0
        with self.store.transaction():
            room = self._make_room()
            self.is_behind = not room
            for piece in self._journal.read(self.store.marks(), self.store.fingerprints, room) if room else ():
                self.store.add(piece.entries)
                self.store.remember(piece)
                moved += len(piece.entries)
                damaged += piece.damaged
                self.quota.count_collected(piece.mark.offset - piece.start)
                self.is_behind |= not piece.is_last
            if self._drops.write(self.store) or self.quota.is_to_be_measured:
                self.quota.measure()
        if damaged:
            _guard.log_throttled(
                logging.ERROR,
                "damaged",
                "%d records in the journal of the outbox %s are damaged and were skipped: what they held is lost; "
                "look for a failing disk, or a backup that was restored",
                damaged,
                self.path,
            )
        return moved

    def _make_room(self) -> int:
        """Make room in the store; return how many bytes it may take in at once, 0 where deliveries must come first."""
        return COLLECT_BYTES

    def collect_all(self, *, seconds: float = float("inf")) -> None:
        """Move everything that was put before this call, or what can be moved in that many seconds."""
        ends = time.monotonic() + seconds
        while self.collect() and time.monotonic() < ends:
            pass

    def compact(self, *, vacuum: bool = True) -> bool:
        """Give back the space of what was collected and, to `vacuum`, resolved; False where there is more to give."""
        with self.store.transaction():
            self.store.forget(self._journal.collected(self.store.offsets()))
        self.quota.measure()
        # Outside of the transaction, where SQLite allows no vacuum.
        return self.store.give_back() if vacuum else True

    def lease(
        self, now: float, *, keys: int, batch: int, room: float = float("inf"), newest: bool = False
    ) -> list[Lease]:
        """Take up to `keys` ordering keys that are due, each with up to `batch` entries, about `room` bytes in all.

        `newest`: the newest of those that did not fail, rather than each in its turn.
        """
        return self.store.lease(self._owner.id, now, keys=keys, batch=batch, room=room, newest=newest)

    def delivered(self, entry: Stored, now: float, *, keep: bool = False, prompt_run_id: str | None = None) -> None:
        """Forget an entry that Athina has, or keep it to be looked at."""
        self.all_delivered([(entry, prompt_run_id)], now, keep=keep)

    def all_delivered(self, entries: Sequence[tuple[Stored, str | None]], now: float, *, keep: bool) -> None:
        """Do the same for many entries, each with the name that Athina gave to it."""
        self.store.delivered(entries, now, keep=keep)
        if keep:
            self.quota.count_kept(sum(len(entry.body) for entry, _ in entries))

    def refused(self, entry: Stored, now: float, *, status: int | None, reason: str) -> None:
        """Keep an entry that Athina will not take, with the server's words."""
        self.store.refused(entry, now, status=status, reason=reason)

    def count_possible_duplicate(self) -> None:
        """Count an attempt whose answer was lost: Athina may have the entry, and will be given it again."""
        self.store.count("possible_duplicates")

    def release(self, *ordering_keys: str, due: float = 0.0, attempts: int = 0) -> None:
        """Give leased keys back: free at once, or not before `due`."""
        self.store.release(*ordering_keys, due=due, attempts=attempts)

    def acknowledge(self, entry: Stored) -> None:
        """Note that Athina has it, for the next step to record, and for others if we die before. For any thread."""

    def acknowledgements_committed(self, others: Iterable[Stored]) -> None:
        """Note that all acknowledged entries were recorded and committed, but these."""

    def reclaim(self) -> None:
        """Free what dead owners held; of that, record as delivered what they acknowledged."""

    def counts(self) -> Counts:
        """Return how many entries were made, delivered, refused, dropped, and how many wait in the store."""
        return self.store.counts()

    def uncollected(self) -> Counts:
        """Return what the counts do not have yet, for a caller who finds that the store takes nothing in."""
        return Counts()

    def refresh(self) -> bool:
        """Close the store and the owners' file where either was deleted; True where that was so."""
        opened = (self._store.opened, self._lease_owner.opened)
        if all(each is None or each.is_current() for each in opened):
            return False
        self._let_go()
        return True

    def is_damaged(self) -> bool:
        """Return whether the store is found to be damaged, after an error that may come of it."""
        return False

    def quarantine(self) -> str | None:
        """Move a store that cannot be read out of the way; return where to. None where another process just did."""
        self._let_go()
        return None

    def _let_go(self) -> None:
        store, owner = self._store.take(), self._lease_owner.take()
        if owner is not None:
            owner.release()
        if store is not None:
            store.close()

    def close(self) -> None:
        """Let go: what this owner held is free for others. What was put stays."""
        try:
            owner = self._lease_owner.opened
            if owner is not None or not self._drops.are_written():
                # A program too short for a single step may have dropped logs, too, or leave room that others need.
                with self.store.transaction():
                    self._drops.write(self.store)
                    if owner is not None:
                        self.store.release_all(owner.id)
                    self.quota.measure()
        finally:
            self._let_go()
            self._journal.close()


class MemoryOutbox(Outbox):
    """An outbox that lives and dies with its process: for tests, and where no disk can be written to."""

    path = ":memory:"

    def __init__(self, *, max_bytes: float = float("inf")) -> None:
        journal = MemoryJournal(max_bytes)
        super().__init__(journal, MemoryStore, SoleOwner, max_bytes=max_bytes, max_delivered_bytes=_DELIVERED_IN_MEMORY)

    def collect(self) -> int:
        with self.store.transaction():
            # Not before: a transaction that fails must find the entries where they were.
            self.store.on_commit(lambda: self._journal.collected(self.store.offsets()))
            return super().collect()

    def waiting(self) -> Iterator[Entry]:
        """Return what was not delivered, once no engine is at work any more."""
        self.collect_all()
        return self.store.waiting()

    def close(self) -> None:
        """Close nothing: there is nothing to let go of, and what waits can still be read."""
