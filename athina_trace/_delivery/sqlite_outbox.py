"""The outbox on disk: journal segments and a SQLite file, shared by all processes that open the path."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
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
from athina_trace._delivery.outbox import OnDemand, Outbox
from athina_trace._delivery.ownership import FileOwner
from athina_trace._delivery.segment import COLLECT_BYTES
from athina_trace._delivery.sqlite import sqlite3
from athina_trace._delivery.stats import Counts
from athina_trace._delivery.store import Store
from athina_trace.errors import OutboxError

_LEAST_COLLECTED_BYTES = 16 * 1024
_MOVED_AT_ONCE = 64
"""In entries."""


class SqliteOutbox(Outbox):
    """An outbox on disk, shared by all processes of one user on one machine that open the same path.

    `path` is the store, a file of mode 0600; the journal's folder is beside it. Missing folders are created, mode 0700.
    """

    def __init__(self, path: str, *, max_bytes: float = float("inf")) -> None:
        self.path = path
        if is_held(path):
            why = "was being written to when this process was forked, so SQLite cannot use it here"
            self.unusable = f"the outbox {path} {why}"
        self._file = Path(path)
        self._folder = self._file.with_suffix(".journal")
        self._presence = Presence(self._folder)
        self._taken_away: Store | None = None
        self._acknowledgements = OnDemand(
            lambda: Acknowledgements(self._folder, self._owner.id, self.store.identity), Acknowledgements.close
        )
        journal = FileJournal(self._folder, max_bytes, check=self._check)
        super().__init__(journal, self._open, lambda: FileOwner(f"{path}.owners"), max_bytes=max_bytes)

    def _check(self) -> None:
        """Refuse the folder of another machine, and migrate a store of an earlier version before the first log.

        A process of that version may still be running: it would take a record with a checksum for a torn one, and skip
        it. It leaves a migrated store alone.
        """
        self._presence.beat()
        version = version_of(self._file)
        if version is not None and 0 < version < len(MIGRATIONS):
            try:
                with waiting_at_most():
                    self.store.marks()
            except sqlite3.Error as error:
                words = "was made by an earlier athina_trace and cannot be migrated now"
                raise OutboxError(f"the outbox {self.path} {words} ({error})") from error

    def _open(self) -> Store:
        if self.unusable is not None:
            raise OutboxError(self.unusable)
        files.make_folder(self._file.parent)
        files.make_folder(self._folder)
        self._presence.check()
        # Created here because SQLite would let the umask decide who may read it. An existing file is not opened, since
        # this process may have it open already, and would lose SQLite's locks: see `version_of`.
        if self._file.is_symlink() or not self._file.is_file():
            os.close(files.open_private(self._file, os.O_RDWR | os.O_CREAT))
        for name in (self.path, f"{self.path}-wal", f"{self.path}-shm"):
            files.check_file(Path(name))
        store = Store(self.path)
        store.is_shared = lambda: not cast("FileOwner", self._owner).is_alone()
        return store

    @property
    def store(self) -> Store:
        """The store, opened when the engine first needs it."""
        return cast("Store", super().store)

    def _make_room(self) -> int:
        # Collected entries take space twice before their segment is deleted: in the store's log and in the store.
        disk = files.disk_of(self._folder)
        if disk.free < disk.reserve:
            self.quota.drop_delivered(before=float("inf"))
        if disk.free < disk.reserve / 2 and self.store.oldest_waiting() < float("inf"):
            return 0
        return int(min(COLLECT_BYTES, max(_LEAST_COLLECTED_BYTES, disk.free / 8)))

    def all_delivered(self, entries: Sequence[tuple[Stored, str | None]], now: float, *, keep: bool) -> None:
        # Keeping an entry makes SQLite write it once more.
        disk = files.disk_of(self._folder)
        super().all_delivered(entries, now, keep=keep and disk.free >= disk.reserve)

    def acknowledge(self, entry: Stored) -> None:
        # In a sender's thread: if the store cannot be read now and we are killed before the next step, the entry is
        # sent twice at worst.
        with suppress(OSError, sqlite3.Error):
            self._acknowledgements.get().add(entry.id, entry.reference)

    def acknowledgements_committed(self, others: Iterable[Stored]) -> None:
        if (opened := self._acknowledgements.opened) is not None:
            opened.committed((entry.id, entry.reference) for entry in others)

    def reclaim(self) -> None:
        self._presence.beat()  # raises if another machine took over meanwhile: then nothing here is ours
        store = self.store
        with store.transaction():
            for owner in {*store.owners(), *acknowledged.owners(self._folder)}:
                if not self._owner.is_alive(owner):
                    store.delete_delivered(acknowledged.read(self._folder, owner, store.reference_of, store.identity))
                    store.release_all(owner)
                    store.on_commit(partial(acknowledged.forget, self._folder, owner))

    def uncollected(self) -> Counts:
        offsets: dict[str, int] | None = None
        waiting = 0
        with suppress(OSError, sqlite3.Error), waiting_at_most():
            offsets = self.store.offsets()
        with suppress(OSError):  # without descriptors, for example, the folder cannot be listed either
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
            self._let_go()  # forget the leases in the store that was taken away
        if self._taken_away is not None and self._has_moved_all(self._taken_away):
            self._taken_away.close()
            self._taken_away = None
        return is_replaced

    def _has_moved_all(self, lost: Store) -> bool:
        """Move waiting entries from a store whose file was taken away, but is still open here, to its replacement.

        Other processes may also have it open: each entry is moved by only one of them. False if this is to be retried.
        """
        try:
            with lost.locked():
                moved = -1
                # A damaged store was quarantined by another process, not taken away.
                while moved and lost.is_connected and lost.is_sound():
                    with lost.transaction(), self.store.transaction():
                        entries = lost.first_waiting(_MOVED_AT_ONCE)
                        self.store.add(list(entries.values()))
                        lost.delete_delivered(list(entries))
                        moved = len(entries)
        except (OSError, sqlite3.Error) as error:
            words = "the outbox %s was deleted or moved, and its waiting logs cannot be moved to the new one (%s)"
            _guard.log_throttled(logging.ERROR, "not moved", words, self.path, error)
            return not is_locked(error) and not isinstance(error, OSError)
        return True

    def _let_go(self) -> None:
        if (opened := self._acknowledgements.take()) is not None:
            opened.close()
        super()._let_go()

    def close(self) -> None:
        owner, is_last = self._lease_owner.opened, False
        with suppress(OSError):
            # Checked before the files are closed: only the owners' file tells whether there are others.
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
        """Rename an unreadable store and SQLite's files beside it; return its new path, or None if another process did.

        The journal stays: entries that were collected but not delivered are collected again if it still holds them.
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
                    return None  # another process has just replaced it
            suffix = time.strftime(".corrupt-%Y%m%d-%H%M%S")
            for name in (f"{self.path}-wal", f"{self.path}-shm", self.path):
                if Path(name).exists():
                    Path(name).rename(name + suffix)
            return self.path + suffix

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Keep other processes from quarantining; False if one is doing so."""
        files.make_folder(self._folder)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            locks.take(folder)
            yield True
        except BlockingIOError:
            yield False
        finally:
            os.close(folder)
