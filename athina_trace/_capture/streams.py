"""What a stream yielded, as one answer: texts joined, states that grow counted once, objects read as they come."""

from __future__ import annotations

import codecs
from itertools import groupby, pairwise
from typing import Any, Final, Protocol

from athina_trace._capture import messages
from athina_trace._clock import clock
from athina_trace._serialization import plain, text, without_credentials

RECORDED: Final = object()
"""In place of a chunk that was recorded as part of an answer, or holds no text of its own."""

_LEAST_GROWTH: Final = 2
"""Steps in which a chunk continues the one before. One may be chance: after "1" comes "10"."""


_MOST_CHARACTERS: Final = 1_000_000
"""Of a stream's text this much is kept; the rest is counted."""


class Recording(Protocol):
    """The log that takes what objects of known libraries hold; see `draft.LogDraft`."""

    answers: list[dict[str, Any]] | None

    def recognises(self, value: object) -> bool: ...


class Streamed:
    """The chunks of a stream, from the first one on, as data.

    Attributes:
        chunks: those that are kept.
        count: how many there were.
        first_ns: when the first one came, by the clock's `perf_ns`.
    """

    __slots__ = ("_characters", "_last_object", "chunks", "count", "first_ns")

    def __init__(self) -> None:
        self.chunks: list[object] = []
        self.count = 0
        self.first_ns = clock.perf_ns()
        self._characters = 0
        self._last_object: object = None

    def add(self, values: list[Any], draft: Recording, *, unread: bool) -> None:
        """Read what was yielded, now: the program may change it later.

        Args:
            values: any number of texts, and at their end one object of any kind.
            draft: the log of the call, which is given what objects of known libraries hold.
            unread: keep objects as they are, for the program's own function that reads the answer.
        """
        self.count += len(values)
        if self._characters >= _MOST_CHARACTERS:
            if not accumulates(self.chunks):
                return
            # Each chunk is the whole answer so far: the last one is enough.
            del self.chunks[:-1]
            self._characters = 0
        texts = values if type(values[-1]) is str else values[:-1]
        self.chunks += texts
        self._characters += sum(map(len, texts))
        if len(texts) < len(values):
            self._add_object(values[-1], draft, unread=unread)

    def _add_object(self, value: Any, draft: Recording, *, unread: bool) -> None:
        if unread or issubclass(type(value), bytes | bytearray | memoryview):  # `isinstance` would ask the object
            self.chunks.append(value if unread or type(value) is bytes else bytes(value))
            # Each object counts one character at least, so that a stream of empty ones has an end, too.
            self._characters += len(value) if isinstance(value, bytes | bytearray) else 1
            return
        data = None if draft.recognises(value) else plain(value)
        answer = messages.answer_of(data)
        if answer is not None:
            draft.answers = draft.answers or []
            draft.answers.append({name: part for name, part in answer.items() if name != "response"})
            data = answer.get("response")
        chunk = RECORDED if data is None else data
        if self.chunks and value is self._last_object and replaces(chunk, self.chunks[-1]):
            self.chunks[-1] = chunk
            return
        self._last_object = value
        self.chunks.append(chunk)
        self._characters += len(text(chunk)) if chunk is not RECORDED else 1


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
    """The answer; None where all of it was recorded."""
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
