"""The outbox: a journal in front of a store. Callers put entries; the engine of each process does the rest."""

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
"""The maximum bytes of delivered logs that an outbox in memory keeps."""


class LeaseOwner(Protocol):
    """The owner of leases: see `ownership`."""

    id: int

    def is_alive(self, owner: int) -> bool: ...

    def is_current(self) -> bool: ...

    def release(self) -> None: ...


_Opened = TypeVar("_Opened")


class OnDemand(Generic[_Opened]):
    """A resource that is opened by the thread that first needs it, and again after it was closed."""

    def __init__(self, open_: Callable[[], _Opened], close: Callable[[_Opened], None]) -> None:
        self._open = open_
        self._close = close
        # Several threads may need it at once; `cached_property` has no lock since Python 3.12.
        self._lock = threading.RLock()
        self.opened: _Opened | None = None

    def get(self) -> _Opened:
        """Return the resource; open it if it is not open."""
        with self._lock:
            opened = self.opened
            if opened is None:
                opened = self._open()
                # A finalizer or a signal handler may have needed it meanwhile, and put something there. This is one
                # statement, so that none of them runs between the check and the assignment.
                self.opened = kept = opened if self.opened is None else self.opened
                if kept is not opened:
                    self._close(opened)
                return kept
            return opened

    def take(self) -> _Opened | None:
        """Hand over the resource, for closing; None if it is not open."""
        with self._lock:
            opened, self.opened = self.opened, None
            return opened


class _Drops:
    """Counts entries that could not be put: any thread counts, the engine's thread writes the number to the store."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._counted = self._written = 0

    def add(self) -> None:
        """Count one more."""
        self._counted = next(self._numbers)

    def are_written(self) -> bool:
        """Return whether the store has counted all of them."""
        return self._counted == self._written

    def write(self, store: Store | MemoryStore) -> bool:
        """Add to the store's counters what was dropped since the last time; return whether anything was."""
        # Read once: what callers drop meanwhile is counted the next time.
        counted = self._counted
        new = counted - self._written
        if new:
            store.count("dropped", new)
            store.count("made", new)
            store.on_commit(lambda: setattr(self, "_written", counted))
        return new > 0


