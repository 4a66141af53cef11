"""What an owner was answered since its engine last committed: eight bytes for each entry that Athina took.

A killed process leaves its file behind, and whoever adopts its lanes reads there what must not be sent again.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_SUFFIX = ".answers"
_FULL_BYTES = 65_536
_NUMBER = struct.Struct("<q")


class Answers:
    """The file of the owner `owner` in `folder`, made with the first answer. A failing disk costs a copy at most."""

    def __init__(self, folder: Path, owner: int) -> None:
        self._path = folder / f"{owner}{_SUFFIX}"
        self._fd = -1

    def add(self, entry: int) -> None:
        """Athina took the entry with that id. For any thread."""
        with suppress(OSError):
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            os.write(self._fd, _NUMBER.pack(entry))

    def settled(self, others: Iterable[int]) -> None:
        """All was committed but these: begin the file anew once it has grown."""
        with suppress(OSError):
            if self._fd >= 0 and os.fstat(self._fd).st_size >= _FULL_BYTES:
                os.ftruncate(self._fd, 0)
                for entry in others:
                    self.add(entry)

    def close(self) -> None:
        """All was committed."""
        with suppress(OSError):
            if self._fd >= 0:
                os.close(self._fd)
                self._path.unlink()
        self._fd = -1


def owners(folder: Path) -> list[int]:
    """Whose files stand in `folder`, whether they live or not."""
    return [int(path.stem) for path in folder.glob(f"*{_SUFFIX}") if path.stem.isdigit()]


def take(folder: Path, owner: int) -> list[int]:
    """The entries that a dead owner was answered; its file is gone afterwards."""
    path = folder / f"{owner}{_SUFFIX}"
    try:
        data = path.read_bytes()
        path.unlink()
    except FileNotFoundError:
        return []
    whole = len(data) - len(data) % _NUMBER.size
    return [number for (number,) in _NUMBER.iter_unpack(data[:whole])]
