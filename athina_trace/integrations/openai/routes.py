"""Finds the requests that concern models' answers: maps a method and path to a `Route`.

Source: the paths in OpenAI's API reference. Azure's deployments, and whatever a base URL has before the resource,
make no difference, since only the path from the resource on counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["CONVERSING", "Route", "route", "unlogged"]


@dataclass(frozen=True)
class Route:
    """What a request concerns."""

    kind: str | None = None
    """The kind of answer that it returns; None if it returns messages, steps, a thread or a conversation."""
    asks: bool = False
    """Whether it asks the model for a new answer, rather than for an answer's state."""
    session: str | None = None
    """The thread or conversation that its path names."""
    lists_messages: bool = False
    """Whether it lists the messages of a thread."""


_ASKS_RESPONSE, _ASKS_CHAT = Route("response", asks=True), Route("chat", asks=True)
_FIXED = {("post", "/responses"): _ASKS_RESPONSE, ("post", "/chat/completions"): _ASKS_CHAT}
"""The most common ones, without parsing the path."""
_SIDE, _RUN, _RESPONSE = Route(), Route("run"), Route("response")
_SHAPES = {
    "post responses": _ASKS_RESPONSE,
    "post responses/compact": _ASKS_RESPONSE,
    "get responses/*": _RESPONSE,
    "post responses/*/cancel": _RESPONSE,
    "post chat/completions": _ASKS_CHAT,
    "post completions": _ASKS_CHAT,
    "post conversations": _SIDE,
    "get conversations/*": _SIDE,
    "post conversations/*/items": _SIDE,
    "post threads": _SIDE,
    "get threads/*": _SIDE,
    "post threads/*/messages": _SIDE,
    "get threads/*/messages": Route(lists_messages=True),
    "get threads/*/messages/*": _SIDE,
    "post threads/runs": Route("run", asks=True),
    "post threads/*/runs": Route("run", asks=True),
    "get threads/*/runs/*": _RUN,
    "post threads/*/runs/*/cancel": _RUN,
    "post threads/*/runs/*/submit_tool_outputs": _RUN,
    "get threads/*/runs/*/steps": _SIDE,
    "get threads/*/runs/*/steps/*": _SIDE,
}
_WORDS = frozenset(word for shape in _SHAPES for word in shape.split()[1].split("/") if word != "*")
_RESOURCES = frozenset(shape.split()[1].split("/")[0] for shape in _SHAPES)


def route(method: str, url: str) -> Route | None:
    """Return what a request concerns; None if it does not concern an answer."""
    fixed = _FIXED.get((method, url))
    if fixed is not None:
        return fixed
    parts = url.partition("?")[0].strip("/").split("/")
    # An Azure deployment may have any name, even that of a resource.
    first = parts.index("deployments") + 2 if "deployments" in parts else 0
    start = next((place for place in range(first, len(parts)) if parts[place] in _RESOURCES), None)
    if start is None:
        return None
    path = parts[start:]
    found = _SHAPES.get(f"{method.lower()} {'/'.join(part if part in _WORDS else '*' for part in path)}")
    if found is not None and path[0] in ("threads", "conversations") and len(path) > 1 and path[1] not in _WORDS:
        return replace(found, session=path[1])
    return found


CONVERSING = frozenset({"agents", "batches", "chatkit", "live", "realtime"})
"""APIs in which models answer questions, but whose answers are not read."""
_UNLOGGED = CONVERSING | {"audio", "embeddings", "images", "moderations", "videos"}


def unlogged(method: str, url: str) -> str | None:
    """Return the API with which a request without a route uses a model; None for any other request."""
    parts = url.partition("?")[0].strip("/").split("/")
    start = parts.index("deployments") + 2 if "deployments" in parts else 0
    return next((part for part in parts[start:] if part in _UNLOGGED), None) if method.lower() == "post" else None
