"""The index: a SQLite file beside the outbox, derived from it.

The program that logs does not pay for it: the process that reads the outbox fills it. It may be deleted at any time,
and is rebuilt. It mirrors the outbox: logs that are deleted there are deleted here as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from athina_trace import _prices
from athina_trace._delivery.sqlite import sqlite3
from athina_trace.viewer import aggregates
from athina_trace.viewer.log_fields import (
    MAX_NAMES,
    MAX_VALUE,
    LogRow,
    log_row,
    merge_updates,
    parse_object,
    searchable_attributes,
    searchable_text,
    text_of,
    tool_calls,
)
from athina_trace.viewer.search_text import spaced, words

VERSION = 4
CHUNK = 200
"""Entries read in one transaction; between two, readers and other writers get a turn."""
_MAX_KNOWN_WORDS = 200_000
"""Words that are remembered to be in the vocabulary."""
_MAX_WORD = 64

SCHEMA = (
    """
CREATE TABLE log (
    id INTEGER PRIMARY KEY, made REAL, session TEXT, reference TEXT, parent TEXT, root INTEGER, customer TEXT,
    user TEXT, environment TEXT, slug TEXT, model TEXT, tokens INTEGER, cost REAL, is_estimate INTEGER,
    is_unpriced INTEGER, latency INTEGER, first_chunk INTEGER, failed_tools INTEGER, feedback INTEGER, size INTEGER,
    error TEXT, question TEXT, answer TEXT, comment TEXT
);
CREATE INDEX log_session ON log (session, id);
CREATE INDEX log_customer ON log (customer, id);
CREATE INDEX log_user ON log (user, id);
CREATE INDEX log_slug ON log (slug, id);
CREATE INDEX log_model ON log (model, id);
CREATE INDEX log_environment ON log (environment, id);
CREATE INDEX log_reference ON log (reference);
CREATE INDEX log_error ON log (id) WHERE error IS NOT NULL;
CREATE INDEX log_feedback ON log (id) WHERE feedback IS NOT NULL;
CREATE INDEX log_failed_tools ON log (id) WHERE failed_tools > 0;
CREATE INDEX log_root ON log (root, id) WHERE root IS NOT NULL;
CREATE INDEX log_parentless ON log (parent) WHERE parent IS NOT NULL AND root IS NULL;
CREATE TABLE tool (log INTEGER, name TEXT, calls INTEGER, failures INTEGER, PRIMARY KEY (log, name)) WITHOUT ROWID;
CREATE INDEX tool_name ON tool (name, log);
CREATE TABLE attribute (log INTEGER, name TEXT, value TEXT, PRIMARY KEY (log, name)) WITHOUT ROWID;
CREATE INDEX attribute_name ON attribute (name, value, log);
CREATE TABLE session (
    name TEXT PRIMARY KEY, customer TEXT, user TEXT, environment TEXT, question TEXT, turns INTEGER, steps INTEGER,
    tokens INTEGER, cost REAL, estimated REAL, unpriced INTEGER, errors INTEGER, failed_tools INTEGER, liked INTEGER,
    disliked INTEGER, comment TEXT, began REAL, last REAL, last_id INTEGER
);
CREATE INDEX session_last ON session (last_id);
CREATE VIRTUAL TABLE words USING fts5 (
    question, answer, rest, content = '', tokenize = 'unicode61 remove_diacritics 2'
);
CREATE VIRTUAL TABLE comments USING fts5 (comment, tokenize = 'unicode61 remove_diacritics 2');
CREATE TABLE word (id INTEGER PRIMARY KEY, word TEXT UNIQUE);
CREATE TABLE progress (outbox_file TEXT, last_id INTEGER, deleted INTEGER, has_prices INTEGER);
INSERT INTO progress VALUES ('', 0, 0, 0);
"""
    + aggregates.SCHEMA
)
# SQLite before 3.34 has no trigrams: there, LIKE reads the whole vocabulary, which is slower and finds the same.
_VOCABULARY = (
    "CREATE VIRTUAL TABLE vocabulary USING fts5 (word, content = 'word', content_rowid = 'id', detail = none, "
    f"tokenize = '{'trigram' if sqlite3.sqlite_version_info >= (3, 34) else 'unicode61'}')"
)

_PUT_LOG = f"INSERT OR REPLACE INTO log VALUES ({', '.join('?' * len(LogRow._fields))})"
# Turns give a conversation its title, errors and feedback; tokens, cost and tools include those of steps.
_ADD_TO_SESSION = """
INSERT INTO session
SELECT
    session, customer, user, environment, CASE WHEN root IS NULL THEN question ELSE '' END, root IS NULL,
    root IS NOT NULL, coalesce(tokens, 0), cost, coalesce(cost * is_estimate, 0), is_unpriced,
    root IS NULL AND error IS NOT NULL, failed_tools, coalesce(feedback > 0, 0), coalesce(feedback < 0, 0), comment,
    made, made, id
