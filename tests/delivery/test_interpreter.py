"""Our threads' share of the interpreter, measured beside programs that compute, serve and sleep."""

from __future__ import annotations

import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from types import SimpleNamespace

import pytest

from athina_trace._delivery import interpreter
from athina_trace._delivery.interpreter import LOOK_SECONDS, Interpreter


def computes(ended: threading.Event) -> None:
    while not ended.is_set():
        sum(range(1000))


def serves(ended: threading.Event) -> None:
    """Compute as much, but wait for requests in between, as a server does."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        while not ended.is_set():
            for _ in range(40):
                sum(range(1000))
            # For a while: on some machines, a thread that takes it back within microseconds lets nobody in.
            select.select([theirs], [], [], 0.0005)


def sleeps(ended: threading.Event) -> None:
    ended.wait()


def shares(program: Callable[[threading.Event], None]) -> Generator[float, None, None]:
    """Do what a sender does beside `program`; return the measured share."""
    measuring, ended = Interpreter(), threading.Event()
    thread = threading.Thread(target=program, args=(ended,))
    thread.start()
    try:
        while True:
            sum(range(5000))
            time.sleep(0.005)
            measuring.spent()
            measuring.look()
            yield measuring.share
    finally:
        ended.set()
        thread.join()


@pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="this Python has no lock that threads could wait for"
)
def test_the_share_of_our_threads_is_known_where_the_program_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "_BUSY", 0.01)  # on a busy machine, the process may get no more of a CPU
    with closing(shares(computes)) as measured:
        assert 0.0 < next(share for share in measured if share) < 0.3


@pytest.mark.parametrize("program", [serves, sleeps])
def test_a_program_that_lets_us_in_is_not_compute_bound(program: Callable[[threading.Event], None]) -> None:
    measured_after = time.monotonic() + 2  # until then no verdict is asked for
    with closing(shares(program)) as measured:
        # Eventually, since on a busy machine our thread also waits for a CPU, which looks the same.
        assert 0.0 in (share for share in measured if time.monotonic() > measured_after)


def test_a_program_computes_for_as_long_as_some_waits_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """If several of our threads share the interpreter, most of them are let in by each other."""
    now, waits = 0.0, iter([0.008] * 9 + [0.008, 0.0003, 0.0003] * 20 + [0.0003] * 10)

    def sleep(_: float) -> None:
        nonlocal now
        now += next(waits)

    clocks = {"perf_counter": lambda: now, "process_time": lambda: now, "thread_time": lambda: now / 10}
    fake = SimpleNamespace(**clocks, sleep=sleep)
    monkeypatch.setattr(interpreter, "time", fake)
    measuring, shares = Interpreter(), []
    for _ in range(80):
        now += LOOK_SECONDS
        measuring.spent()
        measuring.look()
        shares.append(measuring.share)
    assert shares[5:68] == [pytest.approx(0.1)] * 63
    assert shares[-1] == 0.0
