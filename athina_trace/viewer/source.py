"""Where the viewer reads: an outbox file and the index beside it, kept up by one thread while somebody looks."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from athina_trace._delivery.sqlite_outbox import SqliteOutbox
from athina_trace.viewer.index import Index, read_only

_POLL_SECONDS = 0.5
_FORGET_SECONDS = 2.0
"""How often at most the outbox is searched for what is gone from it."""
_PAGE_SECONDS = 0.05
"""How long a page may wait for the newest logs."""


class Source:
    """One outbox, to be looked at. `refresh` brings the index up to date; `open` gives a connection that only reads."""

    def __init__(self, path: str) -> None:
        """Open the outbox at `path`, which is made if missing. Raises OSError, `sqlite3.Error` or `OutboxError`."""
        self.path = path
        self.version = 0
        self.behind = 0
        self._lock = threading.Lock()
        self._forgot = float("-inf")
        self._open()

    def _open(self) -> None:
        self._outbox = SqliteOutbox(self.path)
        self._outbox.store.counts()
        self._file = self._identity()
        self._index_path, self._index = self._open_index()
        self._changed, self._dirty = -1, True
        self.version += 1

    def _identity(self) -> int:
        """What tells one file from the next under the same name; 0 where there is none."""
        try:
            return Path(self.path).stat().st_ino
        except FileNotFoundError:
            return 0

    def _follow(self) -> None:
        """Turn to the file that stands there now, where somebody replaced or deleted the one that was opened."""
        if self._identity() != self._file:
            self._close()
            self._open()

    def _open_index(self) -> tuple[str, Index]:
        beside = str(Path(self.path).with_suffix(".view"))
        try:
            return beside, Index(beside, self.path)
        except (OSError, sqlite3.OperationalError):
            elsewhere = str(Path(tempfile.mkdtemp(prefix="athina_trace-")) / "outbox.view")
            return elsewhere, Index(elsewhere, self.path)

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """A connection to the index, the outbox attached as `box`: neither can be written to."""
        db = sqlite3.connect(read_only(self._index_path), uri=True, isolation_level=None, timeout=10.0)
        try:
            db.row_factory = sqlite3.Row
            db.execute("ATTACH ? AS box", (read_only(self.path),))
            db.execute("PRAGMA query_only = 1")
            db.execute("BEGIN")  # one moment in time for everything that a page shows
            yield db
        finally:
            db.close()

    def refresh(self, *, chunks: float = float("inf")) -> bool:
        """Take in what is new, up to so many chunks; True once nothing new is left."""
        with self._lock:
            self._follow()
            self._collect()
            self._index.check()
            while chunks > 0 and self._index.take():
                chunks -= 1
                self.version += 1
            self.behind = self._index.behind()
            self._notice()
        return self.behind == 0

    def _collect(self) -> None:
        """Move what was just logged into the outbox file, as the running program itself does at its leisure."""
        if any(size != self._known(name) for name, size in self._segments()):
            while self._outbox.collect():
                pass

    def _segments(self) -> Iterator[tuple[str, int]]:
        for path in Path(self.path).with_suffix(".journal").glob("*.journal"):
            yield path.name, path.stat().st_size

    def _known(self, segment: str) -> int:
        return self._outbox.store.offsets().get(segment, 0)

    def _notice(self) -> None:
        """Other writers' changes: logs that were delivered, refused or deleted."""
        changed = self._index.changed()
        if changed != self._changed:
            self._changed, self._dirty = changed, True
            self.version += 1
        if self._dirty and time.monotonic() - self._forgot >= _FORGET_SECONDS:
            self._index.forget()
            self._dirty, self._forgot = False, time.monotonic()

    def forget(self) -> None:
        """Let the index forget, now and wholly, what was deleted from the outbox."""
        with self._lock:
            self._index.clear()

    def close(self) -> None:
        """Let go of both files."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        self._index.close()
        self._outbox.close()


class Keeper:
    """The thread that keeps a source fresh for as long as somebody looks at its pages."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._wanted = threading.Event()
        self._done = threading.Event()
        self._nobody_reads = threading.Event()
        self._nobody_reads.set()
        self._readers = 0
        self._lock = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="athina-trace-viewer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and close the source."""
        self._stopping = True
        self._wanted.set()
        self._thread.join(10.0)
        self.source.close()

    def look(self) -> None:
        """Ask for the newest logs, and wait for them, though not for long: a large backlog comes in behind the page."""
        self._done.clear()
        self._wanted.set()
        if not self.source.behind:
            self._done.wait(_PAGE_SECONDS)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for a page, with the newest logs; what is still to be read in steps aside meanwhile."""
        self.look()
        self._count(1)
        try:
            with self.source.open() as db:
                yield db
        finally:
            self._count(-1)

    def _count(self, by: int) -> None:
        with self._lock:
            self._readers += by
            (self._nobody_reads.clear if self._readers else self._nobody_reads.set)()

    def _run(self) -> None:
        while not self._stopping:
            self._nobody_reads.wait(_POLL_SECONDS)
            fresh = self._refresh()
            if fresh:
                self._done.set()
                self._wanted.wait()
            self._wanted.clear()

    def _refresh(self) -> bool:
        try:
            return self.source.refresh(chunks=1)
        except (OSError, sqlite3.Error):
            time.sleep(_POLL_SECONDS)  # the outbox is busy, or was just replaced: the next look tries again
            return True
