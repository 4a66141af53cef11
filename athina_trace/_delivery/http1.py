"""Reading one answer from a connection: HTTP/1.0 and 1.1, as RFC 9112 frames them.

The standard library's client reads headers as those of a letter, which takes more processor time than all else that a
delivery does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from athina_trace._delivery.response import MOST_ANSWER_BYTES, HttpResponse

_AT_ONCE = 65_536
_MOST_BYTES = 2 * MOST_ANSWER_BYTES
"""Of an answer, with all that comes before it and between the parts of its body."""
_SWITCHING = 101
_WITHOUT_BODY = (_SWITCHING, 204, 304)
_STATUS = re.compile(rb"HTTP/1\.(\d) +([1-9]\d\d)(?: .*)?", re.DOTALL)
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,16})[ \t]*(?:;.*)?", re.DOTALL)
# A line may end without the first of its two characters (RFC 9112, section 2.2).
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_END_OF_LINE = re.compile(rb"\r?\n")
_FRAMING = ("connection", "content-length", "transfer-encoding")
"""Headers of which each counts: several are one list (RFC 9110, section 5.3)."""


def read_response(receive: Callable[[int], bytes]) -> tuple[HttpResponse, bool]:
    """Read the answer to a request; return it, and whether the connection may carry another request.

    The status decides alone: a body that breaks off, or is too long, is shorter.

    Args:
        receive: gives at least one and at most so many of the bytes that come next, none after the last.

    Raises:
        EOFError: the last byte came before the end of the head.
        ValueError: this is no HTTP, or the head is too long.
        OSError: of `receive`, before the end of the head.
    """
    stream = _Stream(receive)
    version, status, headers = _head(stream)
    while status < 200 and status != _SWITCHING:  # noqa: PLR2004 - those come before the answer
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
    """What was received and not taken yet."""

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive
        self._received = b""
        self._taken = 0  # of that
        self._left = _MOST_BYTES  # to be received

    @property
    def held(self) -> int:
        """How many bytes are left of what was received."""
        return len(self._received) - self._taken

    def _receive_more(self) -> None:
        received = self._receive(_AT_ONCE)
        if not received:
            raise EOFError("the server hung up before the end of its answer")
        self._left -= len(received)
        if self._left < 0:
            raise ValueError("the answer is too long")
        self._received, self._taken = self._received[self._taken :] + received, 0

    def take(self, most: float) -> bytes:
        """Take what comes next, at most so many bytes."""
        if not self.held:
            self._receive_more()
        start, self._taken = self._taken, self._taken + int(min(most, self.held))
        return self._received[start : self._taken]

    def take_until(self, end: re.Pattern[bytes]) -> bytes:
        """Take what comes before `end`, and skip that."""
        looked = 0
        while (found := end.search(self._received, self._taken + looked)) is None:
            looked = max(0, self.held - 3)
            self._receive_more()
        start, self._taken = self._taken, found.end()
        return self._received[start : found.start()]


def _head(stream: _Stream) -> tuple[int, int, dict[str, str]]:
    """Read the head of an answer; return the minor version, the status, and the first header of most names."""
    first, *lines = _END_OF_LINE.split(stream.take_until(_END_OF_HEAD))
    found = _STATUS.fullmatch(first)
    if found is None:
        raise ValueError(f"the answer is no HTTP/1: {first[:100]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.decode("latin-1").partition(":")
        name, value = name.lower(), value.strip()
        if headers.setdefault(name, value) is not value and name in _FRAMING:
            headers[name] += f",{value}"
    return int(found[1]), int(found[2]), headers


def _read_body(stream: _Stream, headers: dict[str, str], body: bytearray) -> bool:
    """Append to `body` what it holds, up to `MOST_ANSWER_BYTES`; return whether that was all."""
    if headers.get("transfer-encoding", "").lower().rpartition(",")[2].strip() == "chunked":
        while (found := _CHUNK.fullmatch(stream.take_until(_END_OF_LINE))) is not None:
            size = int(found[1], 16)
            if not size:
                while stream.take_until(_END_OF_LINE):
                    pass  # what follows the last chunk
                return True
            if not _read_part(stream, size, body) or stream.take_until(_END_OF_LINE):
                return False
        return False
    lengths = {each.strip() for each in headers.get("content-length", "").split(",")}
    length = lengths.pop() if len(lengths) == 1 else ""
    return _read_part(stream, int(length) if length.isdecimal() and length.isascii() else math.inf, body)


def _read_part(stream: _Stream, size: float, body: bytearray) -> bool:
    while size > 0 and len(body) < MOST_ANSWER_BYTES:
        piece = stream.take(min(size, MOST_ANSWER_BYTES - len(body)))
        body += piece
        size -= len(piece)
    return size == 0
