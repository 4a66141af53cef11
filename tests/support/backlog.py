"""Measure the cost of a backlog of waiting logs: starting beside it, delivering from it, and holding it.

`python -m tests.support.backlog` delivers all of the largest one and prints the figures.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from functools import partial
from pathlib import Path

from athina_trace._clock import clock
from athina_trace._delivery.engine import Engine
from athina_trace._delivery.entry import Entry
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.senders import Senders
from athina_trace._delivery.sqlite_outbox import SqliteOutbox
from tests.support.athina_server import AthinaServer
from tests.support.processes import run

BODY = b'{"language_model_id":"m","prompt":"p","response":"%s"}' % (b"r" * 1000)
_START = """
    import time
    import athina_trace
    @athina_trace.athina_trace
    def answer(question):
        return question
    answer("?")
    print(time.process_time())
"""

_MEMORY = """
    import athina_trace, sys, threading, time
    def resident():
        return int(open("/proc/self/statm").read().split()[1]) * 4096
    @athina_trace.athina_trace
    def answer(question):
        return question
    athina_trace.configure(outbox=sys.argv[2])
    answer("?")
    assert athina_trace.flush(60)
    idle, most = resident(), 0
    athina_trace.configure(outbox=sys.argv[1])
    flushing = threading.Thread(target=athina_trace.flush, args=(float(sys.argv[3]),))
    flushing.start()
    while flushing.is_alive():
        most = max(most, resident())
        time.sleep(0.005)
    print(most - idle)
"""


class _Taking:
    """A connection that accepts every request at no cost."""

    def deliver(self, kind: str, target: str, body: bytes) -> Outcome:
        return Outcome(200)

    def expire(self, *, now: float | None = None) -> bool:
        return False

    def close(self) -> None: ...


def make(path: Path, logs: int, *, body: bytes = BODY) -> SqliteOutbox:
    """Make an outbox with so many waiting logs, ten in each session."""
    outbox = SqliteOutbox(str(path))
    for start in range(0, logs, 10_000):
        entries = [
            Entry(f"s{number % (logs // 10)}", "log", f"ref-{number}", 1.7e9, body)
            for number in range(start, min(start + 10_000, logs))
        ]
        with outbox.transaction():
            outbox.store.add(entries)
    return outbox


def cost(folder: Path, logs: int) -> tuple[float, float]:
    """Return the cost of delivering one of `logs`: rounds of SQLite's loops, and CPU seconds of the engine's thread."""
    outbox = make(folder / f"{logs}.db", logs)
    engine = Engine(outbox, partial(Senders, _Taking, clock=clock), clock=clock)
    engine.step(time.time())
    # Several times the size of a lease, if there are as many logs.
    count = min(5_000, logs // 2)
    rounds, began, before = 0, time.thread_time(), outbox.counts().delivered

    def counted() -> int:
        nonlocal rounds
        rounds += 1
        return 0

    connection: sqlite3.Connection = outbox.store._db
    connection.set_progress_handler(counted, 1)
    while (delivered := outbox.counts().delivered - before) < count:
        # Wait as the engine's thread does: empty steps also cost, and a busy machine has more of them.
        engine.results.wake_event.wait(0.1)
        engine.results.wake_event.clear()
        engine.step(time.time())
    seconds = time.thread_time() - began
    connection.set_progress_handler(None, 0)
    engine.finish(5)
    return rounds / delivered, seconds / delivered


def start_seconds(path: Path) -> float:
    """Return the CPU time of a process until its first log, which hardly depends on the machine's load."""
    environment = {"ATHINA_API_KEY": "key", "ATHINA_BASE_URL": "http://127.0.0.1:9", "ATHINA_OUTBOX": str(path)}
    return float(run(_START, ATHINA_EXIT_TIMEOUT="0", **environment)[0])


def extra_start_seconds(full: Path, empty: Path, *, enough: float = 0.0) -> float:
    """Return how much a backlog adds to it: the least of ten pairs, or the first below `enough`."""
    least = float("inf")
    for _ in range(10):
        least = min(least, start_seconds(full) - start_seconds(empty))
        if least < enough:
            break
    return least


def memory(folder: Path, path: Path, *, seconds: float) -> int:
    """Return the memory, above idle, of a process that delivers a backlog for so many seconds."""
    with AthinaServer() as athina:
        environment = {"ATHINA_API_KEY": "key", "ATHINA_BASE_URL": athina.url, "ATHINA_EXIT_TIMEOUT": "0"}
        arguments = (str(path), str(folder / "idle.db"), str(seconds))
        return int(run(_MEMORY, *arguments, timeout=seconds + 100, **environment)[0])


def main() -> None:
    """Measure everything at full length."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for logs in (1_000, 10_000, 100_000):
            rounds, seconds = cost(folder, logs)
            print(f"{logs:>8} waiting: {rounds:6.0f} rounds, {seconds * 1e6:4.0f} us of CPU for each log")  # noqa: T201
        full = folder / "full.db"
        make(full, 100_000).close()
        begin = extra_start_seconds(full, folder / "empty.db")
        print(f"starting beside 100000: {begin * 1e3:.0f} ms more than beside none")  # noqa: T201
        print(f"delivering 100000 for a minute: {memory(folder, full, seconds=60) / 1e6:.1f} MB over idle")  # noqa: T201
        large = folder / "large.db"
        make(large, 500, body=b'{"response":"%s"}' % (b"r" * 900_000)).close()
        print(f"delivering 500 of 900 kB: {memory(folder, large, seconds=30) / 1e6:.1f} MB over idle")  # noqa: T201


if __name__ == "__main__":
    main()
