"""How streams grow what they give in parts: deltas of chat completions, of responses, and of an assistant's objects."""

from __future__ import annotations

from typing import Any

from athina_trace.integrations.openai.normalise import Data, child, string

__all__ = ["grow"]

_WHOLE = frozenset({"index", "id", "type", "object", "role"})  # repeated as they are, never in parts


def grow(built: dict[str, Any], delta: Data) -> None:
    """Add a delta to what was built before: strings grow, lists by `index`, dictionaries by key."""
    for name, part in delta.items():
        built[name] = _grown(built.get(name), part, whole=name in _WHOLE)


def _grown(built: Any, part: Any, *, whole: bool) -> Any:
    if part is None or (whole and part == ""):  # some servers send what they have sent before as nothing
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
        same = next((each for each in reversed(built) if _continues(each, part)), None)
        if same is not None:
            grow(same, part)
        else:
            built.append(_grown(None, part, whole=True))
    return built


def _continues(built: Any, part: Any) -> bool:
    """Whether a part continues what was built. Some servers count all calls 0: another id and a name begin one."""
    if type(built) is not dict or type(part) is not dict or part.get("index") is None:
        return False
    begins = string(part, "id") not in (None, string(built, "id")) and bool(string(child(part, "function"), "name"))
    return built.get("index") == part["index"] and not begins
