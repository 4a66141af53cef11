"""Who is alive: an owner is a number, and holds a byte lock at that offset of one file for as long as it lives.

The kernel drops such a lock when its process dies, however it dies, and never hands it to a forked child. So a lease
needs no expiry by time: a process that is stopped or slow keeps what it holds, and a dead one holds nothing.
"""

from __future__ import annotations

import fcntl
import os
import random

_files: dict[str, int] = {}
_mine: set[tuple[str, int]] = set()


class Owner:
    """One holder of leases, alive until `release()` or the end of its process."""

    def __init__(self, path: str) -> None:
        """`path`: the lock file, made if missing. Raises OSError where the file system has no locks."""
        self._path = path
        self.id = random.SystemRandom().randrange(1, 2**60)
        fcntl.lockf(_file(path), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self.id)
        _mine.add((path, self.id))

    def is_alive(self, owner: int) -> bool:
        """Whether `owner` (an id, of any process on this machine) still lives."""
        if (self._path, owner) in _mine:
            return True
        try:
            fcntl.lockf(_file(self._path), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, owner)
        except (BlockingIOError, PermissionError):
            return True
        fcntl.lockf(_file(self._path), fcntl.LOCK_UN, 1, owner)
        return False

    def release(self) -> None:
        """Die on purpose: others may take over what this owner holds."""
        if (self._path, self.id) in _mine:
            _mine.discard((self._path, self.id))
            fcntl.lockf(_file(self._path), fcntl.LOCK_UN, 1, self.id)


class SoleOwner:
    """The owner in a memory that nobody shares."""

    id = 1

    def is_alive(self, owner: int) -> bool:
        """Only this owner ever holds anything."""
        return owner == self.id

    def release(self) -> None:
        """There is nobody to take over."""


def _file(path: str) -> int:
    """This process's one descriptor of a lock file. It is never closed: closing any one drops all its locks."""
    if path not in _files:
        _files[path] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return _files[path]


def _forget() -> None:
    """In a forked child: the locks are the parent's, and so are the owners."""
    _files.clear()
    _mine.clear()


os.register_at_fork(after_in_child=_forget)
