"""A segment of the journal: writes records, and reads lines. `journal` describes the format."""

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
"""About how much one collection reads, which bounds its memory, and how long it locks the store."""
TAIL_BYTES = 16
"""How many bytes before the offset are remembered: enough for a checksum of 8 digits."""
_CHECKSUM_BYTES = 9
_NEWLINE = crc32(b"\n")
"""The initial value of a record's checksum."""


class Mark(NamedTuple):
    """How far a segment was collected: the offset in bytes, and the last bytes before it."""

    offset: int = 0
    tail: bytes = b""


class Piece(NamedTuple):
    """Consecutive lines of one segment.

    Attributes:
        segment: the segment's name.
        start: the offset at which the lines begin: the remembered one or, if the segment has changed, the new one.
        mark: where they end.
        entries: the entries of the sound records.
        fingerprints: the CRC-32 of each line.
        damaged: the number of lines that are not sound records.
        kept: if the segment has changed, how many of its lines are still those collected.
        is_last: whether the journal holds nothing more.
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
    """A segment open for writing. It is closed with its last reference, and each thread that writes to it holds one."""

    __slots__ = ("_file", "_look_at", "_look_bytes", "about", "collected", "fd", "path")

    def __init__(self, path: Path, *, look_bytes: float) -> None:
        """Open or create the file, and lock it against deletion.

        `look_bytes`: how much a writer writes before it checks the size again, since others write, too.

        Raises:
            BlockingIOError: the segment is being deleted or replaced.
            OutboxError: the path is a link, or belongs to another user.
            OSError: it cannot be opened or locked.
        """
        self._look_bytes = look_bytes
        self.path = path
        self.collected = 0
        """The collected bytes, as far as this process knows."""
        self._file = _segments[id(self)] = files.HeldFile(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        self.fd = self._file.number
        locks.share(self.fd)
        if not self.is_current():  # deleted or replaced since it was opened
            raise BlockingIOError
        self.size()

    def size(self) -> int:
        """Return the current size in bytes."""
        self.about = os.lseek(self.fd, 0, os.SEEK_END)
        self._look_at = self.about + self._look_bytes
        return self.about

    def write(self, record: bytes) -> int:
        """Append `record`; return how many bytes were written."""
        written = os.write(self.fd, record)
        # Concurrent threads may miscount: `about` is an estimate.
        self.about += written
        if self.about >= self._look_at:
            self.size()
        return written

    def is_current(self) -> bool:
        """Return whether the file is still the one at its path: the folder may have been deleted or replaced."""
        return self._file.is_current()

    def uncollected(self) -> bytes:
        """Return what was written and not collected, wherever the file is by now.

        Empty if the program has closed it: then the file is still in its place.
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
"""The files of all open segments, by the id of the `Segment`."""


def close_after_fork() -> None:
    """Close the parent's segments in a forked child, which would lock them for as long as it lives."""
    for file in _segments.values():
        file.close()
    _segments.clear()


_fork.register("segments", after_in_child=close_after_fork)


def has_tail(path: Path, mark: Mark) -> bool:
    """Return whether a segment still has the remembered bytes before the offset."""
    with path.open("rb") as file:
        file.seek(mark.offset - len(mark.tail))
        return file.read(len(mark.tail)) == mark.tail


def read_lines(path: Path, mark: Mark, fingerprints: Callable[[str], Sequence[int]], stop: int, size: int) -> Piece:
    """Return the complete lines between the mark and about `stop`.

    The first is read whole, however long. What follows the last newline is still being written, or is torn.
    """
    kept: int | None = None
    with path.open("rb") as file:
        file.seek(mark.offset - len(mark.tail))
        if size < mark.offset or file.read(len(mark.tail)) != mark.tail:
            mark, kept = _resume(path, fingerprints(path.name))
            stop = max(mark.offset, min(stop, mark.offset + COLLECT_BYTES))
        file.seek(mark.offset)
        data = file.read(stop - mark.offset)
        # A record may be longer than what is read at once, and must not block the journal forever.
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
    """Return the mark up to which a segment still matches what was collected, and the number of lines up to there."""
    data = path.read_bytes()
    end = kept = 0
    for known in fingerprints:
        start = end
        while data[start : start + 1] == b"\n":
            start += 1
        stop = data.find(b"\n", start)
        line = data[start:stop]
        # A record that lost exactly its checksum looks like one of an earlier version, and would be collected twice.
        if stop < 0 or known not in (crc32(line), crc32(line + b"\t%08x" % crc32(line, _NEWLINE))):
            break
        end, kept = stop + 1, kept + 1
    return Mark(end, data[max(0, end - TAIL_BYTES) : end]), kept


def _decode(line: bytes) -> Entry | None:
    """Return the entry of a sound record, given without newlines; None for any other line."""
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
    # An entry that the store cannot hold would block all others.
    is_sound = isinstance(kind, str) and math.isfinite(seconds)
    return Entry(str(ordering_key), cast("Kind", kind), str(reference), seconds, body) if is_sound else None
