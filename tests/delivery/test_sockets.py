"""Queries of a connection, as on Linux and as on other systems."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

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
