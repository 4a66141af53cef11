"""The standard library's `sqlite3`, or stubs that let every module be imported if Python was built without it.

Without SQLite, logs are kept in memory, and the commands that read outbox files say what is missing.

Files are opened with `Connection` itself, because tracing tools patch `sqlite3.connect`: each of our statements would
become a span in the program's traces.
"""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from athina_trace.errors import OutboxError

__all__ = ["Connection", "Row", "missing", "sqlite3"]

missing: str | None = None
"""Why there is no SQLite; None if there is."""


class _NoConnection:
    def __init__(self, *_: Any, **__: Any) -> None:
        raise OutboxError(f"{missing}, which reads outbox files: install a Python that has the module `sqlite3`")


if TYPE_CHECKING:
    import sqlite3
    from sqlite3 import Connection, Row
else:
    try:
        import sqlite3
    except ImportError as error:
        # If this process merely has no descriptors left, it raises OSError, and a later log imports this again.
        os.close(os.open(os.devnull, os.O_RDONLY))
        missing = f"this Python was built without SQLite ({error})"
        sqlite3 = SimpleNamespace()
        sqlite3.Error = type("Error", (Exception,), {})
        sqlite3.DatabaseError = type("DatabaseError", (sqlite3.Error,), {})
        sqlite3.OperationalError = type("OperationalError", (sqlite3.DatabaseError,), {})
        sqlite3.IntegrityError = type("IntegrityError", (sqlite3.DatabaseError,), {})
        sqlite3.Connection, sqlite3.Row = _NoConnection, object
        sqlite3.sqlite_version_info = (0,)
    Connection, Row = sqlite3.Connection, sqlite3.Row
