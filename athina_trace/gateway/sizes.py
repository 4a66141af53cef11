"""How many objects a body makes, counted before it is parsed.

An empty message of protobuf takes two bytes of a body and some hundred of memory, an empty list of JSON three, and
compression makes a thousand of them out of one byte: a body that is small enough may be far too much as objects. Nor
does a thread help: both parsers keep the interpreter to themselves until they are done.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

_LEAST_BYTES: Final = 2
"""Of a message inside another: its tag and its length."""
_VARINT, _NESTED = 0, 2
"""Wire types. Source: https://protobuf.dev/programming-guides/encoding/"""
_MORE: Final = 128
"""The bit of a byte of a number that says that there is another."""
_FIXED: Final = {1: 8, 5: 4}
"""Wire types of a fixed number of bytes."""

CONTAINERS: Final = (b"{", b"[")
"""Each begins an object or a list of JSON."""
NAMES: Final = (b":",)
"""Each follows the name of a field."""

Table = dict[int, Any]
"""The number of each field that holds messages → the table of those."""


def table_of(descriptor: Descriptor) -> Table:
    """Return the table of a message's type."""
    made: dict[str, Table] = {}

    def make(described: Descriptor) -> Table:
        # Types may contain themselves.
        if described.full_name not in made:
            table = made[described.full_name] = {}
            for field in described.fields:
                if field.message_type is not None:
                    table[field.number] = make(field.message_type)
        return made[described.full_name]

    return make(descriptor)


def holds_more(body: bytes, table: Table, limit: int) -> bool:
    """Return whether a body of this type holds more messages than `limit`. The parser refuses what is no protobuf."""
    if len(body) <= limit * _LEAST_BYTES:
        return False
    return any(islice(_messages(body, table), limit, None))


def json_holds_more(body: bytes, marks: tuple[bytes, ...], limit: int) -> bool:
    """Return whether a body of JSON holds more of these marks than `limit`. The parser refuses what is no JSON."""
    # At first with those inside texts: nearly every body holds few enough even then, and is not taken apart.
    if sum(map(body.count, marks)) <= limit:
        return False
    outside = b"".join(body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    return sum(map(outside.count, marks)) > limit


def _messages(body: bytes, table: Table) -> Iterator[bool]:
    """Yield True for each message, for as long as the body makes sense."""
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
    """Return the number that begins at `at`, and where it ends."""
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
