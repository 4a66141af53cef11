"""Guards an outbox against use by two machines at once: kernel locks work within one machine only.

A file in the journal's folder names the machine, and its time stamp shows that the machine is alive. Containers on one
host share its kernel and so its locks: they count as one machine. A rebooted machine is still the same.

Two machines that open the outbox at the same moment may not notice each other for up to `_BEAT_SECONDS`.
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
"""A machine without a heartbeat for so long is gone."""
_MOST_BYTES = 4096


class Machine(NamedTuple):
    """The identity of a machine.

    Attributes:
        boot: the boot id of the kernel, the same in all containers; empty if the system has none.
        booted: when the kernel was booted, seconds since the epoch; 0 if unknown.
        name: the host name (in a container, the container's) and the machine id, if there is one.
    """

    boot: str
    booted: float
    name: str

    def has_written(self, boot: str, name: str, seen: float) -> bool:
        """Return whether the heartbeat of `boot` and `name` at the time `seen` was this machine's.

        A machine of the same name may be this one before a reboot, or a clone of it that runs elsewhere.
        """
        if self.boot and boot:
            return self.boot == boot or (self.name == name and seen < self.booted)
        return self.name == name


@cache
def this_machine() -> Machine:
    """Return the machine that this process runs on."""
    # This clock also counts time asleep; not all systems have it.
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
        """Claim the outbox for this machine. Raises `OutboxError` if another machine uses it, or OSError."""
        other = self._other()
        if other is not None:
            raise OutboxError(
                f"the outbox at {self._path.parent} is used by another machine ({other}): file locks do not work "
                "across machines; set ATHINA_OUTBOX to a different folder on each machine"
            )
        self._write()

    def beat(self) -> None:
        """Renew this machine's heartbeat, if it is due. Raises what `check` raises."""
        if abs(time.monotonic() - self._beaten) >= _BEAT_SECONDS:
            self.check()
            self._beaten = time.monotonic()

    def leave(self) -> None:
        """Delete this machine's file, once none of its processes uses the outbox."""
        with suppress(OSError):
            if self._other() is None:
                self._path.unlink()

    def _other(self) -> str | None:
        """Return the name of another machine that uses the outbox, or None."""
        try:
            fd = files.open_private(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            known: Any = json.loads(os.read(fd, _MOST_BYTES))
            boot, name, seen = str(known["boot"]), str(known["name"]), os.fstat(fd).st_mtime
        except (ValueError, KeyError, TypeError):
            return None  # the file was torn by a crash
        finally:
            os.close(fd)
        # The clocks of two machines may differ, so a time stamp in the future is as good as one in the past.
        is_gone = abs(time.time() - seen) >= ALIVE_SECONDS
        return None if is_gone or this_machine().has_written(boot, name, seen) else name

    def _write(self) -> None:
        """Renew the time stamp; write the content only if it changed, so that disks can sleep."""
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
