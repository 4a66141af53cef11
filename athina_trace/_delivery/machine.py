"""Which machine uses an outbox: kernel locks hold on one machine only, so two must never share its files.

A file in the journal's folder names the machine, and its time stamp shows that the machine is alive. Containers on one
host share the host's kernel and its locks: they are one machine. A machine that was started again is still the same.

What this cannot see: two machines that open the outbox in the same moment, for up to `_BEAT_SECONDS`.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from athina_trace._delivery import files
from athina_trace.errors import OutboxError

_BEAT_SECONDS = 15.0
ALIVE_SECONDS = 60.0
"""A machine that has not shown itself for so long is gone."""
_MOST_BYTES = 4096


class Machine(NamedTuple):
    """What makes a machine another one.

    Attributes:
        boot: the running kernel's own id, the same in all its containers; empty where the system has none.
        booted: when that kernel was started, seconds since the epoch; 0 where the system does not say.
        name: the host name (of a container: its own), with the installation's id where there is one.
    """

    boot: str
    booted: float
    name: str

    def has_written(self, boot: str, name: str, seen: float) -> bool:
        """Return whether this machine showed itself at `seen` under that `boot` and `name`.

        A machine of the same name may be this one before it was started again, or a copy of it that runs elsewhere.
        """
        if self.boot and boot:
            return self.boot == boot or (self.name == name and seen < self.booted)
        return self.name == name


@cache
def this_machine() -> Machine:
    """Return the machine that this process runs on."""
    # Time since the start includes what the machine slept; not all systems have that clock.
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return Machine(
        boot=_text("/proc/sys/kernel/random/boot_id"),
        booted=0.0 if clock is None else time.time() - time.clock_gettime(clock),
        name=f"{socket.gethostname()} {_text('/etc/machine-id')}".strip(),
    )


def _text(path: str) -> str:
    with suppress(OSError, ValueError):
        return Path(path).read_bytes().decode().strip()
    return ""


class Presence:
    """This machine's claim to the outbox whose journal is in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "machine"
        self._beaten = float("-inf")

    def check(self) -> None:
        """Claim the outbox for this machine. Raises `OutboxError` where another machine uses it, or OSError."""
        other = self._other()
        if other is not None:
            raise OutboxError(
                f"the outbox at {self._path.parent} is used by another machine ({other}): file locks hold on one "
                "machine only; set ATHINA_OUTBOX to a folder that each machine has for itself"
            )
        self._write()

    def beat(self) -> None:
        """Show that this machine is alive, now and then. Raises as `check` does."""
        if abs(time.monotonic() - self._beaten) >= _BEAT_SECONDS:
            self.check()
            self._beaten = time.monotonic()

    def leave(self) -> None:
        """Delete this machine's file: none of its processes uses the outbox any more."""
        with suppress(OSError):
            if self._other() is None:
                self._path.unlink()

    def _other(self) -> str | None:
        """Return the name of another machine that uses the outbox; None where there is none."""
        try:
            fd = files.open_private(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            known: Any = json.loads(os.read(fd, _MOST_BYTES))
            boot, name, seen = str(known["boot"]), str(known["name"]), os.fstat(fd).st_mtime
        except (ValueError, KeyError, TypeError):
            return None  # torn by a crash: it names no machine
        finally:
            os.close(fd)
        # The clocks of two machines differ: a stamp in the future is as good as one in the past.
        is_gone = abs(time.time() - seen) >= ALIVE_SECONDS
        return None if is_gone or this_machine().has_written(boot, name, seen) else name

    def _write(self) -> None:
        """Renew the time stamp; the words are written only where they are others, since most disks sleep otherwise."""
        here = this_machine()
        words = json.dumps({"boot": here.boot, "name": here.name}).encode()
        fd = files.open_private(self._path, os.O_RDWR | os.O_CREAT)
        try:
            if os.read(fd, _MOST_BYTES) != words:
                os.lseek(fd, 0, os.SEEK_SET)
                os.ftruncate(fd, 0)
                os.write(fd, words)
            os.utime(self._path)
        finally:
            os.close(fd)
