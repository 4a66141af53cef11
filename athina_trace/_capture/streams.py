"""Makes one answer of a stream's chunks: joins texts, counts growing states once, reads objects as they come."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, Final, Protocol

from athina_trace._answers import libraries
from athina_trace._clock import clock
from athina_trace._pipeline.wire import json_text
from athina_trace._serialization import plain, text, without_credentials

if TYPE_CHECKING:
    from athina_trace._answers.accumulator import AnswerAccumulator

RECORDED: Final = object()
"""Replaces a chunk that was recorded as part of an answer, or has no text of its own."""

_LEAST_GROWTH: Final = 2
"""How many chunks must extend the one before. A single one may be chance: "10" after "1"."""
_MOST_CHARACTERS: Final = 1_000_000
"""How much of a stream's text is kept; of the rest, only the chunks are counted."""

Reader = Callable[[Any], Any]
"""The program's own function that extracts the answer from the chunks."""


class Recording(Protocol):
    """The log that records objects of known libraries; see `draft.LogDraft`."""

    def recognises(self, value: object) -> bool: ...

    def own_accumulator(self) -> AnswerAccumulator: ...


class Streamed:
    """The chunks of a stream, as data.

    Attributes:
        chunks: the chunks that are kept.
        count: how many chunks came.
        first_ns: when the first chunk came, by the clock's `perf_ns`.
    """

    __slots__ = ("_characters", "_counted", "_last_object", "chunks", "count", "first_ns")

    def __init__(self) -> None:
        self.chunks: list[object] = []
        self.count = 0
        self.first_ns = clock.perf_ns()
        self._characters = 0
        # How many chunks `_characters` counts; the rest are texts. Counting takes as long as keeping, and most streams
        # end before it is needed.
        self._counted = 0
        self._last_object: object = None

    def add(self, values: list[Any], draft: Recording, reader: Reader | None) -> None:
        """Read what was yielded, now, since the program may change it later.

        Args:
            values: any number of texts, and at the end one object of any kind.
            draft: the log of the call, which records objects of known libraries.
            reader: if there is one, objects are kept as they are.
        """
        self.count += len(values)
        if self.chunks and self._characters_so_far() >= _MOST_CHARACTERS:
            if not accumulates(self.chunks):
                return
            # Each chunk is the whole answer so far: the last one is enough.
            del self.chunks[:-1]
            self._characters, self._counted = 0, 1
        if type(values[-1]) is str:
            self.chunks += values
        else:
            self.chunks += values[:-1]
            self._add_object(values[-1], draft, reader)

    def _characters_so_far(self) -> int:
        if self._counted < len(self.chunks):
            texts: Any = self.chunks[self._counted :]
            self._characters += sum(map(len, texts))
            self._counted = len(self.chunks)
        return self._characters

    def _add_object(self, value: Any, draft: Recording, reader: Reader | None) -> None:
        before = self._characters_so_far()
        # Each object counts as at least one character, so that a stream of empty ones reaches the limit, too.
        size = 1
        chunk: Any
        if issubclass(type(value), bytes | bytearray | memoryview):  # `isinstance` would ask the object
            chunk = value if reader is not None or type(value) is bytes else bytes(value)
            size = max(size, len(chunk))
        elif reader is not None:
            chunk = value
        else:
            data = None if draft.recognises(value) else plain(value)
            pieces = libraries.read(data)
            if pieces is not None:
                data = draft.own_accumulator().take_pieces(pieces) or None
                is_whole = all(piece.begins and piece.ends for piece in pieces)
                # The whole answer may follow its pieces, which were texts.
                if is_whole and data and len(data) == before:
                    data = None if data == joined(self.chunks) else data
            chunk = RECORDED if data is None else data
            if self.chunks and value is self._last_object and replaces(chunk, self.chunks[-1]):
                self.chunks[-1] = chunk
                return
            self._last_object = value
            if data is not None:
                size = max(size, len(str(data)))  # nearly the size of its JSON, in a third of the time
        self.chunks.append(chunk)
        self._counted += 1
        self._characters += size


def accumulates(chunks: list[object]) -> bool:
    """Return whether each chunk is the whole answer so far, rather than its next piece."""
    # The first and the last chunk decide this for nearly all streams.
    if len(chunks) <= _LEAST_GROWTH or chunks[0] == chunks[-1] or not continues(chunks[-1], chunks[0]):
        return False
    grown = 0
    for before, after in pairwise(chunks):
        if not continues(after, before):
            return False
        grown += bool(before) and before != after
    return grown >= _LEAST_GROWTH


def continues(after: Any, before: Any) -> bool:
    """Return whether `after` is `before` with longer texts and more items."""
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
    """Return whether a chunk, the same object as the one before, is its next state rather than a further piece."""
    # A list of messages may be yielded again unchanged; an event with the same text twice is two pieces.
    return continues(chunk, before) and (chunk != before or isinstance(chunk, list))


def joined(chunks: list[object]) -> str | None:
    """Return the answer; None if all of it was recorded."""
    if accumulates(chunks):
        chunks = chunks[-1:]
    try:  # most streams are only text, and this checks all chunks at once
        texts: Any = chunks
        return text("".join(texts))
    except TypeError:
        pass
    if all(chunk is RECORDED for chunk in chunks):
        return None
    out: list[str] = []
    for kind, run in groupby((chunk for chunk in chunks if chunk is not RECORDED), type):
        same: Any = run
        if kind is bytes:  # a character may be split between chunks
            out.append(text_of_bytes(b"".join(same)))
        else:
            out += ["".join(same)] if kind is str else map(_written, same)
    return without_credentials("".join(out))  # a URL may be split, too


def _written(data: Any) -> str:
    """Return data as text."""
    return str.__str__(data) if isinstance(data, str) else json_text(data)


def text_of_bytes(value: bytes) -> str:
    """Return bytes decoded as UTF-8, without an incomplete last character; else their length and media type."""
    try:
        return text(codecs.getincrementaldecoder("utf-8")().decode(value))
    except UnicodeDecodeError:
        return text(value)
