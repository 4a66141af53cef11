"""Stream events and chunks in, finished objects out: pure accumulators, one for each API.

Each has `add(event)`, `result()`, and `ended`: whether the answer has been given whole. The result is a plain
dictionary of the shape that the API gives without streaming (of an Assistants stream: a list of them), so that
`objects.read` is the only way to read either; None while nothing came. A stream that breaks off gives what had come by
then. Nothing here raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from athina_trace.integrations.openai.shape import data, get, items, string, whole

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ChatChunks", "ResponseEvents", "RunEvents"]

_REPEATED = frozenset({"index", "id", "type", "object", "role"})  # sent whole each time, never in pieces


def _grow(built: dict[str, object], delta: object) -> None:
    """Add a delta to what was built of it: strings grow, lists go by `index`, dictionaries by key."""
    for name, piece in delta.items() if isinstance(delta, dict) else ():
        built[name] = _grown(built.get(name), piece, whole_piece=name in _REPEATED)


def _grown(built: object, piece: object, *, whole_piece: bool) -> object:
    if piece is None or (whole_piece and piece == ""):  # some servers send what they have sent before as nothing
        return built if built is not None else piece
    if isinstance(piece, list):
        return _grown_list(built if isinstance(built, list) else [], piece)
    if isinstance(piece, dict):
        grown = built if isinstance(built, dict) else {}
        _grow(grown, piece)
        return grown
    if isinstance(piece, str) and isinstance(built, str) and not whole_piece:
        return built + piece
    return piece


def _grown_list(built: list[object], pieces: list[object]) -> list[object]:
    for piece in pieces:
        same = next((one for one in reversed(built) if _same_place(one, piece)), None)
        if isinstance(same, dict):
            _grow(same, piece)
        else:
            built.append(_grown(None, piece, whole_piece=True))
    return built


def _same_place(built: object, piece: object) -> bool:
    """Whether a piece goes on with what was built. Some servers count all calls 0: another id and a name begin one."""
    place = get(piece, "index")
    begins = string(piece, "id") not in (None, string(built, "id")) and bool(string(piece, "function", "name"))
    return place is not None and get(built, "index") == place and not begins


class ChatChunks:
    """Chunks of one chat completion."""

    def __init__(self) -> None:
        self._whole: dict[str, object] = {}
        self._choices: dict[int, dict[str, object]] = {}

    @property
    def ended(self) -> bool:
        """Whether every choice has its reason to end; the usage may still follow."""
        return bool(self._choices) and all(choice.get("finish_reason") for choice in self._choices.values())

    def add(self, chunk: object) -> None:
        """Take the next chunk, or an event of the client's own stream helper that holds one."""
        if get(chunk, "type") == "chunk":
            chunk = get(chunk, "chunk")
        if isinstance(get(chunk, "choices"), list | tuple) or get(chunk, "usage") is not None:
            self._add_chunk(chunk)

    def _add_chunk(self, chunk: object) -> None:
        for name in ("id", "created", "model", "service_tier", "system_fingerprint", "usage"):
            value = data(get(chunk, name))
            if value or name not in self._whole:
                self._whole[name] = value
        for choice in items(chunk, "choices"):
            self._add_choice(choice)

    def _add_choice(self, choice: object) -> None:
        built = self._choices.setdefault(whole(choice, "index") or 0, {"message": {}})
        message = built["message"]
        if isinstance(message, dict):
            _grow(message, data(get(choice, "delta")))
        reason = string(choice, "finish_reason")
        if reason is not None:
            built["finish_reason"] = reason

    def result(self) -> dict[str, object] | None:
        """Return the completion as far as it came."""
        if not self._whole:
            return None
        choices = [{"index": place, **choice} for place, choice in sorted(self._choices.items())]
        return {"object": "chat.completion", **self._whole, "choices": choices}


