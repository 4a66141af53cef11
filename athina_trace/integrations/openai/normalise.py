"""The border: turns any object of any client version, proxy, wrapper or dictionary into bounded plain data.

Behind it there are only dictionaries with string keys, lists, strings, numbers, booleans and None, of exactly these
types, so that every reader is ordinary code. Unlike `_serialization`, which writes values for people, this does not
shorten, mask or mark them: what is not data becomes None, and what came over the wire stays as it came.

Nothing here raises, sends a request, or walks anything but dictionaries, lists, mappings and instances' attributes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from pydantic_core import from_json

from athina_trace import _guard
from athina_trace._answers.libraries import as_count

__all__ = [
    "NOTHING",
    "Data",
    "answer_of",
    "as_data",
    "body_of",
    "child",
    "children",
    "count",
    "decode",
    "members",
    "normalise",
    "normalise_fresh",
    "number",
    "string",
]

Data = Mapping[str, Any]
"""A dictionary of plain data."""
NOTHING: Data = {}

_DEEPEST = 40
"""Levels: OpenAI allows ten in the schemas of tools, which are five levels deep in requests."""
_MOST_VALUES = 200_000
_LONG = 4096
_SMALL = 65_536
"""Bytes of a body that is read as it is."""
_MOST_CHARACTERS = 32_000_000
"""Limit for all strings of `_LONG` characters or more together."""
_SCALARS = frozenset({int, float, bool, type(None)})


def normalise(subject: object) -> Any:
    """Return the object as plain data; None if it has none.

    An unparsed response becomes its decoded body, if that was read already.
    """
    try:
        return _Walk().plain(subject, _DEEPEST)
    except Exception as error:  # noqa: BLE001 - another thread may change a list, or the stack be nearly full
        _guard.raise_if_the_programs(error)
        return None


def normalise_fresh(answer: object) -> Any:
    """Do what `normalise` does, in half the time, for an object that the client has just made of a body.

    It is a tree no larger than its body, so that its serialized form needs no bounds, and no second walk.
    """
    written = _written(answer, mode="json")
    return normalise(answer) if written is None or "data" in written else written  # a page also has its order


def answer_of(response: Any, answer: object, decoded: Any = None) -> Any:
    """Return the client's answer as plain data, in the quickest way: the HTTP response's body, if that is small.

    A small body is within all bounds. The object it was parsed to may not be: the program may have chosen any class.

    Args:
        response: the HTTP response.
        answer: what the client made of it.
        decoded: the body as the client decoded it, if that is known and will not be changed; else None.
    """
    content = getattr(response, "_content", None)  # `content` raises if the response was not read
    if type(content) is bytes and len(content) <= _SMALL:
        body = decode(content) if decoded is None else decoded
        if type(body) is dict and "data" not in body:  # a page also has its order
            return body
    return normalise(answer)


def body_of(response: Any) -> Any:
    """Return the decoded body of an HTTP response; None if it was not read yet, or is not JSON.

    Reads the bytes that are there, rather than calling `parse()` of the client's wrapper, which may run the program's
    own parser, or read a body from the network that the program has yet to stream.
    """
    try:
        content = response.content
    except Exception as error:  # noqa: BLE001 - a response that was not streamed yet, or a foreign object
        _guard.raise_if_the_programs(error)
        return None
    return decode(content) if isinstance(content, bytes) else None


def decode(content: str | bytes) -> Any:
    """Decode JSON; None if the text is not JSON."""
    try:
        return from_json(content)
    except ValueError:
        pass
    try:
        return json.loads(content)  # accepts lone surrogates, which pydantic's quicker parser refuses
    except (ValueError, RecursionError):
        return None


class _Walk:
    """One walk through an object, with what is left of its bounds: they end the walk of a cyclic or hostile object."""

    __slots__ = ("characters", "values")

    def __init__(self) -> None:
        self.values = _MOST_VALUES
        self.characters = _MOST_CHARACTERS

    def plain(self, value: Any, depth: int) -> Any:
        """Return a value as plain data, at most `depth` levels deep."""
        kind = type(value)
        if kind in _SCALARS or (kind is str and len(value) < _LONG):
            return value
        if kind is str:
            kept = value[: max(0, self.characters)]
            self.characters -= len(kept)
            return kept
        return self.container(value, kind, depth)

    def container(self, value: Any, kind: type, depth: int) -> Any:
        """Return a container, or an object that only foreign code can make plain, as plain data."""
        if depth == 0 or self.values <= 0:
            return None
        try:
            if kind is dict:
                return self.named(value.copy().items(), depth)
            if kind is list or kind is tuple:
                return self.listed(value, depth)
            return self.foreign(value, depth)
        except Exception as error:  # noqa: BLE001 - the one guard around foreign code
            _guard.raise_if_the_programs(error)
            return None

    def named(self, pairs: Iterable[tuple[object, Any]], depth: int) -> dict[str, Any]:
        """Return a dictionary of plain data."""
        made: dict[str, Any] = {}
        for name, value in islice(pairs, self.values):
            self.values -= 1
            kind = type(value)
            if type(name) is not str:
                continue
            # Most values are plain already, and need no call.
            if kind in _SCALARS or (kind is str and len(value) < _LONG):
                made[name] = value
            else:
                made[name] = self.plain(value, depth - 1)
                if self.values <= 0:
                    break
        return made

    def listed(self, values: Iterable[object], depth: int) -> list[Any]:
        """Return a list of plain data."""
        made: list[Any] = []
        for value in islice(values, self.values):
            self.values -= 1
            made.append(self.plain(value, depth - 1))
            if self.values <= 0:
                break
        return made

    def foreign(self, value: Any, depth: int) -> Any:
        """Return an object of any other class as plain data. May raise whatever foreign code raises."""
        kind = type(value)
        if issubclass(kind, str):
            return self.plain(str.__str__(value), depth)
        if issubclass(kind, int | float):
            return int.__int__(value) if issubclass(kind, int) else float.__float__(value)
        if isinstance(value, Mapping):
            return self.named(value.items(), depth)
        # Nothing else is iterated: a page of the client would send requests, and a generator belongs to the program.
        if isinstance(value, list | tuple):
            return self.listed(value, depth)
        return None if callable(value) else self.instance(value, depth)

    def instance(self, value: Any, depth: int) -> Any:
        """Return the attributes that an instance stores, without calling its properties."""
        stored: dict[str, Any] = vars(value)
        response = stored.get("http_response")
        if response is not None:
            return self.plain(body_of(response), depth)
        fields = _written(value, mode="python")
        if fields is None:
            fields = {
                (name.rstrip("_") if name[-1] == "_" else name): part  # the client's `schema_` is `schema` on the wire
                for name, part in stored.items()
                if part is not None and name[0] != "_"
            }
            fields |= _kept_by_pydantic(value, "__pydantic_extra__")
        if "data" in fields:
            # The order in which the page was requested.
            options = stored.get("_options") or _kept_by_pydantic(value, "__pydantic_private__").get("_options")
            fields["_options"] = {"params": getattr(options, "params", None)}
        return self.named(fields.items(), depth)


def _written(model: Any, *, mode: str) -> dict[str, Any] | None:
    """Serialize one of the client's own models, which is quicker than reading its attributes.

    None for any other object, or one that cannot be serialized. Other models, and those that contain one because the
    answer was parsed to it, may have the program's own serializers, which are not run. The mode "json" gives exact
    types at any depth.
    """
    kind = type(model)
    if not kind.__module__.startswith("openai.") or kind.__name__.startswith("Parsed"):
        return None
    try:
        written: dict[str, Any] = kind.__pydantic_serializer__.to_python(
            model, mode=mode, by_alias=True, exclude_none=True, warnings=False
        )
    except Exception as error:  # noqa: BLE001 - made by hand, and contains what is not data
        _guard.raise_if_the_programs(error)
        return None
    return written


def _kept_by_pydantic(model: Any, name: str) -> Data:
    """Return what a pydantic model stores beside its declared fields; nothing if it was made without validation."""
    try:
        kept = getattr(model, name, None)
    except Exception as error:  # noqa: BLE001 - an uninitialised model may raise other errors than AttributeError
        _guard.raise_if_the_programs(error)
        return NOTHING
    return kept if type(kept) is dict else NOTHING


def string(data: Data, name: str) -> str | None:
    """Return the string at `name`; None for any other type and for an empty string."""
    value = data.get(name)
    return value if type(value) is str and value else None


def number(data: Data, name: str) -> float | None:
    """Return the finite number at `name`; None for anything else, also booleans."""
    value: Any = data.get(name)
    if type(value) is int:
        return value
    return value if type(value) is float and math.isfinite(value) else None


def count(data: Data, name: str) -> int | None:
    """Return the count at `name`, as `as_count` does."""
    return as_count(data.get(name))


def as_data(value: Any) -> Data:
    """Return a dictionary as it is; an empty one for anything else."""
    return value if type(value) is dict else NOTHING


def child(data: Data, name: str) -> Data:
    """Return the dictionary at `name`, or an empty one."""
    value = data.get(name)
    return value if type(value) is dict else NOTHING


def members(data: Data, name: str) -> list[Any]:
    """Return the list at `name`, or an empty one."""
    value = data.get(name)
    return value if type(value) is list else []


def children(data: Data, name: str) -> list[Data]:
    """Return the dictionaries in the list at `name`."""
    value = data.get(name)
    return [each for each in value if type(each) is dict] if type(value) is list and value else []
