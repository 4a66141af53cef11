"""What an owner knows to be delivered since its engine last committed: sixteen bytes for each entry that Athina took.

A killed process leaves its file behind, and the process that reclaims its ordering keys reads there what must not be
sent again. A record names its entry by id and by a digest of the store's identity and the entry's reference: in a store
that was recreated, or restored from a backup, the same id may be another log's.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import blake2b
from itertools import count
from pathlib import Path

from athina_trace import _guard
from athina_trace._delivery import files

# Earlier versions wrote ids alone, under another name: those files are left, and never read.
_SUFFIX = ".acknowledged"
_FULL_BYTES = 65_536
_NAME = re.compile(r"[1-9][0-9]{0,17}")
"""An owner's id has at most 60 bits."""
_RECORD = struct.Struct("<q8s")


def digest(store: bytes, reference: str) -> bytes:
    """Return what an entry's id must go with: `store` is the store's identity."""
    return blake2b(store + reference.encode(errors="replace"), digest_size=8).digest()


class Acknowledgements:
    """The file of the owner `owner` in `folder`, made with the first answer. A failing disk costs a copy at most."""

    def __init__(self, folder: Path, owner: int, store: bytes) -> None:
        self._path = folder / f"{owner}{_SUFFIX}"
        self._store = store
        self._file: files.HeldFile | None = None
        self._places = count()

    def add(self, entry: int, reference: str) -> None:
        """Note that Athina took the entry with that id. For any thread."""
        with suppress(OSError):
            file = self._file
            if file is None:
                file = self._file = files.HeldFile(self._path, os.O_RDWR | os.O_CREAT)
            record = _RECORD.pack(entry, digest(self._store, reference))
            file.write_at(next(self._places) * _RECORD.size, record)

    def committed(self, others: Iterable[tuple[int, str]]) -> None:
        """Note that all was committed but these (id, reference), and empty the file once it has grown."""
        with suppress(OSError):
            if self._file is not None and os.fstat(self._file.fd).st_size >= _FULL_BYTES:
                os.ftruncate(self._file.fd, 0)
                self._places = count()
                for entry, reference in others:
                    self.add(entry, reference)

    def close(self) -> None:
        """Note that all was committed."""
        file, self._file = self._file, None
        with suppress(OSError):
            if file is not None:
                file.close()
                self._path.unlink()


def owners(folder: Path) -> list[int]:
    """Return the owners, alive or not, whose files are in `folder`, where there may be files of others."""
    found: list[int] = []
    for path in folder.glob(f"*{_SUFFIX}"):
        with suppress(OSError):  # its owner may just be ending, and delete it
            if _NAME.fullmatch(path.stem) and stat.S_ISREG(path.lstat().st_mode):
                found.append(int(path.stem))
    return found


def read(folder: Path, owner: int, reference_of: Callable[[int], str | None], store: bytes) -> list[int]:
    """Return the entries of `store` that a dead owner delivered.

    `reference_of` gives the reference of the entry with an id, or None where there is none. A file that cannot be read
    costs copies, rather than keep all that waits from being delivered.
    """
    path = folder / f"{owner}{_SUFFIX}"
    try:
        files.check_file(path)
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        _guard.log_throttled(
            logging.WARNING,
            "unreadable acknowledgements",
            "%s cannot be read (%s): what a process that died had delivered last may be sent again",
            path,
            error,
        )
        return []
    found: list[int] = []
    # A record may be cut at its end, where the machine went down with the process.
    for number, given in _RECORD.iter_unpack(data[: len(data) - len(data) % _RECORD.size]):
        reference = reference_of(number)
        if reference is not None and given == digest(store, reference):
            found.append(number)
    return found


def forget(folder: Path, owner: int) -> None:
    """Delete what `read` has read of a dead owner, once that is committed."""
    with suppress(OSError):
        (folder / f"{owner}{_SUFFIX}").unlink()
