r"""The journal: commits an entry before the user's call returns, with one `write` and no lock between processes.

A journal is a directory of append-only segments with ascending numbers, shared by all processes of an outbox. A record
is one `write` to a file opened with O_APPEND, so that the file has one order of all records, of all threads and
processes. A collector moves records into the store, and remembers its offset in the same transaction: each record is
collected exactly once.

    b"\n" <body length> "\t" <header, a JSON array> "\t" <body> "\t" <CRC-32 of all before this tab, 8 hex digits> "\n"

A record that was torn by a crash or a full disk, or damaged later, has a wrong length or checksum, or lacks its newline
or part of its checksum; it is skipped and counted, so that no altered body is ever sent. Records of earlier versions
end with the body, and are still read: a body never holds a raw tab, so a record with a checksum whose length is damaged
is not mistaken for one of them.

A power failure or a restored backup can leave a segment shorter than its collected part, or put another file in its
place, which then grows. So the store remembers the last bytes before the offset, and a fingerprint of each line. If
the bytes differ, collecting resumes at the first line that differs from the remembered ones.

A segment of `SEGMENT_BYTES` (less in a small outbox) is *full*: writers check the size from time to time (with `lseek`;
an `fstat` would make the next write store a finer time stamp, which doubles its cost) and move on to the next segment.
A writer holds a shared lock on its segment as long as it may write to it. A segment other than the newest is deleted
once no process holds it and all of it is collected.

The file `room` beside the segments holds the bytes that the store takes and how far it has collected: that is how the
first call of a short program knows how much room is left.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from zlib import crc32

from pydantic_core import from_json, to_json

from athina_trace import _guard
from athina_trace._delivery import files, locks
from athina_trace._delivery.entry import Entry
from athina_trace._delivery.segment import COLLECT_BYTES, Mark, Piece, Segment, has_tail, read_lines
from athina_trace.errors import OutboxError, OutboxFullError

SEGMENT_BYTES = 2 * 1024 * 1024
"""A segment of this size or more is full. Writers may disagree about it without harm, thanks to their locks."""
_LEAST_SEGMENT_BYTES = 8 * 1024
_SEGMENTS = 8
"""A small outbox has at least so many segments: its limit is only observed to within one segment."""
_LOOK_BYTES = 64 * 1024
"""How much a writer writes before it checks the size of the segment, to which others write, too."""
_LOOK_SECONDS = 0.02
"""How often a writer that has no room checks for room again."""

_SUFFIX = ".journal"
_NAME = re.compile(r"[0-9]{8}\.journal")


class Journal(Protocol):
    """The front of an outbox: any thread puts entries, one collector at a time reads them."""

    def put(self, entry: Entry) -> None:
        """Commit `entry`; it survives the process once this returns. Raises `OutboxError`."""

    def read(
        self, marks: Mapping[str, Mark], fingerprints: Callable[[str], Sequence[int]], room: int = COLLECT_BYTES
    ) -> Iterator[Piece]:
        """Return what follows the `marks` of the segments, oldest first, about `room` bytes.

        `fingerprints` returns those of all collected lines of a segment.
        """
        ...

    def collected(self, offsets: dict[str, int]) -> list[str]:
        """Free the space of the collected bytes of each segment; return the segments that no longer exist."""
        ...

    def allow(self, taken: float, offsets: dict[str, int]) -> None:
        """Recompute the room left if the store takes `taken` bytes; if it is used up, `put` raises `OutboxFullError`.

        `offsets`: the collected bytes of each segment.
        """

    def close(self) -> None:
        """Close all files; using the journal again reopens them."""


def _full_bytes(room: float) -> float:
    """Return the size of a full segment, such that several fit into `room` bytes."""
    return min(SEGMENT_BYTES, max(_LEAST_SEGMENT_BYTES, room / _SEGMENTS))


class FileJournal:
    """A journal in a directory, which the first `put` creates; `limit` bounds its uncollected bytes plus the store's.

    `check` is called before a segment is opened, and raises OSError if the directory must not be used.
    """

    def __init__(self, folder: Path, limit: float, *, check: Callable[[], None] = lambda: None) -> None:
        self._folder = folder
        self._check = check
        self._limit = limit
        self._segment_bytes = _full_bytes(limit)
        self._segment: Segment | None = None
        self._may_reach = limit
        """The size up to which the current segment may grow: the lesser of what `limit` and the disk allow."""
        self._disk_reaches = float("inf")
        self._looked = float("-inf")
        # Only for switching segments. Reentrant, since a signal handler or a finalizer may log meanwhile.
        self._lock = threading.RLock()

    def put(self, entry: Entry) -> None:
        ordering_key, kind, reference, made, body = entry
        record = b"\n%d\t%b\t%b" % (len(body), to_json((kind, ordering_key, reference, made)), body)
        record += b"\t%08x\n" % crc32(record)  # chaining the checksums of two parts would cost more than this copy
        size = len(record)
        try:
            segment = self._segment
            if segment is None or segment.about >= self._segment_bytes:
                segment = self._ready()
            if segment.about + size > self._may_reach:
                self._require_room(segment, size)
            written = segment.write(record)
        except OutboxError:
            raise
        except OSError as error:
            _guard.raise_if_the_programs(error)
            closed = self._segment
            if error.errno == errno.EBADF and closed is not None and not closed.is_current():
                self._let_go(closed)  # the program has closed it: another is opened
                self.put(entry)
                return
            raise OutboxError(error.errno, f"cannot write to {self._folder}: {error.strerror}") from error
        if written != size:
            raise OutboxError(f"cannot write to {self._folder}: only {written} of {size} bytes were written")

    def _ready(self) -> Segment:
        """Return a writable segment: the newest, or the first after it that is not full."""
        with self._lock:
            segment = self._segment
            if segment is not None and segment.about < self._segment_bytes:
                return segment  # another thread has moved on already
            # Once per segment, not per put: folders are rarely created or removed.
            files.make_folder(self._folder.parent)
            files.make_folder(self._folder)
            self._check()
            # A put does not check the disk, so the reserve is only kept to about one segment per process.
            self._segment_bytes = _full_bytes(min(self._limit, files.disk_of(self._folder).reserve))
            segments = self._segments()
            number = int(segments[-1].stem) if segments else 1
            if segment is not None and segments and segment.path == segments[-1]:
                number += 1  # our own is full: reopening it would take as long as creating the next one
            while True:
                path = self._folder / f"{number:08d}{_SUFFIX}"
                number += 1
                if path in segments or not os.path.lexists(path):  # else something that is not a segment is there
                    with suppress(BlockingIOError):
                        segment = Segment(path, look_bytes=min(_LOOK_BYTES, self._segment_bytes / 2))
                        if segment.size() < self._segment_bytes:
                            break
            self._allow(segment, *self._published(), segments)
            self._segment = segment
            return segment

    def _require_room(self, segment: Segment, size: int) -> None:
        """Check for room again, at intervals, since others may have delivered. Raises `OutboxError` if it is full."""
        if abs(time.monotonic() - self._looked) >= _LOOK_SECONDS:
            self._looked = time.monotonic()
            self._allow(segment, *self._published(), self._segments())
        if segment.about + size > self._disk_reaches:
            words = f"cannot write to {self._folder}: the disk is full, except for a reserve for deliveries"
            raise OutboxError(errno.ENOSPC, words)
        if segment.about + size > self._may_reach:
            raise OutboxFullError(f"the outbox at {self._folder} is full: max_outbox_bytes is reached")

    def _allow(self, segment: Segment, taken: float, offsets: Mapping[str, int], segments: Sequence[Path]) -> None:
        waiting = 0
        for path in segments:
            if path != segment.path:
                with suppress(FileNotFoundError):
                    waiting += max(0, path.stat().st_size - offsets.get(path.name, 0))
        disk = files.disk_of(self._folder)
        self._disk_reaches = segment.about + disk.free - disk.reserve
        self._may_reach = min(self._limit - taken - waiting + offsets.get(segment.path.name, 0), self._disk_reaches)

    def allow(self, taken: float, offsets: dict[str, int]) -> None:
        segment = self._segment
        if segment is not None:
            self._allow(segment, taken, offsets, self._segments())
        # Published for other processes, which can do without it: a full disk must not prevent deliveries.
        if self._limit != float("inf") and self._folder.exists():
            with suppress(OSError):
                # Written under another name first, so that writers never read half of it.
                beside = self._folder / f"room.{os.getpid()}"
                fd = files.open_private(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                try:
                    os.write(fd, to_json((taken, offsets)))
                finally:
                    os.close(fd)
                beside.replace(self._folder / "room")

    def _published(self) -> tuple[float, dict[str, int]]:
        """Return the bytes that the store takes and how far it has collected, as an engine last published them."""
        path = self._folder / "room"
        if self._limit == float("inf"):
            return 0.0, {}
        try:
            files.check_file(path)
            taken, offsets = from_json(path.read_bytes())
            # We never write an infinite number, which `int` refuses.
            return float(int(taken)), {str(name): int(offset) for name, offset in offsets.items()}
        except (OSError, ValueError, TypeError, AttributeError, OverflowError) as error:
            _guard.raise_if_the_programs(error)
            return 0.0, {}  # no engine has published it yet, or the file is not ours

    def read(
        self, marks: Mapping[str, Mark], fingerprints: Callable[[str], Sequence[int]], room: int = COLLECT_BYTES
    ) -> Iterator[Piece]:
        # Sizes are read from the newest segment to the oldest: if a record is within the size that was read, so is
        # every record that was complete before it, in whichever segment.
        sizes = [(path, path.stat().st_size) for path in reversed(self._present(marks))]
        newest = sizes[0][0] if sizes else None
        for path, size in reversed(sizes):
            mark = marks.get(path.name, Mark())
            try:
                if size == mark.offset and has_tail(path, mark):
                    continue
                piece = read_lines(path, mark, fingerprints, min(size, mark.offset + room), size)
            except OSError as error:
                if path == newest:
                    raise  # new logs go into it
                # A bad spot on the disk must not block what the other segments and the store hold.
                words = "%s cannot be read (%s): its logs wait until it can be, and newer logs may be sent before them"
                _guard.log_throttled(logging.ERROR, "unreadable segment", words, path, error)
                yield Piece(path.name, mark.offset, mark, [], array("I"), is_last=False)
                continue
            room -= piece.mark.offset - piece.start
            if room <= 0 and piece.is_last:
                piece = piece._replace(is_last=False)
            yield piece
            if not piece.is_last:
                return

    def uncollected(self, offsets: Mapping[str, int] | None) -> int:
        """Return how many records are behind `offsets`; None where the store cannot say what those are."""
        offsets = self._published()[1] if offsets is None else offsets
        newlines = 0
        for path in self._segments():
            with suppress(OSError), path.open("rb") as file:
                file.seek(offsets.get(path.name, 0))
                while data := file.read(COLLECT_BYTES):
                    newlines += data.count(b"\n")
        return newlines // 2

    def _present(self, marks: Mapping[str, Mark]) -> list[Path]:
        """Return all segments, oldest first. If ours was removed with its folder, write its content again."""
        with self._lock:
            mine = self._segment
            if mine is not None and mine.is_current():
                mine.collected = max(mine.collected, marks.get(mine.path.name, Mark()).offset)
            elif mine is not None:
                self._segment, lost = None, mine.uncollected()
                try:
                    if lost and self._ready().write(lost) < len(lost):
                        raise OutboxError(errno.ENOSPC, f"cannot write to {self._folder}: the disk is full")  # noqa: TRY301
                except BaseException:
                    self._segment = mine
                    raise
        return self._segments()

    def collected(self, offsets: dict[str, int]) -> list[str]:
        segments = self._segments()
        gone = set(offsets) - {path.name for path in segments}
        # The newest segment always stays, full or not, so that numbers keep ascending.
        gone |= {path.name for path in segments[:-1] if self._delete(path, offsets.get(path.name, 0))}
        return sorted(gone)

    def _delete(self, path: Path, collected: int) -> bool:
        """Delete a segment, unless a process may still write to it or it holds uncollected records."""
        mine = self._segment
        if mine is not None and mine.path == path and mine.size() >= self._segment_bytes:
            self._let_go(mine)  # the next put, which would do that, may be long in coming
        fd = os.open(path, os.O_RDONLY)
        try:
            locks.take(fd)
            if b"\n" in os.pread(fd, os.fstat(fd).st_size - collected, collected):
                return False
            path.unlink()
        except OSError:  # it is locked, or cannot be read
            return False
        finally:
            os.close(fd)
        return True

    def _let_go(self, segment: Segment) -> None:
        with self._lock:
            if self._segment is segment:
                self._segment = None

    def _segments(self) -> list[Path]:
        """Return all segments, oldest first."""
        try:
            with os.scandir(self._folder) as found:
                # Other names may not be valid text, which the store could not hold. A folder or a pipe cannot be read,
                # and a link may lead anywhere.
                names = [
                    each.name for each in found if _NAME.fullmatch(each.name) and each.is_file(follow_symlinks=False)
                ]
        except FileNotFoundError:
            return []
        return [self._folder / name for name in sorted(names)]

    def close(self) -> None:
        self._segment = None


class MemoryJournal:
    """A journal in the memory of the process. It has one segment, whose offsets are numbers of entries."""

    name = "memory"

    def __init__(self, limit: float) -> None:
        self._limit = self._allowed = limit
        self._bytes = 0
        self._lock = threading.RLock()
        self._first = 0
        """The number of the oldest entry still held."""
        self._entries: deque[Entry] = deque()

    def put(self, entry: Entry) -> None:
        with self._lock:
            if self._bytes + len(entry.body) > self._allowed:
                raise OutboxFullError("the outbox in memory is full: max_outbox_bytes is reached")
            self._bytes += len(entry.body)
            self._entries.append(entry)

    def allow(self, taken: float, offsets: dict[str, int]) -> None:  # noqa: ARG002 - `collected` keeps count
        self._allowed = self._limit - taken

    def read(
        self,
        marks: Mapping[str, Mark],
        fingerprints: Callable[[str], Sequence[int]],  # noqa: ARG002
        room: int = COLLECT_BYTES,  # noqa: ARG002
    ) -> Iterator[Piece]:
        start = marks.get(self.name, Mark()).offset
        # Entries stay until `collected`, since the transaction that stores them may fail.
        with self._lock:
            entries = list(self._entries)[start - self._first :]
        if entries:
            yield Piece(self.name, start, Mark(start + len(entries)), entries, array("I"))

    def collected(self, offsets: dict[str, int]) -> list[str]:
        with self._lock:
            while self._first < offsets.get(self.name, 0):
                self._bytes -= len(self._entries.popleft().body)
                self._first += 1
        return []

    def close(self) -> None: ...
