"""The kernel's file locks. Where there are none (Windows, some network file systems) each function raises OSError.

On Linux, byte locks belong to the open file description (OFD locks), and end when its last descriptor is closed.
Elsewhere they are POSIX record locks, which belong to the process: it loses all its locks on a file when it closes
*any* descriptor of that file. There, a program must not open the owners' file itself, not even to copy it.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from typing import Any

try:
    import fcntl as _found
except ModuleNotFoundError:  # Windows; other errors pass, and a later log imports this again
    _found = None  # type: ignore[assignment]

_fcntl: Any = _found

# Python has these names only if it was built with headers that do; the kernel's numbers never change.
_ON_LINUX = sys.platform == "linux"
_GET: int = getattr(_fcntl, "F_OFD_GETLK", 36)
_SET: int = getattr(_fcntl, "F_OFD_SETLK", 37)
_FLOCK = struct.Struct("hhqqi0q")
"""`struct flock` of Linux: type, whence, start, length, process (0 for OFD locks), padded as in C."""

has_description_locks = _ON_LINUX
"""Whether there are OFD locks; False once a kernel that should have them refuses them."""


def share(fd: int) -> None:
    """Take a shared lock on a file until it is closed; `BlockingIOError` if another has an exclusive lock."""
    # `flock` belongs to the open file everywhere, and is independent of the byte locks below.
    _require()
    _fcntl.flock(fd, _fcntl.LOCK_SH | _fcntl.LOCK_NB)


def take(fd: int) -> None:
    """Take an exclusive lock on a file until it is closed; `BlockingIOError` if another has a lock."""
    _require()
    _fcntl.flock(fd, _fcntl.LOCK_EX | _fcntl.LOCK_NB)


def claim(fd: int, offset: int) -> bool:
    """Lock a byte until it is released, the file is closed or the process dies; False if it is locked already."""
    _require()
    try:
        if _described(_SET, fd, _fcntl.F_WRLCK, offset, 1) is None:
            _fcntl.lockf(fd, _fcntl.LOCK_EX | _fcntl.LOCK_NB, 1, offset)
    except (BlockingIOError, PermissionError):
        return False
    return True


def disclaim(fd: int, offset: int) -> None:
    """Release the lock on a byte."""
    _require()
    if _described(_SET, fd, _fcntl.F_UNLCK, offset, 1) is None:
        _fcntl.lockf(fd, _fcntl.LOCK_UN, 1, offset)


def is_claimed(fd: int, offset: int) -> bool:
    """Return whether a byte is locked through another descriptor (without OFD locks: by another process)."""
    _require()
    found = _described(_GET, fd, _fcntl.F_WRLCK, offset, 1)
    if found is not None:
        return bool(_FLOCK.unpack(found)[0] != _fcntl.F_UNLCK)
    if not claim(fd, offset):
        return True
    disclaim(fd, offset)
    return False


def is_any_claimed(fd: int) -> bool:
    """Return whether any byte is locked through another descriptor; True if the system cannot tell."""
    found = _described(_GET, fd, _fcntl.F_WRLCK, 0, 0) if _fcntl else None
    return found is None or bool(_FLOCK.unpack(found)[0] != _fcntl.F_UNLCK)


def _described(command: int, fd: int, kind: int, start: int, length: int) -> bytes | None:
    """Use an OFD lock; None if the system has none."""
    global has_description_locks  # noqa: PLW0603 - known for the whole process
    if not has_description_locks:
        return None
    try:
        done: bytes = _fcntl.fcntl(fd, command, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        has_description_locks = False  # an old kernel, or a sandbox that emulates one
        return None
    return done


def _require() -> None:
    if _fcntl is None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
