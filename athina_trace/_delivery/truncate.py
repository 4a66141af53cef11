"""Truncates a log that is too large for Athina: its largest texts are shortened, and noted in the log."""

from __future__ import annotations

import json
import math
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["IDENTIFIERS", "halved", "truncate"]

IDENTIFIERS: Final = frozenset(
    {"external_reference_id", "session_id", "language_model_id", "customer_id", "customer_user_id"}
)
"""Fields that are never truncated: a shortened identifier is another identifier."""

_ATTRIBUTES: Final = "custom_attributes"
_NOTE: Final = "truncated."
_OTHERS: Final = "truncated.others"
_REQUIRED: Final = frozenset({"prompt", "response"})
"""Fields that Athina requires in every log: emptied at worst, never left out."""

_SHORT: Final = 32
"""In characters. A text this short stays whole as long as truncating longer ones suffices."""
_NOTES: Final = 8
"""The maximum of notes in one log; further fields are summed up in one more note, so that notes never fill the log."""
_NOTE_NAME: Final = 40
"""The maximum length of a field's name in its note, in characters."""
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_DIGITS: Final = 300
"""Integers with more digits become null: no float holds them, and converting them to text takes time quadratic in
their length."""


def truncate(body: bytes, *, limit: int) -> bytes:
    """Return `body`, a log or an update, in at most `limit` bytes of JSON; unchanged if it fits already.

    The longest text anywhere in it is halved repeatedly until the whole fits. If there are no long texts but very many
    small values, the largest field is halved repeatedly, and keeps its first items. Every truncated field is noted in
    `custom_attributes` with its original length: `"truncated.response": 123456` counts characters (of all its shortened
    texts together), or items if a list or an object lost some. Truncating twice keeps the original lengths.

    `IDENTIFIERS` are never truncated. A limit of 2 KB plus the identifiers' length always suffices; below it, the
    result is as small as possible. A body that is not a JSON object cannot be a log: only a note of its size remains.
    """
    if len(body) <= limit:
        return body
    try:
        log = json.loads(
            body,
            parse_float=lambda text: float(text) if math.isfinite(float(text)) else None,
            parse_constant=lambda _: None,
            parse_int=lambda text: int(text) if len(text) <= _DIGITS else None,
        )
        if isinstance(log, dict):
            notes = _Notes(log)
            excess = _halve_texts(log, notes, len(_encode(log)) - limit)
            _halve_fields(log, notes, excess)
            return _encode(log)
    except (ValueError, RecursionError):
        pass  # nested too deeply for the parser, or not JSON
    return _encode({_ATTRIBUTES: {f"{_NOTE}body": len(body)}})


def halved(body: bytes) -> bytes | None:
    """Return `body`, which a server calls too large, in half its bytes; None if it cannot be made shorter."""
    half = truncate(body, limit=len(body) // 2)
    return half if len(half) < len(body) else None


def _halve_texts(log: dict[str, Any], notes: _Notes, excess: int) -> int:
    """Halve the longest text until `excess` (bytes) is gone or all texts are short; return the remaining excess."""
    texts: list[tuple[int, int, Any, Any, str]] = []
    for top, field, name in _top(log):
        stack: list[tuple[Any, Any]] = [(top, field)]
        while stack:
            holder, key = stack.pop()
            value = holder[key]
            if isinstance(value, str):
                texts.append((-len(value), len(texts), holder, key, name))
            elif isinstance(value, (list, dict)):
                stack.extend((value, inner) for inner in (value if isinstance(value, dict) else range(len(value))))
    heapify(texts)
    while excess > 0 and texts and -texts[0][0] > _SHORT:
        length, number, holder, key, name = texts[0]
        whole, half = holder[key], holder[key][: -length // 2]
        holder[key] = half
        # `number` becomes negative with the first cut, so that the original length is noted only once.
        excess += _size(half) - _size(whole) + (notes.add(name, -length) if number >= 0 else 0)
        heapreplace(texts, (-len(half), number if number < 0 else -number - 1, holder, key, name))
    return excess


def _halve_fields(log: dict[str, Any], notes: _Notes, excess: int) -> None:
    """Halve the largest field, of any type, until `excess` (bytes) is gone or no field is left.

    If even that is not enough, only identifiers and notes remain.
    """
    fields = [
        (-_field_size(key, holder[key]), number, holder, key, name)
        for number, (holder, key, name) in enumerate(_top(log))
        if holder is log or key not in notes
    ]
    heapify(fields)
    while excess > 0 and fields:
        size, number, holder, key, name = heappop(fields)
        value = holder[key]
        excess += size + notes.add_first(name, len(value) if isinstance(value, (str, list, dict)) else _size(value))
        if isinstance(value, dict) and len(value) > 1:
            holder[key] = dict(list(value.items())[: len(value) // 2])
        elif isinstance(value, (str, list)) and len(value) > 1:
            holder[key] = value[: len(value) // 2]
        elif key in _REQUIRED:
            holder[key] = ""
            excess += _field_size(key, "")
            continue
        else:  # it cannot be halved
            del holder[key]
            continue
        remaining = _field_size(key, holder[key])
        excess += remaining
        heappush(fields, (-remaining, number, holder, key, name))


class _Notes:
    """The notes of original lengths in the log's `custom_attributes`."""

    def __init__(self, log: dict[str, Any]) -> None:
        attributes = log.get(_ATTRIBUTES)
        if not isinstance(attributes, dict):
            # Only an object can hold notes; any other value becomes an attribute of a new one.
            attributes = log[_ATTRIBUTES] = {} if attributes is None else {"value": attributes}
        self._room: dict[str, Any] = attributes
        earlier = [
            key
            for key, value in attributes.items()
            if key.startswith(_NOTE) and len(key) <= len(_NOTE) + _NOTE_NAME
            if isinstance(value, int) and abs(value) < 2**53
        ]
        self._earlier = frozenset(earlier[:_NOTES])
        self._own: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._earlier or key in self._own

    def add(self, name: str, length: int) -> int:
        """Add `length` to the note of the field `name`; return the bytes added."""
        key = self._key(name)
        if key in self._earlier:
            return 0
        before = _field_size(key, self._room[key]) if key in self._own else 0
        self._room[key] = length + (self._room[key] if before else 0)
        self._own.add(key)
        return _field_size(key, self._room[key]) - before

    def add_first(self, name: str, length: int) -> int:
        """Note `length` unless `name` already has a note; the note of further fields always grows."""
        key = self._key(name)
        return 0 if key in self and key != _OTHERS else self.add(name, length)

    def _key(self, name: str) -> str:
        key = _NOTE + name[:_NOTE_NAME]
        return key if key in self or len(self._earlier | self._own) < _NOTES else _OTHERS


def _top(log: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Yield the fields that may be truncated, including each custom attribute: container, key, name."""
    for key, value in log.items():
        # A list or an object is not a valid identifier.
        if key != _ATTRIBUTES and (key not in IDENTIFIERS or isinstance(value, (list, dict))):
            yield log, key, key
    attributes = log[_ATTRIBUTES]
    yield from ((attributes, key, f"{_ATTRIBUTES}.{key}") for key in attributes)


def _encode(value: Any) -> bytes:
    # "replace" turns lone surrogates, which UTF-8 cannot encode, into question marks.
    return _ENCODER.encode(value).encode("utf-8", "replace")


def _size(value: Any) -> int:
    return len(_encode(value))


def _field_size(key: str, value: Any) -> int:
    """Return the bytes of a field in its object, including colon and comma."""
    return _size(key) + _size(value) + 2
