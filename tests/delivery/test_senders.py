"""Senders that die of an error in any line, at any time: others continue their work."""

from __future__ import annotations

import ctypes
import linecache
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import athina_trace
from athina_trace import _guard
from athina_trace._clock import clock
from athina_trace._delivery import engine as engine_module
from athina_trace._delivery import senders as senders_module
from athina_trace._delivery.client import Client
from athina_trace._delivery.entry import Lease, Stored
from athina_trace._delivery.outbox import Outbox
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.results import Results
from athina_trace._delivery.senders import Senders
from athina_trace._delivery.sqlite_outbox import SqliteOutbox
from tests.delivery.test_engine import DOWN, TAKEN, Athina, Stepped
from tests.support.athina_server import AthinaServer, answer
from tests.support.waiting import until

FOLDER = str(Path(senders_module.__file__).parent)
LARGE = b'{"response":"%b"}' % (b"x" * 20_000)


class Died(BaseException):
    """Not an `Exception`, like the few errors that end a thread."""


@cache
def is_with(path: str, line: int) -> bool:
    """Such a line comes twice: what is raised where it is left would keep its lock from being released."""
    return "with " in linecache.getline(path, line)


Line = tuple[str, int]
"""A file and a line number."""
Moment = tuple[Line, int]
"""A line, and how many times it is begun by then."""


class Tripwire:
    """Raises `Died` at each of these moments, whichever sender gets there."""

    def __init__(self, *moments: Moment) -> None:
        self.moments = moments
        self.begun = Counter[Line]()
        self.died_at = set[Moment]()
        self.where = ""
        self._lock = threading.Lock()

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        path = frame.f_code.co_filename
        if not path.startswith(FOLDER) or frame.f_code.co_name in {"__enter__", "__exit__"}:
            return None
        # Not in the last steps of a thread, none of them ours: it is known no longer, and would be listed again.
        if not threading.current_thread().name.startswith("athina-trace-sender"):
            return None
        if event == "line" and not is_with(path, frame.f_lineno):
            line = (path, frame.f_lineno)
            with self._lock:
                self.begun[line] += 1
                moment = (line, self.begun[line])
            if moment in self.moments:
                self.died_at.add(moment)
                self.where += f"{Path(path).name}:{frame.f_lineno}, time {moment[1]}; "
                raise Died(self.where)
        return self


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Swallow our own errors, as in a program, and do not print what a thread died of."""
    monkeypatch.setattr(_guard, "strict", False)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)


@pytest.fixture
def traced() -> Iterator[Callable[..., Tripwire]]:
    before = threading.gettrace()

    def trace(*moments: Moment) -> Tripwire:
        wire = Tripwire(*moments)
        threading.settrace(wire)
        return wire

    yield trace
    threading.settrace(before)


class StepTripwire:
    """Raises `Died` when a step of the engine first reaches one of the lines `numbers` of its module."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers
        self.lines = set[int]()
        self.where = f"engine.py:{numbers}"

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        path, number = frame.f_code.co_filename, frame.f_lineno
        if path != engine_module.__file__:
            return None
        if event == "line" and not is_with(path, number):
            is_new = number not in self.lines
            self.lines.add(number)
            if is_new and number in self.numbers:
                raise Died(self.where)
        return self


