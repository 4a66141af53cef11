"""What a stream yielded while its call ran."""

from __future__ import annotations

from typing import Final

from athina_trace._clock import clock

_MOST_CHARACTERS: Final = 1_000_000
"""Of a stream's text this much is kept; the rest is counted."""


class Streamed:
    """The chunks of a stream, from the first one on.

    Attributes:
        chunks: those that are kept.
        count: how many there were.
        first_ns: when the first one came, by the clock's `perf_ns`.
    """

    __slots__ = ("_characters", "chunks", "count", "first_ns")

    def __init__(self) -> None:
        self.chunks: list[object] = []
        self.count = 0
        self.first_ns = clock.perf_ns()
        self._characters = 0

    def add(self, chunk: object) -> None:
        """Take note of a chunk that was yielded."""
        self.count += 1
        # Each object counts one character, so that a stream of empty ones has an end, too.
        if self._characters < _MOST_CHARACTERS:
            self._characters += len(chunk) if isinstance(chunk, str) else 1
            self.chunks.append(chunk)
