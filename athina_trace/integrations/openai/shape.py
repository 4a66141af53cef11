"""Careful access to objects whose classes are not known here.

An OpenAI object may be a pydantic model of any version of the client, a plain dictionary of the same
shape, or something a test made up. Every function here is total: a property that raises, a value of
another type or a missing name reads as None (or as nothing), and never loses what stands beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import islice
from typing import Any

from pydantic_core import from_json, to_jsonable_python

from athina_trace import _guard

__all__ = [
    "data",
    "fields_in",
    "get",
    "items",
    "json_body",
    "known_in",
    "number",
    "parsed",
    "string",
    "tame",
    "text_of",
    "unwrapped",
    "whole",
]

_DEEPEST = 16  # levels that a careful copy goes down: OpenAI's own schemas allow ten
_MOST = 20_000  # values that it copies: a cyclic or hostile object ends there
_PLAIN = frozenset({dict, list, str, int, float, bool, type(None)})  # exact types, which hide no foreign code


class _Nobody:
    """A class without instances, to ask `isinstance` about."""


def get(subject: object, *path: str) -> object:
    """Follow keys or attributes one after another; None where one is missing or raises."""
    for name in path:
        if subject is None:
            return None
        subject = _member(subject, name)
    return subject


def _member(subject: object, name: str) -> object:
    try:
        if type(subject) is dict or isinstance(subject, Mapping):
            return tame(subject.get(name))
        return tame(getattr(subject, name, None))
    except Exception as error:  # noqa: BLE001 - a foreign property may raise anything
        _guard.pass_on(error)
        return None


def tame(value: object) -> object:
    """Return the value, or None where even asking for its type raises (`isinstance` reads `__class__`)."""
    if type(value) in _PLAIN:
        return value
    try:
        return None if isinstance(value, _Nobody) else value
    except Exception as error:  # noqa: BLE001 - a foreign property may raise anything
        _guard.pass_on(error)
        return None


def fields_in(subject: object) -> Mapping[str, object]:
    """Return what stands in an object itself: a mapping's items, an instance's attributes; no property is called."""
    if isinstance(subject, dict):
        return subject
    try:
        return subject if isinstance(subject, Mapping) else {**vars(subject), **_extra(subject)}
    except Exception as error:  # noqa: BLE001 - a foreign property may raise anything
        _guard.pass_on(error)
        return {}


def _extra(subject: object) -> Mapping[str, object]:
    """Return what a pydantic model keeps beside its declared fields."""
    extra = get(subject, "__pydantic_extra__") if hasattr(type(subject), "__pydantic_extra__") else None
    return extra if isinstance(extra, dict) else {}


def unwrapped(model: object) -> object:
    """Turn a pydantic model into the dictionary that came over the wire; anything else stays as it is.

    Pydantic does in 5 us what reading attribute by attribute takes 100 us for. A model that cannot be written
    down, because it was built around validation, is read by its attributes.
    """
    serializer = getattr(type(model), "__pydantic_serializer__", None)
    if serializer is None:
        return model
    try:
        return tame(serializer.to_python(model, **_AS_JSON, warnings=False))
    except Exception as error:  # noqa: BLE001 - a foreign serializer may raise anything
        _guard.pass_on(error)
        return model


_AS_JSON: dict[str, Any] = {"by_alias": True, "exclude_none": True}


def string(subject: object, *path: str) -> str | None:
    """Return the string found there; None for any other type and for an empty one."""
    value = get(subject, *path)
    if type(value) is str:
        return value or None
    return str.__str__(value) or None if isinstance(value, str) else None


def number(subject: object, *path: str) -> float | None:
    """Return the finite number found there; None for anything else, booleans too."""
    value = get(subject, *path)
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -math.inf < value < math.inf else None


def whole(subject: object, *path: str) -> int | None:
    """Return the count found there (a float without fraction counts); None for anything else."""
    value = number(subject, *path)
    return int(value) if value is not None and value >= 0 and value == int(value) else None


def items(subject: object, *path: str, most: int | None = None) -> tuple[object, ...]:
    """Return the members of the list found there, the first `most` of them.

    Nothing but lists and tuples is walked: iterating one of the client's pages would send requests,
    and a generator belongs to the user.
    """
    value = get(subject, *path)
    if value is None:
        return ()
    try:
        return tuple(map(tame, islice(value, most))) if isinstance(value, list | tuple) else ()
    except Exception as error:  # noqa: BLE001 - a foreign property may raise anything
        _guard.pass_on(error)
        return ()


def text_of(content: object) -> str:
    """Read a message's content: a string, or the text parts of a list joined with newlines.

    Knows the parts of all three APIs: text (plain or as `{"value": …}`), refusals, and the
    transcript of an audio part. Images and files have no text and are left out.
    """
    if isinstance(content, str):
        return str.__str__(content)
    return "\n".join(text for text in map(_part_text, items(content)) if text)


def _part_text(part: object) -> str | None:
    if isinstance(part, str):
        return str.__str__(part)
    places = (("text",), ("text", "value"), ("refusal",), ("transcript",))
    return next((text for place in places if (text := string(part, *place))), None)


def json_body(response: object) -> object:
    """Return the decoded body of a wrapped HTTP response that was read already, else None.

    Reads the bytes that are there, rather than call `parse()`, which may run the user's own parser
    or take a body off the network that the user has yet to stream.
    """
    content = get(response, "content")
    return parsed(content) if isinstance(content, bytes) else None


def parsed(content: str | bytes) -> Any:
    """Read JSON; None where it is none."""
    try:
        return from_json(content)
    except ValueError:
        return _parsed_leniently(content)


def _parsed_leniently(content: str | bytes) -> Any:
    """What pydantic's quicker reader refuses: halves of surrogate pairs, and what is nested deep."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def data(value: object) -> object:
    """Copy a value as plain data: dictionaries, lists, strings, numbers, booleans, None.

    A model's fields that are None are left out. What is not data (a callable, a lock) becomes None.
    """
    if type(value) in _SCALARS:
        return value
    try:
        return to_jsonable_python(value, **_AS_JSON, fallback=_fields)
    except Exception as error:  # noqa: BLE001 - whatever in there raises, a careful copy keeps the rest
        _guard.pass_on(error)
        return _Copier().copy(tame(value), _DEEPEST)


