"""Owners of leases: an owner is a number, and holds a byte lock at that offset of a file as long as it lives.

The kernel drops the lock when the process dies, however it dies. So a lease needs no timeout: a stopped or slow process
keeps its leases, and a dead one has none.

A forked child inherits the descriptor, and with it a share of its parent's locks, so it closes it first of all.
Executed programs never inherit it. Only a child that C code forked without an exec keeps its parent's locks until it
ends: until then, nobody takes over the parent's leases.
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
    """The only descriptor of an owners' file in this process.

    All owners of the process share it: without OFD locks, closing any descriptor would drop all their locks.
    """

    def __init__(self, path: str) -> None:
        super().__init__(Path(path), os.O_RDWR | os.O_CREAT)
        self.owners: set[int] = set()
        """The owners of this process: it cannot see its own locks."""


_files: dict[str, _OwnersFile] = {}
_lock = threading.RLock()


class FileOwner:
    """An owner of leases, alive until `release()` or the end of its process."""

    def __init__(self, path: str) -> None:
        """Register a new owner in the file at `path`, which is created if missing.

        Raises:
            OutboxError: the file is a link, or belongs to another user.
            OSError: it cannot be opened, or its file system has no locks.
        """
        self.id = random.SystemRandom().randrange(1, 2**60)
        with _lock:
            known = _files.get(path)
            if known is None or not known.is_current():
                # Opened before the other is closed: if that fails, nothing has changed.
                opened = _files[path] = _OwnersFile(path)
                if known is not None:
                    known.close()
                known = opened
            self._file = known
        locks.claim(self._file.fd, self.id)
        self._file.owners.add(self.id)

    def is_alive(self, owner: int) -> bool:
        """Return whether `owner` (an id, in any process on this machine) is alive."""
        return owner in self._file.owners or locks.is_claimed(self._file.fd, owner)

    def is_alone(self) -> bool:
        """Return whether no other owner is known to be alive, in this process or another."""
        return self._file.owners <= {self.id} and not locks.is_any_claimed(self._file.fd)

    def is_current(self) -> bool:
        """Return whether others see our lock: the file may have been deleted, or closed by the program."""
        return self._file.is_current()

    def release(self) -> None:
        """Give up ownership: others may take over this owner's leases."""
        if self.id in self._file.owners:
            self._file.owners.discard(self.id)
            with suppress(OSError):  # the file was closed, which has released the lock
                locks.disclaim(self._file.fd, self.id)


class SoleOwner:
    """The only owner of an outbox in memory."""

    id = 1

    def is_alive(self, owner: int) -> bool:
        """Return whether `owner` is this one: there is no other."""
        return owner == self.id

    def is_current(self) -> bool:
        """Return True: there is no file that could be deleted."""
        return True

    def release(self) -> None:
        """Do nothing: no other could take over."""


def forget_after_fork() -> None:
    """Forget locks and owners in a forked child: they are the parent's."""
    global _lock  # noqa: PLW0603 - a thread of the parent may hold it
    _lock = threading.RLock()
    for file in _files.values():
        file.close()
        file.owners.clear()
    _files.clear()


_fork.register("ownership", after_in_child=forget_after_fork)
