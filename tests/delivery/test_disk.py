"""Failing disks and stores: full, read-only, deleted, corrupt, of a newer version, without locks.

Each fault is reported once, and loses no log."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import athina_trace
from athina_trace import _runtime
from athina_trace._delivery import database, files
from athina_trace._delivery.entry import Entry
from athina_trace._delivery.migrations import MIGRATIONS
from athina_trace._delivery.sqlite_outbox import SqliteOutbox
from athina_trace._delivery.worker import Worker
from athina_trace._pipeline.runtime import Runtime
from tests.support.athina_faults import answer as fails
from tests.support.athina_server import AthinaServer
from tests.support.processes import run


@athina_trace.athina_trace
def answer(question: str) -> str:
    return f"answer to {question}"


@pytest.fixture
def path(tmp_path: Path, athina: AthinaServer) -> Path:
    made = tmp_path / "state" / "outbox.db"
    athina_trace.configure(api_key="key", base_url=athina.url, outbox=str(made))
    return made


def questions(athina: AthinaServer) -> list[str]:
    return [request.json["user_query"] for request in athina.accepted]


def said(caplog: pytest.LogCaptureFixture, words: str) -> int:
    return sum(words in record.getMessage() for record in caplog.records if record.name == "athina_trace")


@pytest.mark.parametrize("where", ["header", "middle"])
def test_a_corrupt_store_is_quarantined_and_a_new_one_is_created(
    where: str, path: Path, athina: AthinaServer, caplog: pytest.LogCaptureFixture
) -> None:
    answer("before")
    assert athina_trace.flush(60)
    athina_trace.shutdown(60)
    data = bytearray(path.read_bytes())
    start, end = (0, 100) if where == "header" else (4096, len(data))
    data[start:end] = b"\xa5" * (end - start)
    path.write_bytes(data)
    for number in range(5):
        answer(f"after {number}")
    assert athina_trace.flush(60)
    assert set(questions(athina)) == {"before", *(f"after {number}" for number in range(5))}
    assert len([each for each in path.parent.iterdir() if ".corrupt-" in each.name]) >= 1
    assert said(caplog, "is recreated") == 1


def test_a_damaged_record_is_counted_and_never_sent(
    path: Path, athina: AthinaServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as asleep:
        asleep.setattr(Worker, "wake", lambda _: None)
        for name in ("before", "damaged", "after"):
            answer(name)
    (segment,) = path.with_suffix(".journal").glob("*.journal")
    segment.write_bytes(segment.read_bytes().replace(b'"damaged"', b'"dam4ged"'))
    assert athina_trace.flush(60)
    now = athina_trace.status()
    assert (now.made, now.delivered, now.damaged) == (2, 2, 1)
    assert set(questions(athina)) == {"before", "after"}
    assert said(caplog, "1 records in the journal of the outbox") == 1


def test_a_deleted_store_is_noticed_while_it_is_in_use(
    path: Path, athina: AthinaServer, caplog: pytest.LogCaptureFixture
) -> None:
    answer("before")
    assert athina_trace.flush(60)
    for each in path.parent.glob("outbox.db*"):
        each.unlink()
    answer("after")
    assert athina_trace.flush(60)
    assert set(questions(athina)) == {"before", "after"}
    assert said(caplog, "its file was deleted") == 1


def test_a_deleted_folder_is_noticed(path: Path, athina: AthinaServer) -> None:
    answer("before")
    assert athina_trace.flush(60)
    for each in sorted(path.parent.rglob("*"), reverse=True):
        each.unlink() if each.is_file() else each.rmdir()
    path.parent.rmdir()
    assert athina_trace.flush(60)
    answer("after")
    assert athina_trace.flush(60)
    assert set(questions(athina)) == {"before", "after"}


@pytest.mark.parametrize("how", ["moved", "deleted", "a file instead"])
def test_logs_put_after_the_folder_was_removed_are_delivered(how: str, path: Path, athina: AthinaServer) -> None:
    answer("before")
    assert athina_trace.flush(60)
    folder, elsewhere = path.parent, path.parent.with_name("elsewhere")
    folder.rename(elsewhere)
    if how != "moved":
        shutil.rmtree(elsewhere)
    if how == "a file instead":
        folder.touch()
        answer("meanwhile")
        athina_trace.flush(10)
        folder.unlink()
    answer("after")
    while not athina_trace.flush(10):
        time.sleep(0.01)
    assert {"before", "after"} <= set(questions(athina))
    assert "meanwhile" in questions(athina) or how != "a file instead"


def test_a_store_from_the_future_is_left_alone_and_memory_is_used(
    path: Path, athina: AthinaServer, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as newer:
        newer.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 7}")
    newer.close()
    untouched = path.read_bytes()
    assert not athina_trace.flush(10)
    for number in range(5):
        answer(str(number))
    runtime = _runtime.active()
    assert isinstance(runtime, Runtime)
    assert runtime.delivery._fallback is not None
    assert runtime.delivery._fallback[1].flush(60)
    assert sorted(questions(athina)) == list("01234")
    assert path.read_bytes() == untouched
    assert said(caplog, "made by a newer athina_trace") == 2  # one says so, one that memory is used


def test_if_the_path_cannot_be_written_to_memory_is_used(
    tmp_path: Path, athina: AthinaServer, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    athina_trace.configure(api_key="key", base_url=athina.url, outbox=str(tmp_path / "file" / "outbox.db"))
    for number in range(50):
        answer(str(number))
    runtime = _runtime.active()
    assert isinstance(runtime, Runtime)
    assert runtime.delivery._fallback is not None
    assert runtime.delivery._fallback[1].flush(60)
    assert sorted(questions(athina), key=int) == [str(number) for number in range(50)]
    assert said(caplog, "kept in memory") == 1


_REPORTING = """
    import athina_trace, logging, os, sys
    logging.basicConfig(format="%(levelname)s %(message)s")

    @athina_trace.athina_trace
    def answer(question):
        return "x" * 1000
