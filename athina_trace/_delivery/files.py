"""Files and folders of an outbox: only those of this user, and never through a symbolic link.

An outbox may be in a folder that others can write to, such as `/tmp` or a shared volume. There another user could have
planted a link or a file of their own in place of ours: we would write conversations into it, or trust what it holds.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

from athina_trace.errors import OutboxError

try:
    import fcntl as _found
except ModuleNotFoundError:  # Windows; other errors pass, and a later log imports this again
    _found = None  # type: ignore[assignment]

fcntl: Any = _found

# Windows has neither symbolic links that matter here nor user ids.
# Without O_NONBLOCK, opening a pipe in place of a file would wait for its other end.
_SAFELY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_OWNERS = stat.S_IRUSR | stat.S_IWUSR
_HAS_USERS = hasattr(os, "geteuid")
_HIGH_NUMBERS = 64
_HIGHEST_NUMBER = 4000
"""The kernel's table of descriptors grows up to the highest number."""
_RESERVE_BYTES = 16 * 1024 * 1024
_RESERVE_SHARE = 0.5
"""The reserve on a small disk, as a share of it."""


class Disk(NamedTuple):
    """The bytes that a file system has left for this user; infinite if unknown.

    The last `reserve` bytes are kept for deliveries, which need space before they can free any: an outbox that filled
    its disk to the last byte during an outage could never be emptied again.
    """

    free: float
    reserve: float


def disk_of(folder: Path) -> Disk:
    """Return how full the file system of `folder` is."""
    try:
        found = os.statvfs(folder)
    except (OSError, AttributeError):  # the folder was just deleted, or this is Windows
        return Disk(float("inf"), _RESERVE_BYTES)
    # Some network file systems do not know, and space reserved for root does not count: only a write tells.
    if not found.f_blocks or not found.f_bavail:
        return Disk(float("inf"), _RESERVE_BYTES)
    total = found.f_blocks * found.f_frsize
    return Disk(found.f_bavail * found.f_frsize, min(_RESERVE_BYTES, _RESERVE_SHARE * total))


def open_private(path: Path, flags: int) -> int:
    """Open or create a file, mode 0600 whatever the umask, and return its descriptor.

    Raises:
        OutboxError: the path is a link, not a regular file, or belongs to another user.
        OSError: the system cannot open it.
    """
    try:
        fd = os.open(path, flags | _SAFELY, _OWNERS)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OutboxError(
                f"{path} is a symbolic link, which is not followed because another user may have made it: "
                "set ATHINA_OUTBOX to the target of the link"
            ) from error
        raise
    try:
        found = os.fstat(fd)
        _check(path, found, stat.S_ISREG)
        if flags & os.O_CREAT and found.st_mode & _OWNERS != _OWNERS:
            os.fchmod(fd, _OWNERS)  # the umask may have removed even the owner's permissions
    except BaseException:
        os.close(fd)
        raise
    return fd


class HeldFile:
    """A file that stays open, and whose descriptor number is never used after it was closed, by us or by the program.

    Daemons close all open descriptors by number, and their next files get the lowest free numbers. So ours are high,
    and what we do without checking first, such as the write within a call, does not hit a file of the program.
    """

    __slots__ = ("_identity", "_path", "number")

    def __init__(self, path: Path, flags: int) -> None:
        """Open the file as `open_private` does."""
        self._path = path
        self.number = _moved_up(open_private(path, flags))
        _numbers.add(self.number)
        self._identity = identity(os.fstat(self.number))

    @property
    def fd(self) -> int:
        """The descriptor. Raises OSError if it was closed."""
        if self.number < 0 or identity(os.fstat(self.number)) != self._identity:
            self._forget()
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), str(self._path))
        return self.number

    def write_at(self, offset: int, data: bytes) -> None:
        """Write to the file. Raises OSError if it was closed.

        The check is cheaper than that of `fd`, which releases the interpreter (GIL). A non-blocking descriptor is ours,
        since regular files are not opened so otherwise, or one such as a socket, which has no offsets to write at.
        """
        if self.number < 0 or os.get_blocking(self.number):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), str(self._path))
        os.pwrite(self.number, data, offset)

    def _forget(self) -> None:
        _numbers.discard(self.number)
        self.number = -1

    def is_current(self) -> bool:
        """Return whether the file is open, and still the one at its path."""
        try:
            return identity(self._path.lstat()) == self._identity == identity(os.fstat(self.fd))
        except OSError:
            return False

    def close(self) -> None:
        """Close the file, unless it was closed already."""
        try:
            os.close(self.fd)
        except OSError:
            pass
        finally:
            self._forget()


_numbers: set[int] = set()
"""The numbers of held files. If the program closes one, we do not reuse its number before its holder has noticed."""


def identity(found: os.stat_result) -> tuple[int, int]:
    """Return what identifies a file."""
    return found.st_dev, found.st_ino


def _moved_up(fd: int) -> int:
    """Move a descriptor to one of the highest numbers, if possible; return its number."""
    try:
        least = max(fd, min(os.sysconf("SC_OPEN_MAX") - _HIGH_NUMBERS, _HIGHEST_NUMBER))
        while (high := cast("int", fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least))) in _numbers:
            os.close(high)
            least = high + 1
    except (OSError, ValueError, AttributeError):
        return fd
    os.close(fd)
    return high


def check_file(path: Path) -> None:
    """Raise `OutboxError` for a file that `open_private` would refuse; a missing file is fine."""
    # A link itself is checked: its target may well be ours.
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    _check(path, found, stat.S_ISREG)


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, mode 0700 whatever the umask, and refuse that of another user.

    Folders of root, such as `/tmp` or a mounted volume, are fine. Raises `OutboxError` or OSError.
    """
    try:
        found = folder.stat()
    except FileNotFoundError:
        _make(folder)
        found = folder.stat()
    _check(folder, found, stat.S_ISDIR, or_roots=True)


def _make(folder: Path) -> None:
    if not folder.parent.exists():
        _make(folder.parent)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return  # another process was quicker
    folder.chmod(0o700)  # the umask may have removed permissions


def _check(path: Path, found: os.stat_result, is_right: Callable[[int], bool], *, or_roots: bool = False) -> None:
    if not is_right(found.st_mode):
        raise OutboxError(f"{path} is of the wrong type: the outbox needs a regular file or a folder there")
    if _HAS_USERS and found.st_uid != os.geteuid() and not (or_roots and found.st_uid == 0):
        raise OutboxError(
            f"{path} belongs to user {found.st_uid} and this process runs as user {os.geteuid()}: users cannot "
            "share an outbox; set ATHINA_OUTBOX to a path in a folder that this user owns"
        )
