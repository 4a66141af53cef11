"""Reads values of attributes, for the readers of all conventions. Nothing here raises.

Attributes come from programs in any language: a list may be a JSON string, a number may be a string, and any value may
be anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from athina_trace._answers.libraries import as_count

__all__ = [
    "as_number",
    "compact",
    "count_of",
    "decoded",
    "exact",
    "items",
    "mapping",
    "nested",
    "number_of",
    "string_of",
    "strings",
]

_LONGEST_JSON = 4_000_000
"""Maximum length of JSON that is read; longer JSON is mostly pictures, and would take a tenth of a second."""
_LARGEST = 2**53
_MOST_DIGITS = 5
"""Maximum digits of an index: no span has more messages."""


_EXACT = frozenset({str, int, float, bool, tuple, list, dict, type(None)})


def exact(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return attributes whose names and values have exactly these types.

    Some frameworks write members of an `Enum`. A name that is a member cannot be found by its text, because its hash is
    that of the member's own name.
    """
    # In C loops of the interpreter, since hardly any span has such attributes.
    if _EXACT.issuperset(map(type, attributes)) and _EXACT.issuperset(map(type, attributes.values())):
        return attributes
    return {_plain(name): _plain(value) for name, value in attributes.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return str.__str__(value)
    return int(value) if isinstance(value, int) and type(value) is not bool else value


def string_of(attributes: Mapping[str, Any], name: str, *names: str) -> str | None:
    """Return the first of these attributes that is a non-empty text."""
    value = attributes.get(name)
    if type(value) is str and value:
        return value
    for further in names:
        value = attributes.get(further)
        if type(value) is str and value:
            return value
    return None


def number_of(attributes: Mapping[str, Any], *names: str) -> float | None:
    """Return the first of these attributes that is a number, or the text of one."""
    for name in names:
        if (number := as_number(attributes.get(name))) is not None:
            return number
    return None


def as_number(value: Any) -> float | None:
    """Return a number up to 2**53, or that in a text; None for anything else."""
    if type(value) is str:
        try:
            value = float(value)
        except ValueError:
            return None
    is_number = (type(value) is int or type(value) is float) and abs(value) <= _LARGEST  # which no NaN is
    return value if is_number else None


def count_of(attributes: Mapping[str, Any], *names: str) -> int | None:
    """Return the first of these attributes that is a count."""
    return next((count for name in names if (count := as_count(attributes.get(name))) is not None), None)


def decoded(value: Any) -> Any:
    """Decode a text as JSON, None if it is not JSON; return anything else unchanged."""
    if type(value) is not str:
        return value
    if len(value) > _LONGEST_JSON:
        return None
    try:
        return from_json(value)
    except ValueError:
        return None


def items(value: Any) -> list[Any]:
    """Return the members of a list, which may be JSON; a single mapping is a list of one."""
    if value is None:
        return []
    # Checked first, since a check against an abstract base class takes ten times as long.
    if type(value) is tuple:
        return [*value]
    data = decoded(value) if type(value) is str else value
    if type(data) is list:
        return data
    if isinstance(data, Mapping):
        return [data]
    return list(data) if isinstance(data, Sequence) and not isinstance(data, str | bytes | bytearray) else []


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping, which may be JSON; an empty one for anything else."""
    data = decoded(value)
    return data if type(data) is dict or isinstance(data, Mapping) else {}


def strings(value: Any) -> tuple[str, ...]:
    """Return the texts in a list, which may be JSON."""
    return tuple([each for each in items(value) if type(each) is str])


def compact(value: Any) -> Any:
    """Return data as compact JSON, as a server would have sent it, and a text unchanged."""
    if value is None or type(value) is str:
        return value
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        return None


def nested(attributes: Mapping[str, Any], prefix: str) -> list[dict[str, Any]]:
    """Collect data that is spread over attributes with indexes: `prefix.0.role`, `prefix.0.parts.1.text`.

    Returns:
        The members in the order of their indexes; nested indexes become keys, such as `{"parts": {"1": …}}`.
    """
    prefix = f"{prefix}."
    found: dict[int, dict[str, Any]] = {}
    for name, value in attributes.items():
        if not name.startswith(prefix):
            continue
        index, *path = name.removeprefix(prefix).split(".")
        if not (path and index.isascii() and index.isdigit() and len(index) <= _MOST_DIGITS):
            continue
        place = found.setdefault(int(index), {})
        for part in path[:-1]:
            inner = place.setdefault(part, {})
            if type(inner) is not dict:
                inner = place[part] = {}
            place = inner
        place.setdefault(path[-1], value)
    return [found[index] for index in sorted(found)]
