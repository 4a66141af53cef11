"""Answers of servers, whatever the pieces in which they arrive."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athina_trace._delivery.answer import read_answer
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
    (b"HTTP/1.1 200 x\r\n\r\nto the end", 200, b"to the end", False),
    (b"HTTP/1.1 200 x\r\nContent-Length: 9\r\n\r\nbroken", 200, b"broken", False),
    (b"HTTP/1.1 200 x\r\nContent-Length: -9\r\n\r\nx", 200, b"x", False),
    (b"HTTP/1.1 200 x\r\nTransfer-Encoding: Chunked\r\n\r\n2;a=b\r\n{}\r\n00\r\na: b\r\n\r\n", 200, b"{}", True),
    (b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n-2\r\n{}\r\n0\r\n\r\n", 200, b"{}", False),
    (b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\nx", 200, b"x", False),
]


def receiving(data: bytes, sizes: list[int]) -> tuple[object, bool]:
    stream, pieces = io.BytesIO(data), iter(sizes)
    (status, _, body), is_kept = read_answer(lambda most: stream.read(min(most, next(pieces, most))))
    return (status, body), is_kept


@given(st.sampled_from(ANSWERS), st.lists(st.integers(1, 9), max_size=99))
def test_an_answer_is_the_same_in_any_pieces(answer: tuple[bytes, int, bytes, bool], sizes: list[int]) -> None:
    data, status, body, is_kept = answer
    assert receiving(data, sizes) == ((status, body), is_kept)


@pytest.mark.parametrize("answer", [answer for answer in ANSWERS if answer[3]])
def test_a_connection_with_more_than_the_answer_is_used_no_more(answer: tuple[bytes, int, bytes, bool]) -> None:
    assert receiving(answer[0] + b"HTTP/1.1 200 x\r\n\r\n", []) == ((answer[1], answer[2]), False)


def test_of_a_long_body_the_beginning_is_read() -> None:
    head = b"HTTP/1.1 500 x\r\nContent-Length: 99999999\r\n\r\n"
    assert receiving(head + b"x" * 999_999, []) == ((500, b"x" * MOST_ANSWER_BYTES), False)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", b"HTTP/1.1 20"])
def test_an_answer_without_its_whole_head_is_none(data: bytes) -> None:
    with pytest.raises(EOFError):
        receiving(data, [])


@pytest.mark.parametrize(
    "first", [b"HTTP/2 200 OK", b"HTTP/1.1 2000 OK", b"\x16\x03\x01", b"HTTP/1.1 200 " + b"x" * 199_999]
)
def test_what_is_no_http_is_none(first: bytes) -> None:
    with pytest.raises(ValueError, match="answer"):
        receiving(first + b"\r\n\r\n", [])
