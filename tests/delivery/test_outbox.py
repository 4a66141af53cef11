"""The guarantees of every outbox, shown on the one in memory and the one on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from athina_trace._delivery import journal, maintenance
from athina_trace._delivery.entry import Entry, Lease
from athina_trace._delivery.outbox import MemoryOutbox, Outbox
from athina_trace._delivery.sqlite_outbox import SqliteOutbox
from athina_trace.errors import OutboxFullError

NOW = 1_000_000.0


@pytest.fixture(params=["memory", "disk"])
def outbox(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Outbox]:
    made = MemoryOutbox() if request.param == "memory" else SqliteOutbox(str(tmp_path / "state" / "outbox.db"))
    yield made
    made.close()


def put(outbox: Outbox, *names: str, key: str = "key", size: int = 0) -> None:
    for name in names:
        outbox.put(Entry(key, "log", name, NOW, b'{"n":"%b"}' % (name.encode() + b"x" * size)))


def lease(
    outbox: Outbox, now: float = NOW, *, keys: int = 64, batch: int = 16, room: float = 1e9, newest: bool = False
) -> dict[str, list[str]]:
    with outbox.transaction():
        outbox.collect()
        leases = outbox.lease(now, keys=keys, batch=batch, room=room, newest=newest)
    return {each.ordering_key: [entry.reference for entry in each.entries] for each in leases}


def test_a_key_is_leased_once_in_order_and_again_after_its_release(outbox: Outbox) -> None:
    put(outbox, "1", "2", "3")
    assert lease(outbox, batch=2) == {"key": ["1", "2"]}
    assert lease(outbox) == {}
    outbox.release("key")
    assert lease(outbox) == {"key": ["1", "2", "3"]}


def test_what_was_put_while_a_key_is_on_lease_waits_behind_it(outbox: Outbox) -> None:
    put(outbox, "1")
    lease(outbox)
    put(outbox, "2")
    put(outbox, "other", key="another")
    assert lease(outbox) == {"another": ["other"]}


def test_a_deferred_key_waits_until_it_is_due_and_others_do_not(outbox: Outbox) -> None:
    put(outbox, "1")
    lease(outbox)
    outbox.release("key", due=NOW + 10, attempts=1)
    put(outbox, "2", key="free")
    assert lease(outbox) == {"free": ["2"]}
    assert outbox.store.next_due() == NOW + 10
    assert lease(outbox, NOW + 10) == {"key": ["1"]}


def test_a_busy_key_does_not_block_the_others(outbox: Outbox) -> None:
    put(outbox, "1", "2", "3", key="busy")
    put(outbox, "4", "5", key="other")
    order = []
    for _ in range(4):
        (key,) = lease(outbox, keys=1, batch=1)
        outbox.release(key)
        order.append(key)
    assert order == ["busy", "other", "busy", "other"]


def test_with_newest_the_newest_key_that_has_not_failed_comes_first(
    outbox: Outbox,
) -> None:
    for number in range(4):
        put(outbox, str(number), key=f"key{number}")
    order = []
    for _ in range(6):
        (leased,) = lease(outbox, keys=1, newest=True)
        outbox.release(leased, due=NOW, attempts=1)
        order.append(leased[-1])
    put(outbox, "new", key="new")
    assert order == list("321032")
    assert lease(outbox, keys=1, newest=True) == {"new": ["new"]}
    assert list(lease(outbox)) == ["key1", "key0", "key3", "key2"]


def test_a_clock_set_back_does_not_stall_a_key(outbox: Outbox) -> None:
    put(outbox, "1")
    lease(outbox)
    outbox.release("key", due=NOW + 60)
    assert lease(outbox, NOW - 3600) == {}
    outbox.store.clamp_due_times(NOW - 3600)
    assert lease(outbox, NOW - 3600) == {"key": ["1"]}


def test_what_is_leased_is_bounded_in_bytes_but_never_stuck(outbox: Outbox) -> None:
    for number in range(5):
        put(outbox, str(number), key=f"key{number}", size=1000)
    assert sum(map(len, lease(outbox, room=2500).values())) == 3
    assert sum(map(len, lease(outbox, room=1).values())) == 1


def test_delivered_and_refused_entries_are_counted_and_only_the_refused_are_kept(outbox: Outbox) -> None:
    put(outbox, "1", "2", "3")
    with outbox.transaction():
        outbox.collect()
        (leased,) = outbox.lease(NOW, keys=1, batch=9)
        outbox.delivered(leased.entries[0], NOW)
        outbox.refused(leased.entries[1], NOW, status=400, reason="no")
        outbox.release("key")
    counts = outbox.counts()
    assert (counts.made, counts.delivered, counts.refused, counts.waiting) == (3, 1, 1, 1)
    assert lease(outbox) == {"key": ["3"]}
    assert list(outbox.store.newest(9)) == [b'{"n":"2"}', b'{"n":"3"}']
    outbox.release("key")
    if outbox.path != ":memory:":  # only its own process can retry what is in memory
        assert maintenance.retry(outbox.path) == 1
        assert lease(outbox) == {"key": ["2", "3"]}
        assert outbox.counts().refused == 0


def test_an_update_gets_the_key_of_its_log(outbox: Outbox) -> None:
    put(outbox, "ref")
    outbox.put(Entry("elsewhere", "update", "ref", NOW, b"{}"))
    assert lease(outbox) == {"key": ["ref", "ref"]}


def test_no_nul_is_stored_whatever_is_put(outbox: Outbox) -> None:
    for body in (b'{"a":"\\u0000 \\\\u0000 \\\\\\u0000\\u0000"}', b'{"a":"\\n"}'):
        outbox.put(Entry("key", "log", "ref", NOW, body))
    outbox.collect()
    assert outbox.store.newest(9) == [b'{"a":"\\ufffd \\\\u0000 \\\\\\ufffd\\ufffd"}', b'{"a":"\\n"}']


def test_a_transaction_that_fails_changes_nothing(outbox: Outbox) -> None:
    put(outbox, "1")
    lease(outbox)
    with pytest.raises(ZeroDivisionError):
        release_and_fail(outbox)
    assert lease(outbox) == {}
    assert outbox.counts().possible_duplicates == 0


def release_and_fail(outbox: Outbox) -> None:
    with outbox.transaction():
        outbox.release("key")
        outbox.count_possible_duplicate()
        raise ZeroDivisionError


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "lease", "deliver", "keep", "refuse", "release", "drop", "clamp"]), st.integers(0, 2)
    ),
    max_size=12,
)


@pytest.mark.parametrize("where", ["memory", "disk"])
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(before=STEPS, undone=STEPS, after=STEPS)
def test_whatever_a_failed_transaction_did_is_undone(
    where: str, before: Any, undone: Any, after: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The result is the same with and without it."""
    ends = []
    for fails in (False, True):
        folder = tmp_path_factory.mktemp("outbox")
        outbox = MemoryOutbox() if where == "memory" else SqliteOutbox(str(folder / "outbox.db"))
        held: dict[str, list[Lease]] = {}
        with outbox.transaction():  # counters are written at its end
            take(outbox, before, held)
        if fails:
            with pytest.raises(ZeroDivisionError):
                take_and_fail(outbox, [step for step in undone if step[0] != "put"], {**held})
        take(outbox, after, held)
        outbox.store.release_all(outbox._owner.id)
        counts, left = outbox.counts(), outbox.store.newest(99)
        rest = outbox.lease(NOW + 100, keys=99, batch=99)
        ends.append((counts, left, sorted((each.ordering_key, each.attempts, each.entries) for each in rest)))
        outbox.close()
    assert ends[0] == ends[1]


