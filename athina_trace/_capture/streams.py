"""What a stream yielded, as one answer: texts joined, states that grow counted once, objects read as they come."""

from __future__ import annotations

import codecs
from itertools import groupby, pairwise
from typing import Any, Final

from athina_trace._serialization import text, without_credentials

RECORDED: Final = object()
"""In place of a chunk that was read into the ledger, or holds no text of its own."""

_LEAST_GROWTH: Final = 2
"""Steps in which a chunk continues the one before. One may be chance: after "1" comes "10"."""


def accumulates(chunks: list[object]) -> bool:
    """Whether each chunk is the whole answer so far, rather than the next piece of it."""
    # The first and the last one decide it for nearly all streams.
    if len(chunks) <= _LEAST_GROWTH or chunks[0] == chunks[-1] or not continues(chunks[-1], chunks[0]):
        return False
    grown = 0
    for before, after in pairwise(chunks):
        if not continues(after, before):
            return False
        grown += bool(before) and before != after
    return grown >= _LEAST_GROWTH


def continues(after: Any, before: Any) -> bool:
    """Whether data is what `before` was, with longer texts and more items."""
    if type(before) is not type(after):
        return before is None
    if isinstance(before, str):
        return bool(after.startswith(before))
    if isinstance(before, list):
        return len(after) >= len(before) and all(map(continues, after, before))
    if isinstance(before, dict):
        return all(name in after and continues(after[name], value) for name, value in before.items())
    return bool(after == before)


def replaces(chunk: object, before: object) -> bool:
    """Whether a chunk that is the same object as the one before is its next state, and no further piece."""
    # A history of messages is yielded again unchanged; an event with the same piece twice is two pieces.
    return continues(chunk, before) and (chunk != before or isinstance(chunk, list))


def joined(chunks: list[object]) -> str | None:
    """The answer; None where all of it is in the ledger."""
    if accumulates(chunks):
        chunks = chunks[-1:]
    try:  # most streams are of nothing but text, and that is how to ask all chunks at once
        texts: Any = chunks
        return text("".join(texts))
    except TypeError:
        pass
    if all(chunk is RECORDED for chunk in chunks):
        return None
    out: list[str] = []
    for kind, run in groupby((chunk for chunk in chunks if chunk is not RECORDED), type):
        same: Any = run
        if kind is bytes:  # a character may have come in several chunks
            out.append(text_of_bytes(b"".join(same)))
        else:
            out += ["".join(same)] if kind is str else map(text, same)
    return without_credentials("".join(out))  # and so may a URL


def text_of_bytes(value: bytes) -> str:
    """Bytes as the text that they hold in UTF-8; else their length and media type. A cut last character is left out."""
    try:
        return text(codecs.getincrementaldecoder("utf-8")().decode(value))
    except UnicodeDecodeError:
        return text(value)
