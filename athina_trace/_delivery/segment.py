"""One segment of the journal: writing records to it, reading lines from it. `journal` describes the format."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast
from zlib import crc32

from pydantic_core import from_json

from athina_trace import _fork
from athina_trace._delivery import files, locks
from athina_trace._delivery.entry import Entry

if TYPE_CHECKING:
    from athina_trace._delivery.routes import Kind

COLLECT_BYTES = 1024 * 1024
"""About how much one collection reads, which bounds its memory, and how long the store is locked by it."""
TAIL_BYTES = 16
"""How many bytes before the offset are remembered: they hold a checksum of 8 digits."""
_CHECKSUM_BYTES = 9
_NEWLINE = crc32(b"\n")
"""What a record's checksum begins with."""


class Mark(NamedTuple):
    """How far a segment was collected: bytes, and the last of them."""

    offset: int = 0
    tail: bytes = b""


class Piece(NamedTuple):
    """Consecutive lines of one segment.

    Attributes:
        segment: its name.
        start: where the lines begin, bytes from the segment's start: the remembered offset, or where that was wrong.
        mark: where they end.
        entries: what the sound records among them hold.
        fingerprints: the CRC-32 of each line.
        damaged: lines that are no sound records.
        kept: where the remembered offset was wrong, how many lines of the segment are still those collected.
        is_last: whether nothing more was found in the journal.
    """

    segment: str
    start: int
    mark: Mark
    entries: list[Entry]
    fingerprints: array[int]
    damaged: int = 0
    kept: int | None = None
    is_last: bool = True


class Segment:
    """A segment open for writing, closed with its last reference: a thread that writes there holds one."""

    __slots__ = ("_file", "_look_at", "_look_bytes", "about", "collected", "fd", "path")

    def __init__(self, path: Path, *, look_bytes: float) -> None:
        """Open or make the file and hold it against deletion.

        `look_bytes`: how much a writer writes before it looks again what others have written.

        Raises:
            BlockingIOError: the segment is just being deleted, or another takes its place.
            OutboxError: the path is a link, or another user's.
            OSError: it cannot be opened or locked.
        """
        self._look_bytes = look_bytes
        self.path = path
        self.collected = 0
        """How far it was collected, as far as this process knows: bytes."""
        self._file = _segments[id(self)] = files.HeldFile(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        self.fd = self._file.number
        locks.share(self.fd)
        if not self.is_current():  # since it was opened
            raise BlockingIOError
        self.size()

    def size(self) -> int:
        """Return its size in bytes, now."""
        self.about = os.lseek(self.fd, 0, os.SEEK_END)
        self._look_at = self.about + self._look_bytes
        return self.about

    def write(self, record: bytes) -> int:
        """Append `record`; return how much of it was taken."""
        written = os.write(self.fd, record)
        # Threads that do this at once may lose count of a record: `about` is an estimate.
        self.about += written
        if self.about >= self._look_at:
            self.size()
        return written

    def is_current(self) -> bool:
        """Return whether others find it under its path: its folder may have been deleted, or another put there."""
        return self._file.is_current()

    def uncollected(self) -> bytes:
        """Return what was written to it and not collected, wherever its file is by now.

        Nothing where the program has closed it: then the file is where it was.
        """
        try:
            fd = self._file.fd
        except OSError:
            return b""
        return os.pread(fd, self.size() - self.collected, self.collected)

    def __del__(self) -> None:
        with suppress(KeyError):
            _segments.pop(id(self)).close()


_segments: dict[int, files.HeldFile] = {}
"""The files of all segments that are open, by the object that closes them."""


def close_after_fork() -> None:
    """Let go of what the parent writes to, in a forked child: its segments would be held for as long as we live."""
    for file in _segments.values():
        file.close()
    _segments.clear()


_fork.register("segments", after_in_child=close_after_fork)


def has_tail(path: Path, mark: Mark) -> bool:
    """Return whether a segment still holds, before the offset, what was collected."""
    with path.open("rb") as file:
        file.seek(mark.offset - len(mark.tail))
        return file.read(len(mark.tail)) == mark.tail


def read_lines(path: Path, mark: Mark, fingerprints: Callable[[str], Sequence[int]], stop: int, size: int) -> Piece:
    """Return the whole lines between the mark and about `stop`.

    The first is read whole, however long. What follows the last newline is still being written, or torn.
    """
    kept: int | None = None
    with path.open("rb") as file:
        file.seek(mark.offset - len(mark.tail))
        if size < mark.offset or file.read(len(mark.tail)) != mark.tail:
            mark, kept = _resume(path, fingerprints(path.name))
            stop = max(mark.offset, min(stop, mark.offset + COLLECT_BYTES))
        file.seek(mark.offset)
        data = file.read(stop - mark.offset)
        # One record may be longer than what is read at once, and must not stay behind for ever.
        while b"\n" not in data[1:] and mark.offset + len(data) < size:
            data += file.read(min(COLLECT_BYTES, size - mark.offset - len(data)))
    end = data.rfind(b"\n") + 1
    lines = [line for line in data[:end].split(b"\n") if line]
    entries = [entry for entry in map(_decode, lines) if entry is not None]
    return Piece(
        segment=path.name,
        start=mark.offset,
        mark=Mark(mark.offset + end, (mark.tail + data[max(0, end - TAIL_BYTES) : end])[-TAIL_BYTES:]),
        entries=entries,
        fingerprints=array("I", map(crc32, lines)),
        damaged=len(lines) - len(entries),
        kept=kept,
        is_last=mark.offset + len(data) >= size,
    )


def _resume(path: Path, fingerprints: Sequence[int]) -> tuple[Mark, int]:
    """Return where a segment stops being what was collected, and how many lines that leaves."""
    data = path.read_bytes()
    end = kept = 0
    for known in fingerprints:
        start = end
        while data[start : start + 1] == b"\n":
            start += 1
        stop = data.find(b"\n", start)
        line = data[start:stop]
        # A record that lost exactly its checksum looks like one of an earlier version, and would come twice.
        if stop < 0 or known not in (crc32(line), crc32(line + b"\t%08x" % crc32(line, _NEWLINE))):
            break
        end, kept = stop + 1, kept + 1
    return Mark(end, data[max(0, end - TAIL_BYTES) : end]), kept


def _decode(line: bytes) -> Entry | None:
    """Return the entry of a sound record, without its newlines; None for any other line."""
    length, _, rest = line.partition(b"\t")
    header, _, rest = rest.partition(b"\t")
    # A damaged length may have thousands of digits, which `int` refuses.
    if not length.isdigit() or len(length) > len(str(len(line))):
        return None
    size = int(length)
    body, checksum = rest[:size], rest[size:]
    if checksum:
        if checksum != b"\t%08x" % crc32(line[:-_CHECKSUM_BYTES], _NEWLINE):
            return None
    elif len(body) != size or not body or b"\t" in body:
        return None
    try:
        kind, ordering_key, reference, made = from_json(header)
        seconds = float(made)
    except (ValueError, TypeError, OverflowError):
        return None
    # What the store cannot hold would keep all others out of it.
    is_sound = isinstance(kind, str) and math.isfinite(seconds)
    return Entry(str(ordering_key), cast("Kind", kind), str(reference), seconds, body) if is_sound else None
