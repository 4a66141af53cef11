"""The outbox on disk: journal segments and a SQLite file beside them, shared by every process that opens the path."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from athina_trace._delivery import acknowledged, locks
from athina_trace._delivery.acknowledged import Answers
from athina_trace._delivery.entry import Stored
from athina_trace._delivery.journal import FileJournal
from athina_trace._delivery.outbox import Outbox
from athina_trace._delivery.ownership import Owner
from athina_trace._delivery.store import Store


class SqliteOutbox(Outbox):
    """An outbox on disk, shared by all processes that open the same path.

    `path` is the store, a file of mode 0600; the journal's folder stands beside it. Missing folders are made, 0700.
    """

    def __init__(self, path: str, *, max_bytes: float = float("inf")) -> None:
        self.path = path
        self._file = Path(path)
        self._folder = self._file.with_suffix(".journal")
        journal = FileJournal(self._folder, max_bytes)
        super().__init__(journal, self._open, lambda: Owner(f"{path}.owners"), max_bytes=max_bytes)

    def _open(self) -> Store:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        return Store(self.path)

    @cached_property
    def _answers(self) -> Answers:
        return Answers(self._folder, self._owner.id)

    def answered(self, entry: Stored) -> None:
        self._answers.add(entry.id)

    def all_settled(self, others: Iterable[int]) -> None:
        if "_answers" in self.__dict__:
            self._answers.settled(others)

    def _known_owners(self) -> Iterable[int]:
        return acknowledged.owners(self._folder)

    def _answers_of(self, owner: int) -> Iterable[int]:
        return acknowledged.take(self._folder, owner)

    def _let_go(self) -> None:
        if (kept := self.__dict__.pop("_answers", None)) is not None:
            kept.close()
        super()._let_go()

    def set_aside(self) -> str | None:
        """Rename a store that cannot be read, with what belongs to it; its new path, or None where another process did.

        The journal stays: what was collected but not delivered is collected again if it still stands in there.
        """
        was_open = self._opened_store is not None
        if was_open and not self.store.is_current():
            return None
        self._let_go()
        with self._alone() as alone:
            return self._rename() if alone and (was_open or not self._is_readable()) else None

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Keep other processes from doing the same; False where one is at it."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            locks.take(folder)
            yield True
        except BlockingIOError:
            yield False
        finally:
            os.close(folder)

    def _is_readable(self) -> bool:
        try:
            self._open().close()
        except sqlite3.DatabaseError:
            return False
        return True

    def _rename(self) -> str:
        suffix = time.strftime(".corrupt-%Y%m%d-%H%M%S")
        for name in (f"{self.path}-wal", f"{self.path}-shm", self.path):
            if Path(name).exists():
                Path(name).rename(name + suffix)
        return self.path + suffix
