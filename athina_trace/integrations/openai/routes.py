"""Which requests of a client concern answers of a model: method and path → `Route`.

Source: the paths in OpenAI's API reference. Azure's deployments and what comes before the resource in a base URL
make no difference, since only the path from the resource on is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["CONVERSING", "Route", "route", "unlogged"]


@dataclass(frozen=True)
class Route:
    """What a request is about."""

    kind: str | None = None
    """What kind of answer it gives; None where it gives a message, a step, a thread or a conversation."""
    asks: bool = False
    """It asks the model for a new answer, rather than for the state of one."""
    session: str | None = None
    """The thread or conversation that its path names."""
    lists_messages: bool = False
    """It lists the messages of a thread."""


_ASKS_RESPONSE, _ASKS_CHAT = Route("response", asks=True), Route("chat", asks=True)
_FIXED = {("post", "/responses"): _ASKS_RESPONSE, ("post", "/chat/completions"): _ASKS_CHAT}
"""The commonest, found at once."""
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
    """Return what a request is about; None where it concerns no answer."""
    fixed = _FIXED.get((method, url))
    if fixed is not None:
        return fixed
    parts = url.partition("?")[0].strip("/").split("/")
    # The names of Azure's deployments may be any, such as those of resources.
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
"""APIs in which models answer questions in ways that are not read here."""
_UNLOGGED = CONVERSING | {"audio", "embeddings", "images", "moderations", "videos"}


def unlogged(method: str, url: str) -> str | None:
    """Return the API that a request without a route has a model work for; None for any other request."""
    parts = url.partition("?")[0].strip("/").split("/")
    start = parts.index("deployments") + 2 if "deployments" in parts else 0
    return next((part for part in parts[start:] if part in _UNLOGGED), None) if method.lower() == "post" else None
