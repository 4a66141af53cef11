"""One SQLite file: opened when needed, migrated, locked against this process's threads, let go before a fork.

No connection lives through a fork (SQLite forbids it, and its own locks may be held by a thread that the child does not
have): every one is closed before, and opened again when it is next needed.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from athina_trace import _fork
from athina_trace.errors import OutboxError

MEMORY = ":memory:"
_BUSY_SECONDS = 10.0
_FORK_SECONDS = 5.0
_VACUUM_PAGES = 4096
"""Pages given back at once: others may have to wait meanwhile."""


class Database:
    """A connection to the file at `path` (":memory:" for none), for all threads of this process."""

    lock = threading.RLock()
    """One for the process: held by whoever is inside SQLite, and during a fork."""

    def __init__(self, path: str, migrations: Sequence[str]) -> None:
        """Open or make the file. `migrations`: entry n brings it from schema n to n + 1.

        Raises `OutboxError` where the file was made by a newer version of athina_trace, or `sqlite3.Error`.
        """
        self.path = path
        self._migrations = migrations
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        with self.lock:
            self._open()
            _open.add(self)

    @property
    def _db(self) -> sqlite3.Connection:
        return self._connection or self._open()

    def _open(self) -> sqlite3.Connection:
        self._connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS
        )
        try:
            self._prepare(self._connection)
        except BaseException:
            self._disconnect()
            raise
        self._inode = 0 if self.path == MEMORY else Path(self.path).stat().st_ino
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        version = self._pragma("user_version")
        if version > len(self._migrations):
            raise OutboxError(f"the outbox {self.path} has schema {version}, made by a newer athina_trace than this")
        if version == 0:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        for setting in ("journal_mode = WAL", "synchronous = NORMAL", "journal_size_limit = 4194304"):
            connection.execute(f"PRAGMA {setting}")
        if version < len(self._migrations):
            self._migrate(connection)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        with self.transaction():
            for script in self._migrations[self._pragma("user_version") :]:
                for statement in script.split(";"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(self._migrations)}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, with no other process in between. Transactions nest into the outermost one."""
        with self.lock:
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._before_commit()
                self._db.execute("COMMIT")
            except BaseException:
                self._after_rollback()
                with suppress(sqlite3.Error):  # which may have rolled back already
                    self._db.execute("ROLLBACK")
                raise

    def _before_commit(self) -> None:
        """For what is written once for each transaction."""

    def _after_rollback(self) -> None:
        """For what was to be written."""

    def is_current(self) -> bool:
        """Whether the path still leads to the file that is open: it may have been deleted or set aside."""
        try:
            return self.path == MEMORY or Path(self.path).stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def size(self) -> int:
        """Bytes in use, by whatever is stored and its indexes."""
        with self.lock:
            return (self._pragma("page_count") - self._pragma("freelist_count")) * self._pragma("page_size")

    def shrink(self) -> bool:
        """Give freed pages back to the file system, a few thousand at a time; True where none is left."""
        with self.lock:
            # `execute` would free one page: it takes a statement without columns to be done after its first step.
            self._db.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
            done = self._pragma("freelist_count") == 0
            self._db.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if done else 'PASSIVE'})").fetchall()
            return done

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            _open.discard(self)
            self._disconnect()

    def disconnect(self) -> None:
        """Close the file until it is next needed; what is only in memory stays."""
        if self.path != MEMORY:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


_open: set[Database] = set()
_inherited: list[Database] = []
"""What the parent had open: kept, so that nothing of it is finalized here, and never used."""


def _before_fork() -> None:
    if Database.lock.acquire(timeout=_FORK_SECONDS):
        for database in _open:
            database.disconnect()


def _after_fork_in_parent() -> None:
    with suppress(RuntimeError):  # not ours: it was not free in time
        Database.lock.release()


def _after_fork_in_child() -> None:
    _inherited.extend(_open)
    _open.clear()
    Database.lock = threading.RLock()


_fork.register(
    "database", before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)
