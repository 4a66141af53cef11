"""Copies a response that the program reads piecemeal and unparsed: as lines, bytes or text."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from athina_trace.integrations.openai.normalise import decode

_MOST_BYTES = 4 * 1024 * 1024
"""Nothing is kept of a longer body: a part of it would be wrong."""


class ResponseTee:
    """The copy. `is_whole` is true once the program has read to the end, if everything was kept."""

    def __init__(self, response: Any) -> None:
        """`response`: httpx's response, not read yet."""
        self.is_whole = False
        self._parts: list[bytes] | None = []
        self._size = 0
        # All other methods that read, the client's and httpx's, call these two.
        response.iter_bytes = self._copying(response.iter_bytes)
        response.aiter_bytes = self._copying_async(response.aiter_bytes)

    def discard(self) -> None:
        """Drop the copy, which is not needed."""
        self._parts = None

    def json(self) -> Any:
        """Return the decoded JSON body; None if it is not JSON, or not whole."""
        return decode(self._content()) if self.is_whole else None

    def events(self) -> Iterator[Any]:
        """Yield the server-sent events that were read; those of Assistants with their names, like the client."""
        for block in self._content().decode("utf-8", "replace").replace("\r\n", "\n").split("\n\n"):
            fields = [line.partition(":") for line in block.split("\n")]
            name = next((value.strip() for field, _, value in fields if field == "event"), "")
            data = decode("\n".join(value for field, _, value in fields if field == "data"))
            if data is not None:
                yield {"event": name, "data": data} if name.startswith("thread.") else data

    def _content(self) -> bytes:
        return b"".join(self._parts or ())

    def _add(self, part: bytes) -> None:
        if self._parts is not None:
            self._parts.append(part)
            self._size += len(part)
            if self._size > _MOST_BYTES:
                self.discard()

    def _copying(self, read: Callable[..., Iterator[bytes]]) -> Callable[..., Iterator[bytes]]:
        def copied(*args: Any, **kwargs: Any) -> Iterator[bytes]:
            for part in read(*args, **kwargs):
                self._add(part)
                yield part
            self.is_whole = self._parts is not None

        return copied

    def _copying_async(self, read: Callable[..., AsyncIterator[bytes]]) -> Callable[..., AsyncIterator[bytes]]:
        async def copied(*args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
            async for part in read(*args, **kwargs):
                self._add(part)
                yield part
            self.is_whole = self._parts is not None

        return copied
