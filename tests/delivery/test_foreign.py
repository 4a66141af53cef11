"""Foreign files in the folder of an outbox, and any damage to its store, do not stop deliveries."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import athina_trace
from athina_trace._delivery.database import is_corrupt
from athina_trace._delivery.engine import Engine
from athina_trace._delivery.entry import Entry
from athina_trace._delivery.outbox import Outbox
from athina_trace._delivery.senders import Senders
from athina_trace._delivery.sqlite_outbox import SqliteOutbox
from athina_trace._delivery.worker import Worker
from tests.conftest import KEY
from tests.delivery.test_engine import Athina, Clock
from tests.support.athina_server import AthinaServer

FOREIGN: dict[str, Callable[[Path], object]] = {
    "².acknowledged": lambda path: path.write_bytes(b"x" * 16),
    "9" * 30 + ".acknowledged": lambda path: path.write_bytes(b"x" * 16),
    "5.acknowledged": lambda path: path.mkdir(),
    "6.acknowledged": os.mkfifo,
    "00000001.journal": os.mkfifo,
    "00000002.journal": os.mkfifo,
    "00000003.journal": lambda path: path.mkdir(),
    "00000004.journal": lambda path: path.symlink_to("elsewhere"),
    "٣٣٣٣٣٣٣٣.journal": lambda path: path.write_bytes(b"\n"),
    "99999999999.journal": lambda path: path.write_bytes(b"\n"),
    "room": lambda path: path.mkdir(),
    "a.db": lambda path: path.write_bytes(b"x"),
}


@pytest.mark.parametrize("names", [*([name] for name in FOREIGN), FOREIGN], ids=[*FOREIGN, "all of them"])
def test_foreign_files_in_the_outbox_stop_nothing(names: Any, athina: AthinaServer, tmp_path: Path) -> None:
    folder = tmp_path / "outbox.journal"
    folder.mkdir(mode=0o700)
    for name in names:
        FOREIGN[name](folder / name)
    athina_trace.configure(api_key=KEY, base_url=athina.url, outbox=str(tmp_path / "outbox.db"))
    for number in range(5):
        athina_trace.log_inference(response=str(number), session_id="s")
    report, now = athina_trace.flush(60), athina_trace.status()
    assert (bool(report), now.delivered, now.memory_only, now.faults) == (True, 5, None, 0)
    assert [request.json["response"] for request in athina.accepted] == list("01234")


@pytest.mark.parametrize(
    "words", ["[1e400,{}]", "[0,[]]", '[0,{"00000001.journal":1e400}]', "[NaN,{}]", "{", "", "[[]]"]
)
def test_an_unreadable_limit_stops_nothing(words: str, athina: AthinaServer, tmp_path: Path) -> None:
    folder = tmp_path / "outbox.journal"
    folder.mkdir(mode=0o700)
    (folder / "room").write_text(words)
    athina_trace.configure(api_key=KEY, base_url=athina.url, outbox=str(tmp_path / "outbox.db"))
    athina_trace.log_inference(response="r")
    assert athina_trace.flush(60)
    assert len(athina.accepted) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("log"),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(header=JSON | st.lists(JSON, min_size=4, max_size=4))
@example(header=[None, "key", "ref", 1])
@example(header=[["log"], "key", "ref", 1])
@example(header=["log", "key", "ref", float("nan")])
@example(header=["log", "key", "ref", 10**400])
@example(header=["log", None, {}, 1])
def test_whatever_a_record_says_the_others_are_collected(header: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Its checksum is right: a bug in another version, or another program."""
    outbox = SqliteOutbox(str(tmp_path_factory.mktemp("outbox") / "outbox.db"))
    outbox.put(Entry("key", "log", "before", 1.0, b"{}"))
    (segment,) = Path(outbox.path).with_suffix(".journal").glob("*.journal")
    record = b"\n2\t%b\t{}" % json.dumps(header).encode()
    with segment.open("ab") as file:
        file.write(record + b"\t%08x\n" % crc32(record))
    outbox.put(Entry("key", "log", "after", 1.0, b"{}"))
    outbox.collect_all()
    assert {entry.reference for entry in outbox.store.waiting()} >= {"before", "after"}
    outbox.close()


@pytest.mark.parametrize("seed", [4, 18, 28, 62, 83, *range(4)])
def test_a_store_damaged_anywhere_is_replaced(seed: int, tmp_path: Path) -> None:
    path, random = tmp_path / "outbox.db", Random(seed)
    outbox = SqliteOutbox(str(path))
    for number in range(40):
        body = b'{"n":%d,"x":"%b"}' % (number, b"x" * random.choice([10, 300, 3000]))
        outbox.put(Entry(f"key{number % 7}", "log", f"old{number}", 1.0, body))
    outbox.collect_all()
    outbox.close()
    data = bytearray(path.read_bytes())
    for _ in range(random.choice([1, 3, 20, 200])):
        place = random.randrange(len(data))
        data[place] = random.randrange(256) if random.random() < 0.7 else 0
    path.write_bytes(data)
    athina = Athina()
    outbox = SqliteOutbox(str(path))
    worker = Worker(Engine(outbox, partial(Senders, lambda: athina, clock=Clock()), clock=Clock()), clock=Clock())
    outbox.put(Entry("new", "log", "new", 1.0, b"{}"))
    ends = time.monotonic() + 60
    while "new" not in athina.tries and time.monotonic() < ends:
        worker._step()
        time.sleep(0.001)
    assert "new" in athina.tries
    worker.close(0)
    outbox.close()


