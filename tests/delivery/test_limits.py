"""`max_outbox_bytes` applies to each writing process, and blocks none once there is room again."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import athina_trace
from athina_trace._clock import clock
from athina_trace._delivery import maintenance
from athina_trace._delivery.engine import Engine
from athina_trace._delivery.entry import Entry
from athina_trace._delivery.journal import _SEGMENTS
from athina_trace._delivery.outbox import MemoryOutbox, Outbox
from athina_trace._delivery.quota import KEEP_REFUSED_SECONDS
from athina_trace._delivery.senders import NoSenders
from athina_trace._delivery.sqlite_outbox import SqliteOutbox
from athina_trace.errors import OutboxFullError
from tests.support.athina_server import AthinaServer
from tests.support.waiting import until

NOW = 1_000_000.0
BODY = b'{"response":"%b"}' % (b"x" * 3000)


def put(outbox: Outbox, count: int) -> int:
    """Put so many logs, as a runtime does; return how many were dropped."""
    dropped = 0
    for number in range(count):
        try:
            outbox.put(Entry(f"key{number}", "log", f"ref-{number}", NOW, BODY))
        except OutboxFullError:
            outbox.drop()
            dropped += 1
    return dropped


def resolve_all(outbox: Outbox, *, status: int | None = None, now: float = NOW, keep: bool = False) -> None:
    with outbox.transaction():
        outbox.collect()
        for lease in outbox.lease(now, keys=10_000, batch=10_000):
            for entry in lease.entries:
                if status is None:
                    outbox.delivered(entry, now, keep=keep)
                else:
                    outbox.refused(entry, now, status=status, reason="no")
            outbox.release(lease.ordering_key)


def occupied(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.journal") if path.is_file())


@pytest.mark.parametrize("limit", [65_536, 300_000, 900_000])
def test_an_outbox_smaller_than_a_segment_stays_in_use(limit: int, tmp_path: Path) -> None:
    for _ in range(28):
        outbox = SqliteOutbox(str(tmp_path / "outbox.db"), max_bytes=limit)
        assert put(outbox, 12) == 0
        resolve_all(outbox)
        outbox.compact()
        outbox.close()
    assert occupied(tmp_path) <= limit, "a segment is small enough to be given back, too"
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"), max_bytes=limit)
    assert outbox.counts().delivered == 28 * 12
    outbox.close()


def test_a_program_that_goes_on_for_long_has_the_room_that_deliveries_make(tmp_path: Path) -> None:
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"), max_bytes=300_000)
    for _ in range(60):
        assert put(outbox, 10) == 0
        resolve_all(outbox)
    outbox.close()


def test_the_limit_holds_for_programs_too_short_to_collect_anything(tmp_path: Path) -> None:
    limit = 1_000_000
    dropped = 0
    for _ in range(40):
        outbox = SqliteOutbox(str(tmp_path / "outbox.db"), max_bytes=limit)
        dropped += put(outbox, 50)
        outbox.close()
    assert dropped > 1_000
    assert occupied(tmp_path) <= limit * (1 + 1 / _SEGMENTS)
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"), max_bytes=limit)
    outbox.collect_all()
    counts = outbox.counts()
    assert (counts.made, counts.dropped) == (2_000, dropped)
    outbox.close()


def test_what_was_collected_counts_for_the_first_call_of_the_next_program(tmp_path: Path) -> None:
    limit = 1_000_000
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"), max_bytes=limit)
    put(outbox, 280)
    outbox.collect_all()
    outbox.compact()
    outbox.quota.measure()
    outbox._let_go()
    short = SqliteOutbox(str(tmp_path / "outbox.db"), max_bytes=limit)
    assert put(short, 100) > 50
    short.close()


def test_a_writer_that_was_refused_notices_when_another_process_made_room(tmp_path: Path) -> None:
    writer, engine = (SqliteOutbox(str(tmp_path / "outbox.db"), max_bytes=300_000) for _ in range(2))
    assert put(writer, 120) > 0
    resolve_all(engine)
    engine.quota.measure()
    writer._journal._looked = float("-inf")  # type: ignore[attr-defined]
    assert put(writer, 1) == 0
    for each in (writer, engine):
        each.close()


def test_refused_logs_do_not_keep_new_ones_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    limit = 1_000_000
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"), max_bytes=limit)
    for _ in range(20):
        put(outbox, 50)
        resolve_all(outbox, status=404)
        outbox.quota.measure()
    assert put(outbox, 150) == 0
    resolve_all(outbox)
    counts = outbox.counts()
    assert counts.delivered == 150
    assert 0.5 * limit / 4 < counts.refused * len(BODY) <= limit / 4
    assert counts.made == counts.delivered + counts.refused + counts.dropped
    assert "oldest logs that Athina refused were dropped" in caplog.text
    outbox.close()


def test_the_oldest_refused_logs_are_dropped_first_and_after_their_time(tmp_path: Path) -> None:
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"))
    for day in range(3):
        outbox.put(Entry("key", "log", f"day {day}", NOW, b'{"day":%d}' % day))
        resolve_all(outbox, status=400, now=NOW + day * 86_400)
    outbox.quota.drop_refused(before=NOW + 2 * 86_400)
    assert outbox.store.newest(9) == [b'{"day":2}']
    assert (outbox.counts().refused, outbox.counts().dropped) == (1, 2)
    outbox.quota.drop_refused(before=NOW + 2 * 86_400 + KEEP_REFUSED_SECONDS)
    assert (outbox.counts().refused, outbox.counts().dropped) == (0, 3)
    outbox.close()


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_the_oldest_delivered_logs_are_dropped_beyond_their_share(kind: str, tmp_path: Path) -> None:
    limit = 20_000_000
    outbox: Outbox = (
        SqliteOutbox(str(tmp_path / "outbox.db"), max_bytes=limit) if kind == "disk" else MemoryOutbox(max_bytes=limit)
    )
    share = limit / 10 if kind == "disk" else 1_000_000
    for number in range(20):
        put(outbox, 100)
        resolve_all(outbox, now=NOW + number, keep=True)
        assert sum(map(len, outbox.store.newest(10_000))) <= share + 1_000_000
    outbox.quota.drop_delivered(before=float("-inf"))
    kept = sum(map(len, outbox.store.newest(10_000)))
    assert share - 2 * len(BODY) < kept <= share, "no more leave than must"
    while not outbox.quota.drop_delivered(before=NOW + 19):
        pass
    assert len(outbox.store.newest(10_000)) == 100, "after their time all leave"
    outbox.quota.drop_delivered(before=float("inf"))
    assert outbox.store.newest(10_000) == []
    counts = outbox.counts()
    assert (counts.made, counts.delivered, counts.dropped) == (2_000, 2_000, 0)
    outbox.close()


def test_in_a_small_outbox_what_is_delivered_never_takes_much_more_than_its_share(tmp_path: Path) -> None:
    limit = 2_000_000
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"), max_bytes=limit)
    for _ in range(4):
        put(outbox, 100)
        resolve_all(outbox, keep=True)
        assert sum(map(len, outbox.store.newest(10_000))) <= 2 * limit / 10 + len(BODY)
    outbox.close()


def test_to_make_room_many_delivered_logs_are_dropped_step_by_step(tmp_path: Path) -> None:
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"), max_bytes=2_000_000)
    for number in range(2_500):
        outbox.put(Entry(f"key{number % 9}", "log", f"kept-{number}", NOW, b"{}"))
    resolve_all(outbox, keep=True)
    assert put(outbox, 400) == 0
    outbox.collect_all()
    while len(outbox.store.newest(10_000)) > 400:
        before = len(outbox.store.newest(10_000))
        outbox.collect()
        assert len(outbox.store.newest(10_000)) < before, "with nothing new to collect, too"
    outbox.close()


def test_a_process_whose_only_log_finds_no_room_delivers_what_takes_it(tmp_path: Path, athina: AthinaServer) -> None:
    path = str(tmp_path / "outbox.db")
    left = SqliteOutbox(path, max_bytes=100_000)
    dropped = put(left, 50)
    left.close()
    athina_trace.configure(api_key="key", base_url=athina.url, outbox=path, max_outbox_bytes=100_000)
    athina_trace.log_inference(response="x" * 20_000)
    until(lambda: len(athina.accepted) == 50 - dropped)
    assert athina_trace.status().dropped == dropped + 1


def test_delivered_logs_are_dropped_few_at_a_time(tmp_path: Path) -> None:
    """Otherwise another process might wait long: each step is one transaction."""
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"))
    for _ in range(25):
        put(outbox, 100)
        resolve_all(outbox, keep=True)
    engine, kept = Engine(outbox, lambda _: NoSenders("no key"), clock=clock, keep=10.0), [2_500]
    while kept[-1]:
        assert len(kept) < 9
        engine.step(NOW + 100)
        kept.append(len(outbox.store.newest(10_000)))
        assert kept[-2] - kept[-1] <= 1_000
    engine.finish(1)


def test_delivered_logs_do_not_keep_new_ones_out(tmp_path: Path) -> None:
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"), max_bytes=600_000)
    for _ in range(30):
        assert put(outbox, 40) == 0
        resolve_all(outbox, keep=True)
        outbox.quota.measure()
        outbox.compact()
    outbox.close()


def test_logs_that_an_earlier_version_kept_are_counted(tmp_path: Path) -> None:
    path = str(tmp_path / "outbox.db")
    outbox = SqliteOutbox(path, max_bytes=10_000_000)
    put(outbox, 100)
    resolve_all(outbox, keep=True)
    outbox.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        db.execute(f"PRAGMA user_version = {version - 1}")
        db.execute("DELETE FROM counter WHERE name = 'delivered_bytes'")
    outbox = SqliteOutbox(path, max_bytes=1_000_000)
    outbox.quota.drop_delivered(before=float("-inf"))
    assert 0 < sum(map(len, outbox.store.newest(1_000))) <= 100_000
    outbox.close()


def test_purged_logs_are_no_longer_counted(tmp_path: Path) -> None:
    path = str(tmp_path / "outbox.db")
    outbox = SqliteOutbox(path, max_bytes=10_000_000)
    put(outbox, 100)
    resolve_all(outbox, keep=True)
    assert maintenance.purge(path, "delivered", before=NOW + 1) == 100
    put(outbox, 100)
    resolve_all(outbox, keep=True)
    outbox.quota.drop_delivered(before=float("-inf"))
    assert len(outbox.store.newest(1_000)) == 100
    outbox.close()
