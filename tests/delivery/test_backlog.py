"""A backlog of 100,000 logs in 10,000 sessions: what it costs processes that start beside it, and to deliver it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import backlog


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backlog") / "outbox.db"
    backlog.make(path, 100_000).close()
    return path


def test_delivering_a_log_costs_the_same_however_many_wait(tmp_path: Path) -> None:
    """In rounds of the loops of SQLite's virtual machine, which a busy machine does not change."""
    costs = [backlog.cost(tmp_path, logs)[0] for logs in (10_000, 20_000, 100_000)]  # less is leased at once
    assert max(costs) <= 1.3 * min(costs)


def test_a_process_starts_as_fast_beside_a_backlog(full: Path, tmp_path: Path) -> None:
    assert backlog.extra_start_seconds(full, tmp_path / "empty.db", enough=0.1) < 0.1


def test_memory_stays_flat_while_a_backlog_is_delivered(full: Path, tmp_path: Path) -> None:
    assert backlog.memory(tmp_path, full, seconds=3) < 20_000_000


def test_memory_stays_flat_with_logs_of_a_megabyte(tmp_path: Path) -> None:
    path = tmp_path / "large.db"
    backlog.make(path, 100, body=b'{"response":"%s"}' % (b"r" * 900_000)).close()
    assert backlog.memory(tmp_path, path, seconds=3) < 20_000_000
