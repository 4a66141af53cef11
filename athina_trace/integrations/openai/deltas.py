"""Applies the deltas of streams: of completions, of responses, and of the Assistants API's objects."""

from __future__ import annotations

from typing import Any

from athina_trace.integrations.openai.normalise import Data

__all__ = ["grow"]

_WHOLE = frozenset({"index", "id", "type", "object", "role"})  # sent whole, never in parts


def grow(built: dict[str, Any], delta: Data) -> None:
    """Add a delta to what was built before: strings are appended, lists merged by `index`, dictionaries by key."""
    for name, part in delta.items():
        built[name] = _grown(built.get(name), part, whole=name in _WHOLE)


def _grown(built: Any, part: Any, *, whole: bool) -> Any:
    if part is None or (whole and part == ""):  # some servers send values that have not changed as empty
        return built if built is not None else part
    if type(part) is list:
        return _grown_list(built if type(built) is list else [], part)
    if type(part) is dict:
        grown = built if type(built) is dict else {}
        grow(grown, part)
        return grown
    if type(part) is str and type(built) is str and not whole:
        return built + part
    return part


def _grown_list(built: list[Any], parts: list[Any]) -> list[Any]:
    for part in parts:
        place = part.get("index") if type(part) is dict else None
        same = [each for each in built if type(each) is dict and place is not None and each.get("index") == place]
        if same:
            grow(same[-1], part)
        else:
            built.append(_grown(None, part, whole=True))
    return built
