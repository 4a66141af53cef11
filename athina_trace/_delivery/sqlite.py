"""The standard library's `sqlite3`, or, where Python was built without it, the names of its errors.

Every module can be loaded there, logs are kept in memory, and nothing raises these errors.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

__all__ = ["missing", "sqlite3"]

missing: str | None = None
"""Why there is no SQLite; None where there is."""

if TYPE_CHECKING:
    import sqlite3
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
