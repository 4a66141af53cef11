r"""The journal: where an entry is committed before the user's call returns. One `write`, no lock between processes.

A journal is a directory of append-only segments, numbered upwards, shared by all processes of one outbox. A record is
one `write` to a file opened with O_APPEND, so that the file's own order is the one order of all records, over threads
and processes. A collector moves records on into the store and remembers, in the store's own transaction, how far it
came: each record is collected exactly once.

    b"\n" <body length> "\t" <header, a JSON array> "\t" <body> "\n"

A record torn by a crash or a full disk fails its own length or lacks its newline, and is skipped: its call never
returned. A segment that has grown to `SEGMENT_BYTES` is *full*: each writer looks at the size now and then (by an
`lseek`; an `fstat` would make the next write store a finer time stamp, which doubles its cost) and moves on to the next
segment. A writer holds a shared lock on its segment for as long as it may still write there, and a full segment is
deleted once nobody does and all of it was collected.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from pydantic_core import from_json, to_json

from athina_trace import _guard
from athina_trace._delivery import locks
from athina_trace._delivery.entry import Entry
from athina_trace._delivery.segment import Segment
from athina_trace.errors import OutboxError, OutboxFullError

SEGMENT_BYTES = 1024 * 1024
"""A segment of this size or more is full. Writers that disagree about it harm nothing: they hold their locks."""
COLLECT_BYTES = 4 * 1024 * 1024
"""About how much one collection reads, which bounds its memory."""

_SUFFIX = ".journal"


class Piece(NamedTuple):
    """Consecutive records of one segment: from the remembered offset up to `end`; `more` stand in the journal."""

    segment: str
    end: int
    entries: list[Entry]
    more: bool = False


class Journal(Protocol):
    """The front of an outbox: takes entries from any thread, gives them to one collector at a time."""

    def put(self, entry: Entry) -> None:
        """Commit `entry`; it survives the process once this returns. Raises `OutboxError`."""

    def read(self, offsets: dict[str, int]) -> Iterator[Piece]:
        """What stands behind `offsets` (segment → bytes collected), oldest first, about `COLLECT_BYTES` of it."""
        ...

    def allow(self, room: float, offsets: dict[str, int]) -> None:
        """Let uncollected entries take `room` bytes; a `put` beyond raises `OutboxFullError`."""

    def collected(self, offsets: dict[str, int]) -> list[str]:
        """Give back the space of what was collected; the segments that are gone."""
        ...

    def close(self) -> None:
        """Let go of files; the journal can be used again and opens them anew."""


class FileJournal:
    """A journal in a directory, which is made by the first `put`. `limit`: as many bytes as `allow` first allows."""

    def __init__(self, folder: Path, limit: float) -> None:
        self._folder = folder
        self._limit = limit
        self._segment: Segment | None = None
        # Only for moving on to another segment. Reentrant: a signal handler or a finalizer may log meanwhile.
        self._lock = threading.RLock()

    def put(self, entry: Entry) -> None:
        lane, kind, reference, made, body = entry
        record = b"\n%d\t%b\t%b\n" % (len(body), to_json((kind, lane, reference, made)), body)
        try:
            segment = self._segment
            if segment is None or segment.about >= SEGMENT_BYTES:
                segment = self._ready()
            if segment.about + len(record) > self._limit:
                raise OutboxFullError(f"the outbox at {self._folder} is full: max_outbox_bytes is reached")
            written = segment.write(record)
        except OutboxError:
            raise
        except OSError as error:
            _guard.pass_on(error)
            raise OutboxError(error.errno, f"cannot write to {self._folder}: {error.strerror}") from error
        if written != len(record):
            raise OutboxError(f"cannot write to {self._folder}: the disk took {written} of {len(record)} bytes")

    def _ready(self) -> Segment:
        """Give a segment that may be written to."""
        segment = self._segment
        if segment is not None and segment.about < SEGMENT_BYTES:
            return segment
        with self._lock:
            if self._segment is segment:  # else another thread has moved on already
                self._segment = self._next()
        return self._ready()

    def _next(self) -> Segment:
        """Open the newest segment, or the first behind it that is not full."""
        self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        segments = self._segments()
        number = int(segments[-1].stem) if segments else 1
        while True:
            with suppress(BlockingIOError):
                segment = Segment(self._folder / f"{number:08d}{_SUFFIX}")
                if segment.size() < SEGMENT_BYTES:
                    return segment
            number += 1

    def read(self, offsets: dict[str, int]) -> Iterator[Piece]:
        # Sizes are taken from the newest segment to the oldest: when a record is within the size that was seen, so is
        # every record that was complete before it, in whichever segment it stands.
        sizes = [(path, path.stat().st_size) for path in reversed(self._present())]
        room = COLLECT_BYTES
        for path, size in reversed(sizes):
            start = offsets.get(path.name, 0)
            if size < start:
                start = 0  # another file under the same name: somebody emptied the folder
            if size == start:
                continue
            end, entries, more = _read(path, start, min(size, start + room), size)
            room -= end - start
            more = more or room <= 0
            yield Piece(path.name, end, entries, more)
            if more:
                return

    def _present(self) -> list[Path]:
        """All segments, oldest first; whoever empties the folder takes our own from us, too."""
        mine = self._segment
        if mine is not None and mine.is_deleted():
            self._let_go(mine)
        return self._segments()

    def allow(self, room: float, offsets: dict[str, int]) -> None:
        # Other processes collect from the present segment while we write there: what counts is how far it may grow.
        *older, newest = [(path.name, path.stat().st_size) for path in self._segments()] or [("", 0)]
        waiting = sum(size - offsets.get(name, 0) for name, size in older)
        self._limit = room - waiting + offsets.get(newest[0], 0)

    def collected(self, offsets: dict[str, int]) -> list[str]:
        segments = self._segments()
        gone = set(offsets) - {path.name for path in segments}
        # The newest segment always stays, full or not: numbers must never start again from one.
        gone |= {path.name for path in segments[:-1] if self._delete(path, offsets.get(path.name, 0))}
        return sorted(gone)

    def _delete(self, path: Path, collected: int) -> bool:
        """Delete a full segment, unless somebody may still write there or it holds uncollected records."""
        mine = self._segment
        if mine is not None and mine.path == path and mine.size() >= SEGMENT_BYTES:
            self._let_go(mine)  # no put may come for long
        fd = os.open(path, os.O_RDONLY)
        try:
            locks.take(fd)
            size = os.fstat(fd).st_size
            if size < SEGMENT_BYTES or b"\n" in os.pread(fd, size - collected, collected):
                return False
            path.unlink()
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True

    def _let_go(self, segment: Segment) -> None:
        with self._lock:
            if self._segment is segment:
                self._segment = None

    def _segments(self) -> list[Path]:
        """All segments, oldest first."""
        try:
            # Another name may hold bytes that are no text, which the store could not remember.
            return sorted(path for path in self._folder.iterdir() if path.suffix == _SUFFIX and path.stem.isdecimal())
        except FileNotFoundError:
            return []

    def close(self) -> None:
        self._segment = None


class MemoryJournal:
    """A journal that lives and dies with the process."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._bytes = 0
        self._lock = threading.RLock()
        self._entries: deque[Entry] = deque()

    def put(self, entry: Entry) -> None:
        with self._lock:
            if self._bytes + len(entry.body) > self._limit:
                raise OutboxFullError("the outbox in memory is full: max_outbox_bytes is reached")
            self._bytes += len(entry.body)
            self._entries.append(entry)

    def allow(self, room: float, offsets: dict[str, int]) -> None:  # noqa: ARG002 - `read` keeps count
        self._limit = room

    def read(self, offsets: dict[str, int]) -> Iterator[Piece]:
        with self._lock:
            entries = list(self._entries)
            self._entries.clear()
            self._bytes = 0
        if entries:
            yield Piece("memory", offsets.get("memory", 0) + len(entries), entries)

    def collected(self, offsets: dict[str, int]) -> list[str]:  # noqa: ARG002 - memory is given back by `read`
        return []

    def close(self) -> None: ...


def _read(path: Path, start: int, stop: int, size: int) -> tuple[int, list[Entry], bool]:
    """The whole records between `start` and about `stop`, where the last of them ends, and whether more may follow.

    The first record is read whole, however long. What follows the last newline is still being written, or torn.
    """
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(stop - start)
        while b"\n" not in data[1:] and start + len(data) < size:
            data += file.read(min(COLLECT_BYTES, size - start - len(data)))
    end = data.rfind(b"\n") + 1
    return start + end, list(_decode(data[:end].split(b"\n"))), start + len(data) < size


def _decode(lines: Iterable[bytes]) -> Iterator[Entry]:
    for line in lines:
        length, _, rest = line.partition(b"\t")
        header, _, body = rest.partition(b"\t")
        if not body or not length.isdigit() or int(length) != len(body):
            continue  # an empty line between two records, or a torn record
        try:
            kind, lane, reference, made = from_json(header)
        except ValueError:
            continue
        yield Entry(lane, kind, reference, made, body)
