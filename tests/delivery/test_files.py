"""Files in a folder that others can write to: no link is followed, no file of another user is used."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest

import athina_trace
from athina_trace._delivery import files, ownership
from athina_trace._delivery.entry import Entry
from athina_trace._delivery.sqlite_outbox import SqliteOutbox
from athina_trace.errors import OutboxError
from tests.support.athina_server import AthinaServer

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
OTHER = 65534


def use(path: Path) -> None:
    outbox = SqliteOutbox(str(path))
    try:
        outbox.put(Entry("key", "log", "ref", 1e6, b"{}"))
        with outbox.transaction():
            outbox.collect()
            outbox.reclaim()
            for lease in outbox.lease(1e6, keys=1, batch=1):
                outbox.acknowledge(lease.entries[0])
    finally:
        outbox._let_go()


LINKED = ["outbox.db", "outbox.db.owners", "outbox.journal/00000001.journal", "outbox.journal/machine"]


@pytest.mark.parametrize("name", [name for name in LINKED if "0" not in name])
def test_no_link_is_followed(name: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    (tmp_path / "outbox.journal").mkdir(mode=0o700)
    (tmp_path / name).symlink_to(victim)
    with pytest.raises(OutboxError, match="is a symbolic link"):
        use(tmp_path / "outbox.db")
    assert victim.read_bytes() == b"untouched"


def test_a_link_in_place_of_a_segment_is_ignored(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    (tmp_path / "outbox.journal").mkdir(mode=0o700)
    (tmp_path / "outbox.journal" / "00000001.journal").symlink_to(victim)
    use(tmp_path / "outbox.db")
    assert victim.read_bytes() == b"untouched"
    assert (tmp_path / "outbox.journal" / "00000002.journal").stat().st_size > 0


@pytest.mark.parametrize("name", ["outbox.db-wal", "outbox.db-shm"])
def test_no_link_to_what_sqlite_writes_is_followed(name: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    (tmp_path / name).symlink_to(victim)
    with pytest.raises(OutboxError, match="of the wrong type"):
        use(tmp_path / "outbox.db")
    assert victim.read_bytes() == b"untouched"


@root_only
@pytest.mark.parametrize("name", [".", "outbox.journal", *LINKED, "outbox.db-wal"])
def test_files_of_another_user_are_not_used(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    use(folder / "outbox.db")
    (folder / name).touch()
    os.chown(folder / name, OTHER, OTHER)
    ownership.forget_after_fork()  # as another process, which has nothing open yet
    with pytest.raises(OutboxError, match=f"belongs to user {OTHER} and this process runs as user 0"):
        use(folder / "outbox.db")


@root_only
def test_logs_are_kept_in_memory_if_the_folder_is_another_users(
    athina: AthinaServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.chown(tmp_path, OTHER, OTHER)
    athina_trace.configure(api_key="key", base_url=athina.url, outbox=str(tmp_path / "outbox.db"))
    athina_trace.log_inference(user_query="?", response="r")
    athina_trace.flush(60)
    assert len(athina.accepted) == 1
    assert list(tmp_path.iterdir()) == []
    assert f"belongs to user {OTHER}" in caplog.text


@pytest.mark.parametrize("mask", [0o000, 0o777])
def test_files_are_private_whatever_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        files.make_folder(tmp_path / "one" / "two" / "three")
        os.close(files.open_private(tmp_path / "one" / "file", os.O_RDWR | os.O_CREAT))
    finally:
        os.umask(before)
    assert (tmp_path / "one" / "file").stat().st_mode & 0o777 == 0o600
    for name in ("one", "one/two", "one/two/three"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o700


def test_nothing_is_written_to_a_descriptor_that_the_program_has_reused(tmp_path: Path) -> None:
    def held(name: str) -> files.HeldFile:
        return files.HeldFile(tmp_path / name, os.O_RDWR | os.O_CREAT)

    here, there = socket.socketpair()
    here.setblocking(False)
    there.setblocking(False)
    with here, there, (tmp_path / "program").open("wb") as program:
        ours = [held(name) for name in "abc"]
        for each, theirs in zip(ours, (here.fileno(), program.fileno(), None), strict=True):
            each.write_at(0, b"ours")
            os.close(each.number) if theirs is None else os.dup2(theirs, each.number)
        others = [held(name) for name in "def"]  # none of which gets the descriptor of another
        for each in ours:
            with pytest.raises(OSError, match=r"descriptor|seek"):
                each.write_at(4, b"theirs")
        with pytest.raises(BlockingIOError):
            there.recv(1)
        for each in (*ours, *others):
            number = each.number
            each.close()
            with suppress(OSError):
                os.close(number)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        **dict.fromkeys("abc", b"ours"),
        **dict.fromkeys("def", b""),
        "program": b"",
    }
