"""File locks of the kernel. Where there are none (Windows, some network file systems) each raises OSError.

Locks of single bytes belong to the open file description where the system has such locks (Linux), so that they end when
the last descriptor of that description is closed. Elsewhere they are POSIX record locks, which belong to the process:
it loses all its locks of a file when it closes *any* descriptor of that file. A program must not open the owners' file
there by itself, not even to copy it.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from typing import Any

try:
    import fcntl as _found
except ImportError:  # Windows
    _found = None  # type: ignore[assignment]

_fcntl: Any = _found

# Python knows the commands by name where the C library's headers did; the kernel's numbers never change.
_ON_LINUX = sys.platform == "linux"
_GET: int = getattr(_fcntl, "F_OFD_GETLK", 36)
_SET: int = getattr(_fcntl, "F_OFD_SETLK", 37)
_FLOCK = struct.Struct("hhqqi0q")
"""`struct flock` of Linux: type, whence, start, length, process (0 for these locks), padded as C does."""

has_description_locks = _ON_LINUX
"""Whether locks belong to open file descriptions; False once a kernel that ought to know them refuses them."""


def share(fd: int) -> None:
    """Hold an open file together with others until it is closed; `BlockingIOError` where one has it alone."""
    # `flock` belongs to the open file everywhere, and says nothing of bytes: it cannot meet the locks below.
    _require()
    _fcntl.flock(fd, _fcntl.LOCK_SH | _fcntl.LOCK_NB)


def take(fd: int) -> None:
    """Hold an open file alone until it is closed; `BlockingIOError` where another holds it."""
    _require()
    _fcntl.flock(fd, _fcntl.LOCK_EX | _fcntl.LOCK_NB)


def claim(fd: int, offset: int) -> bool:
    """Hold one byte of a file until it is given back, closed or its process dies; False where it is held already."""
    _require()
    try:
        if _described(_SET, fd, _fcntl.F_WRLCK, offset, 1) is None:
            _fcntl.lockf(fd, _fcntl.LOCK_EX | _fcntl.LOCK_NB, 1, offset)
    except (BlockingIOError, PermissionError):
        return False
    return True


def disclaim(fd: int, offset: int) -> None:
    """Give that byte back."""
    _require()
    if _described(_SET, fd, _fcntl.F_UNLCK, offset, 1) is None:
        _fcntl.lockf(fd, _fcntl.LOCK_UN, 1, offset)


def is_claimed(fd: int, offset: int) -> bool:
    """Return whether that byte is held through another descriptor (without description locks: by another process)."""
    _require()
    found = _described(_GET, fd, _fcntl.F_WRLCK, offset, 1)
    if found is not None:
        return bool(_FLOCK.unpack(found)[0] != _fcntl.F_UNLCK)
    if not claim(fd, offset):
        return True
    disclaim(fd, offset)
    return False


def is_any_claimed(fd: int) -> bool:
    """Return whether any byte is held through another descriptor; True where the system cannot say."""
    found = _described(_GET, fd, _fcntl.F_WRLCK, 0, 0) if _fcntl else None
    return found is None or bool(_FLOCK.unpack(found)[0] != _fcntl.F_UNLCK)


def _described(command: int, fd: int, kind: int, start: int, length: int) -> bytes | None:
    """Use a lock of the open file description; None where the system has none."""
    global has_description_locks  # noqa: PLW0603 - known for the whole process
    if not has_description_locks:
        return None
    try:
        done: bytes = _fcntl.fcntl(fd, command, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        has_description_locks = False  # an old kernel, or a sandbox that imitates one
        return None
    return done


def _require() -> None:
    if _fcntl is None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
