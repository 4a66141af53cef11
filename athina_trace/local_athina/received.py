"""What the local Athina keeps: an outbox file whose entries have the state *received*, for the same viewer."""

from __future__ import annotations

import sqlite3
import threading
import time
import uuid
from pathlib import Path
from typing import NamedTuple

from pydantic_core import to_json

from athina_trace._delivery.routes import Kind
from athina_trace._delivery.sqlite_outbox import SqliteOutbox


class Log(NamedTuple):
    """A log that is there: its own name, the user's, and its conversation."""

    run: str
    reference: str
    ordering_key: str


class Received:
    """The file. Every method may be called from any thread."""

    def __init__(self, path: str) -> None:
        """Open or make the outbox file at `path`."""
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        outbox = SqliteOutbox(path)
        outbox.store.counts()  # makes the tables
        outbox.close()
        self.path = path
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("CREATE INDEX IF NOT EXISTS entry_run ON entry (prompt_run_id)")

    def add(self, fields: dict[str, object]) -> str | None:
        """Keep a log; Athina's name for it, or None where its reference is known already."""
        run = str(uuid.uuid4())
        reference = str(fields.get("external_reference_id") or run)
        with self._lock:
            if self._find("reference", reference):
                return None
            ordering_key = str(fields.get("session_id") or reference)
            self._insert(Log(run, reference, ordering_key), "log", fields)
        return run

    def change(self, kind: Kind, by: str, name: str, fields: dict[str, object]) -> str | None:
        """Keep a change of a log found `by` "reference" or "prompt_run_id"; its name, or None where there is none."""
        with self._lock:
            log = self._find(by, name)
            if log is None:
                return None
            self._insert(log, kind, fields)
        return log.run

    def _find(self, by: str, name: str) -> Log | None:
        row = self._db.execute(
            f"SELECT prompt_run_id, reference, ordering_key FROM entry WHERE {by} = ? AND kind = 'log' LIMIT 1",  # noqa: S608 - one of two columns
            (name,),
        ).fetchone()
        return Log(*row) if row else None

    def _insert(self, log: Log, kind: Kind, fields: dict[str, object]) -> None:
        now = time.time()
        self._db.execute(
            "INSERT INTO entry (ordering_key, kind, reference, made, body, state, prompt_run_id, resolved) "
            "VALUES (?, ?, ?, ?, ?, 'received', ?, ?)",
            (log.ordering_key, kind, log.reference, now, to_json(fields), log.run, now),
        )

    def bodies(self, *kinds: Kind) -> list[bytes]:
        """The bodies of all entries of these kinds, oldest first."""
        with self._lock:
            rows = self._db.execute("SELECT kind, body FROM entry ORDER BY id").fetchall()
        return [body for kind, body in rows if kind in kinds]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()