def stepping(wire: StepTripwire, outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like a worker whose step fails: step again."""
    step = engine_module.Engine.step

    def traced(engine: engine_module.Engine, now: float) -> float:
        before = sys.gettrace()
        sys.settrace(wire)
        try:
            return step(engine, now)
        except Died:
            return 0.0
        finally:
            sys.settrace(before)

    with monkeypatch.context() as patched:
        patched.setattr(engine_module.Engine, "step", traced)
        deliver_with(wire, outbox)


@pytest.mark.usefixtures("lenient")
def test_a_step_that_fails_in_any_line_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four distant lines share one outbox: an outbox on disk for each would take seconds more."""
    wire = StepTripwire()
    stepping(wire, SqliteOutbox(str(tmp_path / "none.db")), monkeypatch)
    assert len(wire.lines) > 60
    lines = sorted(wire.lines)
    for first in range(number_of_runs := len(lines) // 4 + 1):
        outbox = SqliteOutbox(str(tmp_path / f"{first}.db"))
        stepping(StepTripwire(*lines[first::number_of_runs]), outbox, monkeypatch)


def deliver_with(wire: Tripwire | StepTripwire, outbox: Outbox | None = None) -> None:
    """Four ordering keys: a log accepted at once, one truncated twice, one refused, one that fails at first."""
    athina = Athina()

    def answer(reference: str, body: bytes) -> Outcome:
        if reference == "refused":
            return Outcome(400, message="no")
        if reference == "later" and athina.tries.count("later") == 1:
            return Outcome(401, message="not yet")
        if reference == "large" and len(body) > 8_000:
            return Outcome(413)
        accepted[reference] += 1
        return TAKEN

    accepted = Counter[str]()
    athina.answer = answer
    stepped = Stepped(athina, outbox=outbox, connections=2, max_bytes=10_000)
    stepped.put("later", "later", "behind it")
    stepped.put("one", "1", "refused", "2")
    stepped.put("two", "large", body=LARGE)
    stepped.put("three", "3")
    stepped.wait(400)
    counts = stepped.outbox.counts()
    stepped.engine.finish(5)
    assert (counts.made, counts.delivered, counts.refused, counts.waiting) == (7, 6, 1, 0), wire.where
    assert set(accepted) == {"later", "behind it", "1", "2", "large", "3"}, wire.where
    assert accepted.total() - 6 <= counts.possible_duplicates, wire.where


@pytest.mark.usefixtures("lenient")
def test_a_sender_that_dies_in_any_line_loses_nothing(traced: Callable[..., Tripwire]) -> None:
    """At the first and the last time that the line is begun.

    Four distant moments share a delivery; those that an earlier death prevented have one of their own afterwards.
    """
    wire = traced()
    deliver_with(wire)
    left = sorted({(line, nth) for line, times in wire.begun.items() for nth in (1, times)})
    assert len(left) > 200
    for together in (4, 1):
        died_at = set[Moment]()
        for first in range(number_of_runs := len(left) // together + 1):
            wire = traced(*left[first::number_of_runs])
            deliver_with(wire)
            died_at |= wire.died_at
        left = [moment for moment in left if moment not in died_at]
    # The threads take another turn each time, so that a few moments never come.
    assert len(left) < 50


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("error", [ValueError("broken"), MemoryError(), SystemExit(1), KeyboardInterrupt(), Died()])
def test_a_dead_sender_is_replaced_and_logged_once(
    error: BaseException,
    delivered: Callable[[], list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    deliver, errors = Client.deliver, [error, error]

    def dies_at_first(self: Client, *args: Any) -> Outcome:
        if errors:
            raise errors.pop()
        return deliver(self, *args)

    monkeypatch.setattr(Client, "deliver", dies_at_first)
    for number in range(5):
        athina_trace.log_inference(response=str(number), session_id="one")
    assert [log["response"] for log in delivered()] == list("01234")
    assert athina_trace.status().faults == 2
    assert "athina_trace_requests_in_flight 0" in athina_trace.metrics().splitlines()
    assert [record.levelname for record in caplog.records if repr(error) in record.getMessage()] == ["WARNING"]


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_the_connection_to_a_failing_server_behind_the_address_is_closed(status: int, athina: AthinaServer) -> None:
    """A load balancer assigns each connection to one of several servers: keeping it would fail forever."""
    athina_trace.configure(api_key="key", base_url=athina.url)
    athina.when(lambda request: request.connection % 2 == 1, answer(status))
    for number in range(20):
        athina_trace.log_inference(response=str(number), session_id=str(number % 5))
    logs = [request.json for request in athina.wait_for(20)]
    for session in range(5):
        assert [int(log["response"]) for log in logs if log["session_id"] == str(session)] == [*range(session, 20, 5)]


@pytest.mark.usefixtures("lenient")
@pytest.mark.skipif(sys.implementation.name != "cpython", reason="others cannot raise in another thread")
def test_what_is_raised_in_a_sender_that_waits_loses_no_lease() -> None:
    """As programs do that end threads from outside: it is raised once the sender has what it waited for."""
    athina = Athina()
    senders = senders_of(athina)
    senders.start()
    (sender,) = senders._senders
    number = sender.thread.ident
    assert number is not None
    until(lambda: sys._current_frames()[number].f_code.co_name == "_take")
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(number), ctypes.py_object(Died)) == 1
    senders.submit(lease_of("1"))
    sender.thread.join(60)
    until(lambda: senders.supervise() and athina.tries == ["1"])
    senders.close(5)


def test_a_sender_that_is_done_while_it_is_being_started_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """It neither retires unlisted nor is it taken for dead: on a busy machine, a thread may run before `start` ends."""
    athina, start = Athina(), threading.Thread.start
    senders = senders_of(athina)

    def slow_start(thread: threading.Thread) -> None:
        start(thread)
        thread.join(0.2)  # it retires, or waits for that until it is listed

    monkeypatch.setattr(threading.Thread, "start", slow_start)
    monkeypatch.setattr(senders_module, "_IDLE_SECONDS", 0.01)
    senders.start()
    senders.submit(lease_of("quick"))
    senders.start()
    until(lambda: len(senders._senders) == 1)
    assert [sender.thread.is_alive() for sender in senders._senders] == [True]
    assert _guard.faults == 0
    senders.close(5)


def test_one_hanging_request_blocks_no_other_session() -> None:
    athina, is_over = Athina(), threading.Event()
    athina.answer = lambda reference, _: TAKEN if reference != "hangs" or is_over.wait(60) else DOWN
    stepped = Stepped(athina)
    stepped.put("first", "hangs")
    for number in range(20):
        stepped.put(str(number), str(number))
    ends = time.monotonic() + 60
    while stepped.outbox.counts().delivered < 20:
        assert time.monotonic() < ends
        stepped.engine.step(stepped.clock.now)
        time.sleep(0.01)
    is_over.set()
    stepped.engine.finish(5)


class OfWorker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(0.05)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args: Any) -> None: ...


def work(listener: socket.socket) -> None:
    """Serve one connection after the other, each until it is closed."""
    with suppress(OSError):
        while True:
            connection, address = listener.accept()
            with connection, suppress(OSError):
                OfWorker(connection, address, None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_server_that_answers_few_connections_gets_as_many() -> None:
    """Beyond its number of workers, it accepts connections, and answers none until another one is closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(3):
            threading.Thread(target=work, args=(listener,), daemon=True).start()
        athina_trace.configure(api_key="key", base_url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        for number in range(200):
            athina_trace.log_inference(response="", session_id=str(number))
        report = athina_trace.flush(60)
        assert (report.delivered, report.waiting) == (200, 0)
        athina_trace.shutdown(0)
        listener.shutdown(socket.SHUT_RDWR)


def test_while_a_request_hangs_only_idle_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    athina, may_answer = Athina(), threading.Semaphore(0)
    closed: list[None] = []
    athina.answer = lambda *_: TAKEN if may_answer.acquire(timeout=60) else DOWN
    monkeypatch.setattr(athina, "close", lambda: closed.append(None))
    senders = senders_of(athina)
    senders.controller._limit.value = 2
    for number in range(2):  # so that both have a connection
        senders.submit(lease_of(str(number)))
        senders.start()
    until(lambda: athina.in_flight == 2)
    may_answer.release()
    until(lambda: [bool(sender.held) for sender in senders._senders].count(True) == 1)
    monkeypatch.setattr(senders.controller, "is_any_hanging", lambda _: True)
    senders.supervise()
    assert len(closed) == 1
    may_answer.release()
    senders.close(5)


def test_senders_beyond_the_limit_rest_without_a_lease_until_it_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a lease, a sender would be woken by each answer, and block its conversation meanwhile."""
    athina, may_answer = Athina(), threading.Semaphore(0)
    athina.answer = lambda *_: TAKEN if may_answer.acquire(timeout=60) else DOWN
    senders = senders_of(athina)
    limit = senders.controller._limit
    monkeypatch.setattr(limit, "record", lambda *_, **__: False)
    limit.value = 4
    for number in range(12):
        senders.submit(lease_of(str(number)))
    for _ in range(4):
        senders.start()
    until(lambda: athina.in_flight == 4)
    limit.value = 1
    for _ in range(4):
        may_answer.release()
    until(lambda: [sender.is_resting for sender in senders._senders].count(True) == 3)
    assert [bool(sender.held) for sender in senders._senders].count(True) == 1
    assert len(athina.tries) <= 8
    limit.value = 4
    senders.supervise()
    until(lambda: athina.in_flight == 4)
    for _ in range(12):
        may_answer.release()
    until(lambda: len(athina.tries) == 12 and not athina.in_flight)
    senders.close(5)


def senders_of(athina: Athina) -> Senders:
    return Senders(lambda: athina, Results(lambda _: None), clock=clock, limit=4, max_bytes=1000)


def lease_of(reference: str) -> Lease:
    return Lease(reference, 0, [Stored(1, "log", reference, b"{}")])


def test_a_sender_that_cannot_be_started_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    senders = senders_of(Athina())
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError, match="can't start"):
            senders.start()
    assert senders._senders == []
    senders.close(1)


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_no_thread_holds_the_lock_while_it_waits_for_the_interpreter() -> None:
    lock, interval = senders_module._TurnLock(), sys.getswitchinterval()
    began = threading.Event()

    def wait() -> None:
        began.set()
        with lock:
            pass

    thread = threading.Thread(target=wait)
    try:
        with lock:
            thread.start()
            assert began.wait(60)
            time.sleep(0.05)  # it waits for the lock by now
            sys.setswitchinterval(1)
        ends = time.perf_counter() + 0.05
        while time.perf_counter() < ends:
            pass  # like a compute-bound program
        assert lock.acquire(blocking=False)
        lock.release()
    finally:
        sys.setswitchinterval(interval)
        thread.join(60)
    assert not thread.is_alive()


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="others cannot raise in another thread")
@pytest.mark.usefixtures("lenient")
def test_a_thread_that_is_ended_from_outside_leaves_the_lock() -> None:
    lock = senders_module._TurnLock()

    def take_turns(began: threading.Event) -> None:
        began.set()
        while True:
            with lock:
                pass

    for _ in range(100):  # a third of them end while they take the lock or leave it
        began = threading.Event()
        thread = threading.Thread(target=take_turns, args=(began,))
        thread.start()
        assert began.wait(60)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Died))
        thread.join(60)
        assert not thread.is_alive()
        assert lock.acquire(blocking=False)
        lock.release()


@pytest.mark.parametrize("waits", ["without a lease", "with a lease"])
def test_a_sender_that_begins_to_wait_while_all_are_closed_ends(waits: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senders_module, "_IDLE_SECONDS", 3600.0)

    class WokenTooEarly(threading.Event):
        """`close` does what it does before the sender waits."""

        def clear(self) -> None:
            senders._closed.set()
            self.set()
            super().clear()

    def connect() -> Athina:
        limit.value = 0
        return Athina()

    senders = Senders(connect, Results(lambda _: None), clock=clock, limit=4)
    limit = senders.controller._limit
    limit.value = int(waits == "with a lease")
    senders.start()
    senders.start()  # the last one would wait for ever for its next lease
    first, second = senders._senders
    first.may_continue, second.may_continue = WokenTooEarly(), WokenTooEarly()
    senders.submit(lease_of("1"))
    until(lambda: not all(sender.thread.is_alive() for sender in (first, second)))
    senders.close(5)