"""


def test_a_read_only_directory(tmp_path: Path, athina: AthinaServer) -> None:
    """As another user if the tests run as root, whom no permission stops."""
    tmp_path.chmod(0o755)
    folder = tmp_path / "readonly"
    folder.mkdir()
    folder.chmod(0o555)
    script = (
        _REPORTING
        + """
    # Deliver one log first: another user may not be allowed to read the modules that this takes.
    athina_trace.configure(outbox=":memory:")
    answer("first")
    assert athina_trace.flush(60)
    athina_trace.configure()
    if os.geteuid() == 0:
        os.setuid(65534)
    for number in range(20):
        answer(str(number))
    """
    )
    for parent in tmp_path.parents:
        if parent.owner() == "root" and parent != Path("/tmp") and str(parent).startswith("/tmp/"):  # noqa: S108
            parent.chmod(0o755)
    _, err = run(
        script, ATHINA_API_KEY="key", ATHINA_BASE_URL=athina.url, ATHINA_OUTBOX=str(folder / "o" / "outbox.db")
    )
    assert len(questions(athina)) == 21
    assert err.count("kept in memory") == 1
    assert "Traceback" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such limits")
@pytest.mark.parametrize("size", [20_000, 100_000], ids=["no store", "a store that takes nothing in"])
def test_what_the_store_cannot_take_in_is_counted_and_delivered_once_it_can(
    size: int, tmp_path: Path, athina: AthinaServer
) -> None:
    script = """
    import athina_trace, json, resource, sys

    def show(report):
        now = athina_trace.status()
        print(json.dumps([bool(report), report.waiting, bool(now.paused), now.made, now.delivered, now.waiting]))

    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), unlimited[1]))
    for number in range(10):
        athina_trace.log_inference(user_query=str(number), response="r", session_id=str(number % 3))
    show(athina_trace.flush(60))
    athina_trace.log_inference(user_query="10", response="r")
    show(athina_trace.flush(60))
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    show(athina_trace.flush(60))
    """
    environment = {"ATHINA_API_KEY": "key", "ATHINA_BASE_URL": athina.url, "ATHINA_OUTBOX": str(tmp_path / "outbox.db")}
    out, _ = run(script, str(size), **environment)
    *limited, last = map(json.loads, out.splitlines())
    for made, (is_done, left, is_paused, *counts) in zip((10, 11), limited, strict=True):
        # Logs made after the engine has noticed are delivered from memory.
        delivered, waiting = counts[1:]
        assert (is_done, is_paused, counts[0]) == (False, True, made)
        assert left >= waiting == made - delivered > 0
    assert last == [True, 0, False, 11, 11, 0]
    assert sorted(map(int, questions(athina))) == list(range(11))


def test_a_disk_that_fills_up_loses_nothing_and_is_used_again(tmp_path: Path, athina: AthinaServer) -> None:
    """A limit on the size of files acts like a full disk: writes are short, then fail."""
    script = (
        _REPORTING
        + """
    import resource, signal
    from athina_trace._delivery import delivery
    delivery._DISK_SECONDS = 0.2
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    answer("first")
    assert athina_trace.flush(60)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    for number in range(1000):
        answer(str(number))
    print(athina_trace.status().made)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    import time; time.sleep(0.3)
    answer("last")
    """
    )
    _, err = run(
        script,
        ATHINA_API_KEY="key",
        ATHINA_BASE_URL=athina.url,
        ATHINA_OUTBOX=str(tmp_path / "outbox.db"),
        ATHINA_EXIT_TIMEOUT="20",
    )
    run(
        "import athina_trace; assert athina_trace.flush(60)",
        ATHINA_API_KEY="key",
        ATHINA_BASE_URL=athina.url,
        ATHINA_OUTBOX=str(tmp_path / "outbox.db"),
    )
    assert set(questions(athina)) == {"first", "last", *map(str, range(1000))}
    assert err.count("kept in memory and delivered from there") == 1
    assert "Traceback" not in err


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Simulate a disk of 3 MB that holds only a test's files; return the free bytes at each query."""
    seen: list[int] = []

    def disk_of(_: Path) -> files.Disk:
        used = 0
        for path in tmp_path.rglob("*"):
            with suppress(FileNotFoundError):
                used += path.stat().st_blocks * 512
        seen.append(3_000_000 - used)
        return files.Disk(seen[-1], 1_500_000)

    monkeypatch.setattr(files, "disk_of", disk_of)
    return seen