class ResponseEvents:
    """Events of one response."""

    def __init__(self) -> None:
        self._snapshot: object = None
        self._output: dict[int, dict[str, object]] = {}
        self._error: dict[str, str | None] | None = None
        self.ended = False

    def add(self, event: object) -> None:
        """Take the next event."""
        kind = string(event, "type") or ""
        if get(event, "response") is not None:
            self._snapshot = get(event, "response")
            self.ended = kind in _LAST
        elif kind == "error":
            self._error = {name: string(event, name) for name in ("code", "message")}
        elif kind.startswith("response.output_item."):
            self._take_item(event)
        elif kind in _ITEM_PIECES:
            field = _ITEM_PIECES[kind]
            _grow(self._item(event), {field: string(event, "delta") or ""})
        elif kind in _CONTENT_PIECES:
            part = {"index": whole(event, "content_index") or 0, **self._content_piece(kind, event)}
            _grow(self._item(event), {"type": "message", "content": [part]})

    def _content_piece(self, kind: str, event: object) -> dict[str, object]:
        field = _CONTENT_PIECES[kind]
        return {
            "type": "refusal" if field == "refusal" else "output_text",
            field: string(event, "delta") or "",
        }

    def _item(self, event: object) -> dict[str, object]:
        return self._output.setdefault(whole(event, "output_index") or 0, {})

    def _take_item(self, event: object) -> None:
        item = data(get(event, "item"))
        if isinstance(item, dict):
            self._output[whole(event, "output_index") or 0] = item

    def result(self) -> object:
        """Return the final response; of a stream that broke off, the last snapshot with the output so far."""
        came: dict[str, object] = {}
        if self._output and not items(self._snapshot, "output"):
            came["output"] = [item for _, item in sorted(self._output.items())]
        if self._error is not None:
            came |= {"error": self._error, "status": "failed"}
        if not came:
            return self._snapshot
        snapshot = data(self._snapshot) if self._snapshot is not None else {"object": "response"}
        return {**snapshot, **came} if isinstance(snapshot, dict) else self._snapshot


_LAST = frozenset({"response.completed", "response.failed", "response.incomplete"})
"""After these events nothing comes."""


_ITEM_PIECES = {
    "response.function_call_arguments.delta": "arguments",
    "response.mcp_call_arguments.delta": "arguments",
    "response.custom_tool_call_input.delta": "input",
    "response.code_interpreter_call_code.delta": "code",
}
_CONTENT_PIECES = {"response.output_text.delta": "text", "response.refusal.delta": "refusal"}


class RunEvents:
    """Events of an Assistants stream: a run, its steps and its messages."""

    def __init__(self) -> None:
        self._last: dict[str, object] = {}
        self._deltas: dict[str, dict[str, object]] = {}
        self.ended = False

    def add(self, event: object) -> None:
        """Take the next event."""
        subject, name = get(event, "data"), string(event, "event") or ""
        subject_id = string(subject, "id")
        if subject_id is None or not name.startswith("thread."):
            return
        if name.endswith(".delta"):
            _grow(self._deltas.setdefault(subject_id, {}), data(get(subject, "delta")))
            return
        self._last[subject_id] = subject
        self.ended = name in _LAST_OF_RUN
        if get(subject, "status") != "in_progress":
            self._deltas.pop(subject_id, None)

    def result(self) -> list[object]:
        """Return the last snapshot of everything that the stream told of, what broke off with its deltas."""
        return list(self._results())

    def _results(self) -> Iterator[object]:
        for subject_id, subject in self._last.items():
            delta = self._deltas.get(subject_id)
            snapshot = data(subject) if delta else None
            yield {**snapshot, **delta} if isinstance(snapshot, dict) and delta else subject


_LAST_OF_RUN = frozenset(
    f"thread.run.{state}" for state in ("completed", "requires_action", "incomplete", "failed", "cancelled", "expired")
)
"""After these events nothing but `done` comes."""
