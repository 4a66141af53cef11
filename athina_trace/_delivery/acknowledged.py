"""Records which entries an owner has delivered since its engine last committed: sixteen bytes per entry.

A killed process leaves its file behind. The process that reclaims its ordering keys reads it, to send nothing twice. A
record identifies its entry by id and by a digest of the store's identity and the entry's reference: after a store was
recreated or restored from a backup, the same id may belong to another log.
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

# Earlier versions wrote only ids, under another name: those files are never read or deleted.
_SUFFIX = ".acknowledged"
_FULL_BYTES = 65_536
_NAME = re.compile(r"[1-9][0-9]{0,17}")
"""An owner's id has at most 60 bits."""
_RECORD = struct.Struct("<q8s")


def digest(store: bytes, reference: str) -> bytes:
    """Return the digest that is recorded with an entry's id. `store`: the store's identity."""
    return blake2b(store + reference.encode(errors="replace"), digest_size=8).digest()


class Acknowledgements:
    """The file of the owner `owner` in `folder`. If the disk fails, a log may go twice."""

    def __init__(self, folder: Path, owner: int, store: bytes) -> None:
        """Create the file. Raises OSError."""
        self._path = folder / f"{owner}{_SUFFIX}"
        self._store = store
        self._file = files.HeldFile(self._path, os.O_RDWR | os.O_CREAT)
        self._places = count()

    def add(self, entry: int, reference: str) -> None:
        """Note that Athina accepted the entry with this id. Any thread may call this. Raises OSError."""
        record = _RECORD.pack(entry, digest(self._store, reference))
        self._file.write_at(next(self._places) * _RECORD.size, record)

    def committed(self, others: Iterable[tuple[int, str]]) -> None:
        """Note that all entries but these (id, reference) were committed; if the file is large, empty it."""
        with suppress(OSError):
            if os.fstat(self._file.fd).st_size >= _FULL_BYTES:
                os.ftruncate(self._file.fd, 0)
                self._places = count()
                for entry, reference in others:
                    self.add(entry, reference)

    def close(self) -> None:
        """Delete the file: everything was committed."""
        self._file.close()
        with suppress(OSError):
            self._path.unlink()


def owners(folder: Path) -> list[int]:
    """Return the owners, alive or dead, that have a file in `folder`, which may also hold foreign files."""
    found: list[int] = []
    for path in folder.glob(f"*{_SUFFIX}"):
        with suppress(OSError):  # its owner may be closing, and delete it
            if _NAME.fullmatch(path.stem) and stat.S_ISREG(path.lstat().st_mode):
                found.append(int(path.stem))
    return found


def read(folder: Path, owner: int, reference_of: Callable[[int], str | None], store: bytes) -> list[int]:
    """Return the ids of the entries of `store` that a dead owner delivered.

    `reference_of` returns the reference of an entry by its id, or None. If the file cannot be read, some entries are
    sent twice, which is better than blocking all deliveries.
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
            "%s cannot be read (%s): the last logs that a dead process delivered may be sent again",
            path,
            error,
        )
        return []
    found: list[int] = []
    # The last record may be truncated if the machine went down, too.
    for number, given in _RECORD.iter_unpack(data[: len(data) - len(data) % _RECORD.size]):
        reference = reference_of(number)
        if reference is not None and given == digest(store, reference):
            found.append(number)
    return found


def forget(folder: Path, owner: int) -> None:
    """Delete a dead owner's file, once the deliveries that `read` found there are committed."""
    with suppress(OSError):
        (folder / f"{owner}{_SUFFIX}").unlink()
