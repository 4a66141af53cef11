"""The store: files of older versions, unknown kinds of entries, and counters that agree with the rows."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from athina_trace._delivery import maintenance
from athina_trace._delivery.acknowledged import Acknowledgements
from athina_trace._delivery.database import Database
from athina_trace._delivery.entry import Entry, Stored
from athina_trace._delivery.migrations import MIGRATIONS
from athina_trace._delivery.outbox import MemoryOutbox, Outbox
from athina_trace._delivery.sqlite_outbox import SqliteOutbox
from athina_trace._delivery.store import Store
from athina_trace.errors import OutboxError

NOW = 1_000_000.0


def put(outbox: Outbox, *names: str) -> None:
    for name in names:
        outbox.put(Entry("key", "log", name, NOW, b'{"n":"%b"}' % name.encode()))


def lease(outbox: Outbox) -> list[Stored]:
    with outbox.transaction():
        outbox.collect()
        return [entry for each in outbox.lease(NOW, keys=9, batch=9) for entry in each.entries]


def test_a_file_of_an_earlier_version_keeps_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with closing(sqlite3.connect(path)) as old:
        for script in MIGRATIONS[:2]:
            old.executescript(script)
        old.executescript("""
            INSERT INTO entry (lane, kind, reference, made, body) VALUES ('s', 'log', 'one', 1, '{}');
            INSERT INTO entry (lane, kind, reference, made, body, state, status, reason, settled)
            VALUES ('s', 'log', 'two', 2, '{"no":1}', 'refused', 400, 'no', 3);
            INSERT INTO lane (name, attempts) VALUES ('s', 2);
            INSERT INTO segment VALUES ('00000007.journal', 4711);
            INSERT INTO counter VALUES ('made', 2), ('refused', 1), ('doubtful', 5);
            PRAGMA user_version = 2;
        """)
    outbox = SqliteOutbox(str(path))
    counts = outbox.counts()
    assert (counts.made, counts.waiting, counts.refused, counts.possible_duplicates) == (2, 1, 1, 5)
    assert [entry.reference for entry in lease(outbox)] == ["one"]
    assert outbox.store.offsets() == {"00000007.journal": 4711}
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT value FROM counter WHERE name = 'refused_bytes'").fetchone() == (len('{"no":1}'),)
    outbox.release("s")
    outbox.close()
    assert maintenance.retry(str(path)) == 1


def test_a_store_of_an_earlier_version_is_migrated_before_the_first_log(tmp_path: Path) -> None:
    """If it is still running, that version takes a record with a checksum for a torn one and skips it."""
    path = tmp_path / "outbox.db"
    with closing(sqlite3.connect(path)) as old:
        for script in MIGRATIONS[:2]:
            old.executescript(script)
        old.execute("PRAGMA user_version = 2")
        outbox = SqliteOutbox(str(path))
        old.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OutboxError, match="made by an earlier athina_trace and cannot be migrated now"):
            put(outbox, "1")
        old.execute("ROLLBACK")
        put(outbox, "1")
        with pytest.raises(sqlite3.OperationalError):
            old.execute("SELECT name FROM lane")
    assert [entry.reference for entry in lease(outbox)] == ["1"]
    outbox.close()


def test_an_entry_of_an_unknown_kind_is_refused_and_blocks_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"))
    outbox.put(Entry("key", "later", "strange", NOW, b"{}"))  # type: ignore[arg-type]
    put(outbox, "1")
    assert [entry.reference for entry in lease(outbox)] == ["1"]
    with closing(sqlite3.connect(outbox.path)) as db:
        assert db.execute("SELECT reason FROM entry WHERE state = 'refused'").fetchall() == [
            ("unknown kind 'later': not sent",)
        ]
    assert "kind 'later', which this version of athina_trace does not know" in caplog.text
    outbox.release("key")
    assert maintenance.retry(outbox.path) == 1
    lease(outbox)
    counts = outbox.counts()
    assert (counts.refused, counts.waiting) == (1, 1)
    outbox.close()


@pytest.mark.parametrize("how", ["memory", "disk"])
def test_nothing_leaves_the_journal_before_the_commit(how: str, tmp_path: Path) -> None:
    outbox: Outbox = MemoryOutbox() if how == "memory" else SqliteOutbox(str(tmp_path / "outbox.db"))
    put(outbox, "1", "2")
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            collect_and_fail(outbox)
    put(outbox, "3")
    assert [entry.reference for entry in lease(outbox)] == ["1", "2", "3"]
    assert outbox.counts().made == 3
    outbox.close()


def collect_and_fail(outbox: Outbox) -> None:
    with outbox.transaction():
        assert outbox.collect() == 2
        outbox.collect()
        raise ZeroDivisionError


def test_what_was_dropped_is_counted_once_whatever_fails(tmp_path: Path) -> None:
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"))
    put(outbox, "1", "2")
    outbox.drop()
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            collect_and_fail(outbox)
    for _ in range(2):
        outbox.collect()
    assert (outbox.counts().made, outbox.counts().dropped) == (3, 1)
    outbox.close()


def test_memory_is_freed_once_it_is_collected() -> None:
    outbox = MemoryOutbox(max_bytes=10_000)
    for _ in range(10):
        outbox.put(Entry("key", "log", "ref", NOW, b"x" * 8_000))
        for entry in lease(outbox):
            with outbox.transaction():
                outbox.delivered(entry, NOW)
                outbox.release("key")
    assert outbox.counts().delivered == 10


@pytest.mark.parametrize("names", [("new 1", "new 2"), ("old 1", "old 2")], ids=["other logs", "the same references"])
def test_a_dead_owners_acknowledgements_delete_nothing_of_another_store(names: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    dying = SqliteOutbox(str(path))
    put(dying, "old 1", "old 2")
    for entry in lease(dying):
        dying.acknowledge(entry)
    dying._owner.release()
    dying.store.close()
    for name in ("outbox.db", "outbox.db-wal", "outbox.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    for segment in (tmp_path / "outbox.journal").glob("*.journal"):
        segment.unlink()
    heir = SqliteOutbox(str(path))
    put(heir, *names)
    heir.collect_all()
    with heir.transaction():
        heir.reclaim()
    assert tuple(entry.reference for entry in lease(heir)) == names
    heir.close()


def test_acknowledgements_name_the_reference_too(tmp_path: Path) -> None:
    """A store that lost its last transactions reuses their ids for other logs, with the same identity."""
    dying = SqliteOutbox(str(tmp_path / "outbox.db"))
    put(dying, "1")
    (entry,) = lease(dying)
    dying.acknowledge(entry._replace(reference="lost"))
    dying._owner.release()
    heir = SqliteOutbox(str(tmp_path / "outbox.db"))
    with heir.transaction():
        heir.reclaim()
    assert [each.reference for each in lease(heir)] == ["1"]
    heir.close()
    dying.store.close()


def test_what_a_dead_owner_acknowledged_is_kept_until_it_is_committed(tmp_path: Path) -> None:
    dying, heir = (SqliteOutbox(str(tmp_path / "outbox.db")) for _ in range(2))
    put(dying, "1", "2")
    first, _ = lease(dying)
    dying.acknowledge(first)
    dying._owner.release()
    with suppress(OSError), heir.transaction():
        heir.reclaim()
        raise OSError(errno.ENOSPC, "No space left on device")
    with heir.transaction():
        heir.reclaim()
    assert [each.reference for each in lease(heir)] == ["2"]
    assert not list((tmp_path / "outbox.journal").glob("*.acknowledged"))
    heir.close()
    dying.store.close()


def test_senders_with_first_answers_at_once_share_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dying, heir = (SqliteOutbox(str(tmp_path / "outbox.db")) for _ in range(2))
    put(dying, "1", "2")
    both, works = threading.Barrier(2), Acknowledgements.__init__

    def wait_for_the_other(made: Acknowledgements, *given: Any) -> None:
        with suppress(threading.BrokenBarrierError):
            both.wait(0.5)  # in vain, unless both senders make a file
        works(made, *given)

    monkeypatch.setattr(Acknowledgements, "__init__", wait_for_the_other)
    senders = [threading.Thread(target=dying.acknowledge, args=(entry,)) for entry in lease(dying)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    dying._owner.release()
    with heir.transaction():
        heir.reclaim()
    assert (lease(heir), heir.counts().delivered) == ([], 2)
    heir.close()
    dying.store.close()


@pytest.mark.parametrize("fails", ["read_bytes", "lstat"])
def test_unreadable_acknowledgements_block_nothing(fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad spot on the disk costs duplicates, and so does a process that deletes a file that another has found."""
    dying, heir = (SqliteOutbox(str(tmp_path / "outbox.db")) for _ in range(2))
    put(dying, "1", "2")
    first, _ = lease(dying)
    dying.acknowledge(first)
    dying._owner.release()
    works = getattr(Path, fails)

    def fail(path: Path) -> object:
        if path.suffix == ".acknowledged":
            raise OSError(errno.EIO, "Input/output error")
        return works(path)

    with monkeypatch.context() as patched:
        patched.setattr(Path, fails, fail)
        with heir.transaction():
            heir.reclaim()
    assert [each.reference for each in lease(heir)] == ["1", "2"]
    heir.close()
    dying.store.close()


