"""The journal under damage and power loss: nothing altered is read, nothing new lost, nothing old collected twice."""

from __future__ import annotations

import errno
import gc
import os
import random
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic_core import to_json

from athina_trace._delivery import journal, locks
from athina_trace._delivery.entry import Entry
from athina_trace._delivery.journal import FileJournal
from athina_trace._delivery.segment import read_lines
from athina_trace._delivery.sqlite_outbox import SqliteOutbox

NOW = 1_000_000.0


def entry(name: str, size: int = 0) -> Entry:
    return Entry("key", "log", name, NOW, b'{"response":"%b"}' % (b"x" * size))


def read(folder: Path) -> tuple[list[Entry], int]:
    pieces = list(FileJournal(folder, float("inf")).read({}, lambda _: []))
    return [each for piece in pieces for each in piece.entries], sum(piece.damaged for piece in pieces)


Damage = Callable[[bytearray, random.Random], None]


def flip_bits(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 4)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def change_digits(data: bytearray, chance: random.Random) -> None:
    """The worst bit flips: those that leave a valid length or checksum."""
    places = [place for place, byte in enumerate(data) if 48 <= byte <= 57]
    for _ in range(chance.randint(1, 3)):
        data[chance.choice(places)] = chance.randint(48, 57)


def cut_out(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    del data[start : start + chance.randint(1, 2000)]


def cut_end(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def overwrite(data: bytearray, chance: random.Random) -> None:
    start, length = chance.randrange(len(data)), chance.randint(1, 600)
    other = chance.randrange(len(data))
    given = chance.choice([chance.randbytes(length), bytes(length), b"\n" * length, bytes(data[other:][:length])])
    data[start : start + length] = given


def swap(data: bytearray, chance: random.Random) -> None:
    first, second = sorted(chance.sample(range(len(data)), 2))
    data[:] = data[second:] + data[first:second] + data[:first]


DAMAGES: list[Damage] = [flip_bits, change_digits, cut_out, cut_end, overwrite, swap]


def test_of_two_thousand_damaged_segments_no_altered_body_is_read(tmp_path: Path) -> None:
    made = [entry(f"ref-{number}", 7 * number**2) for number in range(12)]
    whole = FileJournal(tmp_path / "whole", float("inf"))
    for each in made:
        whole.put(each)
    (segment,) = (tmp_path / "whole").iterdir()
    sound = segment.read_bytes()
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    chance = random.Random(20)
    found = seen = 0
    for number in range(2_000):
        data = bytearray(sound)
        DAMAGES[number % len(DAMAGES)](data, chance)
        (damaged / segment.name).write_bytes(data)
        entries, skipped = read(damaged)
        assert set(entries) <= set(made)
        found += len(entries)
        seen += bool(skipped)
    assert found > 2_000 * len(made) / 2, "whole records are read still"
    assert seen > 1_000


def test_records_of_earlier_versions_are_still_read(tmp_path: Path) -> None:
    (tmp_path / "00000001.journal").write_bytes(
        b"".join(b"\n%d\t%b\t%b\n" % (2, to_json(("log", "key", f"old-{number}", NOW)), b"{}") for number in range(3))
    )
    FileJournal(tmp_path, float("inf")).put(entry("new"))
    entries, damaged = read(tmp_path)
    assert [each.reference for each in entries] == ["old-0", "old-1", "old-2", "new"]
    assert not damaged


def test_a_length_that_swallows_the_checksum_makes_no_record_of_an_earlier_version(tmp_path: Path) -> None:
    FileJournal(tmp_path, float("inf")).put(entry("ref", 985))  # a body of 1,000 bytes
    (segment,) = tmp_path.iterdir()
    data = segment.read_bytes()
    assert data.startswith(b"\n1000\t")
    segment.write_bytes(data.replace(b"\n1000\t", b"\n1009\t"))
    assert read(tmp_path) == ([], 1)


def test_damage_is_counted_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"))
    for name in ("1", "2", "3"):
        outbox.put(entry(name, 100))
    (segment,) = (tmp_path / "outbox.journal").glob("*.journal")
    segment.write_bytes(segment.read_bytes().replace(b'"2"', b'"9"'))
    outbox.collect()
    assert outbox.counts().damaged == 1
    assert outbox.counts().waiting == 2
    assert "1 records in the journal" in caplog.text
    outbox.close()


def test_a_segment_that_is_deleted_while_it_is_opened_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its opening and locking, another process finds it collected and deletes it."""
    share = locks.share

    def late(fd: int) -> None:
        (tmp_path / "00000001.journal").unlink(missing_ok=True)
        share(fd)

    monkeypatch.setattr(locks, "share", late)
    FileJournal(tmp_path, float("inf")).put(entry("ref"))
    assert [each.reference for each in read(tmp_path)[0]] == ["ref"]


def test_an_unreadable_segment_does_not_block_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 1000)
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"))
    for number in range(6):
        outbox.put(entry(str(number), size=600))

    def fail(path: Path, *args: Any) -> Any:
        if path.name == "00000001.journal":
            raise OSError(errno.EIO, "Input/output error")
        return read_lines(path, *args)

    with monkeypatch.context() as patched:
        patched.setattr(journal, "read_lines", fail)
        patched.setattr(os, "pread", lambda *_: fail(tmp_path / "00000001.journal"))
        assert outbox.collect() == 4
        assert outbox.compact()
    assert outbox.is_behind
    assert "00000001.journal cannot be read ([Errno 5]" in caplog.text
    assert outbox.collect() == 2
    assert not outbox.is_behind
    outbox.close()


def test_a_segment_whose_close_fails_prints_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python prints what a finalizer raises; a network file system may fail only on close."""
    written = FileJournal(tmp_path, float("inf"))
    written.put(entry("1"))
    spoken: list[object] = []
    close = os.close

    def fail(fd: int) -> None:
        close(fd)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(sys, "unraisablehook", spoken.append)
        patched.setattr(os, "close", fail)
        written.close()
        gc.collect()
    assert not spoken


class Machine:
    """An outbox whose machine loses power, and whose files are brought back from backups."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "outbox.db"
        self.journal = folder / "outbox.journal"
        self.made = 0
        self.collected: set[str] = set()
        self.backup: tuple[Path, set[str]] | None = None
        self.outbox = SqliteOutbox(str(self.path))

    def put(self, count: int) -> list[str]:
        names = [f"ref-{self.made + number:06d}" for number in range(count)]
        self.made += count
        for name in names:
            # All of one size: rewritten records end where the lost ones ended.
            self.outbox.put(entry(name, 30))
        return names

    def collect(self) -> None:
        self.outbox.collect_all()
        self.collected = set(self.held())

    def held(self) -> Counter[str]:
        return Counter(each.reference for each in self.outbox.store.waiting())

    def back_up(self) -> None:
        """Back up the store."""
        copy = self.folder / "backup.db"
        copy.unlink(missing_ok=True)
        self.outbox.store.counts()
        with closing(sqlite3.connect(self.path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        self.backup = copy, set(self.held())

    def restore(self) -> None:
        """Restore the store from the backup."""
        if self.backup is not None:
            copy, self.collected = self.backup
            for name in ("outbox.db-wal", "outbox.db-shm", "outbox.db"):
                (self.folder / name).unlink(missing_ok=True)
            shutil.copy(copy, self.path)

    def start(self) -> None:
        self.outbox._let_go()
        self.outbox._journal.close()
        self.outbox = SqliteOutbox(str(self.path))


def test_a_record_that_lost_its_checksum_is_not_collected_again(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.put(2)
    machine.collect()
    (segment,) = machine.journal.glob("*.journal")
    os.truncate(segment, segment.stat().st_size - len(b"\t01234567\n"))
    machine.start()
    machine.put(1)
    machine.collect()
    assert machine.held() == Counter(["ref-000000", "ref-000001", "ref-000002"])


def test_after_a_loss_a_second_loss_is_noticed_as_exactly(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.put(1)
    (segment,) = machine.journal.glob("*.journal")
    size = segment.stat().st_size
    machine.put(3)
    for kept in (3, 4, 4):
        machine.collect()
        os.truncate(segment, kept * size)
        machine.put(2)
    machine.collect()
    assert set(machine.held().values()) == {1}
    assert len(machine.held()) == machine.made == 10
    machine.outbox.close()


def test_wherever_a_record_is_cut_it_is_not_collected_twice(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.put(1)
    (segment,) = machine.journal.glob("*.journal")
    size = segment.stat().st_size
    for cut in range(size + 1):
        machine.collect()
        held = machine.held()
        os.truncate(segment, segment.stat().st_size - cut)
        (new,) = machine.put(1)
        machine.collect()
        assert machine.held() == held + Counter([new]), cut
    machine.outbox.close()


def lose(machine: Machine, data: st.DataObject) -> None:
    if not data.draw(st.booleans(), "the program lives on"):
        machine.outbox._let_go()
        if data.draw(st.booleans(), "restore the store"):
            machine.restore()
        if data.draw(st.booleans(), "delete the journal"):
            shutil.rmtree(machine.journal, ignore_errors=True)
        machine.start()
    # Newest first, since that one has changed last; a share of its size is what is left of a segment.
    cuts = data.draw(st.lists(st.none() | st.floats(0, 1), max_size=4), "cuts")
    for segment, share in zip(sorted(machine.journal.glob("*.journal"), reverse=True), cuts, strict=False):
        if share is not None:
            with segment.open("r+b") as file:
                file.truncate(round(share * segment.stat().st_size))


@given(data=st.data())
@settings(max_examples=80, suppress_health_check=list(HealthCheck))
def test_after_a_power_loss_nothing_new_is_lost_and_nothing_old_is_collected_twice(data: st.DataObject) -> None:
    folder = Path(tempfile.mkdtemp())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "SEGMENT_BYTES", 700)
        machine = Machine(folder)
        for _ in range(data.draw(st.integers(1, 3), "losses")):
            for _ in range(data.draw(st.integers(1, 4), "batches")):
                machine.put(data.draw(st.integers(0, 6), "logs"))
                if data.draw(st.booleans(), "collect"):
                    machine.collect()
                if data.draw(st.booleans(), "back up"):
                    machine.back_up()
                if data.draw(st.booleans(), "compact"):
                    machine.outbox.compact(vacuum=False)
                    machine.collected = set(machine.held())
            lose(machine, data)
            before = set(machine.collected)
            new = machine.put(data.draw(st.integers(1, 8), "new"))
            machine.collect()
            held = machine.held()
            assert {name: held[name] for name in new} == dict.fromkeys(new, 1)
            assert {name: held[name] for name in before} == dict.fromkeys(before, 1)
            assert max(held.values()) == 1
        machine.outbox.close()
    shutil.rmtree(folder)