def known_in(value: object) -> object:
    """`data` without what is None at any depth, as models are written down; JSON schemas keep theirs."""
    return _known(data(value))


def _known(value: object) -> object:
    if isinstance(value, list):
        return [_known(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: part if name in _SCHEMAS else _known(part) for name, part in value.items() if part is not None}


_SCHEMAS = ("parameters", "schema", "input_schema")
_SCALARS = _PLAIN - {dict, list}


class _Copier:
    """A careful copy of something foreign: bounded in depth and number, what raises is left out."""

    def __init__(self) -> None:
        self.left = _MOST

    def copy(self, value: object, depth: int) -> object:
        self.left -= 1
        if isinstance(value, str | int | float):
            return str.__str__(value) if isinstance(value, str) else value
        if depth == 0 or self.left <= 0:
            return None
        if isinstance(value, list | tuple):
            return [self.copy(item, depth - 1) for item in items(value) if self.left > 0]
        return self._copy_fields(_fields(value), depth - 1)

    def _copy_fields(self, fields: Mapping[str, object] | None, depth: int) -> object:
        if fields is None:
            return None
        copied = ((name, self.copy(value, depth)) for name, value in fields.items() if self.left > 0)
        return {name: value for name, value in copied if value is not None}


def _fields(value: object) -> dict[str, object] | None:
    try:
        return _named(value) if isinstance(value, Mapping) else _attributes(value)
    except Exception as error:  # noqa: BLE001 - a foreign property may raise anything
        _guard.pass_on(error)
        return None


def _named(mapping: Mapping[object, object]) -> dict[str, object]:
    return {name: tame(value) for name, value in mapping.items() if isinstance(name, str)}


def _attributes(value: object) -> dict[str, object] | None:
    """Return an instance's fields, pydantic's extra ones too; `schema_` is the client's name for `schema`."""
    if isinstance(value, type) or callable(value):
        return None
    fields = {**vars(value), **_extra(value)}
    return {name.rstrip("_"): tame(field) for name, field in fields.items() if not name.startswith("_")}
