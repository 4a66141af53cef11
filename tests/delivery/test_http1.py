"""Parsing of responses, in whatever pieces they arrive."""

from __future__ import annotations

import io
from contextlib import suppress

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athina_trace._delivery.http1 import read_response
from athina_trace._delivery.response import MOST_ANSWER_BYTES

ANSWERS: list[tuple[bytes, int, bytes, bool]] = [  # → status, body, whether another request may follow
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", True),
    (b"HTTP/1.1 200\nCONTENT-LENGTH:2\n\n{}", 200, b"{}", True),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b"", True),
    (b"HTTP/1.1 204 x\r\n\r\n", 204, b"", True),
    (b"HTTP/1.1 304 x\r\nContent-Length: 9\r\n\r\n", 304, b"", True),
    (b"HTTP/1.1 101 x\r\n\r\n", 101, b"", False),
    (b"HTTP/1.1 100 x\r\n\r\nHTTP/1.1 200 x\r\nContent-Length: 1\r\n\r\n1", 200, b"1", True),
    (b"HTTP/1.1 200 x\r\nConnection: Close\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", False),
    (b"HTTP/1.0 200 x\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", False),
    (b"HTTP/1.0 200 x\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", True),
    (b"HTTP/1.1 200 x\r\nConnection: TE\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", False),
    (b"HTTP/1.2 200 x\r\nContent-Length: 2, 2\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", True),
    (b"HTTP/1.1 200 x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", False),
    (b"HTTP/1.1 200 x\r\n\r\nto the end", 200, b"to the end", False),
    (b"HTTP/1.1 200 x\r\nContent-Length: 9\r\n\r\nbroken", 200, b"broken", False),
    (b"HTTP/1.1 200 x\r\nContent-Length: -9\r\n\r\nx", 200, b"x", False),
    (b"HTTP/1.1 200 x\r\nTransfer-Encoding: Chunked\r\n\r\n2;a=b\r\n{}\r\n00\r\na: b\r\n\r\n", 200, b"{}", True),
    (b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n-2\r\n{}\r\n0\r\n\r\n", 200, b"{}", False),
    (b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}{}\r\n0\r\n\r\n", 200, b"{}", False),
    (b"HTTP/1.1 200 x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200, b"{}", True),
    (b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\nx", 200, b"x", False),
]


def receiving(data: bytes, sizes: list[int]) -> tuple[tuple[int, bytes], bool]:
    stream, pieces = io.BytesIO(data), iter(sizes)
    (status, _, body), is_kept = read_response(lambda most: stream.read(min(most, next(pieces, most))))
    return (status, body), is_kept


@given(st.sampled_from(ANSWERS), st.lists(st.integers(1, 9), max_size=99))
def test_an_answer_is_the_same_in_any_pieces(answer: tuple[bytes, int, bytes, bool], sizes: list[int]) -> None:
    data, status, body, is_kept = answer
    assert receiving(data, sizes) == ((status, body), is_kept)


@pytest.mark.parametrize("answer", [answer for answer in ANSWERS if answer[3]])
def test_a_connection_with_data_after_the_answer_is_not_reused(answer: tuple[bytes, int, bytes, bool]) -> None:
    assert receiving(answer[0] + b"HTTP/1.1 200 x\r\n\r\n", []) == ((answer[1], answer[2]), False)


@st.composite
def exchanges(draw: st.DrawFn) -> bytes:
    """A mostly valid response, sometimes truncated or extended."""
    body = draw(st.text("{}ab\r\n0", max_size=5))
    head = draw(st.lists(st.sampled_from(["HTTP/1.1 100 x\r\n\r\n", "HTTP/1.1 103 x\r\nContent-Length: 3\r\n\r\n"])))
    headers = draw(st.lists(st.sampled_from(["Connection: close", "connection: keep-alive, TE", "X: a\r\n b"])))
    if draw(st.booleans()):
        lengths = st.sampled_from([len(body)] * 4 + [len(body) + 1, max(0, len(body) - 1)])
        form = draw(st.sampled_from(["{}", "{}", " {}\t", "0{}", "{0},{0}", "-{}", "{} x"]))
        headers += draw(st.lists(lengths.map(lambda length: f"Content-length: {form.format(length)}"), max_size=2))
    else:
        headers.append(draw(st.sampled_from(["Transfer-Encoding: Chunked", "TRANSFER-ENCODING: chunked"])))
        pieces = [body] * draw(st.integers(0, 2)) if body else []
        end = draw(st.sampled_from(["\r\n"] * 4 + ["x\r\n"]))
        body = "".join(f"{len(piece):02x};a=b\r\n{piece}{end}" for piece in pieces)
        body += draw(st.sampled_from(["0\r\n\r\n", "0\r\n\r\n", "00\r\nT: v\r\n\r\n", "g\r\n\r\n"]))
    statuses = ["1.1 200 OK", "1.1 500", "1.1 204 x", "1.1 304 x", "1.0 200 x", "1.1 999 x", "1.1 20"]
    lines = [f"HTTP/{draw(st.sampled_from(statuses))}", *draw(st.permutations(headers)), "", body]
    found = "".join(head) + "\r\n".join(lines)
    cut = draw(st.sampled_from([len(found)] * 4 + [len(found) // 2, len(found) - 1]))
    return (found[:cut] + draw(st.sampled_from(["", "", "x", "HTTP/1.1 200 x\r\n\r\n"]))).encode()


@given(exchanges())
def test_answers_are_read_as_by_a_strict_reader(data: bytes) -> None:
    strict = h11.Connection(h11.CLIENT)
    strict.send(h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
    strict.send(h11.EndOfMessage())
    strict.receive_data(data)
    strict.receive_data(b"")
    status, body, is_whole = None, b"", False
    with suppress(h11.RemoteProtocolError):
        while not is_whole and not isinstance(event := strict.next_event(), h11.ConnectionClosed):
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            is_whole = isinstance(event, h11.EndOfMessage)
    try:
        found, is_kept = receiving(data, [])
    except (EOFError, ValueError):
        assert status is None
        return
    if status is not None:
        assert found[0] == status
    if is_whole:
        assert found[1] == body
    # It closes each connection of HTTP/1.0.
    is_free = strict.their_state is h11.DONE or (is_whole and b"HTTP/1.0" in data)
    assert not is_kept or (is_free and not strict.trailing_data[0])


@pytest.mark.parametrize(
    ("start", "rest"),
    [
        (b"", b"HTTP/1.1 100 x\r\n\r\n"),
        (b"HTTP/1.1 500 x\r\n", b"a: b\r\n"),
        (b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;" + b"a" * 9999),
        (b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
    ],
    ids=["informational", "headers", "chunks", "extensions", "trailers"],
)
def test_no_more_is_received_of_an_endless_answer_than_of_a_long_one(start: bytes, rest: bytes) -> None:
    received = [start]

    def receive(most: int) -> bytes:
        assert len(received) < 9
        received.append(rest * (most // len(rest) + 1))
        return received[-1][:most] if len(received) > 2 else start + rest

    try:
        answer, is_kept = read_response(receive)
        assert (answer.status, is_kept) == (500, False)
    except ValueError:
        assert b"500" not in start or rest == b"a: b\r\n"


def test_the_beginning_of_a_long_body_is_read() -> None:
    head = b"HTTP/1.1 500 x\r\nContent-Length: 99999999\r\n\r\n"
    assert receiving(head + b"x" * 999_999, []) == ((500, b"x" * MOST_ANSWER_BYTES), False)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", b"HTTP/1.1 20"])
def test_an_answer_with_an_incomplete_head_is_none(data: bytes) -> None:
    with pytest.raises(EOFError):
        receiving(data, [])


@pytest.mark.parametrize(
    "first", [b"HTTP/2 200 OK", b"HTTP/1.1 2000 OK", b"\x16\x03\x01", b"HTTP/1.1 200 " + b"x" * 999_999]
)
def test_an_answer_that_is_not_http_is_none(first: bytes) -> None:
    with pytest.raises(ValueError, match="answer"):
        receiving(first + b"\r\n\r\n", [])