def test_an_outbox_that_filled_its_disk_is_emptied_again(
    path: Path, athina: AthinaServer, small_disk: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Deliveries need space before they can free any, so the last of it is reserved for them."""
    athina.when(lambda _: True, fails(503))
    for number in range(150):
        answer(f"{number} {'x' * 20_000}")
    assert path.with_suffix(".journal").exists()
    assert "the disk is full, except for a reserve for deliveries" in (athina_trace.status().memory_only or "")
    athina.clear()
    assert athina_trace.flush(60)
    assert {int(question.split()[0]) for question in questions(athina)} == set(range(150))
    assert min(small_disk) > 0
    assert max(small_disk) > 2_000_000  # the space of delivered logs is free again
    assert said(caplog, "kept in memory") == 1


def test_on_a_full_disk_the_store_collects_what_it_can_deliver(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = SqliteOutbox(str(path))
    for number in range(16):
        outbox.put(Entry(str(number), "log", str(number), 0.0, b'"%b"' % (b"x" * 10_000)))
    monkeypatch.setattr(files, "disk_of", lambda _: files.Disk(free=10_000, reserve=100_000))
    delivered = 0
    while delivered < 16:
        with outbox.transaction():
            moved = outbox.collect()
            leases = outbox.lease(0.0, keys=64, batch=16)
            assert 0 < moved < 5
            assert outbox.collect() == 0
            assert outbox.is_behind
            for lease in leases:
                outbox.delivered(lease.entries[0], 0.0, keep=True)
                outbox.release(lease.ordering_key)
        delivered += len(leases)
    assert outbox.collect() == 0
    assert not outbox.is_behind
    assert outbox.counts().delivered == 16
    assert not outbox.store.newest(1)  # logs kept for inspection have made room
    outbox.close()


def test_a_disk_of_unknown_size_does_not_count_as_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert files.disk_of(tmp_path / "missing").free == float("inf")
    assert 0 < files.disk_of(tmp_path).reserve < float("inf")
    says_nothing = SimpleNamespace(f_blocks=1000, f_bavail=0, f_frsize=4096)
    with monkeypatch.context() as patched:
        patched.setattr(os, "statvfs", lambda _: says_nothing)
        assert files.disk_of(tmp_path).free == float("inf")
    monkeypatch.delattr(os, "statvfs")  # Windows
    assert files.disk_of(tmp_path).free == float("inf")


@pytest.mark.parametrize("missing", ["fcntl", "register_at_fork"])
def test_without_locks_or_forks_the_import_works_and_memory_is_used(
    missing: str, tmp_path: Path, athina: AthinaServer
) -> None:
    """Windows has neither; a network file system without locks fails in the same way."""
    without = {
        "fcntl": "sys.modules['fcntl'] = None",
        "register_at_fork": "import httpcore, httpx, logging, pydantic, random, wrapt; del os.register_at_fork",
    }[missing]
    script = (
        f"""
    import os, sys
    {without}
    """
        + _REPORTING
        + """
    for number in range(5):
        answer(str(number))
    """
    )
    _, err = run(script, ATHINA_API_KEY="key", ATHINA_BASE_URL=athina.url, ATHINA_OUTBOX=str(tmp_path / "outbox.db"))
    assert sorted(questions(athina)) == list("01234")
    assert err.count("No locks available: logs are kept in memory") == (missing == "fcntl")


def test_a_full_outbox_drops_new_logs_counts_them_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    athina_trace.configure(outbox=str(tmp_path / "outbox.db"), max_outbox_bytes=200_000)
    for number in range(40):
        answer(f"{number} {'x' * 10_000}")
    now = athina_trace.status()
    assert now.dropped > 10
    assert now.made == 40 == now.waiting + now.dropped
    assert [log["user_query"].split()[0] for log in athina_trace.recent_logs()][:3] == ["0", "1", "2"]
    assert said(caplog, "is full") == 1
    athina_trace.shutdown(60)
    assert athina_trace.status().dropped == now.dropped  # the next process knows it, too


def test_a_process_out_of_descriptors_keeps_its_logs(tmp_path: Path, athina: AthinaServer) -> None:
    script = (
        _REPORTING
        + """
    import resource
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/proc/self/fd"))) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
    for number in range(5):
        answer(str(number))
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert athina_trace.flush(60) or True
    """
    )
    _, err = run(script, ATHINA_API_KEY="key", ATHINA_BASE_URL=athina.url, ATHINA_OUTBOX=str(tmp_path / "outbox.db"))
    run(
        "import athina_trace; assert athina_trace.flush(60)",
        ATHINA_API_KEY="key",
        ATHINA_BASE_URL=athina.url,
        ATHINA_OUTBOX=str(tmp_path / "outbox.db"),
    )
    assert sorted(questions(athina)) == list("01234")
    assert "Traceback" not in err


_WITHOUT_DESCRIPTORS = """
    import os, resource, sys
    import athina_trace as a

    a.athina_session("s")
    if sys.argv[1] == "second":
        a.log_inference(user_query="first", response="r")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
    held = []
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass

    @a.athina_trace
    def answer(question):
        return "a"

    def configured():
        try:
            return a.configure(environment="test").environment
        except a.AthinaTraceError as error:
            return str(error)

    called = {"questions": lambda: (a.status(), a.flush(0), a.recent_logs(), a.metrics()), "configure": configured}
    print(*map(repr, [called.get(sys.argv[1], str)()]))
    with a.athina_session("s"):
        answer("decorated")
    reference = a.log_inference(user_query="by hand", response="r")
    a.log_feedback(reference, 1)
    waiting = a.status().waiting
    print(waiting, len(a.recent_logs()), a.flush(0).waiting, bool(a.flush(0)), type(a.metrics()).__name__)
    for descriptor in held:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if sys.argv[1] != "exit":
        answer("at last")
        a.flush(60)
"""


@pytest.mark.parametrize("first", ["decorator", "questions", "configure", "second", "exit"])
def test_logs_made_before_there_are_descriptors_to_start_with_are_delivered(
    first: str, tmp_path: Path, athina: AthinaServer
) -> None:
    out, err = run(
        _WITHOUT_DESCRIPTORS,
        first,
        ATHINA_API_KEY="key",
        ATHINA_BASE_URL=athina.url,
        ATHINA_OUTBOX=str(tmp_path / "outbox.db"),
        ATHINA_EXIT_TIMEOUT="60",
    )
    assert "Traceback" not in err
    if first != "second":
        assert err.count("start-up (without it, logs only wait in memory) failed") == 1
        assert out.splitlines()[1] == "3 0 3 False str"
    if first == "configure":
        assert "no descriptors or memory are left" in out
    run(
        "import athina_trace; assert athina_trace.flush(60)",
        ATHINA_API_KEY="key",
        ATHINA_BASE_URL=athina.url,
        ATHINA_OUTBOX=str(tmp_path / "outbox.db"),
    )
    expected = ["decorated", "by hand", *{"second": ["first", "at last"], "exit": []}.get(first, ["at last"])]
    logs = [request.json for request in athina.accepted if "user_query" in request.json]
    assert sorted(log["user_query"] for log in logs) == sorted(expected)
    assert [log.get("session_id") for log in logs if log["user_query"] == "decorated"] == ["s"]
    assert len(athina.accepted) == len(expected) + 1  # the feedback


@pytest.mark.parametrize("nth", [1, 145, 260])
def test_a_module_that_cannot_be_opened_while_others_use_all_descriptors_is_imported_later(
    nth: int, tmp_path: Path
) -> None:
    """A program near its limit has no descriptor left at one moment, and some at the next."""
    script = """
    import _imp, errno, os, sys
    import athina_trace as a

    left = int(sys.argv[1])

    def use():
        global left
        left -= 1
        if not left:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def create(spec, *file, create=_imp.create_dynamic):
        try:
            use()
        except OSError as error:
            raise ImportError(f"{spec.origin}: cannot open shared object file: {error.strerror}") from None
        return create(spec, *file)

    sys.addaudithook(lambda event, _: use() if event in ("open", "os.listdir", "os.scandir") else None)
    _imp.create_dynamic = create
    a.log_inference(response="1")
    left = 0
    a.flush(0)
    print([log["response"] for log in a.recent_logs()], a.status().made, a.status().memory_only)
    """
    environment = {"ATHINA_OUTBOX": str(tmp_path / "outbox.db"), "HOME": str(tmp_path)}
    out, err = run(script, str(nth), **environment)
    assert out == "['1'] 1 None\n", err


def test_status_says_why_nothing_is_sent_even_if_the_journal_cannot_be_listed(path: Path) -> None:
    path.parent.mkdir()
    path.with_suffix(".journal").write_bytes(b"")
    answer("?")
    assert not athina_trace.flush(5)
    assert _runtime._runtime is not None
    _runtime._runtime.delivery.worker.stuck = "the outbox cannot be used"
    assert athina_trace.status().paused == "the outbox cannot be used"
    _runtime._runtime.delivery.worker.stuck = None


def test_nothing_is_printed_only_logged(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)
    athina_trace.configure(outbox=os.devnull + "/nowhere/outbox.db")
    for number in range(5):
        answer(str(number))
    assert {record.name for record in caplog.records} == {"athina_trace"}
    assert capfd.readouterr() == ("", "")


def test_a_python_without_sqlite_keeps_its_logs_in_memory_and_delivers_them(
    tmp_path: Path, athina: AthinaServer
) -> None:
    out, err = run(
        """
        import sys
        sys.modules["_sqlite3"] = None
        import athina_trace
        for number in range(20):
            athina_trace.log_inference(response=str(number), session_id="one")
        assert len(athina_trace.recent_logs()) == 20 or athina_trace.status().delivered
        report, now = athina_trace.flush(60), athina_trace.status()
        print(bool(report), now.delivered, now.outbox, now.faults, now.memory_only)
        """,
        ATHINA_API_KEY="key",
        ATHINA_BASE_URL=athina.url,
        ATHINA_OUTBOX=str(tmp_path / "outbox.db"),
    )
    assert out.startswith("True 20 :memory: 0 this Python was built without SQLite (")
    assert [request.json["response"] for request in athina.accepted] == [str(number) for number in range(20)]
    assert (
        err.count("logs are kept in memory and delivered from there; install a Python that has the module `sqlite3`")
        == 1
    )
    assert not list(tmp_path.iterdir())


def test_our_sql_statements_are_not_traced(athina: AthinaServer, tmp_path: Path) -> None:
    """Tracing tools patch `sqlite3.connect`, so that its connections report each statement."""
    out, err = run(
        """
        import sqlite3, sqlite3.dbapi2
        def traced(*_, **__): raise AssertionError("this connection would be traced")
        sqlite3.connect = sqlite3.dbapi2.connect = traced
        import athina_trace
        athina_trace.log_inference(response="Hello")
        print(bool(athina_trace.flush(60)), athina_trace.status().memory_only, athina_trace.status().faults)
        """,
        ATHINA_API_KEY="key",
        ATHINA_BASE_URL=athina.url,
        ATHINA_OUTBOX=str(tmp_path / "outbox.db"),
    )
    assert (out, err) == ("True None 0\n", "")


class Unmapped(sqlite3.Connection):
    """A connection on a file system that maps no file into memory, which SQLite finds when it first reads the log.

    It leaves the file behind that it could not map.
    """

    def execute(self, sql: str, *args: Any) -> Any:
        has_log = super().execute("PRAGMA journal_mode").fetchone() == ("wal",)
        if "sqlite_master" in sql:
            Path(f"{super().execute('PRAGMA database_list').fetchone()[2]}-shm").touch()
        if "sqlite_master" in sql and has_log:
            error = sqlite3.OperationalError("disk I/O error")
            vars(error)["sqlite_errorname"] = "SQLITE_IOERR_SHMMAP"  # Python sets it since 3.11
            raise error
        return super().execute(sql, *args)


@pytest.mark.parametrize("is_new", [True, False])
def test_a_file_system_without_shared_memory_has_a_store_without_a_write_ahead_log(
    is_new: bool, path: Path, athina: AthinaServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not is_new:
        answer("before")
        assert athina_trace.flush(60)
        athina_trace.shutdown(60)
    monkeypatch.setattr(database, "sqlite3", SimpleNamespace(**{**vars(sqlite3), "Connection": Unmapped}))
    answer("after")
    assert athina_trace.flush(60)
    assert athina_trace.status().memory_only is None
    another = SqliteOutbox(str(path))  # which makes it shared
    another.put(Entry("key", "log", "another", 0.0, b'{"user_query":"another"}'))
    another.collect_all()
    answer("beside it")
    assert athina_trace.flush(60)
    another.close()
    assert {"after", "another", "beside it"} <= set(questions(athina))
    assert said(caplog, f"the file system of {path} cannot share memory") == 1
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("delete",)
