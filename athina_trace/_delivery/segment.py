"""One segment of the journal, open for writing."""

from __future__ import annotations

import os
from pathlib import Path

from athina_trace import _fork
from athina_trace._delivery import locks

_LOOK_BYTES = 64 * 1024
"""How much a writer writes before it looks again what others have written."""


class Segment:
    """A segment open for writing, closed with its last reference: a thread that writes there holds one."""

    __slots__ = ("_look_at", "about", "fd", "path")

    def __init__(self, path: Path) -> None:
        """Open or make the file and hold it against deletion; `BlockingIOError` where it is just being deleted."""
        self.path = path
        self.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        _segments[id(self)] = self.fd
        locks.share(self.fd)
        self.size()

    def size(self) -> int:
        """Its size in bytes, now."""
        self.about = os.lseek(self.fd, 0, os.SEEK_END)
        self._look_at = self.about + _LOOK_BYTES
        return self.about

    def write(self, record: bytes) -> int:
        """Append `record`; how much of it was taken."""
        written = os.write(self.fd, record)
        # Threads that do this at once may lose count of a record: `about` is no more than that.
        self.about += written
        if self.about >= self._look_at:
            self.size()
        return written

    def is_deleted(self) -> bool:
        return not os.fstat(self.fd).st_nlink

    def __del__(self) -> None:
        if id(self) in _segments:
            os.close(_segments.pop(id(self)))


_segments: dict[int, int] = {}
"""The descriptors of all segments that are open, by the object that closes them."""


def _forget() -> None:
    """In a forked child: let go of what the parent writes to, or its segments would be held for as long as we live."""
    for fd in _segments.values():
        os.close(fd)
    _segments.clear()


_fork.register("segments", after_in_child=_forget)
