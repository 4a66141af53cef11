"""Answers that the user reads piece by piece and unparsed: lines, bytes or text, copied on their way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from athina_trace.integrations.openai.shape import parsed

_MOST_BYTES = 4 * 1024 * 1024
"""Of a longer body nothing is kept: half of it would say the wrong thing."""


class Body:
    """The copy. `is_whole` once the user has read to the end, and all of it was kept."""

    def __init__(self, response: Any) -> None:
        """`response`: httpx's own, not read yet."""
        self.is_whole = False
        self._pieces: list[bytes] | None = []
        self._size = 0
        # All other ways of reading, the client's and httpx's, go through these two.
        response.iter_bytes = self._copying(response.iter_bytes)
        response.aiter_bytes = self._copying_async(response.aiter_bytes)

    def forget(self) -> None:
        """Nobody will ask for the copy."""
        self._pieces = None

    def json(self) -> Any:
        """The body as JSON; None where it is none, or not whole."""
        return parsed(self._content()) if self.is_whole else None

    def events(self) -> Iterator[Any]:
        """The server-sent events that were read; those of Assistants with their names, as the client gives them."""
        for block in self._content().decode("utf-8", "replace").replace("\r\n", "\n").split("\n\n"):
            fields = [line.partition(":") for line in block.split("\n")]
            name = next((value.strip() for field, _, value in fields if field == "event"), "")
            said = parsed("\n".join(value for field, _, value in fields if field == "data"))
            if said is not None:
                yield {"event": name, "data": said} if name.startswith("thread.") else said

    def _content(self) -> bytes:
        return b"".join(self._pieces or ())

    def _add(self, piece: bytes) -> None:
        if self._pieces is not None:
            self._pieces.append(piece)
            self._size += len(piece)
            if self._size > _MOST_BYTES:
                self.forget()

    def _copying(self, read: Callable[..., Iterator[bytes]]) -> Callable[..., Iterator[bytes]]:
        def copied(*args: Any, **kwargs: Any) -> Iterator[bytes]:
            for piece in read(*args, **kwargs):
                self._add(piece)
                yield piece
            self.is_whole = self._pieces is not None

        return copied

    def _copying_async(self, read: Callable[..., AsyncIterator[bytes]]) -> Callable[..., AsyncIterator[bytes]]:
        async def copied(*args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
            async for piece in read(*args, **kwargs):
                self._add(piece)
                yield piece
            self.is_whole = self._pieces is not None

        return copied
