"""The local Athina's storage: an outbox file whose entries have the state *received*, for the same viewer."""

from __future__ import annotations

import threading
import time
import uuid
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic_core import to_json

from athina_trace._delivery.routes import Kind
from athina_trace._delivery.sqlite import sqlite3
from athina_trace._delivery.sqlite_outbox import SqliteOutbox

# The statements here that name the outbox's columns.
_FIND = {
    column: f"SELECT prompt_run_id, reference, ordering_key FROM entry WHERE {column} = ? AND kind = 'log' LIMIT 1"  # noqa: S608 - one of two columns
    for column in ("reference", "prompt_run_id")
}
_INSERT = """
INSERT INTO entry (ordering_key, kind, reference, made, body, state, prompt_run_id, resolved)
VALUES (:ordering_key, :kind, :reference, :now, :body, 'received', :prompt_run_id, :now)
"""
_INDEX = "CREATE INDEX IF NOT EXISTS entry_run ON entry (prompt_run_id)"
_BODIES = "SELECT kind, body FROM entry ORDER BY id"


class ReceivedLog(NamedTuple):
    """A stored log.

    Attributes:
        prompt_run_id: Athina's id for it.
        reference: the program's id for it, its `external_reference_id`.
        ordering_key: its session, or its reference if it has none.
    """

    prompt_run_id: str
    reference: str
    ordering_key: str


class ReceivedLogs:
    """The file. Every method may be called from any thread."""

    def __init__(self, path: str) -> None:
        """Open or create the outbox file at `path`."""
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        outbox = SqliteOutbox(path)
        outbox.store.counts()  # makes the tables
        outbox.close()
        self.path = path
        self._lock = threading.Lock()
        # A separate connection, since the outbox's API has no state *received*, and no lookup by Athina's id.
        self._db = sqlite3.Connection(path, isolation_level=None, check_same_thread=False, timeout=10.0)
        self._db.execute("PRAGMA synchronous = NORMAL")  # a power loss may cost what a test server received last
        self._db.execute(_INDEX)

    def add(self, fields: dict[str, object]) -> str | None:
        """Store a log; return its `prompt_run_id`, or None if there is a log with the same reference."""
        prompt_run_id = str(uuid.uuid4())
        reference = str(fields.get("external_reference_id") or prompt_run_id)
        # Looked up and inserted under one lock, since of two requests with the same reference, only one must succeed.
        with self._lock:
            if self._find("reference", reference):
                return None
            ordering_key = str(fields.get("session_id") or reference)
            self._insert(ReceivedLog(prompt_run_id, reference, ordering_key), "log", fields)
        return prompt_run_id

    def change(
        self, kind: Kind, by: Literal["reference", "prompt_run_id"], key: str, fields: dict[str, object]
    ) -> str | None:
        """Store a change to the log found by `key`; return its `prompt_run_id`, or None if there is no such log."""
        with self._lock:
            log = self._find(by, key)
            if log is None:
                return None
            self._insert(log, kind, fields)
        return log.prompt_run_id

    def _find(self, by: str, key: str) -> ReceivedLog | None:
        row = self._db.execute(_FIND[by], (key,)).fetchone()
        return ReceivedLog(*row) if row else None

    def _insert(self, log: ReceivedLog, kind: Kind, fields: dict[str, object]) -> None:
        values = {**log._asdict(), "kind": kind, "now": time.time(), "body": to_json(fields)}
        self._db.execute(_INSERT, values)

    def bodies(self, *kinds: Kind) -> list[bytes]:
        """Return the bodies of all entries of these kinds, oldest first."""
        with self._lock:
            rows = self._db.execute(_BODIES).fetchall()
        return [body for kind, body in rows if kind in kinds]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()
