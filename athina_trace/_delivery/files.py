"""Files and folders of an outbox: this user's alone, and never reached through a link.

An outbox may lie in a folder that others can write to, such as `/tmp` or a shared volume. There another user could have
put a link to one of our files, or a file of theirs, in its place: we would write conversations into it, or obey it.
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
except ImportError:  # Windows
    _found = None  # type: ignore[assignment]

fcntl: Any = _found

# Windows has neither links that matter here nor numbers for users.
# A pipe in the place of a file would let us wait for its other end.
_SAFELY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_OWNERS = stat.S_IRUSR | stat.S_IWUSR
_HAS_USERS = hasattr(os, "geteuid")
_HIGH_NUMBERS = 64
_HIGHEST_NUMBER = 4000
"""The kernel keeps a table up to the highest number."""
_RESERVE_BYTES = 16 * 1024 * 1024
_RESERVE_SHARE = 0.5
"""Of a small disk."""


class Disk(NamedTuple):
    """What a file system has left for this user, in bytes; infinite where it cannot be asked.

    The last of it, `reserve`, is for deliveries, which need room before they can give any back: an outbox that had
    filled its disk to the last byte during an outage could never be emptied again.
    """

    free: float
    reserve: float


def disk_of(folder: Path) -> Disk:
    """Look how full the file system of `folder` is."""
    try:
        found = os.statvfs(folder)
    except (OSError, AttributeError):  # the folder was just deleted, or this is Windows
        return Disk(float("inf"), _RESERVE_BYTES)
    # Some that go over a network do not know, and what is set aside for root is not counted: a write shows.
    if not found.f_blocks or not found.f_bavail:
        return Disk(float("inf"), _RESERVE_BYTES)
    total = found.f_blocks * found.f_frsize
    return Disk(found.f_bavail * found.f_frsize, min(_RESERVE_BYTES, _RESERVE_SHARE * total))


def open_private(path: Path, flags: int) -> int:
    """Open or make a file, mode 0600 whatever the umask, and give its descriptor.

    Raises:
        OutboxError: the path is a link, no regular file, or another user's.
        OSError: the system cannot open it.
    """
    try:
        fd = os.open(path, flags | _SAFELY, _OWNERS)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OutboxError(
                f"{path} is a symbolic link, and an outbox follows none, since another user may have made it: "
                "set ATHINA_OUTBOX to the place that it leads to"
            ) from error
        raise
    try:
        found = os.fstat(fd)
        _check(path, found, stat.S_ISREG)
        if flags & os.O_CREAT and found.st_mode & _OWNERS != _OWNERS:
            os.fchmod(fd, _OWNERS)  # the umask may have taken away even the owner's own rights
    except BaseException:
        os.close(fd)
        raise
    return fd


class HeldFile:
    """A file that stays open, and whose number is never used once it is closed: by us, or by the program.

    Daemons close whatever is open, by number, and their next files get the lowest numbers that are free. So ours are
    high, and nothing that we do without asking first, such as a write at a call, meets a file of the program's.
    """

    __slots__ = ("_identity", "_path", "number")

    def __init__(self, path: Path, flags: int) -> None:
        """Do what `open_private` does."""
        self._path = path
        self.number = _moved_up(open_private(path, flags))
        _numbers.add(self.number)
        self._identity = identity(os.fstat(self.number))

    @property
    def fd(self) -> int:
        """Its number. Raises OSError where it was closed."""
        if self.number < 0 or identity(os.fstat(self.number)) != self._identity:
            self._forget()
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), str(self._path))
        return self.number

    def write_at(self, offset: int, data: bytes) -> None:
        """Write to it. Raises OSError where it was closed.

        Cheaper than to ask for `fd` before, which gives the interpreter away. What does not block has no offsets, such
        as a socket, or was opened here: a regular file has no other use for that.
        """
        if self.number < 0 or os.get_blocking(self.number):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), str(self._path))
        os.pwrite(self.number, data, offset)

    def _forget(self) -> None:
        _numbers.discard(self.number)
        self.number = -1

    def is_current(self) -> bool:
        """Return whether it is open, and is what others find under its path."""
        try:
            return identity(self._path.lstat()) == self._identity == identity(os.fstat(self.fd))
        except OSError:
            return False

    def close(self) -> None:
        """Close it, unless that has happened."""
        try:
            os.close(self.fd)
        except OSError:
            pass
        finally:
            self._forget()


_numbers: set[int] = set()
"""Those of held files. One that the program has closed is given to no other file of ours before its holder noticed."""


def identity(found: os.stat_result) -> tuple[int, int]:
    """Return what makes a file another one."""
    return found.st_dev, found.st_ino


def _moved_up(fd: int) -> int:
    """Give a descriptor one of the highest numbers; the one that it has where there is none."""
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
    """Refuse a file that `open_private` would refuse; one that does not exist is fine. Raises `OutboxError`."""
    # The link itself is asked: what it leads to may well be ours.
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    _check(path, found, stat.S_ISREG)


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, each 0700 whatever the umask, and refuse one of another user's.

    A folder that root made, such as `/tmp` or a mounted volume, is no other user's. Raises `OutboxError` or OSError.
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
    folder.chmod(0o700)  # as above


def _check(path: Path, found: os.stat_result, is_right: Callable[[int], bool], *, or_roots: bool = False) -> None:
    if not is_right(found.st_mode):
        raise OutboxError(f"{path} is of another kind than the file or folder that an outbox needs there")
    if _HAS_USERS and found.st_uid != os.geteuid() and not (or_roots and found.st_uid == 0):
        raise OutboxError(
            f"{path} belongs to user {found.st_uid} and this process runs as user {os.geteuid()}: an outbox is for "
            "processes of one user only; set ATHINA_OUTBOX to a folder of this user's"
        )
