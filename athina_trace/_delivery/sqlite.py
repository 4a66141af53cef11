"""The standard library's `sqlite3`, or, where Python was built without it, what lets every module be loaded.

Without it, logs are kept in memory, and the commands that read outbox files say what is missing.

Files are opened by `Connection` itself. Tools that trace programs replace `sqlite3.connect`: each statement of ours
would become a span of the program's.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from athina_trace.errors import OutboxError

__all__ = ["Connection", "Row", "missing", "sqlite3"]

missing: str | None = None
"""Why there is no SQLite; None where there is."""


class _NoConnection:
    def __init__(self, *_: Any, **__: Any) -> None:
        raise OutboxError(f"{missing}, which reads outbox files: install a Python with its module `sqlite3`")


if TYPE_CHECKING:
    import sqlite3
    from sqlite3 import Connection, Row
else:
    try:
        import sqlite3
    except ImportError as error:
        missing = f"this Python was built without SQLite ({error})"
        sqlite3 = SimpleNamespace()
        sqlite3.Error = type("Error", (Exception,), {})
        sqlite3.DatabaseError = type("DatabaseError", (sqlite3.Error,), {})
        sqlite3.OperationalError = type("OperationalError", (sqlite3.DatabaseError,), {})
        sqlite3.IntegrityError = type("IntegrityError", (sqlite3.DatabaseError,), {})
        sqlite3.Connection, sqlite3.Row = _NoConnection, object
        sqlite3.sqlite_version_info = (0,)
    Connection, Row = sqlite3.Connection, sqlite3.Row