def take_and_fail(outbox: Outbox, steps: list[tuple[str, int]], held: dict[str, list[Lease]]) -> None:
    with outbox.transaction():
        take(outbox, steps, held)
        raise ZeroDivisionError


def take(outbox: Outbox, steps: list[tuple[str, int]], held: dict[str, list[Lease]]) -> None:
    for number, (step, key) in enumerate(steps):
        name = f"key{key}"
        if step == "put":
            put(outbox, f"{number}", key=name)
        elif step == "lease":
            outbox.collect()
            for leased in outbox.lease(NOW + key, keys=key, batch=2):
                held[leased.ordering_key] = [leased]
        elif step == "drop":
            outbox.store.drop_resolved("delivered", before=NOW + key, over=key)
            outbox.store.drop_resolved("refused", before=NOW - 1, over=key)
        elif step == "clamp":
            outbox.store.clamp_due_times(NOW - key)
        elif name in held and step == "release":
            outbox.release(held.pop(name)[0].ordering_key, due=NOW + key, attempts=key)
        elif name in held and held[name][0].entries:
            entry = held[name][0].entries[0]
            if step == "refuse":
                outbox.refused(entry, NOW + key, status=400, reason="no")
            else:
                outbox.delivered(entry, NOW + key, keep=step == "keep")


def test_a_full_outbox_accepts_nothing_new_until_there_is_room(tmp_path: Path) -> None:
    makers: list[Callable[[], Outbox]] = [
        lambda: MemoryOutbox(max_bytes=100_000),
        lambda: SqliteOutbox(str(tmp_path / "outbox.db"), max_bytes=100_000),
    ]
    for make in makers:
        outbox = make()
        put(outbox, "1", "2", "3", size=30_000)
        with pytest.raises(OutboxFullError, match="max_outbox_bytes"):
            put(outbox, "4", size=30_000)
        outbox.drop()
        lease(outbox)
        outbox.quota.measure()
        with pytest.raises(OutboxFullError):
            put(outbox, "4", size=30_000)
        outbox.drop()
        settle_all(outbox)
        outbox.quota.measure()
        put(outbox, "4", size=30_000)
        outbox.collect()
        counts = outbox.counts()
        assert (counts.made, counts.delivered, counts.waiting, counts.dropped) == (6, 3, 1, 2)
        outbox.close()


