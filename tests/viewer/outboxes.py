"""Makes outboxes for the viewer: logs in one line, and whole files."""

import itertools
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from athina_trace._delivery.entry import Entry, log_entry
from athina_trace._delivery.sqlite_outbox import SqliteOutbox
from athina_trace.viewer.indexed_outbox import IndexedOutbox

_numbers = itertools.count(1)
NOON = 1_750_000_000.0


def log(session: str | None = "s1", *, made: float | None = None, **fields: Any) -> Entry:
    """Make a log with the fields that every log has, and these."""
    number = next(_numbers)
    body = {
        "language_model_id": "gpt-4o-mini",
        "prompt": [{"role": "user", "content": "Where is it?"}],
        "user_query": "Where is it?",
        "response": "In Leipzig.",
        "external_reference_id": f"ref-{number}",
        **({"session_id": session} if session else {}),
        **fields,
    }
    return log_entry(body, NOON + number if made is None else made)


def feedback(of: Entry, value: int, comment: str = "") -> Entry:
    body = {
        "external_reference_id": of.reference,
        "user_feedback": value,
        "user_feedback_comment": comment,
    }
    return Entry(of.ordering_key, "feedback", of.reference, of.made + 1, json.dumps(body).encode())


def put(path: Path, *entries: Entry) -> None:
    """Commit these entries to the outbox at `path`, as a program does."""
    outbox = SqliteOutbox(str(path))
    for entry in entries:
        outbox.put(entry)
    outbox.close()


def settle(
    path: Path, *, delivered: Iterable[str] = (), refused: Iterable[str] = (), forgotten: Iterable[str] = ()
) -> None:
    """Send everything that waits, as the engine does, with these outcomes by reference."""
    outcomes = dict.fromkeys(delivered, "delivered") | dict.fromkeys(refused, "refused")
    outcomes |= dict.fromkeys(forgotten, "forgotten")
    outbox = SqliteOutbox(str(path))
    outbox.collect()
    with outbox.transaction():
        for lease in outbox.lease(NOON, keys=1000, batch=1000):
            for entry in lease.entries:
                outcome = outcomes.get(entry.reference)
                if outcome == "refused":
                    outbox.refused(entry, NOON, status=400, reason="user_query: Expected string")
                elif outcome:
                    outbox.delivered(entry, NOON, keep=outcome == "delivered", prompt_run_id="run-1")
            outbox.release(lease.ordering_key)
    outbox.close()


@contextmanager
def opened(path: Path) -> Iterator[IndexedOutbox]:
    """Open the outbox, with everything indexed."""
    source = IndexedOutbox(str(path))
    try:
        source.refresh()
        yield source
    finally:
        source.close()
