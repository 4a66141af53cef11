"""A SQLite file: opened on demand, migrated, locked against the other threads of this process, closed before a fork.

No connection survives a fork: SQLite forbids it, and a thread that does not exist in the child may hold its locks. So
all connections are closed before, and reopened when next needed.

Another process may hold SQLite's lock for a long time: a backup, a stopped process, a database browser. The engine
waits for it, and releases this process's own lock between two tries. The program's threads wait for both locks only as
long as `waiting_at_most` allows.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from athina_trace import _fork, _guard
from athina_trace._delivery import files
from athina_trace._delivery.sqlite import sqlite3
from athina_trace.errors import OutboxError

PROGRAM_SECONDS = 0.1
"""How long one of the program's threads may wait for a lock."""
_PATIENT_SECONDS = 10.0
_TRY_SECONDS = 0.005
"""How long SQLite itself waits for another process; meanwhile no other thread of this process gets in."""
_PAUSE_SECONDS = 0.01
_PAGE_BYTES = 4096
_MOST_LOG_BYTES = 1000 * _PAGE_BYTES
"""The write-ahead log is checkpointed at this size, or at a quarter of the reserve for deliveries on a full disk."""
_VACUUM_PAGES = 4096
"""Pages freed at once: others may have to wait meanwhile."""

_NO_SHARED_MEMORY: Final = frozenset({"SQLITE_IOERR_SHMMAP", "SQLITE_IOERR_SHMOPEN", "SQLITE_IOERR_SHMLOCK"})
"""Errors of file systems, such as some of networks and in user space, that map no file into memory (Python 3.11)."""

_thread = threading.local()


@contextmanager
def waiting_at_most(seconds: float = PROGRAM_SECONDS) -> Iterator[None]:
    """Limit how long this thread waits for locks in total; then they raise `sqlite3.OperationalError` ("locked")."""
    before = getattr(_thread, "until", None)
    _thread.until = min(time.monotonic() + seconds, before or float("inf"))
    try:
        yield
    finally:
        _thread.until = before


def is_locked(error: BaseException) -> bool:
    """Return whether an error only means that another process or thread is using the file."""
    return isinstance(error, sqlite3.OperationalError) and ("locked" in str(error) or "busy" in str(error))


def is_corrupt(error: BaseException) -> bool:
    """Return whether an error means that the file is damaged, and cannot be a bug of ours."""
    if isinstance(error, UnicodeDecodeError):  # from SQLite's own message, which quotes the damaged bytes
        return b"malformed" in error.object
    return type(error) in (sqlite3.DatabaseError, sqlite3.IntegrityError) or "Could not decode" in str(error)


def version_of(path: Path) -> int | None:
    """Return the schema version as of the last checkpoint of the file at `path`, without SQLite; 0 if it has none.

    Returns None if this process has the file open, or is opening it: a process that closes any descriptor of a file
    loses all its locks on it. Other processes see by SQLite's locks that the file is in use; without them, the next
    process to close it would delete its log.
    Sources: https://www.sqlite.org/fileformat2.html#user_version_number and
    https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_
    """
    if _is_open(path):
        return None
    lock = Database.lock
    try:
        # Inside `try`: see `Database.locked`.
        if not lock.acquire(timeout=PROGRAM_SECONDS) or _is_open(path):
            return None
        with path.open("rb") as file:
            return int.from_bytes(file.read(64)[60:], "big")
    except OSError:
        return 0
    finally:
        try:  # noqa: SIM105 - see there
            lock.release()
        except RuntimeError:
            pass


def _is_open(path: Path) -> bool:
    return any(database.is_connected and database.path == str(path) for database in list(_open))