def settle_all(outbox: Outbox) -> None:
    with outbox.transaction():
        outbox.store.release_all(outbox._owner.id)
        for leased in outbox.lease(NOW, keys=10_000, batch=10_000):
            for entry in leased.entries:
                outbox.delivered(entry, NOW)
            outbox.release(leased.ordering_key)


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_kept_deliveries_make_room_for_new_logs(kind: str, tmp_path: Path) -> None:
    limit = 1_000_000
    path = str(tmp_path / "outbox.db")
    outbox: Outbox = MemoryOutbox(max_bytes=limit) if kind == "memory" else SqliteOutbox(path, max_bytes=limit)
    put(outbox, "kept", size=50_000)
    with outbox.transaction():
        outbox.collect()
        (leased,) = outbox.lease(NOW, keys=1, batch=1)
        outbox.delivered(leased.entries[0], NOW, keep=True)
        outbox.release(leased.ordering_key)
    put(outbox, *map(str, range(60)), size=10_000)
    outbox.collect_all()
    outbox.quota.measure()
    assert len(outbox.store.newest(100)) == 61, "while there is room, it is kept"
    put(outbox, *map(str, range(60, 80)), size=10_000)
    outbox.collect_all()
    outbox.quota.measure()
    assert len(outbox.store.newest(100)) == 80
    assert (outbox.counts().waiting, outbox.counts().delivered) == (80, 1)
    outbox.close()


def test_files_and_folders_are_private(tmp_path: Path) -> None:
    outbox = SqliteOutbox(str(tmp_path / "state" / "outbox.db"))
    put(outbox, "1")
    lease(outbox)
    with outbox.transaction():
        outbox.lease(NOW, keys=1, batch=1)
    modes = {path: path.stat().st_mode & 0o777 for path in (tmp_path / "state").rglob("*")}
    assert len(modes) >= 5
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes.items()), modes
    outbox.close()


def test_space_is_freed_once_a_backlog_has_drained(tmp_path: Path) -> None:
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"))
    for number in range(200):
        put(outbox, str(number), key=f"key{number % 20}", size=50_000)
    while outbox.collect():
        pass
    full = occupied(tmp_path)
    settle_all(outbox)
    while not outbox.compact():
        pass
    assert full > 10_000_000
    # One journal segment may stay, and SQLite's log.
    assert occupied(tmp_path) < journal.SEGMENT_BYTES + 5_000_000
    assert (tmp_path / "outbox.db").stat().st_size < 200_000
    outbox.close()


def occupied(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_torn_record_is_skipped_and_the_next_one_is_read(tmp_path: Path) -> None:
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"))
    put(outbox, "1")
    (segment,) = (tmp_path / "outbox.journal").glob("*.journal")
    whole = segment.read_bytes()
    with segment.open("ab") as file:
        file.write(whole[: len(whole) // 2])
    put(outbox, "2")
    with segment.open("ab") as file:
        file.write(b"\n12\tnot json\t{}\n\xff\xfe\n" + whole[:-1])
    assert lease(outbox) == {"key": ["1", "2"]}
    outbox.close()


def test_another_owner_takes_over_only_what_a_dead_one_held(tmp_path: Path) -> None:
    dying, heir = (SqliteOutbox(str(tmp_path / "outbox.db")) for _ in range(2))
    put(dying, "1", "2")
    lease(dying)
    with heir.transaction():
        heir.reclaim()
    assert lease(heir) == {}
    with dying.transaction():
        first = dying.store._known([1], NOW)[1]
    dying.acknowledge(first)
    dying._owner.release()
    with heir.transaction():
        heir.reclaim()
    assert lease(heir) == {"key": ["2"]}
    assert heir.counts().delivered == 1
    heir.close()
    dying.store.close()


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    lock_file = 1  # stays open for as long as the process lives: closing it would drop every owner's lock
    before = descriptors()
    for _ in range(3):
        outbox = SqliteOutbox(str(tmp_path / "outbox.db"))
        put(outbox, "1")
        lease(outbox)
        outbox.close()
    assert descriptors() <= before + lock_file


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_a_failed_conversation_gets_its_turn_however_many_new_ones_come(outbox: Outbox) -> None:
    outbox.put(Entry("failed", "log", "1", NOW, b"{}"))
    for number in range(20):
        outbox.put(Entry(f"key {number}", "log", "1", NOW, b"{}"))
    outbox.collect()
    with outbox.transaction():
        (failed,) = outbox.lease(NOW, keys=1, batch=1)
        outbox.release(failed.ordering_key, due=NOW + 1, attempts=1)
    served = list[str]()
    for number in range(20, 60):
        outbox.put(Entry(f"key {number}", "log", "1", NOW, b"{}"))
        outbox.collect()
        with outbox.transaction():
            served += [each.ordering_key for each in outbox.lease(NOW + 2, keys=1, batch=1)]
    assert served.index("failed") == 20, "behind those that waited already, and before all that came later"
