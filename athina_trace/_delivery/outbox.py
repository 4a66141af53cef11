"""The outbox: a journal in front, a store behind. Callers put; one engine for each process does the rest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Protocol

from athina_trace._delivery.entry import Entry, Lease, Stored
from athina_trace._delivery.journal import Journal, MemoryJournal
from athina_trace._delivery.ownership import SoleOwner
from athina_trace._delivery.stats import Counts
from athina_trace._delivery.store import Store

_EMPTY_BYTES = 65_536
"""What a store takes before anything is in it, which is not held against `max_bytes`."""
_ROOMY_BYTES = 256 * 1024 * 1024


class Holder(Protocol):
    """Who leases: see `owner.Owner`."""

    id: int

    def is_alive(self, owner: int) -> bool: ...

    def is_current(self) -> bool: ...

    def release(self) -> None: ...


class Outbox:
    """Entries on their way. `put` and `drop` are for any thread; everything else is the engine's.

    A lane is leased by one owner at a time, oldest entries first; each leased lane is given back by `release` after
    its entries were settled by `delivered` or `refused`, or not. What a dead owner held is free again.
    """

    path: str
    """Where it is; ":memory:" for nowhere."""

    def __init__(
        self,
        journal: Journal,
        open_store: Callable[[], Store],
        open_owner: Callable[[], Holder],
        *,
        max_bytes: float = float("inf"),
    ) -> None:
        self._journal = journal
        self.put: Callable[[Entry], None] = journal.put
        """Commits an entry: it survives this process once this returns. Raises `OutboxError`."""
        self._open_store = open_store
        self._open_owner = open_owner
        self._max_bytes = max_bytes
        self.is_roomy = max_bytes >= _ROOMY_BYTES
        """Whether it can hold what comes in some seconds, however much that is."""
        self.is_behind = False
        """Whether the journal held more than was collected last."""
        self._drops = count(1)
        self._dropped = self._drops_written = 0
        # The engine's thread and a caller of `flush` may come first at once; `cached_property` has no lock since 3.12.
        self._opening = threading.RLock()
        self._opened_store: Store | None = None
        self._opened_owner: Holder | None = None

    @property
    def store(self) -> Store:
        """The store, opened when the engine first needs it: a caller never waits for SQLite."""
        with self._opening:
            if self._opened_store is None:
                self._opened_store = self._open_store()
            return self._opened_store

    @property
    def _owner(self) -> Holder:
        with self._opening:
            if self._opened_owner is None:
                self._opened_owner = self._open_owner()
            return self._opened_owner

    def drop(self) -> None:
        """Count an entry that could not be put."""
        self._dropped = next(self._drops)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing of what is done inside."""
        with self.store.transaction():
            yield

    def collect(self) -> int:
        """Move what was put, by any process, from the journal to the lanes; how many entries that were."""
        moved = 0
        self.is_behind = False
        with self.store.transaction():
            for piece in self._journal.read(self.store.offsets()):
                self.store.add(piece.entries)
                self.store.remember(piece.segment, piece.end)
                moved += len(piece.entries)
                self.is_behind = piece.more
            self._write_drops()
        return moved

    def collect_all(self) -> None:
        """Move everything that was put before this call."""
        while self.collect():
            pass

    def _write_drops(self) -> None:
        dropped, self._drops_written = self._dropped - self._drops_written, self._dropped
        if dropped:
            self.store.count("dropped", dropped)
            self.store.count("made", dropped)

    def tidy(self, *, shrink: bool = True) -> bool:
        """Give back the space of what was collected and, to `shrink`, settled; False where there is more to give."""
        with self.store.transaction():
            self.store.forget(self._journal.collected(self.store.offsets()))
        self.measure()
        return self.store.shrink() if shrink else True

    def measure(self) -> None:
        """See how much may still be put. Delivered entries that are only kept to be looked at make room first."""
        with self.store.transaction():
            room = self._max_bytes + _EMPTY_BYTES - self.store.size()
            if room < self._max_bytes / 4:
                self.store.expire(float("inf"))
            self._journal.allow(room, self.store.offsets())

    def expire(self, before: float) -> None:
        """Forget what was delivered before that time (seconds since the epoch)."""
        with self.store.transaction():
            self.store.expire(before)

    def lease(self, now: float, *, lanes: int, batch: int, room: float = float("inf")) -> list[Lease]:
        """Take up to `lanes` lanes that are due, each with up to `batch` entries, together about `room` bytes."""
        return self.store.lease(self._owner.id, now, lanes=lanes, batch=batch, room=room)

    def delivered(self, entry: Stored, now: float, *, keep: bool = False, prompt_run_id: str | None = None) -> None:
        """Athina has it: forget the entry, or keep it to be looked at."""
        self.store.delivered(entry, now, keep=keep, prompt_run_id=prompt_run_id)

    def refused(self, entry: Stored, now: float, *, status: int | None, reason: str) -> None:
        """Athina will not take it: keep the entry, with the server's words."""
        self.store.refused(entry, now, status=status, reason=reason)

    def doubt(self) -> None:
        """Count a try whose answer was lost: Athina may have the entry, and will be given it again."""
        self.store.count("doubtful")

    def release(self, lane: str, *, due: float = 0.0, attempts: int = 0) -> None:
        """Give a leased lane back: free at once, or not before `due`."""
        self.store.release(lane, due=due, attempts=attempts)

    def answered(self, entry: Stored) -> None:
        """Athina has it, to be settled by the next step; known to others even if we die before. For any thread."""

    def all_settled(self, others: Iterable[int]) -> None:
        """Whatever was answered was settled and committed, but these."""

    def adopt(self) -> None:
        """Free what dead owners held; what they were answered is delivered."""
        for owner in {*self.store.owners(), *self._known_owners()}:
            if not self._owner.is_alive(owner):
                self.store.answered(self._answers_of(owner))
                self.store.disown(owner)

    def _known_owners(self) -> Iterable[int]:
        return ()

    def _answers_of(self, owner: int) -> Iterable[int]:  # noqa: ARG002 - nobody shares a memory
        return ()

    def hasten(self, now: float, *, longest: float = 0.0) -> None:
        """Make due now whatever is due more than `longest` seconds later: the clock was set back."""
        self.store.hasten(now, longest=longest)

    def next_due(self) -> float | None:
        """When the next free lane is due, seconds since the epoch; None where there is none."""
        return self.store.next_due()

    def last(self) -> int:
        """The id of the newest entry collected."""
        return self.store.last()

    def oldest_waiting(self) -> float:
        """The id of the oldest entry that waits; infinite where none does."""
        return self.store.oldest_waiting()

    def counts(self) -> Counts:
        """How many entries were made, delivered, refused, dropped, and how many wait in the store."""
        return self.store.counts()

    def refresh(self) -> bool:
        """Begin anew where somebody deleted the store or the owners' file; True where that was so."""
        opened = (self._opened_store, self._opened_owner)
        if all(each is None or each.is_current() for each in opened):
            return False
        self._let_go()
        return True

    def set_aside(self) -> str | None:
        """Move a store that cannot be read out of the way; where to. None where somebody else just did."""
        self._let_go()
        return None

    def _let_go(self) -> None:
        with self._opening:
            store, self._opened_store = self._opened_store, None
            owner, self._opened_owner = self._opened_owner, None
        if owner is not None:
            owner.release()
        if store is not None:
            store.close()

    def close(self) -> None:
        """Let go: what this owner held is free for others. What was put stays."""
        if self._opened_owner is not None:
            with self.store.transaction():
                self.store.disown(self._opened_owner.id)
        self._let_go()
        self._journal.close()


class MemoryOutbox(Outbox):
    """An outbox that lives and dies with its process: for tests, and where no disk can be written to."""

    path = ":memory:"

    def __init__(self, *, max_bytes: float = float("inf")) -> None:
        journal = MemoryJournal(max_bytes)
        super().__init__(journal, lambda: Store(":memory:"), SoleOwner, max_bytes=max_bytes)

    def waiting(self) -> Iterator[Entry]:
        """What was not delivered, once no engine is at work any more."""
        self.collect_all()
        return self.store.waiting()

    def close(self) -> None:
        """Nothing is to be let go of, and what waits can still be read."""