class Database:
    """A connection to the file at `path`, shared by all threads of this process."""

    lock = threading.RLock()
    """One for the whole process: held by the thread that is inside SQLite, and during a fork."""

    def __init__(self, path: str, migrations: Sequence[str]) -> None:
        """Open or create the file. `migrations`: entry n migrates it from schema n to n + 1.

        Raises `OutboxError` if the file was made by a newer version of athina_trace, or `sqlite3.Error`.
        """
        self.path = path
        self._migrations = migrations
        self._connection: sqlite3.Connection | None = None
        self._log = "WAL"
        self._inode = 0
        self._descriptors: dict[int, tuple[int, int]] = {}
        self._has_locks = True
        self.is_shared: Callable[[], bool] = lambda: False
        """Whether another process may be using the file."""
        self._is_sound = False
        self._on_commit: list[Callable[[], object]] = []
        with self.locked():
            self._open()
            _open.add(self)

    @property
    def _db(self) -> sqlite3.Connection:
        return self._connection or self._open()

    def _open(self) -> sqlite3.Connection:
        until = _until()
        before = self._look_for_files()
        try:
            self._connection = sqlite3.Connection(
                self.path, isolation_level=None, check_same_thread=False, timeout=_TRY_SECONDS
            )
            while True:
                try:
                    self._prepare(self._connection)
                    break
                except sqlite3.OperationalError as error:
                    # Several processes may be making the file at once.
                    if not is_locked(error) or time.monotonic() >= until:
                        raise
                time.sleep(_PAUSE_SECONDS)
            self._connection.execute("SELECT 1 FROM sqlite_master").fetchall()  # opens the files that SQLite opens late
            self._inode = Path(self.path).stat().st_ino
            found = self._look_for_files()
            self._descriptors = {fd: known for fd, known in found.items() if before.get(fd) != known}
            is_whole = not found or self._identities("", "-wal") <= set(found.values())
            # All connections of a process share the third file, and never reopen it. SQLite's locks are on it, unless
            # it was left behind by an attempt to map it.
            has_log = self._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            self._has_locks = not found or not has_log or self._identities("-shm") <= set(found.values())
        except BaseException as error:
            self.disconnect()
            if self._log != "WAL" or getattr(error, "sqlite_errorname", None) not in _NO_SHARED_MEMORY:
                raise
            with closing(sqlite3.Connection(self.path, isolation_level=None, timeout=_TRY_SECONDS)) as alone:
                # By now its header may say that it has a write-ahead log. Only who has it alone needs no shared memory.
                for setting in ("locking_mode = EXCLUSIVE", "journal_mode = DELETE"):
                    alone.execute(f"PRAGMA {setting}")
            self._log = "DELETE"
            words = (
                "the file system of %s cannot share memory between processes (%s): SQLite uses a rollback journal "
                "there, which is slower; set ATHINA_OUTBOX to a file on a local disk"
            )
            _guard.log_throttled(logging.WARNING, "shared memory", words, self.path, error)
            return self._open()
        if not is_whole:
            self._abandon(self._connection)
            raise sqlite3.OperationalError(f"the program closed a file of {self.path} while it was being opened")
        return self._connection

    def _look_for_files(self) -> dict[int, tuple[int, int]]:
        """Return this process's open descriptors of the database and of SQLite's files beside it."""
        wanted, found = self._identities("", "-wal", "-shm"), dict[int, tuple[int, int]]()
        with suppress(OSError):  # a system that does not list them
            for each in Path("/dev/fd").iterdir() if wanted else ():
                with suppress(OSError):
                    if (known := files.identity(os.fstat(int(each.name)))) in wanted:
                        found[int(each.name)] = known
        return found

    def _identities(self, *suffixes: str) -> set[tuple[int, int]]:
        found = set[tuple[int, int]]()
        for suffix in suffixes:
            with suppress(OSError):
                found.add(files.identity(Path(f"{self.path}{suffix}").stat()))
        return found

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Set up a connection, and migrate an older file to the current schema."""
        version = self._pragma("user_version")
        if version > len(self._migrations):
            raise OutboxError(
                f"the outbox {self.path} has schema {version}, made by a newer athina_trace: upgrade this program, too"
            )
        log_bytes = min(_MOST_LOG_BYTES, files.disk_of(Path(self.path).parent).reserve / 4)
        # An empty file has nothing to lose, and each sync is slow on a busy disk.
        # Not tried again in a file that does without shared memory: other processes would meet it half changed.
        new = ("synchronous = OFF", "auto_vacuum = INCREMENTAL", f"journal_mode = {self._log}")
        first = ("synchronous = NORMAL",) if version else new
        for setting in (
            *first,
            "temp_store = MEMORY",
            # Some builds overwrite deleted data with zeros, via the log: a full disk has no room for that.
            "secure_delete = FAST",
            f"journal_size_limit = {int(log_bytes)}",
            f"wal_autocheckpoint = {int(log_bytes / _PAGE_BYTES)}",
        ):
            connection.execute(f"PRAGMA {setting}")
        if version < len(self._migrations):
            connection.execute("BEGIN IMMEDIATE")
            try:
                # Another process may have migrated the file since.
                for script in self._migrations[self._pragma("user_version") :]:
                    for statement in script.split(";"):
                        connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {len(self._migrations)}")
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
        connection.execute("PRAGMA synchronous = NORMAL")

    def is_inside(self) -> bool:
        """Return whether this thread is inside already: we run on top, in a finalizer or a signal handler."""
        lock: Any = self.lock
        return bool(lock._is_owned())  # noqa: SLF001 - as the library's conditions ask

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other threads of this process out of SQLite within the block."""
        lock = self.lock
        if self.is_inside():
            yield
            return
        try:
            # Inside `try`, since the program's signal handler may raise as soon as the lock is acquired.
            if not lock.acquire(timeout=max(0.0, _until() - time.monotonic())):
                raise sqlite3.OperationalError("database is locked by another thread of this process")
            if self._connection is not None and not self._has_its_files():
                self._abandon(self._connection)
            if self._connection is not None and self._connection.in_transaction:
                # Its thread was interrupted while it ended it. Ours would become part of it, and never be committed.
                words = "a transaction in %s was not ended, and is rolled back: what it changed is done again"
                _guard.log_throttled(logging.WARNING, "transaction", words, self.path)
                self._roll_back()
            yield
        finally:
            # At once, without checking whether it was acquired: a signal handler may raise after any other call.
            try:  # noqa: SIM105 - making a context manager is such a call
                lock.release()
            except RuntimeError:
                pass

    def _has_its_files(self) -> bool:
        """Return whether SQLite's descriptors are still its own: daemons close all open descriptors by number.

        SQLite would write into a file of the program that got one of the numbers.
        """
        try:
            return all(files.identity(os.fstat(fd)) == known for fd, known in self._descriptors.items())
        except OSError:
            return False

    def _abandon(self, connection: sqlite3.Connection) -> None:
        """Never use a connection again, nor let it be closed, which would also write, and close the program's files."""
        self._connection = None
        _abandoned.append(connection)
        # Also at the end of the interpreter, which finalizes all objects it knows.
        with suppress(ImportError):
            import ctypes  # noqa: PLC0415 - for this alone, and not built into every Python

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block as a transaction, which locks out other processes. Nested ones join the outermost."""
        until = _until()
        while True:
            with self.locked():
                if self._db.in_transaction:
                    yield
                    return
                is_inside = False
                try:
                    # Inside `try`, since the program's signal handler may raise as soon as it has begun.
                    self._db.execute("BEGIN IMMEDIATE")
                    is_inside = True
                    if not self._has_locks and self.is_shared():
                        words = (
                            "the program closed the file with SQLite's locks, and another process uses the outbox, too"
                        )
                        raise sqlite3.OperationalError(words)  # noqa: TRY301 - handled like an error of SQLite
                    yield
                    self._before_commit()
                    self._db.execute("COMMIT")
                except BaseException as error:
                    self._roll_back()
                    if is_inside or not is_locked(error) or time.monotonic() >= until:
                        raise
                else:
                    committed, self._on_commit = self._on_commit, []
                    for each in committed:
                        each()
                    return
            time.sleep(_PAUSE_SECONDS)  # our lock is free meanwhile, for a fork or a thread of the program

    def _roll_back(self) -> None:
        self._on_commit.clear()
        self._after_rollback()
        if self._connection is not None:
            with suppress(sqlite3.Error):  # it may have been rolled back already
                self._connection.execute("ROLLBACK")
            # At once, since it locks other processes out.
            if self._connection.in_transaction:
                self.disconnect()

    def on_commit(self, work: Callable[[], object]) -> None:
        """Call `work` once the current transaction is committed, not if it is rolled back."""
        self._on_commit.append(work)

    def _before_commit(self) -> None:
        """Write what is collected during a transaction. Does nothing by default."""

    def _after_rollback(self) -> None:
        """Forget what `_before_commit` would have written. Does nothing by default."""

    @property
    def is_connected(self) -> bool:
        """Whether the file is open now."""
        return self._connection is not None

    def is_current(self) -> bool:
        """Return whether the path still names the open file: it may have been deleted or quarantined."""
        try:
            return Path(self.path).stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def is_sound(self) -> bool:
        """Return whether SQLite finds no damage in the file. This reads all of it, so a sound file is checked once."""
        with self.locked():
            try:
                self._is_sound = self._is_sound or self._db.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
            except Exception as error:  # noqa: BLE001 - the damage may make even the check fail
                return not is_corrupt(error)
            return self._is_sound

    def size(self) -> int:
        """Return the bytes in use, by rows and indexes."""
        with self.locked():
            return (self._pragma("page_count") - self._pragma("freelist_count")) * self._pragma("page_size")

    def give_back(self) -> bool:
        """Return freed pages to the file system, a few thousand at a time; return whether none is left."""
        with self.locked():
            try:
                # `execute` would free one page: it stops after the first step of a statement without columns.
                self._db.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
                done = self._pragma("freelist_count") == 0
                self._db.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if done else 'PASSIVE'})").fetchall()
            except sqlite3.OperationalError as error:
                if not is_locked(error):
                    raise
                return False
            return done

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        with self.locked():
            _open.discard(self)
            self.disconnect()

    def disconnect(self) -> None:
        """Close the file until it is next needed."""
        # Forgotten first: closing may be interrupted, and a closed one can never be used.
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _until() -> float:
    """Return until when this thread may wait, by the monotonic clock."""
    until: float | None = getattr(_thread, "until", None)
    return time.monotonic() + _PATIENT_SECONDS if until is None else until


_open: set[Database] = set()
_inherited: list[Database] = []
"""The parent's databases: kept, so that they are not finalized here, but never used."""
_abandoned: list[sqlite3.Connection] = []
_held: set[str] = set()
"""Files that the parent was using when this process was forked.

SQLite keeps track of its file locks in the process's memory, and no thread here will ever release them.
"""


def is_held(path: str) -> bool:
    """Return whether the file at `path` can never be used in this process."""
    return path in _held


def disconnect_before_fork() -> None:
    """Close every file; give up if a thread stays inside SQLite, since the program must not wait for it."""
    if Database.lock.acquire(timeout=PROGRAM_SECONDS):
        for database in _open:
            database.disconnect()


def unlock_after_fork_in_parent() -> None:
    """Release the lock that `disconnect_before_fork` acquired."""
    with suppress(RuntimeError):  # it was not free in time
        Database.lock.release()


def forget_after_fork_in_child() -> None:
    """Neither use nor finalize the parent's databases."""
    _held.update(database.path for database in _open if database.is_connected)
    _inherited.extend(_open)
    _open.clear()
    Database.lock = threading.RLock()
    _thread.until = None


_fork.register(
    "database",
    before=disconnect_before_fork,
    after_in_parent=unlock_after_fork_in_parent,
    after_in_child=forget_after_fork_in_child,
)
