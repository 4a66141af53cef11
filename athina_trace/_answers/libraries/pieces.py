"""Makes the fields of a log from pieces of models' answers, whole or streamed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from athina_trace._answers.libraries.counts import Data, counts_beside
from athina_trace._serialization import text


@dataclass(slots=True)
class Piece:
    """One answer of a model, or one piece of a streamed answer."""

    text: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    model: str | None = None
    calls: list[Data] = field(default_factory=list)
    """Tool calls in OpenAI's form."""
    call_parts: list[Data] = field(default_factory=list)
    """Parts of streamed tool calls: `index`, and what came of `id`, `name` and `arguments`."""
    context: list[str] = field(default_factory=list)
    id: str | None = None
    begins: bool = True
    ends: bool = True
    """Whether it begins an answer, and whether it ends one; a whole answer does both."""


class Answers:
    """The answers that libraries' objects give one log: whole answers, each once, and pieces of streamed ones."""

    __slots__ = ("_known", "_open", "_pieces", "_texts")

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._known: set[object] = set()
        self._texts: list[str] = [""]
        # Whether the last text is still being streamed.
        self._open = False

    def add(self, pieces: Iterable[Piece]) -> str:
        """Take the pieces of an object; return the text that is new in them."""
        new = ""
        for piece in pieces:
            # An answer that is recorded twice counts once; but pieces of a stream, or plain texts, may well be equal.
            if piece.ends and (piece.begins or not self._open) and (piece.id or piece.counts or piece.calls):
                known_by = piece.id or (piece.text, piece.model, repr(piece.counts), repr(piece.calls))
                if known_by in self._known:
                    continue
                self._known.add(known_by)
            self._pieces.append(piece)
            words = piece.text
            if self._open and piece.begins and piece.ends and words == self._texts[-1]:
                words = ""  # the whole answer, after its pieces
            elif piece.begins or not self._open:
                self._texts.append("")
            self._texts[-1] += words
            self._open = not piece.ends
            new += words
        return new

    def fields(self) -> Data:
        """Return their fields of a log: the last text, all tokens and tool calls, the last model."""
        fields: Data = {}
        if words := next((words for words in reversed(self._texts) if words), None):
            fields["response"] = words
        calls: list[Data] = []
        context: dict[str, None] = {}
        for piece in self._pieces:
            for name, count in piece.counts.items():
                fields[name] = fields.get(name, 0) + count
            if piece.model:
                fields["language_model_id"] = piece.model
            calls += piece.calls
            context.update(dict.fromkeys(piece.context))
        calls += _streamed_calls(self._pieces)
        if "total_tokens" not in fields and "prompt_tokens" in fields and "completion_tokens" in fields:
            fields["total_tokens"] = fields["prompt_tokens"] + fields["completion_tokens"]
        if calls:
            fields["tool_calls"] = calls
        if context:
            fields["context"] = [*context]
        return fields


def fields_of(pieces: Iterable[Piece]) -> Data:
    """Return the fields of a log that these pieces alone give."""
    answers = Answers()
    answers.add(pieces)
    return answers.fields()


def _streamed_calls(pieces: Iterable[Piece]) -> list[Data]:
    """Assemble tool calls from their parts: a call begins with a new index or a different id."""
    calls: list[Data] = []
    by_index: dict[object, Data] = {}
    for piece in pieces:
        if piece.begins:
            by_index = {}
        for part in piece.call_parts:
            index = part.get("index") if isinstance(part.get("index"), int | str) else None
            call = by_index.get(index)
            own, name = part.get("id"), part.get("name")
            if call is None or (own and call["id"] not in (None, own)):
                call = {"id": None, "type": "function", "function": {"name": None, "arguments": ""}}
                by_index[index] = call
                calls.append(call)
            call["id"] = call["id"] or own
            call["function"]["name"] = call["function"]["name"] or name
            arguments = part.get("arguments")
            call["function"]["arguments"] += text(arguments)
    return [call for call in calls if call["function"]["name"]]


def piece_of(
    words: str, beside: Data, calls: list[Data] | None = None, *, begins: bool = True, ends: bool = True
) -> Piece:
    """Return a piece with this text, and the token counts, model and id `beside` it."""
    counts, model = counts_beside(beside)
    return Piece(words, counts, model, calls or [], id=id_of(beside), begins=begins, ends=ends)


def id_of(data: Data) -> str | None:
    """Return the id of an answer."""
    own = data.get("id")
    return own if isinstance(own, str) and own else None
