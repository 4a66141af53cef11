"""Who is alive: an owner is a number, and holds a byte lock at that offset of one file for as long as it lives.

The kernel drops such a lock when its process dies, however it dies, and never hands it to a forked child. So a lease
needs no expiry by time: a process that is stopped or slow keeps what it holds, and a dead one holds nothing.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

from athina_trace import _fork
from athina_trace._delivery import locks

_files: dict[str, int] = {}
_mine: set[tuple[str, int]] = set()


class Owner:
    """One holder of leases, alive until `release()` or the end of its process."""

    def __init__(self, path: str) -> None:
        """`path`: the lock file, made if missing. Raises OSError where the file system has no locks."""
        self._path = path
        self.id = random.SystemRandom().randrange(1, 2**60)
        locks.claim(_file(path), self.id)
        _mine.add((path, self.id))

    def is_alive(self, owner: int) -> bool:
        """Whether `owner` (an id, of any process on this machine) still lives."""
        if (self._path, owner) in _mine:
            return True
        if not locks.claim(_file(self._path), owner):
            return True
        locks.disclaim(_file(self._path), owner)
        return False

    def is_current(self) -> bool:
        """Whether others still see the file that holds our lock: it may have been deleted."""
        try:
            return Path(self._path).stat().st_ino == os.fstat(_file(self._path)).st_ino
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Die on purpose: others may take over what this owner holds."""
        if (self._path, self.id) in _mine:
            _mine.discard((self._path, self.id))
            locks.disclaim(_files[self._path], self.id)


class SoleOwner:
    """The owner in a memory that nobody shares."""

    id = 1

    def is_alive(self, owner: int) -> bool:
        """Only this owner ever holds anything."""
        return owner == self.id

    def is_current(self) -> bool:
        """There is no file."""
        return True

    def release(self) -> None:
        """There is nobody to take over."""


def _file(path: str) -> int:
    """This process's one descriptor of a lock file, kept until the file is deleted: closing it drops all its locks."""
    fd = _files.get(path)
    if fd is not None and os.fstat(fd).st_nlink:
        return fd
    if fd is not None:
        os.close(fd)
    _files[path] = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    return _files[path]


def _forget() -> None:
    """In a forked child: the locks are the parent's, and so are the owners."""
    for fd in _files.values():
        os.close(fd)
    _files.clear()
    _mine.clear()


_fork.register("ownership", after_in_child=_forget)