def test_leased_entries_are_not_purged_and_the_counts_agree(tmp_path: Path) -> None:
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"))
    put(outbox, "1", "2")
    under_way = lease(outbox)
    outbox.put(Entry("other", "log", "3", NOW, b"{}"))
    outbox.collect()
    assert maintenance.purge(outbox.path, "waiting", before=NOW + 1) == 1
    with outbox.transaction():
        for entry in under_way:
            outbox.delivered(entry, NOW)
        outbox.release("key")
    counts = outbox.counts()
    assert (counts.made, counts.delivered, counts.waiting) == (2, 2, 0)
    outbox.close()


def test_a_purged_row_is_not_counted(tmp_path: Path) -> None:
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"))
    put(outbox, "1", "2")
    first, second = lease(outbox)
    with closing(sqlite3.connect(outbox.path)) as db, db:
        db.execute("DELETE FROM entry")
        db.execute("UPDATE counter SET value = 0 WHERE name = 'made'")
    with outbox.transaction():
        outbox.delivered(first, NOW)
        outbox.refused(second, NOW, status=400, reason="no")
    counts = outbox.counts()
    assert (counts.made, counts.delivered, counts.refused, counts.waiting) == (0, 0, 0, 0)
    outbox.close()


def test_the_leases_of_a_dead_process_can_be_purged(tmp_path: Path) -> None:
    dying = SqliteOutbox(str(tmp_path / "outbox.db"))
    put(dying, "1", "2")
    first, _ = lease(dying)
    dying.acknowledge(first)
    dying._owner.release()
    dying.store.close()
    assert maintenance.purge(dying.path, "waiting", before=NOW + 1) == 1
    heir = SqliteOutbox(dying.path)
    counts = heir.counts()
    assert (counts.made, counts.delivered, counts.waiting) == (1, 1, 0)
    heir.close()


