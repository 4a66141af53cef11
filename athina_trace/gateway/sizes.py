"""Counts the objects in a body before it is parsed.

An empty protobuf message takes two bytes in a body and some hundred in memory, an empty JSON list takes three, and one
compressed byte may contain a thousand of them: a small body may expand to far too many objects. Parsing in a thread
does not help, since both parsers hold the interpreter until they are done.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

_LEAST_BYTES: Final = 2
"""Minimum size of a nested message: its tag and its length."""
_VARINT, _NESTED = 0, 2
"""Wire types. Source: https://protobuf.dev/programming-guides/encoding/"""
_MORE: Final = 128
"""The bit in a byte of a varint that says that another byte follows."""
_FIXED: Final = {1: 8, 5: 4}
"""Wire types with a fixed number of bytes."""

CONTAINERS: Final = (b"{", b"[")
"""Each of these starts a JSON object or list."""
NAMES: Final = (b":",)
"""Follows the name of a field."""

Table = dict[int, Any]
"""Number of each field that contains messages → their table."""


def table_of(descriptor: Descriptor) -> Table:
    """Return the table of a message's type."""
    made: dict[str, Table] = {}

    def make(described: Descriptor) -> Table:
        # Types may be recursive.
        if described.full_name not in made:
            table = made[described.full_name] = {}
            for field in described.fields:
                if field.message_type is not None:
                    table[field.number] = make(field.message_type)
        return made[described.full_name]

    return make(descriptor)


def holds_more(body: bytes, table: Table, limit: int) -> bool:
    """Return whether a body of this type contains more messages than `limit`. The parser rejects invalid protobuf."""
    if len(body) <= limit * _LEAST_BYTES:
        return False
    return any(islice(_messages(body, table), limit, None))


def json_holds_more(body: bytes, marks: tuple[bytes, ...], limit: int) -> bool:
    """Return whether a JSON body contains more of these marks than `limit`. The parser rejects invalid JSON."""
    # First including those inside texts: even so, almost every body contains few enough.
    if sum(map(body.count, marks)) <= limit:
        return False
    outside = b"".join(body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    return sum(map(outside.count, marks)) > limit


def _messages(body: bytes, table: Table) -> Iterator[bool]:
    """Yield True for each message, as long as the body is valid."""
    waiting = [(table, 0, len(body))]
    with suppress(IndexError):  # the body ends early
        while waiting:
            nested, at, end = waiting.pop()
            while at < end:
                tag, at = _varint(body, at)
                kind = tag & 7
                if kind == _NESTED:
                    length, at = _varint(body, at)
                    if (inside := nested.get(tag >> 3)) is not None:
                        yield True
                        waiting.append((inside, at, min(at + length, end)))
                    at += length
                elif kind == _VARINT:
                    _, at = _varint(body, at)
                else:
                    at += _FIXED.get(kind, 0)


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """Return the number that starts at `at`, and its end."""
    byte = body[at]
    if byte < _MORE:
        return byte, at + 1
    value, shift = byte & 127, 7
    while True:
        at += 1
        byte = body[at]
        value |= (byte & 127) << shift
        if byte < _MORE:
            return value, at + 1
        shift += 7
