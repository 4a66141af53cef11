"""The outbox: a journal in front, a store behind. Callers put; one engine for each process does the rest."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from athina_trace._delivery.entry import Entry, Lease, Stored
from athina_trace._delivery.journal import FileJournal, Journal, MemoryJournal
from athina_trace._delivery.owner import Owner, SoleOwner
from athina_trace._delivery.store import Counts, Store


class Holder(Protocol):
    """Who leases: see `owner.Owner`."""

    id: int

    def is_alive(self, owner: int) -> bool: ...

    def release(self) -> None: ...


class Outbox:
    """Entries on their way. `put` is for any thread; everything else is the engine's.

    A lane is leased by one owner at a time, oldest entries first; each leased lane is given back by `release` after
    its entries were settled by `delivered` or `refused`, or not. What a dead owner held is free again.
    """

    def __init__(self, journal: Journal, open_store: Callable[[], Store], open_owner: Callable[[], Holder]) -> None:
        self._journal = journal
        self._open_store = open_store
        self._open_owner = open_owner
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

    def put(self, entry: Entry) -> None:
        """Commit `entry`: it survives this process once this returns. Raises `OutboxError`."""
        self._journal.put(entry)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing of what is done inside."""
        with self.store.transaction():
            yield

    def collect(self) -> int:
        """Move what was put, by any process, from the journal to the lanes; how many entries that were."""
        moved = 0
        with self.store.transaction():
            for piece in self._journal.read(self.store.offsets()):
                self.store.add(piece.entries)
                self.store.remember(piece.segment, piece.end)
                moved += len(piece.entries)
        return moved

    def tidy(self) -> None:
        """Give back the space of what was collected and settled. Not inside a transaction."""
        with self.store.transaction():
            gone = self._journal.collected(self.store.offsets())
            self.store.forget(gone)
        self.store.shrink()

    def lease(self, now: float, *, lanes: int, batch: int) -> list[Lease]:
        """Take up to `lanes` lanes that are due, each with up to `batch` entries."""
        return self.store.lease(self._owner.id, now, lanes=lanes, batch=batch)

    def delivered(self, entry: Stored, now: float, *, keep: bool = False, prompt_run_id: str | None = None) -> None:
        """Athina has it: forget the entry, or keep it to be looked at."""
        self.store.delivered(entry, now, keep=keep, prompt_run_id=prompt_run_id)

    def refused(self, entry: Stored, now: float, *, status: int | None, reason: str) -> None:
        """Athina will not take it: keep the entry, with the server's words."""
        self.store.refused(entry, now, status=status, reason=reason)

    def release(self, lane: str, *, due: float = 0.0, attempts: int = 0) -> None:
        """Give a leased lane back: free at once, or not before `due`."""
        self.store.release(lane, due=due, attempts=attempts)

    def adopt(self) -> None:
        """Free what dead owners held."""
        for owner in self.store.owners():
            if not self._owner.is_alive(owner):
                self.store.disown(owner)

    def next_due(self, now: float) -> float | None:
        """When the next free lane is due, seconds since the epoch; None where there is none."""
        return self.store.next_due(now)

    def last(self) -> int:
        """The id of the newest entry collected."""
        return self.store.last()

    def oldest_waiting(self) -> float:
        """The id of the oldest entry that waits; infinite where none does."""
        return self.store.oldest_waiting()

    def counts(self) -> Counts:
        """How many entries were made, delivered, refused, dropped, and how many wait in the store."""
        return self.store.counts()

    def close(self) -> None:
        """Let go: what this owner held is free for others. What was put stays."""
        with self._opening:
            if self._opened_owner is not None:
                self.store.disown(self._opened_owner.id)
                self._opened_owner.release()
            if self._opened_store is not None:
                self._opened_store.close()
        self._journal.close()


class SqliteOutbox(Outbox):
    """An outbox on disk, shared by all processes that open the same path.

    `path` is the store, a file of mode 0600; the journal's folder stands beside it. Missing folders are made, 0700.
    """

    def __init__(self, path: str, *, max_bytes: float = float("inf")) -> None:
        self.path = path
        folder = Path(path)

        def open_store() -> Store:
            folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            return Store(path)

        self.bytes_stored = 0
        journal = FileJournal(folder.with_suffix(".journal"), limit=lambda: max_bytes - self.bytes_stored)
        super().__init__(journal, open_store, lambda: Owner(f"{path}.owners"))


class MemoryOutbox(Outbox):
    """An outbox that lives and dies with its process: for tests, and where no disk can be written to."""

    path = ":memory:"

    def __init__(self, *, max_bytes: float = float("inf")) -> None:
        self.bytes_stored = 0
        journal = MemoryJournal(limit=lambda: max_bytes - self.bytes_stored)
        super().__init__(journal, lambda: Store(":memory:"), SoleOwner)
