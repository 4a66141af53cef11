"""File locks of the kernel. Where there are none (Windows, some network file systems) each raises OSError."""

from __future__ import annotations

import errno
import os
from typing import Any

try:
    import fcntl as _found
except ImportError:  # Windows
    _found = None  # type: ignore[assignment]

_fcntl: Any = _found


def share(fd: int) -> None:
    """Hold an open file together with others until it is closed; `BlockingIOError` where one has it alone."""
    _flock(fd, "LOCK_SH")


def take(fd: int) -> None:
    """Hold an open file alone until it is closed; `BlockingIOError` where anybody holds it."""
    _flock(fd, "LOCK_EX")


def _flock(fd: int, kind: str) -> None:
    _require()
    _fcntl.flock(fd, getattr(_fcntl, kind) | _fcntl.LOCK_NB)


def claim(fd: int, offset: int) -> bool:
    """Hold one byte of a file for this process, until it dies or closes the file; False where another process does."""
    _require()
    try:
        _fcntl.lockf(fd, _fcntl.LOCK_EX | _fcntl.LOCK_NB, 1, offset)
    except (BlockingIOError, PermissionError):
        return False
    return True


def disclaim(fd: int, offset: int) -> None:
    """Give that byte back."""
    _require()
    _fcntl.lockf(fd, _fcntl.LOCK_UN, 1, offset)


def _require() -> None:
    if _fcntl is None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
