"""File locks of the kernel. Where there are none (Windows, some network file systems) each raises OSError."""

from __future__ import annotations

import errno
import os

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def share(fd: int) -> None:
    """Hold an open file together with others until it is closed; `BlockingIOError` where one has it alone."""
    _flock(fd, "LOCK_SH")


def take(fd: int) -> None:
    """Hold an open file alone until it is closed; `BlockingIOError` where anybody holds it."""
    _flock(fd, "LOCK_EX")


def _flock(fd: int, kind: str) -> None:
    _require()
    fcntl.flock(fd, getattr(fcntl, kind) | fcntl.LOCK_NB)


def claim(fd: int, offset: int) -> bool:
    """Hold one byte of a file for this process, until it dies or closes the file; False where another process does."""
    _require()
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
    except (BlockingIOError, PermissionError):
        return False
    return True


def disclaim(fd: int, offset: int) -> None:
    """Give that byte back."""
    _require()
    fcntl.lockf(fd, fcntl.LOCK_UN, 1, offset)


def _require() -> None:
    if fcntl is None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
