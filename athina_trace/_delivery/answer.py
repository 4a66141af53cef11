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
_MOST_HEAD_BYTES = 65_536
_SWITCHING = 101
_WITHOUT_BODY = (_SWITCHING, 204, 304)
_STATUS = re.compile(rb"HTTP/1\.([01]) +([1-9]\d\d)(?: .*)?", re.DOTALL)
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,16})[ \t]*(?:;.*)?", re.DOTALL)
# A line may end without the first of its two characters (RFC 9112, section 2.2).
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_END_OF_LINE = re.compile(rb"\r?\n")


def read_answer(receive: Callable[[int], bytes]) -> tuple[HttpResponse, bool]:
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
        self.held = b""

    def _receive_more(self) -> None:
        received = self._receive(_AT_ONCE)
        if not received:
            raise EOFError("the server hung up before the end of its answer")
        self.held += received

    def take(self, most: float) -> bytes:
        """Take what comes next, at most so many bytes."""
        if not self.held:
            self._receive_more()
        size = int(min(most, len(self.held)))
        taken, self.held = self.held[:size], self.held[size:]
        return taken

    def take_until(self, end: re.Pattern[bytes]) -> bytes:
        """Take what comes before `end`, and skip that."""
        start = 0
        while (found := end.search(self.held, start)) is None:
            if len(self.held) > _MOST_HEAD_BYTES:
                raise ValueError("the head of the answer is too long")
            start = max(0, len(self.held) - 3)
            self._receive_more()
        taken, self.held = self.held[: found.start()], self.held[found.end() :]
        return taken


def _head(stream: _Stream) -> tuple[int, int, dict[str, str]]:
    """Read the head of an answer; return the minor version, the status, and the first header of each name."""
    first, *lines = _END_OF_LINE.split(stream.take_until(_END_OF_HEAD))
    found = _STATUS.fullmatch(first)
    if found is None:
        raise ValueError(f"the answer is no HTTP/1: {first[:100]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.decode("latin-1").partition(":")
        headers.setdefault(name.lower(), value.strip())
    return int(found[1]), int(found[2]), headers


def _read_body(stream: _Stream, headers: dict[str, str], body: bytearray) -> bool:
    """Append to `body` what it holds, up to `MOST_ANSWER_BYTES`; return whether that was all."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while (found := _CHUNK.fullmatch(stream.take_until(_END_OF_LINE))) is not None:
            size = int(found[1], 16)
            if not size:
                while stream.take_until(_END_OF_LINE):
                    pass  # what follows the last chunk
                return True
            if not _read_part(stream, size, body):
                return False
            stream.take_until(_END_OF_LINE)
        return False
    length = headers.get("content-length", "")
    return _read_part(stream, int(length) if length.isdecimal() and length.isascii() else math.inf, body)


def _read_part(stream: _Stream, size: float, body: bytearray) -> bool:
    while size > 0 and len(body) < MOST_ANSWER_BYTES:
        piece = stream.take(min(size, MOST_ANSWER_BYTES - len(body)))
        body += piece
        size -= len(piece)
    return size == 0
