"""A log that is too large for Athina, made to fit: its largest text is shortened, and it says so."""

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
"""Fields that are never cut: a shortened identifier is another identifier."""

_ATTRIBUTES: Final = "custom_attributes"
_NOTE: Final = "truncated."
_OTHERS: Final = "truncated.others"
_REQUIRED: Final = frozenset({"prompt", "response"})
"""What Athina demands of every log: emptied at worst, never left out."""

_SHORT: Final = 32
"""Characters. A text this short is left whole as long as cutting longer ones can help."""
_NOTES: Final = 8
"""Notes that one log may carry; the cuts of further fields are summed up in one more, so that notes never
fill the log."""
_NOTE_NAME: Final = 40
"""Characters of a field's name in its note."""
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_DIGITS: Final = 300
"""Longer whole numbers become null: no float holds them, and turning them into text costs the square of their
length."""


def truncate(body: bytes, *, limit: int) -> bytes:
    """Return `body`, a log or an update, in at most `limit` bytes of JSON; unchanged where it fits already.

    The largest text anywhere in it is halved, again and again, until the whole fits; then, where there is no
    long text but a great many small things, the largest field keeps the first half of its items, again and
    again. Every field that was cut is noted in `custom_attributes` with its original length:
    `"truncated.response": 123456` counts characters of text (of all its shortened texts together), or items
    where a list or an object lost some. Truncating twice keeps the first, original lengths.

    `IDENTIFIERS` are never cut. A limit of 2 KB plus the identifiers' own length always suffices; below that
    the result is as small as it can be. A body that is no JSON object cannot be a log: only a note of its
    size remains.
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
        pass  # nested more deeply than the parser goes, or no JSON
    return _encode({_ATTRIBUTES: {f"{_NOTE}body": len(body)}})


def halved(body: bytes) -> bytes | None:
    """Return a log that a server calls too large in half its bytes; None where it cannot be made shorter."""
    half = truncate(body, limit=len(body) // 2)
    return half if len(half) < len(body) else None


def _halve_texts(log: dict[str, Any], notes: _Notes, excess: int) -> int:
    """Halve the longest text until `excess` (bytes) is gone or all are short; return what is left of it."""
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
        # `number` is the text's own as long as it is whole, and negative afterwards: its original length is
        # noted once.
        excess += _size(half) - _size(whole) + (notes.add(name, -length) if number >= 0 else 0)
        heapreplace(texts, (-len(half), number if number < 0 else -number - 1, holder, key, name))
    return excess


def _halve_fields(log: dict[str, Any], notes: _Notes, excess: int) -> None:
    """Halve the largest field, of any type, until `excess` (bytes) is gone or no field is left.

    Where even that is not enough, only identifiers and notes remain.
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
        else:  # a half of it is nothing
            del holder[key]
            continue
        remaining = _field_size(key, holder[key])
        excess += remaining
        heappush(fields, (-remaining, number, holder, key, name))


class _Notes:
    """The original lengths, written into the log's `custom_attributes`; a few at most."""

    def __init__(self, log: dict[str, Any]) -> None:
        attributes = log.get(_ATTRIBUTES)
        if not isinstance(attributes, dict):
            # Only an object can carry notes; what was here instead becomes an attribute of it.
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
        """Note `length` for the field `name`, on top of what was noted; return the bytes added."""
        key = self._key(name)
        if key in self._earlier:
            return 0
        before = _field_size(key, self._room[key]) if key in self._own else 0
        self._room[key] = length + (self._room[key] if before else 0)
        self._own.add(key)
        return _field_size(key, self._room[key]) - before

    def add_first(self, name: str, length: int) -> int:
        """Note `length` unless something is noted for `name` already; the sum of others always grows."""
        key = self._key(name)
        return 0 if key in self and key != _OTHERS else self.add(name, length)

    def _key(self, name: str) -> str:
        key = _NOTE + name[:_NOTE_NAME]
        return key if key in self or len(self._earlier | self._own) < _NOTES else _OTHERS


def _top(log: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, str]]:
    """List the fields that may be cut, each custom attribute as one of them: container, key, name."""
    for key, value in log.items():
        # An identifier that is a list or an object identifies nothing.
        if key != _ATTRIBUTES and (key not in IDENTIFIERS or isinstance(value, (list, dict))):
            yield log, key, key
    attributes = log[_ATTRIBUTES]
    yield from ((attributes, key, f"{_ATTRIBUTES}.{key}") for key in attributes)


def _encode(value: Any) -> bytes:
    # "replace" turns lone surrogates, which no UTF-8 can carry, into question marks.
    return _ENCODER.encode(value).encode("utf-8", "replace")


def _size(value: Any) -> int:
    return len(_encode(value))


def _field_size(key: str, value: Any) -> int:
    """Return the bytes that a field takes in its object, colon and comma included."""
    return _size(key) + _size(value) + 2
