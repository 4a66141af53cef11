"""The schema of the store, as a list of migrations from every earlier version to the current one."""

from __future__ import annotations

MIGRATIONS = [
    """
    CREATE TABLE entry (
        id INTEGER PRIMARY KEY AUTOINCREMENT, lane TEXT NOT NULL, kind TEXT NOT NULL, reference TEXT NOT NULL,
        made REAL NOT NULL, body BLOB NOT NULL, state TEXT NOT NULL DEFAULT 'waiting',
        status INTEGER, reason TEXT, prompt_run_id TEXT, settled REAL
    );
    CREATE INDEX entry_waiting ON entry (lane, id) WHERE state = 'waiting';
    CREATE INDEX entry_oldest ON entry (id) WHERE state = 'waiting';
    CREATE INDEX entry_settled ON entry (state, id) WHERE state != 'waiting';
    CREATE INDEX entry_reference ON entry (reference);
    CREATE TABLE lane (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
        due REAL NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0, owner INTEGER
    );
    CREATE INDEX lane_ready ON lane (due, id) WHERE owner IS NULL;
    CREATE INDEX lane_owner ON lane (owner) WHERE owner IS NOT NULL;
    CREATE TABLE segment (name TEXT PRIMARY KEY, collected INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    """,
    "CREATE TABLE note (name TEXT PRIMARY KEY, words TEXT NOT NULL, since REAL NOT NULL)",
    """
    ALTER TABLE lane RENAME TO ordering_key;
    DROP INDEX lane_ready;
    DROP INDEX lane_owner;
    CREATE INDEX ordering_key_ready ON ordering_key (due, id) WHERE owner IS NULL;
    CREATE INDEX ordering_key_owner ON ordering_key (owner) WHERE owner IS NOT NULL;
    ALTER TABLE entry RENAME COLUMN lane TO ordering_key;
    ALTER TABLE entry RENAME COLUMN settled TO resolved;
    DROP INDEX entry_settled;
    CREATE INDEX entry_resolved ON entry (state, id) WHERE state != 'waiting';
    ALTER TABLE segment ADD COLUMN tail BLOB NOT NULL DEFAULT x'';
    CREATE TABLE fingerprint (segment TEXT, start INTEGER, lines BLOB NOT NULL, PRIMARY KEY (segment, start))
    WITHOUT ROWID;
    CREATE TABLE identity (store BLOB NOT NULL);
    INSERT INTO identity VALUES (randomblob(8));
    UPDATE counter SET name = 'possible_duplicates' WHERE name = 'doubtful';
    INSERT INTO counter SELECT 'refused_bytes', coalesce(sum(length(body)), 0) FROM entry WHERE state = 'refused'
    """,
    """
    INSERT INTO counter SELECT 'delivered_bytes', coalesce(sum(length(body)), 0) FROM entry WHERE state = 'delivered'
    """,
]
"""Entry n migrates a file from version n to n + 1. A released entry must never change."""
