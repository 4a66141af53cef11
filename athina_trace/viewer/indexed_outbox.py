"""An outbox file with its index, kept up to date by one thread while pages are open."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from athina_trace._delivery.sqlite import sqlite3
from athina_trace._delivery.sqlite_outbox import SqliteOutbox
from athina_trace.viewer.index import Index, read_only

_POLL_SECONDS = 0.5
_CLEANUP_SECONDS = 2.0
"""Minimum time between two searches of the index for logs that are no longer in the outbox."""
_PAGE_SECONDS = 0.05
"""How long a page waits for the newest logs."""
_FIRST_PAGE_SECONDS = 5.0
"""How long the first page waits, since it imports the modules; with a large backlog, it does not wait."""
_LARGE_BACKLOG = 1000


class IndexedOutbox:
    """One outbox, open for reading.

    Attributes:
        path: the outbox file.
        version: changes whenever a page may have changed.
        backlog: approximate number of entries that the index has not read yet.
    """

    def __init__(self, path: str) -> None:
        """Open the outbox at `path`, created if missing. Raises OSError, `sqlite3.Error` or `OutboxError`."""
        self.path = path
        self.version = 0
        self.backlog = 0
        self._lock = threading.Lock()
        self._cleaned = float("-inf")
        self._open_files()

    def _open_files(self) -> None:
        self._outbox = SqliteOutbox(self.path)
        self._outbox.store.counts()  # makes the file and its tables
        self._inode = self._current_inode()
        try:
            self._index = Index(str(Path(self.path).with_suffix(".view")), self.path)
        except (OSError, sqlite3.OperationalError):  # a folder that may be read but not written to
            self._index = Index(str(Path(tempfile.mkdtemp(prefix="athina_trace-")) / "outbox.view"), self.path)
        self._outbox_version, self._may_have_deletions = -1, True
        self.version += 1

    def _current_inode(self) -> int:
        try:
            return Path(self.path).stat().st_ino
        except FileNotFoundError:
            return 0

    def _close_files(self) -> None:
        self._index.close()
        self._outbox.close()

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """Connect to the index, with the outbox attached as `box`; both are read-only."""
        db = sqlite3.Connection(read_only(self._index.path), uri=True, isolation_level=None, timeout=10.0)
        try:
            db.row_factory = sqlite3.Row
            db.execute("ATTACH ? AS box", (read_only(self.path),))
            db.execute("PRAGMA query_only = 1")
            db.execute("BEGIN")  # one snapshot for everything that a page shows
            yield db
        finally:
            db.close()

    def refresh(self, *, chunks: float = float("inf")) -> bool:
        """Read new entries, in at most `chunks` transactions; return whether none are left."""
        with self._lock:
            if self._current_inode() != self._inode:  # the file was replaced or deleted: follow the name
                self._close_files()
                self._open_files()
            self._collect_journal()
            self._index.clear_if_replaced()
            while chunks > 0 and self._index.ingest():
                chunks -= 1
                self.version += 1
            self.backlog = self._index.backlog()
            outbox_version = self._index.outbox_version()
            if outbox_version != self._outbox_version:  # another process delivered, refused or deleted logs
                self._outbox_version, self._may_have_deletions = outbox_version, True
                self.version += 1
            if self._may_have_deletions and time.monotonic() - self._cleaned >= _CLEANUP_SECONDS:
                self._index.remove_deleted()
                self._may_have_deletions, self._cleaned = False, time.monotonic()
        return self.backlog == 0

    def _collect_journal(self) -> None:
        """Move new logs from the journal into the outbox file, like the program's own engine."""
        collected = self._outbox.store.offsets()
        segments = Path(self.path).with_suffix(".journal").glob("*.journal")
        # Compare first, since collecting takes the write lock, and pages ask twice a second.
        if any(each.stat().st_size != collected.get(each.name, 0) for each in segments):
            self._outbox.collect_all()

    def clear_index(self) -> None:
        """Empty the index, so that no texts of logs that were just deleted from the outbox stay in it."""
        with self._lock:
            self._index.clear()

    def close(self) -> None:
        """Close both files."""
        with self._lock:
            self._close_files()


class ReadSnapshot(NamedTuple):
    """A consistent view for one page.

    Attributes:
        db: a connection that sees the index and the outbox at one moment.
        version: the outbox's version, no later than that moment.
        backlog: approximate number of entries that the index has not read yet.
    """

    db: sqlite3.Connection
    version: int
    backlog: int


class Refresher:
    """The thread that keeps an outbox's index up to date while its pages are open."""

    def __init__(self, outbox: IndexedOutbox) -> None:
        self.outbox = outbox
        # Numbers rather than events, since a refresh that began before a request does not satisfy it.
        self._changed = threading.Condition()
        self._requested = 0
        self._answered = 0
        self._no_readers = threading.Event()
        self._no_readers.set()
        self._readers = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="athina-trace-viewer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and close the outbox."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(10.0)
        self.outbox.close()

    def request(self) -> None:
        """Ask for the newest logs and wait for them, but not for long: a large backlog is read in the background."""
        with self._changed:
            self._requested += 1
            number = self._requested
            self._changed.notify_all()
            if not self.outbox.backlog or not self._answered:
                self._changed.wait_for(
                    lambda: self._answered >= number or self.outbox.backlog > _LARGE_BACKLOG,
                    _PAGE_SECONDS if self._answered else _FIRST_PAGE_SECONDS,
                )

    @contextmanager
    def reading(self) -> Iterator[ReadSnapshot]:
        """Yield a snapshot for one page, with the newest logs."""
        self.request()
        self._count_readers(1)
        try:
            with self.outbox.open() as db:
                yield ReadSnapshot(db, self.outbox.version, self.outbox.backlog)
        finally:
            self._count_readers(-1)

    def _count_readers(self, change: int) -> None:
        # Reading a backlog competes with pages for the interpreter's lock, so it pauses while there are readers.
        with self._changed:
            self._readers += change
            (self._no_readers.clear if self._readers else self._no_readers.set)()

    def _run(self) -> None:
        while not self._stopping:
            self._no_readers.wait(_POLL_SECONDS)
            with self._changed:
                number = self._requested
            try:
                is_current = self.outbox.refresh(chunks=1)
            except (OSError, sqlite3.Error):  # busy, or just replaced: the next request tries again
                time.sleep(_POLL_SECONDS)
                is_current = True
            with self._changed:
                self._answered = number if is_current else self._answered
                self._changed.notify_all()
                if is_current:
                    self._changed.wait_for(lambda: self._stopping or self._requested > self._answered)