class Outbox:
    """Entries on their way. `put` and `drop` are for any thread; everything else is for the engine's.

    An ordering key is leased by one owner at a time, oldest entries first. `release` ends a lease, whether its entries
    were `delivered`, `refused` or neither. What a dead owner leased is freed by `reclaim`.
    """

    path: str
    """The path of the store's file, or ":memory:"."""
    unusable: str | None = None
    """Why this process can put entries here but never deliver them; None if it can."""

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
        """Commits an entry: once this returns, it survives this process. Raises `OutboxError`."""
        self._store = OnDemand(open_store, lambda store: store.close())
        self._lease_owner = OnDemand(open_owner, lambda owner: owner.release())
        self._drops = _Drops()
        self.is_behind = False
        """Whether the journal held more than the last `collect` took."""
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
        """Count an entry that could not be put; the next `collect` or `close` records it in the store."""
        self._drops.add()

    def transaction(self) -> AbstractContextManager[None]:
        """Run the block as a transaction of the store."""
        return self.store.transaction()

    def collect(self) -> int:
        """Move entries of all processes from the journal to the store; return how many."""
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
                "%d records in the journal of the outbox %s are damaged and were skipped: their content is lost; "
                "look for a failing disk or a restored backup",
                damaged,
                self.path,
            )
        return moved

    def _make_room(self) -> int:
        """Make room in the store; return how many bytes it may take in, 0 if deliveries must come first."""
        return COLLECT_BYTES

    def collect_all(self, *, seconds: float = float("inf")) -> None:
        """Move everything that was put before this call, or as much as can be moved in so many seconds."""
        ends = time.monotonic() + seconds
        while self.collect() and time.monotonic() < ends:
            pass

    def compact(self, *, vacuum: bool = True) -> bool:
        """Free the space of collected and, with `vacuum`, of resolved entries; return whether none is left to free."""
        with self.store.transaction():
            self.store.forget(self._journal.collected(self.store.offsets()))
        self.quota.measure()
        # Outside the transaction, in which SQLite allows no vacuum.
        return self.store.give_back() if vacuum else True

    def lease(
        self, now: float, *, keys: int, batch: int, room: float = float("inf"), newest: bool = False
    ) -> list[Lease]:
        """Lease up to `keys` ordering keys that are due, each with up to `batch` entries, about `room` bytes in total.

        `newest`: prefer the newest keys that have not failed, rather than each in turn.
        """
        return self.store.lease(self._owner.id, now, keys=keys, batch=batch, room=room, newest=newest)

    def delivered(self, entry: Stored, now: float, *, keep: bool = False, prompt_run_id: str | None = None) -> None:
        """Delete a delivered entry, or keep it for inspection."""
        self.all_delivered([(entry, prompt_run_id)], now, keep=keep)

    def all_delivered(self, entries: Sequence[tuple[Stored, str | None]], now: float, *, keep: bool) -> None:
        """Do the same for many entries, each with its `prompt_run_id` if Athina returned one."""
        self.store.delivered(entries, now, keep=keep)
        if keep:
            self.quota.count_kept(sum(len(entry.body) for entry, _ in entries))

    def refused(self, entry: Stored, now: float, *, status: int | None, reason: str) -> None:
        """Keep an entry that Athina refused, with the server's message."""
        self.store.refused(entry, now, status=status, reason=reason)

    def count_possible_duplicate(self) -> None:
        """Count an attempt whose answer was lost: Athina may have the entry, and will get it again."""
        self.store.count("possible_duplicates")

    def release(self, *ordering_keys: str, due: float = 0.0, attempts: int = 0) -> None:
        """Release leased keys, which are due again at once, or at `due`."""
        self.store.release(*ordering_keys, due=due, attempts=attempts)

    def acknowledge(self, entry: Stored) -> None:
        """Note a delivered entry, for other processes in case we die before the next step. For any thread."""

    def acknowledgements_committed(self, others: Iterable[Stored]) -> None:
        """Note that the results of all acknowledged entries but these are committed."""

    def reclaim(self) -> None:
        """Release the leases of dead owners, and record as delivered the entries that they acknowledged."""

    def counts(self) -> Counts:
        """Return how many entries were made, delivered, refused and dropped, and how many wait in the store."""
        return self.store.counts()

    def uncollected(self) -> Counts:
        """Return what the counts do not have yet, for a caller who finds that the store takes nothing in."""
        return Counts()

    def refresh(self) -> bool:
        """Close the store and the owners' file if either was deleted; return whether it was."""
        opened = (self._store.opened, self._lease_owner.opened)
        if all(each is None or each.is_current() for each in opened):
            return False
        self._let_go()
        return True

    def is_damaged(self) -> bool:
        """Check the store for damage, after an error that it may have caused."""
        return False

    def quarantine(self) -> str | None:
        """Move an unreadable store out of the way; return its new path, or None if another process did it."""
        self._let_go()
        return None

    def _let_go(self) -> None:
        store, owner = self._store.take(), self._lease_owner.take()
        if owner is not None:
            owner.release()
        if store is not None:
            store.close()

    def close(self) -> None:
        """Release this owner's leases, and close all files. Entries stay."""
        try:
            owner = self._lease_owner.opened
            if owner is not None or not self._drops.are_written():
                # A program that ends before its first step may have dropped logs, or have room to publish.
                with self.store.transaction():
                    self._drops.write(self.store)
                    if owner is not None:
                        self.store.release_all(owner.id)
                    self.quota.measure()
        finally:
            self._let_go()
            self._journal.close()


class MemoryOutbox(Outbox):
    """An outbox in the memory of its process: for tests, and if no disk can be written to."""

    path = ":memory:"

    def __init__(self, *, max_bytes: float = float("inf")) -> None:
        journal = MemoryJournal(max_bytes)
        super().__init__(journal, MemoryStore, SoleOwner, max_bytes=max_bytes, max_delivered_bytes=_DELIVERED_IN_MEMORY)

    def collect(self) -> int:
        with self.store.transaction():
            # Not earlier: if the transaction fails, the entries must still be in the journal.
            self.store.on_commit(lambda: self._journal.collected(self.store.offsets()))
            return super().collect()

    def waiting(self) -> Iterator[Entry]:
        """Return the undelivered entries, once no engine is running."""
        self.collect_all()
        return self.store.waiting()

    def close(self) -> None:
        """Do nothing: there is nothing to close, and waiting entries can still be read."""
