"""Whether an owner is alive, seen from another process, whatever its process does with files and children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from athina_trace._delivery import locks
from athina_trace._delivery.ownership import FileOwner
from tests.support.processes import start

# Python 3.12 and newer warn of each fork of a process with threads, which is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="locks of open file descriptions are Linux's")

_OWNER = """
    import ctypes, os, signal, subprocess, sys, time
    from athina_trace._delivery.ownership import FileOwner
    owner = FileOwner(sys.argv[1])
    {then}
    print(owner.id, flush=True)
    sys.stdin.read()
"""


@contextmanager
def owner_process(path: Path, then: str = "pass") -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A process with an owner in the file at `path` that has run `then`; also yields the owner's id."""
    process = start(_OWNER.format(then=then), str(path))
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline()), process
    finally:
        process.kill()
        process.communicate()


def wait_for_death(us: FileOwner, owner: int) -> None:
    ends = time.monotonic() + 60
    while us.is_alive(owner):
        assert time.monotonic() < ends, "the lock outlived its process"
        time.sleep(0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db.owners"


@pytest.mark.parametrize("described", [pytest.param(True, marks=linux_only), False])
def test_an_owner_is_alive_until_its_process_dies(described: bool, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With both kinds of locks, which see each other: during an upgrade, an earlier version may be running."""
    monkeypatch.setattr(locks, "has_description_locks", described)
    us = FileOwner(str(path))
    with owner_process(path) as (owner, process):
        assert us.is_alive(owner)
        assert us.is_alive(us.id)
        assert not us.is_alive(owner + 1)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        assert not us.is_alive(owner)
    us.release()
    assert not us.is_alive(us.id)


@linux_only
def test_a_process_that_reads_its_own_files_keeps_its_locks(path: Path) -> None:
    us = FileOwner(str(path))
    with owner_process(path, "open(sys.argv[1]).close()") as (owner, _):
        assert us.is_alive(owner)
    us.release()


@pytest.mark.parametrize(
    "child",
    [
        pytest.param("child = os.fork()\n    if not child: time.sleep(60)", id="forked"),
        pytest.param("child = subprocess.Popen(['sleep', '60']).pid", id="executed"),
    ],
)
def test_a_child_does_not_keep_its_dead_parent_alive(child: str, path: Path) -> None:
    us = FileOwner(str(path))
    with owner_process(path, f"{child}\n    print(child, flush=True)") as (number, process):
        assert process.stdout is not None
        owner = int(process.stdout.readline())
        try:
            assert us.is_alive(owner)
            process.kill()
            process.wait(60)
            wait_for_death(us, owner)  # a busy machine may just be starting the child
            os.kill(number, 0)  # which lives
        finally:
            os.kill(number, signal.SIGKILL)
    us.release()


@linux_only
def test_a_child_that_c_code_forked_keeps_its_parents_locks_until_it_ends(path: Path) -> None:
    """No Python hook runs there. Its parent's leases wait for its end, and are never held by two at once."""
    fork = "libc = ctypes.CDLL(None); child = libc.fork()\n    if not child: libc.pause()\n    print(child, flush=True)"
    us = FileOwner(str(path))
    with owner_process(path, fork) as (child, process):
        assert process.stdout is not None
        owner = int(process.stdout.readline())
        try:
            process.kill()
            process.wait(60)
            assert us.is_alive(owner)
        finally:
            os.kill(child, signal.SIGKILL)
        wait_for_death(us, owner)
    us.release()


def test_a_forked_child_owns_nothing_and_leaves_its_parents_owners_alone(path: Path) -> None:
    us = FileOwner(str(path))
    child = os.fork()
    if not child:
        other = FileOwner(str(path))
        alive = other.is_alive(us.id), other.is_alive(other.id), other.is_alone()
        os._exit(0 if alive == (True, True, False) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert us.is_current()
    us.release()


def test_a_file_that_cannot_be_opened_changes_nothing(path: Path) -> None:
    us = FileOwner(str(path))
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match=r"directory|kind"):
        FileOwner(str(path))
    assert not us.is_current()
    with tempfile.TemporaryFile() as program:  # it would get the number of a closed descriptor
        program.write(b"x" * 1000)
        us.release()
        path.rmdir()
        again = FileOwner(str(path))
        assert again.is_current()
        program.flush()
        assert os.fstat(program.fileno()).st_size == 1000
    again.release()


def test_a_descriptor_that_the_program_has_closed_is_not_used_again(path: Path) -> None:
    """Daemons close all descriptors; the program's next file gets our number."""
    us = FileOwner(str(path))
    number = us._file.number
    with tempfile.TemporaryFile() as program:
        os.dup2(program.fileno(), number)
        assert not us.is_current()
        us.release()
        again = FileOwner(str(path))
        assert again.is_current()
        os.close(number)  # open still
        with pytest.raises(OSError, match="Bad file descriptor"):
            us.is_alive(again.id + 1)
    again.release()


def test_the_last_owner_knows_that_it_is_alone(path: Path) -> None:
    first, second = FileOwner(str(path)), FileOwner(str(path))
    assert not first.is_alone()
    second.release()
    assert first.is_alone() is locks.has_description_locks
    with owner_process(path):
        assert not first.is_alone()
    first.release()