@pytest.mark.parametrize("taken_away", [shutil.rmtree, lambda folder: folder.rename(f"{folder} before")])
def test_what_waits_in_a_store_that_was_taken_away_is_moved_to_the_next_once(
    taken_away: Callable[[Path], object], tmp_path: Path
) -> None:
    outboxes = [SqliteOutbox(str(tmp_path / "folder" / "outbox.db")) for _ in range(3)]
    for number in range(100):
        outboxes[number % 3].put(Entry(f"s{number % 5}", "log", str(number), 1.0, b"{}"))
    for each in outboxes:
        each.collect_all()
        with each.transaction():
            each.lease(2.0, keys=1, batch=1)
    taken_away(tmp_path / "folder")
    assert [each.refresh() for each in outboxes] == [True] * 3
    for each in outboxes:
        each.collect_all()
    assert [entry.reference for entry in outboxes[0].store.waiting()] == [str(number) for number in range(100)]
    assert outboxes[0].counts().made == 100
    for each in outboxes:
        each.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="nothing says what is open")
def test_nothing_is_written_into_the_files_of_a_program_that_closes_all_descriptors(
    athina: AthinaServer, tmp_path: Path
) -> None:
    """Daemons close descriptors by number; their next files get the lowest numbers, such as SQLite's."""
    outbox = tmp_path / "outbox.db"
    athina_trace.configure(api_key=KEY, base_url=athina.url, outbox=str(outbox))
    mine: set[int] = set()
    for number in range(4):
        athina_trace.log_inference(response=str(number), session_id="s")
        assert athina_trace.flush(60)
        opened = {int(each.name): os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()}
        ours = [fd for fd, path in opened.items() if path.startswith(str(tmp_path / "outbox"))]
        assert len(ours) >= 4  # the store's two or three, the journal's, the owners'
        for fd in ours:
            os.close(fd)
        mine |= {os.open(tmp_path / f"program {number} {each}", os.O_RDWR | os.O_CREAT) for each in range(20)}
    athina_trace.log_inference(response="4", session_id="s")
    assert athina_trace.flush(60)
    assert [request.json["response"] for request in athina.accepted] == list("01234")
    athina_trace.shutdown(10)
    assert {os.fstat(fd).st_size for fd in mine} == {0}
    for fd in mine:
        os.close(fd)


def test_an_undecodable_message_of_sqlite_means_damage() -> None:
    found = UnicodeDecodeError("utf-8", b'malformed database schema (\xe5dentity) - near "x"', 27, 28, "invalid")
    assert is_corrupt(found)
    assert not is_corrupt(UnicodeDecodeError("utf-8", b"\xe5", 0, 1, "invalid"))
    assert not is_corrupt(sqlite3.ProgrammingError("a fault of ours"))


def move(path: Path) -> None:
    path.parent.rename(path.parent.with_name(f"moved {time.monotonic_ns()}"))


def move_and_put_an_empty_folder_there(path: Path) -> None:
    move(path)
    path.parent.mkdir()


def delete(path: Path) -> None:
    shutil.rmtree(path.parent)


def delete_the_journal(path: Path) -> None:
    shutil.rmtree(path.with_suffix(".journal"))


def delete_the_store(path: Path) -> None:
    for each in path.parent.glob("outbox.db*"):
        each.unlink()


def deliver(outbox: Outbox) -> set[str]:
    """Deliver everything, as a worker would; return it."""
    taken = set[str]()
    outbox.refresh()
    while True:
        with outbox.transaction():
            moved = outbox.collect()
            leases = outbox.lease(0.0, keys=99, batch=99)
            for lease in leases:
                taken |= {entry.reference for entry in lease.entries}
                outbox.all_delivered([(entry, None) for entry in lease.entries], 0.0, keep=False)
                outbox.release(lease.ordering_key)
        if not moved and not leases:
            return taken


STEPS = st.lists(
    st.sampled_from([
        "put", "put", "deliver", move, move_and_put_an_empty_folder_there, delete, delete_the_journal, delete_the_store,
    ]),
    max_size=12,
)  # fmt: skip


@settings(max_examples=15)
@given(STEPS)
@example(["put", "deliver", "put", move, "put"])
@example(["put", delete_the_journal, "put", delete])
def test_whatever_is_taken_away_what_is_put_is_delivered(steps: list[str | Callable[[Path], None]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state" / "outbox.db"
        outbox = SqliteOutbox(str(path))
        put, taken = 0, set[str]()
        for step in (*steps, "deliver"):
            if step == "put":
                put += 1
                outbox.put(Entry("key", "log", str(put), 0.0, b"{}"))
            elif step == "deliver":
                taken |= deliver(outbox)
            elif callable(step):
                with suppress(FileNotFoundError):
                    step(path)
        assert taken == set(map(str, range(1, put + 1)))
        outbox.close()