FROM log WHERE id = ?
ON CONFLICT (name) DO UPDATE SET
    customer = coalesce(excluded.customer, customer), user = coalesce(excluded.user, user),
    environment = coalesce(excluded.environment, environment), question = coalesce(nullif(question, ''),
    excluded.question), turns = turns + excluded.turns, steps = steps + excluded.steps,
    tokens = tokens + excluded.tokens,
    cost = CASE WHEN excluded.cost IS NULL THEN cost ELSE coalesce(cost, 0) + excluded.cost END,
    estimated = estimated + excluded.estimated, unpriced = unpriced + excluded.unpriced,
    errors = errors + excluded.errors, failed_tools = failed_tools + excluded.failed_tools,
    liked = liked + excluded.liked, disliked = disliked + excluded.disliked,
    comment = coalesce(excluded.comment, comment), began = min(began, excluded.began), last = max(last, excluded.last),
    last_id = max(last_id, excluded.last_id)
"""
_WAITING_FOR_PARENT = "SELECT id FROM log WHERE parent = ? AND parent IS NOT NULL AND root IS NULL ORDER BY id"

# The outbox's tables, attached as `box`; with `queries.py` these are all statements that name them.
_NEW_ENTRIES = "SELECT id, kind, reference, made, body FROM box.entry WHERE id > ? ORDER BY id LIMIT ?"
_BODIES = "SELECT body FROM box.entry WHERE reference = ? ORDER BY id"
_NEWEST_ID = "SELECT max(id) FROM box.entry"
_NEWEST_ID_EVER = "SELECT seq FROM box.sqlite_sequence WHERE name = 'entry'"
_DELETED_LOGS = """
SELECT l.id FROM log AS l WHERE NOT EXISTS (
    SELECT 1 FROM box.entry AS e INDEXED BY entry_reference WHERE e.reference = l.reference AND e.id = l.id
)
"""

_Entry = tuple[int, str, str, float, bytes]


def read_only(path: str | Path) -> str:
    """Return the URI with which SQLite opens a file read-only."""
    return f"file:{quote(str(path))}?mode=ro"


class Index:
    """A connection that writes to an index file."""

    def __init__(self, path: str, outbox: str) -> None:
        """Open or create the index at `path` for the outbox file `outbox`, which is opened read-only."""
        self.path = path
        self._outbox = outbox
        Path(path).touch(mode=0o600)
        self._db = sqlite3.Connection(path, isolation_level=None, check_same_thread=False, timeout=10.0, uri=True)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = OFF")  # what a power loss damages is rebuilt
        self._db.execute("PRAGMA cache_size = -32000")
        self._db.execute("ATTACH ? AS box", (read_only(outbox),))
        self._known_words: set[str] = set()
        if self._db.execute("PRAGMA main.user_version").fetchone()[0] != VERSION:
            self.clear()
        elif _prices.AVAILABLE and not self._db.execute("SELECT has_prices FROM progress").fetchone()[0]:
            self.clear()  # read in by a process that had no price table

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def clear(self) -> None:
        """Start over with an empty index."""
        self._known_words.clear()
        with self._transaction():
            names = self._db.execute(
                "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT GLOB 'words_*' "
                "AND name NOT GLOB 'comments_*' AND name NOT GLOB 'vocabulary_*'"
            ).fetchall()
            for (name,) in names:
                self._db.execute(f"DROP TABLE main.{name}")
            for statement in SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.execute(_VOCABULARY)
            self._db.execute(
                "UPDATE progress SET outbox_file = ?, has_prices = ?", (self._outbox_file(), _prices.AVAILABLE)
            )
            self._db.execute(f"PRAGMA main.user_version = {VERSION}")
        with suppress(sqlite3.OperationalError):  # beside a reader: free pages are overwritten later
            # Deleted texts stay readable in free pages until the file is rewritten.
            self._db.execute("VACUUM main")
            self._db.execute("PRAGMA main.wal_checkpoint(TRUNCATE)").fetchall()

    def _outbox_file(self) -> str:
        """Return an id that differs between outbox files of the same name."""
        return str(Path(self._outbox).stat().st_ino)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._db:  # commits or rolls back
            self._db.execute("BEGIN IMMEDIATE")
            yield

    def outbox_version(self) -> int:
        """Return a number that changes with every commit by another process to the outbox."""
        return int(self._db.execute("PRAGMA box.data_version").fetchone()[0])

    def backlog(self) -> int:
        """Return approximately how many entries have not been read yet."""
        (last_id,) = self._db.execute("SELECT last_id FROM progress").fetchone()
        (newest,) = self._db.execute(_NEWEST_ID).fetchone()
        return max(0, int(newest or 0) - int(last_id))

    def clear_if_replaced(self) -> None:
        """Start over if the outbox was replaced by another file of the same name."""
        file, last_id = self._db.execute("SELECT outbox_file, last_id FROM progress").fetchone()
        newest = self._db.execute(_NEWEST_ID_EVER).fetchone()
        if file != self._outbox_file() or last_id > (newest[0] if newest else 0):
            self.clear()

    def ingest(self) -> int:
        """Read the next entries, at most `CHUNK`; return how many were read."""
        with self._transaction():
            (last_id,) = self._db.execute("SELECT last_id FROM progress").fetchone()
            entries = self._db.execute(_NEW_ENTRIES, (last_id, CHUNK)).fetchall()
            if entries:
                self._add_logs([entry for entry in entries if entry[1] == "log"])
                self._apply_updates([entry for entry in entries if entry[1] != "log"])
                self._db.execute("UPDATE progress SET last_id = ?", (entries[-1][0],))
        return len(entries)

    def _add_logs(self, entries: Sequence[_Entry]) -> None:
        logs = [(entry_id, made, reference, body, parse_object(body)) for entry_id, _, reference, made, body in entries]
        rows = [log_row(number, made, ref, fields, size=len(body)) for number, made, ref, body, fields in logs]
        self._db.executemany(_PUT_LOG, rows)
        texts = [(entry_id, *searchable_text(reference, fields)) for entry_id, _, reference, _, fields in logs]
        self._db.executemany(
            "INSERT INTO words (rowid, question, answer, rest) VALUES (?, ?, ?, ?)",
            ((entry_id, *map(spaced, parts)) for entry_id, *parts in texts),
        )
        self._add_words(set().union(*(words(" ".join(parts)) for _, *parts in texts)))
        for entry_id, _, _, _, fields in logs:
            self._put_details(entry_id, fields)
        dirty = self._find_turns(rows)
        rows = self._rows("id BETWEEN ? AND ?", rows[0].id, rows[-1].id) if rows else []
        aggregates.add_rows(self._db, rows, self._tools_of)
        self._db.executemany(_ADD_TO_SESSION, ((row.id,) for row in rows if row.session not in dirty))
        self._sum_sessions(dirty)

    def _find_turns(self, rows: Sequence[LogRow]) -> set[str]:
        """Make the calls among `rows`, which no total counts yet, steps of the turns in which they were made.

        A call ends before the one that it was made in, so that calls wait here for the log of their parent; one whose
        parent never comes, because it was sampled out or is kept elsewhere, becomes a turn.

        Returns:
            The sessions whose sums must be computed again: a turn of theirs has become a step.
        """
        uncounted = {row.id for row in rows}
        dirty: set[str] = set()
        for row in rows:
            if row.parent:
                dirty |= self._attach(row.id, row.parent, uncounted)
            for (child,) in self._db.execute(_WAITING_FOR_PARENT, (row.reference,)).fetchall():
                dirty |= self._attach(child, row.reference, uncounted)
        return dirty

    def _attach(self, child_id: int, reference: str, uncounted: set[int]) -> set[str]:
        """Make a turn, with the steps that it has, a step of the call with this reference."""
        (child,) = self._rows("id = ?", child_id)
        parents = self._rows("reference = ? ORDER BY id DESC LIMIT 1", reference)
        if child.root is not None or not parents:
            return set()
        (parent,) = parents
        turn = parent.id if parent.root is None else parent.root
        # A call with another session is another conversation; a turn that is its own step would never be shown.
        if child.session not in (parent.session, child.reference) or turn == child.id:
            return set()
        changed = self._rows("id = ? OR root = ?", child.id, child.id)
        # A call with steps and without tokens spent nothing itself: the costs are those of its steps.
        changed += [parent] if parent.is_unpriced and parent.tokens is None else []
        counted = [row for row in changed if row.id not in uncounted]
        aggregates.add_rows(self._db, counted, self._tools_of, sign=-1)
        self._db.execute(
            "UPDATE log SET root = ?, session = ? WHERE id = ? OR root = ?", (turn, parent.session, child.id, child.id)
        )
        self._db.execute("UPDATE log SET is_unpriced = 0 WHERE id = ? AND tokens IS NULL", (parent.id,))
        aggregates.add_rows(self._db, [self._rows("id = ?", row.id)[0] for row in counted], self._tools_of)
        return {child.session, parent.session} if counted else set()

    def _apply_updates(self, entries: Sequence[_Entry]) -> None:
        """Rebuild the rows of the logs that later updates and feedback are about."""
        # A chunk often has several updates of one log; its row is rebuilt once.
        for reference in dict.fromkeys(entry[2] for entry in entries):
            for old in self._rows("reference = ?", reference):
                first, *later = [parse_object(body) for (body,) in self._db.execute(_BODIES, (reference,))] or [{}]
                fields = merge_updates(first, later)
                new = log_row(old.id, old.made, reference, fields, size=old.size)
                # Its place in the conversation stays, unless a turn is given another session.
                stays = old.root is not None or new.session == reference
                new = new._replace(parent=old.parent, root=old.root, session=old.session if stays else new.session)
                new = new._replace(is_unpriced=new.is_unpriced and (old.is_unpriced or new.tokens is not None))
                aggregates.add_rows(self._db, [old], self._tools_of, sign=-1)
                self._db.execute(_PUT_LOG, new)
                self._db.execute("UPDATE log SET session = ? WHERE root = ?", (new.session, new.id))
                for table in ("tool", "attribute"):
                    self._db.execute(f"DELETE FROM {table} WHERE log = ?", (new.id,))
                self._put_details(new.id, fields)
                aggregates.add_rows(self._db, [new], self._tools_of)
                self._sum_sessions({old.session, new.session})

    def _rows(self, condition: str, *values: object) -> list[LogRow]:
        return [LogRow._make(row) for row in self._db.execute(f"SELECT * FROM log WHERE {condition}", values)]

    def _tools_of(self, log_id: int) -> list[tuple[str, int, int]]:
        return self._db.execute("SELECT name, calls, failures FROM tool WHERE log = ?", (log_id,)).fetchall()

    def _put_details(self, log_id: int, fields: dict[str, Any]) -> None:
        """Write what else a log can be found by: its tools, its attributes, and its user's comment."""
        tools: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for call in islice(tool_calls(fields), MAX_NAMES):
            tools[call.name[:MAX_VALUE]][0] += 1
            tools[call.name[:MAX_VALUE]][1] += call.failed
        self._db.executemany("INSERT INTO tool VALUES (?, ?, ?, ?)", ((log_id, name, *n) for name, n in tools.items()))
        attributes = ((log_id, *pair) for pair in searchable_attributes(fields))
        self._db.executemany("INSERT OR REPLACE INTO attribute VALUES (?, ?, ?)", attributes)
        # In a separate table, in which rows can be replaced: comments come after their logs.
        if comment := text_of(fields.get("user_feedback_comment")):
            self._db.execute(
                "INSERT OR REPLACE INTO comments (rowid, comment) VALUES (?, ?)", (log_id, spaced(comment))
            )
            self._add_words(words(comment))

    def _add_words(self, found: set[str]) -> None:
        """Add words to the vocabulary, each once."""
        if len(self._known_words) > _MAX_KNOWN_WORDS:
            self._known_words.clear()
        new = found - self._known_words
        self._known_words |= new
        for word in new:
            # Longer ones are not words of any language; a search still finds their beginnings.
            if len(word) <= _MAX_WORD:
                inserted = self._db.execute("INSERT OR IGNORE INTO word (word) VALUES (?)", (word,))
                if inserted.rowcount:
                    self._db.execute("INSERT INTO vocabulary (rowid, word) VALUES (?, ?)", (inserted.lastrowid, word))

    def _sum_sessions(self, names: set[str]) -> None:
        """Recompute the sums of these sessions from their logs."""
        for name in names:
            self._db.execute("DELETE FROM session WHERE name = ?", (name,))
            ids = self._db.execute("SELECT id FROM log WHERE session = ? ORDER BY id", (name,)).fetchall()
            self._db.executemany(_ADD_TO_SESSION, ids)

    def remove_deleted(self) -> int:
        """Remove logs that are no longer in the outbox; return how many."""
        gone = [number for (number,) in self._db.execute(_DELETED_LOGS)]
        for start in range(0, len(gone), CHUNK):
            ids = gone[start : start + CHUNK]
            marks = ", ".join("?" * len(ids))
            with self._transaction():
                rows = self._rows(f"id IN ({marks})", *ids)
                # Steps whose turn is deleted become turns again.
                orphans = self._rows(f"root IN ({marks}) AND id NOT IN ({marks})", *ids, *ids)
                aggregates.add_rows(self._db, [*rows, *orphans], self._tools_of, sign=-1)
                for table, key in (("log", "id"), ("comments", "rowid"), ("tool", "log"), ("attribute", "log")):
                    self._db.execute(f"DELETE FROM {table} WHERE {key} IN ({marks})", ids)
                self._db.execute(f"UPDATE log SET root = NULL WHERE root IN ({marks})", ids)
                dirty = self._find_turns(orphans)
                left = (self._rows("id = ?", row.id)[0] for row in orphans)
                aggregates.add_rows(self._db, left, self._tools_of)
                self._db.execute("UPDATE progress SET deleted = deleted + ?", (len(rows),))
                self._sum_sessions(dirty | {row.session for row in (*rows, *orphans)})
        # A contentless FTS5 table cannot delete single rows: once most of its words are stale, the index is rebuilt.
        (deleted,) = self._db.execute("SELECT deleted FROM progress").fetchone()
        if deleted > CHUNK + self._db.execute("SELECT count(*) FROM log").fetchone()[0]:
            self.clear()
        return len(gone)
