"""The maximum cost of one call, counted in operations instead of seconds, so that a busy machine fails no test.

Lower a number here whenever possible; raise it only with a reason.
"""

from __future__ import annotations

import gc
import math
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import BuiltinFunctionType, FrameType
from typing import TYPE_CHECKING, Any

import pytest

from athina_trace import _runtime, athina_trace, configure
from athina_trace._delivery.entry import Entry
from athina_trace._delivery.store import Store
from athina_trace._delivery.worker import Worker
from athina_trace._pipeline.runtime import Runtime
from tests.benchmarks.workload import arguments, handler

if TYPE_CHECKING:
    from typing_extensions import Self

MOST_CALLS_OF_PYTHON = 81
"""Python functions that run for one decorated call, fewer with later versions. The last of them has changes of the log
wait no longer, which came before it was written."""
MOST_STATEMENTS = 0.5
"""SQL statements for one log of a conversation of its own, one of 64 from the journal until it is delivered."""


class Counted:
    """Counts the Python functions, and the C functions by name, that this thread runs inside the `with` block."""

    def __init__(self) -> None:
        self.python = 0
        self.c: Counter[str] = Counter()

    def __enter__(self) -> Self:
        gc.disable()  # what is collected meanwhile may close files of earlier tests
        sys.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        gc.enable()

    def _count(self, _frame: FrameType, event: str, called: Any) -> None:
        if event == "call":
            self.python += 1
        elif event == "c_call" and type(called) is BuiltinFunctionType:
            self.c[f"{called.__module__}.{called.__name__}"] += 1

    def of(self, *modules: str) -> dict[str, int]:
        """The C functions of these modules that were called."""
        return {name: count for name, count in self.c.items() if name.split(".")[0] in modules}


@pytest.fixture
def decorated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    configure(outbox=str(tmp_path / "outbox.db"), api_key=None)
    decorated = athina_trace(handler)
    # The engine's thread has no part in a call, but would take turns with it.
    runtime = _runtime.active()
    assert isinstance(runtime, Runtime)
    monkeypatch.setattr(runtime.delivery.worker, "wake", lambda: None)
    for number in range(3):
        decorated(*arguments(number))
    return decorated


def test_a_call_is_one_write_and_no_other_system_call(decorated: Any) -> None:
    given = arguments(0)
    with Counted() as counted:
        decorated(*given)
    assert counted.of("posix", "fcntl", "_io", "_socket") == {"posix.write": 1}


def test_a_call_touches_no_database_and_wakes_no_thread(decorated: Any) -> None:
    given = arguments(0)
    with Counted() as counted:
        decorated(*given)
    assert counted.of("sqlite3", "_sqlite3", "_thread", "_queue") == {}


def test_a_call_serializes_once_for_the_body_and_once_for_the_header(decorated: Any) -> None:
    given = arguments(0)
    with Counted() as counted:
        decorated(*given)
    serialized = {name: count for name, count in counted.c.items() if "json" in name or "dumps" in name}
    assert serialized == {"pydantic_core._pydantic_core.to_json": 2}


def test_a_call_runs_few_python_functions(decorated: Any) -> None:
    given = arguments(0)
    with Counted() as counted:
        decorated(*given)
    assert counted.python <= MOST_CALLS_OF_PYTHON


def test_a_disabled_call_checks_once_and_does_nothing(tmp_path: Path) -> None:
    configure(enabled=False, outbox=str(tmp_path / "outbox.db"))
    decorated, given = athina_trace(handler), arguments(0)
    with Counted() as counted:
        decorated(*given)
    # The function in its place, the question, the function, and this block's end.
    assert counted.python <= 3 + 1
    assert list(tmp_path.iterdir()) == []


def test_calls_leave_nothing_in_memory(decorated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # A step of the engine in between would fill the parser's cache of strings, which has a bound of its own.
    monkeypatch.setattr(Worker, "wake", lambda _: None)

    def blocks_after(calls: int) -> int:
        for number in range(calls):
            decorated(*arguments(number % 10))
        gc.collect()
        return sys.getallocatedblocks()

    blocks = [blocks_after(100), *(blocks_after(500) for _ in range(3))]
    # The least of three: threads that earlier tests left behind allocate, too.
    assert min(after - before for before, after in pairwise(blocks)) < 100


def test_a_log_takes_few_statements_from_the_journal_to_its_delivery(tmp_path: Path) -> None:
    store, number = Store(str(tmp_path / "outbox.db")), 64
    statements: list[str] = []
    store._db.set_trace_callback(statements.append)
    with store.transaction():
        store.add([Entry(f"s{each}", "log", f"r{each}", 0.0, b"{}") for each in range(number)])
        leases = store.lease(1, 0.0, keys=number, batch=16, room=math.inf)
    with store.transaction():
        store.delivered([(entry, "run") for lease in leases for entry in lease.entries], 0.0, keep=True)
        store.release(*(lease.ordering_key for lease in leases))
    store.close()
    assert len(statements) / number <= MOST_STATEMENTS
