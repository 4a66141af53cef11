"""Reads one HTTP/1.0 or HTTP/1.1 response from a connection, framed as in RFC 9112.

The standard library's client parses headers as those of an email, which takes more CPU time than the rest of a
delivery.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from athina_trace._delivery.response import MOST_ANSWER_BYTES, HttpResponse

_AT_ONCE = 65_536
_MOST_BYTES = 2 * MOST_ANSWER_BYTES
"""The maximum for a whole response, with interim responses and chunk headers."""
_SWITCHING = 101
_WITHOUT_BODY = (_SWITCHING, 204, 304)
_STATUS = re.compile(r"HTTP/1\.(\d) +([1-9]\d\d)(?:[ \r].*)?", re.DOTALL | re.ASCII)
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,16})[ \t]*(?:;.*)?", re.DOTALL)
# A line may end with LF alone (RFC 9112, section 2.2). The head's end begins with a fixed byte, which is found quickly.
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_END_OF_LINE = re.compile(rb"\r?\n")
_FRAMING = ("connection", "content-length", "transfer-encoding")
"""Headers whose repetitions all count, as one list (RFC 9110, section 5.3)."""


def read_response(receive: Callable[[int], bytes]) -> tuple[HttpResponse, bool]:
    """Read a response; return it, and whether the connection can be reused for another request.

    Only the status matters: a body that breaks off, or is too long, is truncated.

    Args:
        receive: like `socket.recv`: returns the next bytes, at most so many; none at the end of the stream.

    Raises:
        EOFError: the stream ended within the head.
        ValueError: this is not HTTP, or the head is too long.
        OSError: raised by `receive` within the head.
    """
    stream = _Stream(receive)
    version, status, headers = _head(stream)
    while status < 200 and status != _SWITCHING:  # noqa: PLR2004 - interim responses
        version, status, headers = _head(stream)
    body = bytearray()
    try:
        is_whole = status in _WITHOUT_BODY or _read_body(stream, headers, body)
    except (EOFError, ValueError, OSError):
        is_whole = False
    options = headers.get("connection", "").lower()
    may_continue = "close" not in options and (version > 0 or "keep-alive" in options)
    is_kept = is_whole and may_continue and status != _SWITCHING and not stream.held
    return HttpResponse(status, headers, bytes(body)), is_kept


class _Stream:
    """A buffer of bytes that were received and not yet taken."""

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive
        self._received = b""
        self._taken = 0  # of `_received`
        self._left = _MOST_BYTES  # may still be received

    @property
    def held(self) -> int:
        """How many received bytes have not been taken."""
        return len(self._received) - self._taken

    def _receive_more(self) -> None:
        received = self._receive(_AT_ONCE)
        if not received:
            raise EOFError("the server closed the connection before the end of its answer")
        self._left -= len(received)
        if self._left < 0:
            raise ValueError("the answer is too long")
        self._received, self._taken = self._received[self._taken :] + received, 0

    def take(self, most: int) -> bytes:
        """Take the next bytes, at most so many."""
        if not self.held:
            self._receive_more()
        piece = self._received[self._taken : self._taken + most]
        self._taken += len(piece)
        return piece

    def take_until(self, end: re.Pattern[bytes]) -> bytes:
        """Take all bytes before `end`, and skip `end`."""
        looked = 0
        while (found := end.search(self._received, self._taken + looked)) is None:
            looked = max(0, self.held - 3)
            self._receive_more()
        start, self._taken = self._taken, found.end()
        return self._received[start : found.start()]


def _head(stream: _Stream) -> tuple[int, int, dict[str, str]]:
    """Read the head; return minor version, status, and headers (the first of each name, but all of `_FRAMING`)."""
    first, *lines = stream.take_until(_END_OF_HEAD).decode("latin-1").split("\n")
    found = _STATUS.fullmatch(first)
    if found is None:
        raise ValueError(f"the answer is not HTTP/1: {first[:100]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip()
        if headers.setdefault(name, value) is not value and name in _FRAMING:
            headers[name] += f",{value}"
    return int(found[1]), int(found[2]), headers


def _read_body(stream: _Stream, headers: dict[str, str], body: bytearray) -> bool:
    """Read the body into `body`, up to `MOST_ANSWER_BYTES`; return whether it was complete."""
    if headers.get("transfer-encoding", "").lower().rpartition(",")[2].strip() == "chunked":
        while (found := _CHUNK.fullmatch(stream.take_until(_END_OF_LINE))) is not None:
            size = int(found[1], 16)
            if not size:
                while stream.take_until(_END_OF_LINE):
                    pass  # trailers
                return True
            if not _read_part(stream, size, body) or stream.take_until(_END_OF_LINE):
                return False
        return False
    lengths = {each.strip() for each in headers.get("content-length", "").split(",")}
    length = lengths.pop() if len(lengths) == 1 else ""
    return _read_part(stream, int(length) if length.isdecimal() and length.isascii() else math.inf, body)


def _read_part(stream: _Stream, size: float, body: bytearray) -> bool:
    while size > 0 and len(body) < MOST_ANSWER_BYTES:
        piece = stream.take(int(min(size, MOST_ANSWER_BYTES - len(body))))
        body += piece
        size -= len(piece)
    return size == 0
