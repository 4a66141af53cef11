"""The index follows the outbox: new, changed and deleted logs, and another file under the same name."""

import sqlite3
import threading
import time
from pathlib import Path

import pytest

from athina_trace.viewer import queries
from athina_trace.viewer.filters import Filters
from athina_trace.viewer.indexed_outbox import IndexedOutbox, Refresher
from tests.viewer.outboxes import feedback, log, opened, put, settle


def names(source: IndexedOutbox, **filters: str) -> list[str]:
    with source.open() as db:
        return [row["name"] for row in queries.sessions(db, Filters(**filters)).rows]


def references(source: IndexedOutbox, **filters: str) -> list[str]:
    with source.open() as db:
        return [row["reference"] for row in queries.logs(db, Filters(**filters)).rows]


def test_new_logs_are_shown_without_a_running_program(path: Path) -> None:
    put(path, log("a"), log("b"), log("a"))
    with opened(path) as source:
        assert names(source) == ["a", "b"]
        with source.open() as db:
            session = queries.session(db, "a")
        assert session is not None
        assert (session["turns"], session["question"]) == (2, "Where is it?")


def test_a_later_refresh_includes_newer_logs(path: Path) -> None:
    put(path, log("a"))
    with opened(path) as source:
        before = source.version
        put(path, log("b"))
        source.refresh()
        assert names(source) == ["b", "a"]
        assert source.version > before


def test_a_log_without_a_session_stands_alone(path: Path) -> None:
    alone = log(None)
    put(path, alone)
    with opened(path) as source:
        assert names(source) == [alone.reference]


def test_states_always_agree_with_the_outbox(path: Path) -> None:
    kept, refused, waiting = log("a"), log("a"), log("b")
    put(path, kept, refused, waiting)
    with opened(path) as source:
        assert len(references(source, state="waiting")) == 3
        settle(path, delivered=[kept.reference], refused=[refused.reference])
        assert references(source, state="delivered") == [kept.reference]
        assert references(source, state="refused") == [refused.reference]
        assert references(source, state="waiting") == [waiting.reference]


def test_logs_deleted_from_the_outbox_leave_lists_sums_and_charts(path: Path) -> None:
    gone, stays = log("a", total_tokens=5, response_time=100), log("a", total_tokens=7, error="boom")
    put(path, gone, log("b"), stays)
    settle(path, forgotten=[gone.reference])
    with opened(path) as source, source.open() as db:
        session = queries.session(db, "a")
        assert session is not None
        assert (session["turns"], session["tokens"], session["errors"]) == (1, 7, 1)
        whole = db.execute("SELECT sum(calls), sum(tokens) FROM totals WHERE level = 60 AND by = 'all'").fetchone()
        assert tuple(whole) == (2, 7)


