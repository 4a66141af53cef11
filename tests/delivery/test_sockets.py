"""Queries of a connection, as on Linux and as on other systems."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from athina_trace._delivery import sockets
from tests.support.waiting import until

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=[sockets._IS_LINUX, False], ids=["here", "elsewhere"])
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    monkeypatch.setattr(sockets, "_IS_LINUX", request.param)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        yield ours, theirs


def test_unrequested_data_is_noticed_until_it_is_read(pair: Pair) -> None:
    ours, theirs = pair
    assert not sockets.is_readable(ours)
    theirs.sendall(b"x" * 9000)
    until(lambda: sockets.is_readable(ours))
    while len(ours.recv(9000, socket.MSG_PEEK)) < 9000:
        pass
    ours.recv(8999)
    assert sockets.is_readable(ours)
    ours.recv(1)
    assert not sockets.is_readable(ours)


@pytest.mark.parametrize("linger", [b"", struct.pack("ii", 1, 0)], ids=["end", "reset"])
def test_it_is_noticed_that_the_server_hung_up(pair: Pair, linger: bytes) -> None:
    ours, theirs = pair
    if linger:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    theirs.close()
    until(lambda: sockets.is_readable(ours))


def test_each_connection_has_its_own_identity(pair: Pair) -> None:
    ours, theirs = pair
    assert sockets.identity_of(ours) == sockets.identity_of(ours) is not None
    assert sockets.identity_of(ours) != sockets.identity_of(theirs)
    with ours.dup() as same:
        assert sockets.identity_of(same) == sockets.identity_of(ours)
    ours.close()
    assert sockets.identity_of(ours) is None


def test_no_wait_is_longer_than_allowed(pair: Pair) -> None:
    ours, theirs = pair
    sockets.limit_waits(ours, 0.01)
    with pytest.raises((TimeoutError, BlockingIOError)):
        ours.recv(1)
    with pytest.raises((TimeoutError, BlockingIOError)):
        ours.sendall(bytes(99_999_999))
    theirs.sendall(b"x")
    sockets.limit_waits(ours, 60.0)
    assert ours.recv(1) == b"x"


LISTENERS = ("127.0.0.2", "127.0.0.3")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere loopback has one address, or a full listener refuses")
def test_an_address_that_does_not_answer_holds_up_one_connection_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []

    class Watched(socket.socket):
        def connect(self, address: Any) -> None:
            tried.append((address[0], self.gettimeout()))
            super().connect(address)

    # Like many a program's own resolver, it takes no keywords and returns no list.
    def two(_host: str, port: int, *_: Any) -> tuple[Any, ...]:
        return tuple((socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in LISTENERS)

    with ExitStack() as stack:
        good = stack.enter_context(socket.create_server((LISTENERS[1], 0)))
        port = good.getsockname()[1]
        silent = stack.enter_context(socket.socket())
        silent.bind((LISTENERS[0], port))
        silent.listen(0)
        for _ in range(4):  # then it is full, and the kernel answers nothing
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0.2)
            with suppress(TimeoutError):
                filler.connect(silent.getsockname())
        monkeypatch.setattr(socket, "getaddrinfo", two)
        monkeypatch.setattr(sockets, "_late", {})
        monkeypatch.setattr(socket, "socket", Watched)
        for _ in range(3):
            with sockets.connect("two.test", port, 60.0) as connection:
                assert connection.getpeername() == good.getsockname()
                assert connection.gettimeout() == 60.0
        # The first connection looks shortly at the one that is silent, the others not at all.
        assert tried == [(LISTENERS[0], sockets._SOON_SECONDS), *3 * [(LISTENERS[1], sockets._SOON_SECONDS)]]

        tried.clear()
        good.close()  # refused now, so that the other one is asked for as long as is allowed
        with pytest.raises(TimeoutError):
            sockets.connect("two.test", port, 1.0)
        assert [each[0] for each in tried] == [LISTENERS[1], LISTENERS[0], LISTENERS[0]]
        assert tried[-1][1] == 1.0