def test_a_new_file_is_synced_as_safely_as_an_existing_one(tmp_path: Path) -> None:
    for _ in range(2):
        outbox = SqliteOutbox(str(tmp_path / "outbox.db"))
        assert [outbox.store._pragma(name) for name in ("synchronous", "auto_vacuum", "temp_store")] == [1, 2, 2]
        outbox.close()


def next_segment(outbox: SqliteOutbox) -> None:
    before = set(Path(outbox.path).with_suffix(".journal").glob("*.journal"))
    while set(Path(outbox.path).with_suffix(".journal").glob("*.journal")) == before:
        outbox.put(Entry("key", "log", "large", NOW, b'{"n":"%b"}' % (b"x" * 999)))


def opened_twice(outbox: SqliteOutbox) -> None:
    other = SqliteOutbox(outbox.path)
    assert other.store.marks() == {}
    other.close()


@pytest.mark.parametrize("work", [next_segment, opened_twice])
def test_a_commit_is_kept_whatever_this_and_other_processes_close(
    work: Callable[[SqliteOutbox], None], tmp_path: Path
) -> None:
    """SQLite's locks are kept: without them, the next process to close the store would delete its log."""
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"), max_bytes=200_000)
    put(outbox, "first")
    assert outbox.store.marks() == {}
    script = (
        "import sys; from athina_trace._delivery.store import Store; store = Store(sys.argv[1]);"
        "print(store.counts().made); store.close()"
    )
    look = [sys.executable, "-c", script, outbox.path]
    work(outbox)
    assert subprocess.run(look, check=True, capture_output=True, text=True).stdout == "0\n"
    outbox.collect_all()
    made = outbox.counts().made
    assert made > 0
    assert subprocess.run(look, check=True, capture_output=True, text=True).stdout == f"{made}\n"
    outbox.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="nothing says what is open")
@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_file_that_the_program_closes_during_opening_is_not_used(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, prepare, mine = tmp_path / "outbox.db", Database._prepare, list[int]()

    def interrupted(self: Database, connection: sqlite3.Connection) -> None:
        prepare(self, connection)
        monkeypatch.undo()
        for each in Path("/proc/self/fd").iterdir():
            if os.path.realpath(each) == f"{path}{suffix}":
                os.close(int(each.name))
                mine.append(os.open(tmp_path / "program", os.O_RDWR | os.O_CREAT))

    monkeypatch.setattr(Database, "_prepare", interrupted)
    with pytest.raises(sqlite3.OperationalError, match="the program closed a file"):
        Store(str(path))
    store = Store(str(path))
    with store.transaction():
        store.add([Entry("key", "log", "one", NOW, b"{}")])
    store.close()
    (fd,) = mine
    assert os.fstat(fd).st_size == 0
    os.close(fd)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT reference FROM entry").fetchall() == [("one",)]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="nothing says what is open")
def test_a_store_whose_locks_the_program_has_closed_is_not_used_beside_another_process(tmp_path: Path) -> None:
    """Both would write to it at once, and damage it."""
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"))
    put(outbox, "one")
    assert [entry.reference for entry in lease(outbox)] == ["one"]
    for each in Path("/proc/self/fd").iterdir():
        if os.path.realpath(each) == f"{outbox.path}-shm":
            os.close(int(each.name))
    script = (
        "import sys; from athina_trace._delivery.sqlite_outbox import SqliteOutbox; outbox = SqliteOutbox(sys.argv[1]);"
        "outbox.reclaim(); print(outbox.counts().made, flush=True); sys.stdin.read(); outbox.close()"
    )
    command = [sys.executable, "-c", script, outbox.path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "1\n"
        for _ in range(2):
            with pytest.raises(sqlite3.OperationalError, match="locks"):
                lease(outbox)
        other.communicate()
    outbox.release("key")
    put(outbox, "two")
    assert [entry.reference for entry in lease(outbox)] == ["one", "two"]
    outbox.close()
