"""Chunks and events of streams, in whatever mixture a program hands them over: `Pieces` puts them together."""

from __future__ import annotations

from athina_trace.integrations.openai.shape import fields_in, get, number, string
from athina_trace.integrations.openai.streams import ChatChunks, ResponseEvents, RunEvents

__all__ = ["Pieces", "is_piece"]


def is_piece(subject: object) -> bool:
    """Tell whether this is a chunk or an event of one of the three APIs; no property of a stranger is called."""
    return _family(subject) != ""


def _family(subject: object) -> str:
    surface = fields_in(subject)
    if string(surface, "object") == "chat.completion.chunk":
        return "chat"
    if (string(surface, "type") or "").startswith("response."):
        return "response"
    return "run" if (string(surface, "event") or "").startswith("thread.") else ""


class Pieces:
    """What came of any number of streams. Not for several threads at once."""

    def __init__(self) -> None:
        self._chats: dict[object, ChatChunks] = {}
        self._responses: list[ResponseEvents] = []
        self._runs = RunEvents()

    def add(self, piece: object) -> None:
        """Take the next piece of one of the streams."""
        family = _family(piece)
        if family == "chat":
            # Azure's first chunk, about the prompt, has no id and belongs to no completion yet.
            key = (string(piece, "id"), number(piece, "created"))
            self._chats.setdefault(key, ChatChunks()).add(piece) if key[0] or get(piece, "choices") else None
        elif family == "response":
            self._response(piece).add(piece)
        elif family == "run":
            self._runs.add(piece)

    def _response(self, event: object) -> ResponseEvents:
        """The stream of the event: but for their first, events do not tell whose they are."""
        if not self._responses or string(event, "type") == "response.created":
            self._responses.append(ResponseEvents())
        return self._responses[-1]

    def results(self) -> list[object]:
        """What the streams told so far, as the API gives it without streaming."""
        wholes = [*(chat.result() for chat in self._chats.values()), *(each.result() for each in self._responses)]
        return [*(whole for whole in wholes if whole is not None), *self._runs.result()]