def test_logs_deleted_while_the_viewer_is_open_leave_the_page(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = log("a")
    put(path, gone, log("b"))
    with opened(path) as source:
        assert names(source) == ["b", "a"]
        settle(path, forgotten=[gone.reference])
        later = time.monotonic() + 60
        monkeypatch.setattr("athina_trace.viewer.indexed_outbox.time.monotonic", lambda: later)
        source.refresh()
        assert names(source) == ["b"]


def test_words_of_deleted_logs_are_eventually_removed_from_the_index(path: Path) -> None:
    many = [log("a", user_query=f"secret{number}") for number in range(700)]
    put(path, *many, log("b"))
    with opened(path) as source:
        settle(path, forgotten=[entry.reference for entry in many])
    with opened(path) as source:
        source.refresh()
        assert names(source) == ["b"]
        assert b"secret123" not in path.with_suffix(".view").read_bytes()


def test_feedback_updates_its_log(path: Path) -> None:
    entry = log("a")
    put(path, entry, feedback(entry, -1, "wrong"))
    with opened(path) as source, source.open() as db:
        turn = queries.log(db, entry.reference)
        assert turn is not None
        assert turn.row["feedback"] == -1
        assert turn.fields["user_feedback_comment"] == "wrong"
        assert [row["turns"] for row in queries.sessions(db, Filters()).rows] == [1]


def test_changed_feedback_counts_once(path: Path) -> None:
    entry = log("a")
    put(path, entry, feedback(entry, -1, "wrong parcel"))
    with opened(path) as source:
        assert references(source, q="wrong parcel", feedback="disliked") == [entry.reference]
        put(path, feedback(entry, 1, "found it"))
        source.refresh()
        assert references(source, feedback="disliked") == references(source, q="wrong parcel") == []
        assert references(source, q="found", feedback="liked") == [entry.reference]
        with source.open() as db:
            (session,) = queries.sessions(db, Filters()).rows
            assert (session["liked"], session["disliked"]) == (1, 0)
            sums = db.execute("SELECT sum(liked), sum(disliked) FROM totals WHERE level = 60 AND by = 'all'").fetchone()
            assert tuple(sums) == (1, 0)
        settle(path, forgotten=[entry.reference])
    with opened(path) as source, source.open() as db:
        assert db.execute("SELECT count(*) FROM comments").fetchone()[0] == 0


def test_another_outbox_with_the_same_name_is_read_from_the_beginning(path: Path) -> None:
    put(path, log("old"), log("old"))
    with opened(path) as source:
        assert names(source) == ["old"]
    for each in path.parent.glob("outbox.db*"):
        each.unlink()
    for each in path.with_suffix(".journal").iterdir():
        each.unlink()
    put(path, log("new"))
    with opened(path) as source:
        assert names(source) == ["new"]


def test_an_outbox_that_is_replaced_while_the_viewer_is_open_is_followed(path: Path) -> None:
    put(path, log("old"))
    with opened(path) as source:
        settle(path)
        for each in path.parent.glob("outbox.db*"):
            each.rename(f"{each}.aside")
        for each in path.with_suffix(".journal").iterdir():
            each.unlink()
        put(path, log("new"))
        source.refresh()
        assert names(source) == ["new"]


def test_pages_can_write_to_neither_file(path: Path) -> None:
    put(path, log())
    with opened(path) as source, source.open() as db:
        for statement in ("DELETE FROM box.entry", "DELETE FROM log", "CREATE TABLE box.x (y)"):
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                db.execute(statement)


def test_the_index_is_readable_only_by_its_owner(path: Path) -> None:
    put(path, log())
    with opened(path):
        assert path.with_suffix(".view").stat().st_mode & 0o777 == 0o600


def test_a_writer_never_waits_for_a_reader(path: Path) -> None:
    put(path, log("a"))
    with opened(path) as source, source.open() as db:
        queries.sessions(db, Filters())  # a page is being read
        settle(path, delivered=[])  # takes the write lock, collects, leases, releases
        put(path, log("b"))
        source.refresh()
        assert len(queries.sessions(db, Filters()).rows) == 1  # the page still shows its own snapshot
        assert names(source) == ["b", "a"]


class SlowOutbox:
    """An outbox whose refresh reads what exists when it begins, and ends when the test allows it."""

    def __init__(self) -> None:
        self.backlog = self.newest = self.read = 0
        self.began = threading.Event()
        self.may_end = threading.Event()

    def refresh(self, *, chunks: float) -> bool:
        newest = self.newest
        self.began.set()
        self.may_end.wait(60)
        self.read = newest
        return True

    def close(self) -> None: ...


def test_a_page_waits_for_a_refresh_that_began_after_its_request() -> None:
    outbox = SlowOutbox()
    refresher = Refresher(outbox)  # type: ignore[arg-type]
    refresher.start()
    assert outbox.began.wait(60)
    outbox.newest = 1  # logged while a refresh is running
    read: list[int] = []

    def ask() -> None:
        refresher.request()
        read.append(outbox.read)

    page = threading.Thread(target=ask)
    page.start()
    while not refresher._requested:
        time.sleep(0.001)
    outbox.may_end.set()
    page.join(60)
    refresher.stop()
    assert read == [1]
