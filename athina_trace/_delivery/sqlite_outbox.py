"""The outbox on disk: journal segments and a SQLite file beside them, shared by every process that opens the path."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import cast

from athina_trace import _guard
from athina_trace._delivery import acknowledged, files, locks
from athina_trace._delivery.acknowledged import Acknowledgements
from athina_trace._delivery.database import is_corrupt, is_held, is_locked, version_of, waiting_at_most
from athina_trace._delivery.entry import Stored
from athina_trace._delivery.journal import FileJournal
from athina_trace._delivery.machine import Presence
from athina_trace._delivery.migrations import MIGRATIONS
from athina_trace._delivery.outbox import Outbox
from athina_trace._delivery.ownership import FileOwner
from athina_trace._delivery.segment import COLLECT_BYTES
from athina_trace._delivery.sqlite import sqlite3
from athina_trace._delivery.stats import Counts
from athina_trace._delivery.store import Store
from athina_trace.errors import OutboxError

_LEAST_COLLECTED_BYTES = 16 * 1024
_MOVED_AT_ONCE = 64
"""Entries."""


class SqliteOutbox(Outbox):
    """An outbox on disk, shared by all processes of one user and one machine that open the same path.

    `path` is the store, a file of mode 0600; the journal's folder is beside it. Missing folders are made, 0700.
    """

    def __init__(self, path: str, *, max_bytes: float = float("inf")) -> None:
        self.path = path
        if is_held(path):
            why = "was being written to when this process was forked, so that SQLite cannot use it here"
            self.unusable = f"the outbox {path} {why}"
        self._file = Path(path)
        self._folder = self._file.with_suffix(".journal")
        self._presence = Presence(self._folder)
        self._taken_away: Store | None = None
        journal = FileJournal(self._folder, max_bytes, check=self._check)
        super().__init__(journal, self._open, lambda: FileOwner(f"{path}.owners"), max_bytes=max_bytes)

    def _check(self) -> None:
        """Refuse the folder of another machine, and bring a store of an earlier version up to date before a log.

        That version may still run, and would take a record with a checksum for a torn one, and skip it. A migrated
        store it leaves alone.
        """
        self._presence.beat()
        version = version_of(self._file)
        if version is not None and 0 < version < len(MIGRATIONS):
            try:
                with waiting_at_most():
                    self.store.marks()
            except sqlite3.Error as error:
                words = "was made by an earlier athina_trace and cannot be brought up to date now"
                raise OutboxError(f"the outbox {self.path} {words} ({error})") from error

    def _open(self) -> Store:
        if self.unusable is not None:
            raise OutboxError(self.unusable)
        files.make_folder(self._file.parent)
        files.make_folder(self._folder)
        self._presence.check()
        # Made before SQLite does, which would let the umask decide who may read it. One that is there is not opened,
        # since this process may have it open already, and would lose SQLite's locks: see `version_of`.
        if self._file.is_symlink() or not self._file.is_file():
            os.close(files.open_private(self._file, os.O_RDWR | os.O_CREAT))
        for name in (self.path, f"{self.path}-wal", f"{self.path}-shm"):
            files.check_file(Path(name))
        store = Store(self.path)
        store.is_shared = lambda: not cast("FileOwner", self._owner).is_alone()
        return store

    @property
    def store(self) -> Store:
        """The file, opened when the engine first needs it."""
        return cast("Store", super().store)

    @cached_property
    def _acknowledgements(self) -> Acknowledgements:
        return Acknowledgements(self._folder, self._owner.id, self.store.identity)

    def _make_room(self) -> int:
        # What is collected takes room twice before its segment is deleted: in the store's log, and in the store.
        disk = files.disk_of(self._folder)
        if disk.free < disk.reserve:
            self.quota.drop_delivered(before=float("inf"))
        if disk.free < disk.reserve / 2 and self.store.oldest_waiting() < float("inf"):
            return 0
        return int(min(COLLECT_BYTES, max(_LEAST_COLLECTED_BYTES, disk.free / 8)))

    def all_delivered(self, entries: Sequence[tuple[Stored, str | None]], now: float, *, keep: bool) -> None:
        # To keep an entry means that SQLite writes it once more.
        disk = files.disk_of(self._folder)
        super().all_delivered(entries, now, keep=keep and disk.free >= disk.reserve)

    def acknowledge(self, entry: Stored) -> None:
        # In a sender's thread: a store that cannot be read now costs a copy at most, if we are killed before the step.
        with suppress(OSError, sqlite3.Error):
            self._acknowledgements.add(entry.id, entry.reference)

    def acknowledgements_committed(self, others: Iterable[Stored]) -> None:
        if "_acknowledgements" in self.__dict__:
            self._acknowledgements.committed((entry.id, entry.reference) for entry in others)

    def reclaim(self) -> None:
        self._presence.beat()  # raises where another machine took over meanwhile: then nothing here is ours
        store = self.store
        with store.transaction():
            for owner in {*store.owners(), *acknowledged.owners(self._folder)}:
                if not self._owner.is_alive(owner):
                    store.delete_delivered(acknowledged.read(self._folder, owner, store.reference_of, store.identity))
                    store.release_all(owner)
                    store.on_commit(partial(acknowledged.forget, self._folder, owner))

    def uncollected(self) -> Counts:
        offsets: dict[str, int] | None = None
        with suppress(OSError, sqlite3.Error), waiting_at_most():
            offsets = self.store.offsets()
        waiting = cast("FileJournal", self._journal).uncollected(offsets)
        return Counts(made=waiting, waiting=waiting)

    def refresh(self) -> bool:
        opened = self._store.opened
        is_taken_away = isinstance(opened, Store) and not opened.is_current()
        if is_taken_away and self._taken_away is None:
            self._store.take()
            self._taken_away = cast("Store", opened)
        is_replaced = super().refresh() or is_taken_away
        if is_taken_away:
            self._let_go()  # of what was leased there
        if self._taken_away is not None and self._has_moved_all(self._taken_away):
            self._taken_away.close()
            self._taken_away = None
        return is_replaced

    def _has_moved_all(self, lost: Store) -> bool:
        """Move what waits in a store whose file was taken away, and is open here still, to the one in its place.

        Other processes have it open, too: each entry is moved by one of them. False where it is to be tried again.
        """
        try:
            with lost.locked():
                moved = -1
                # One that is damaged was put aside by another process.
                while moved and lost.is_connected and lost.is_sound():
                    with lost.transaction(), self.store.transaction():
                        entries = lost.first_waiting(_MOVED_AT_ONCE)
                        self.store.add(list(entries.values()))
                        lost.delete_delivered(list(entries))
                        moved = len(entries)
        except (OSError, sqlite3.Error) as error:
            words = "what waited in the outbox %s, which was taken away, cannot be moved to the one in its place (%s)"
            _guard.log_throttled(logging.ERROR, "not moved", words, self.path, error)
            return not is_locked(error) and not isinstance(error, OSError)
        return True

    def _let_go(self) -> None:
        if (kept := self.__dict__.pop("_acknowledgements", None)) is not None:
            kept.close()
        super()._let_go()

    def close(self) -> None:
        owner, is_last = self._lease_owner.opened, False
        with suppress(OSError):
            # Asked before the files are closed: whether others are there is seen through the owners' file alone.
            is_last = isinstance(owner, FileOwner) and owner.is_alone()
        if self._taken_away is not None:
            self._taken_away.close()
        super().close()
        if is_last:
            self._presence.leave()

    def is_damaged(self) -> bool:
        store = self._store.opened
        return isinstance(store, Store) and not store.is_sound()

    def quarantine(self) -> str | None:
        """Rename a store that cannot be read, with what belongs to it; its new path, or None where another process did.

        The journal stays: what was collected but not delivered is collected again if it is still in there.
        """
        was_open = self._store.opened is not None
        if was_open and not self.store.is_current():
            return None
        self._let_go()
        with self._alone() as alone:
            if not alone:
                return None
            if not was_open:
                try:
                    self._open().close()
                except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                    if not is_corrupt(error):
                        raise
                else:
                    return None  # another process has just put a new one here
            suffix = time.strftime(".corrupt-%Y%m%d-%H%M%S")
            for name in (f"{self.path}-wal", f"{self.path}-shm", self.path):
                if Path(name).exists():
                    Path(name).rename(name + suffix)
            return self.path + suffix

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Keep other processes from doing the same; False where one is at it."""
        files.make_folder(self._folder)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            locks.take(folder)
            yield True
        except BlockingIOError:
            yield False
        finally:
            os.close(folder)
