"""Who is alive: an owner is a number, and holds a byte lock at that offset of one file for as long as it lives.

The kernel drops such a lock when its process dies, however it dies. So a lease needs no expiry by time: a process that
is stopped or slow keeps what it holds, and a dead one holds nothing.

A forked child inherits the descriptor, and with it a share of its parent's locks; it closes it first of all. Programs
that are executed never inherit it. Only a child that C code forked without executing anything keeps its parent's locks,
until it ends: what the parent had leased waits as long.
"""

from __future__ import annotations

import os
import random
import threading
from contextlib import suppress
from pathlib import Path

from athina_trace import _fork
from athina_trace._delivery import files, locks


class _OwnersFile(files.HeldFile):
    """This process's one descriptor of an owners' file.

    One for all owners of the process: without description locks, closing any descriptor would drop all their locks.
    """

    def __init__(self, path: str) -> None:
        super().__init__(Path(path), os.O_RDWR | os.O_CREAT)
        self.owners: set[int] = set()
        """The owners of this process: a lock that it holds itself never looks held to it."""


_files: dict[str, _OwnersFile] = {}
_lock = threading.RLock()


class FileOwner:
    """One that leases, alive until `release()` or the end of its process."""

    def __init__(self, path: str) -> None:
        """Make an owner in the file at `path`, which is made if missing.

        Raises:
            OutboxError: the file is another user's, or a link.
            OSError: it cannot be opened, or its file system has no locks.
        """
        self.id = random.SystemRandom().randrange(1, 2**60)
        with _lock:
            known = _files.get(path)
            if known is None or not known.is_current():
                # Opened before the other is closed: where that fails, nothing has changed.
                opened = _files[path] = _OwnersFile(path)
                if known is not None:
                    known.close()
                known = opened
            self._file = known
        locks.claim(self._file.fd, self.id)
        self._file.owners.add(self.id)

    def is_alive(self, owner: int) -> bool:
        """Return whether `owner` (an id, of any process on this machine) still lives."""
        return owner in self._file.owners or locks.is_claimed(self._file.fd, owner)

    def is_alone(self) -> bool:
        """Return whether no other owner is known to live, in this process or another."""
        return self._file.owners <= {self.id} and not locks.is_any_claimed(self._file.fd)

    def is_current(self) -> bool:
        """Return whether others still see our lock: its file may have been deleted, or closed by the program."""
        return self._file.is_current()

    def release(self) -> None:
        """Die on purpose: others may take over what this owner holds."""
        if self.id in self._file.owners:
            self._file.owners.discard(self.id)
            with suppress(OSError):  # it was closed, which has released it already
                locks.disclaim(self._file.fd, self.id)


class SoleOwner:
    """The owner in a memory that no other process shares."""

    id = 1

    def is_alive(self, owner: int) -> bool:
        """Return whether `owner` is this one: no other ever holds anything."""
        return owner == self.id

    def is_current(self) -> bool:
        """Return True: there is no file that could be deleted."""
        return True

    def release(self) -> None:
        """Do nothing: no other could take over."""


def forget_after_fork() -> None:
    """Forget the locks and the owners in a forked child: they are the parent's."""
    global _lock  # noqa: PLW0603 - a thread of the parent's may hold it
    _lock = threading.RLock()
    for file in _files.values():
        file.close()
        file.owners.clear()
    _files.clear()


_fork.register("ownership", after_in_child=forget_after_fork)
