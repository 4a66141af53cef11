"""What our threads take of the interpreter, measured beside programs that compute, serve and sleep."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing

import pytest

from athina_trace._delivery.interpreter import Interpreter


def computes(ended: threading.Event) -> None:
    while not ended.is_set():
        sum(range(1000))


def serves(ended: threading.Event) -> None:
    """Compute as much, but wait for a socket in between, as a server does."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        while not ended.is_set():
            for _ in range(20):
                sum(range(1000))
            ours.send(b"x")
            theirs.recv(1)


def sleeps(ended: threading.Event) -> None:
    ended.wait()


def shares(program: Callable[[threading.Event], None]) -> Generator[float, None, None]:
    """Do beside `program` what a sender does; what share is measured."""
    interpreter, ended, spent = Interpreter(), threading.Event(), time.thread_time()
    thread = threading.Thread(target=program, args=(ended,))
    thread.start()
    try:
        while True:
            sum(range(5000))
            time.sleep(0.005)
            spent = interpreter.spent(spent)
            interpreter.look()
            yield interpreter.share
    finally:
        ended.set()
        thread.join()


@pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="this Python has no lock that threads could wait for"
)
def test_the_share_of_our_threads_is_known_where_the_program_computes() -> None:
    with closing(shares(computes)) as measured:
        assert 0.0 < next(share for share in measured if share) < 0.3


@pytest.mark.parametrize("program", [serves, sleeps])
def test_a_program_that_lets_us_in_is_left_out_of_it(program: Callable[[threading.Event], None]) -> None:
    measured_after = time.monotonic() + 2  # until then no verdict is asked for
    with closing(shares(program)) as measured:
        # At some time, since on a machine with other work our thread also waits for a processor, which looks alike.
        assert 0.0 in (share for share in measured if time.monotonic() > measured_after)
