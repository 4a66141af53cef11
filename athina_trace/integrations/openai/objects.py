"""Read OpenAI's objects by shape: `read(object)` gives what it says as small frozen readings.

Understood are, as objects of any client version, as plain dictionaries and inside the client's raw
response wrappers: runs, messages, run steps, threads, pages of them (and plain lists), responses,
conversations, chat completions, their parsed variants, and the stream events that carry one whole.
Nothing here raises, sends a request, or walks anything but lists.

Sources: the API references of the Assistants, Responses, Conversations and Chat Completions APIs, the
types of the `openai` package 1.x to 3.x, and recorded traffic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from athina_trace import _guard
from athina_trace.integrations.openai.kinds import READERS
from athina_trace.integrations.openai.readings import Kind, Message, Reading
from athina_trace.integrations.openai.shape import (
    fields_in,
    get,
    items,
    json_body,
    number,
    string,
    tame,
    unwrapped,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["may_be_known", "read", "read_as"]

Readings = tuple[Reading, ...]


def read(subject: object) -> Readings | None:
    """Return what the object says; None where it is none of the known kinds.

    A stranger may be anything that a user's function returned, so asking what it is stays cheap and without effect:
    but for `object`, no property of it is called, and of a list only the first few members are asked.
    """
    return _read(tame(subject), nested=3)


def read_as(kind: Kind, subject: object) -> Readings | None:
    """Read what was given for an answer of this kind, though it does not look like one: an error, for one."""
    surface = fields_in(tame(subject))
    if kind == "run" or _ANSWERING.isdisjoint(surface):
        return None
    return tuple(READERS["chat.completion" if kind == "chat" else "response"](unwrapped(subject)))


_ANSWERING = frozenset({"choices", "output", "error", "usage"})


def may_be_known(subject: object) -> bool:
    """Tell strangers from what may be worth reading, at once: most of what a user's function returns is a stranger."""
    try:
        return _may_be_known(subject)
    except Exception as error:  # noqa: BLE001 - a foreign property may raise anything
        _guard.pass_on(error)
        return True


def _may_be_known(subject: object) -> bool:
    if type(subject) is list or type(subject) is tuple:
        return any(map(_may_be_known, subject[:_FIRST_FEW]))
    surface = subject if type(subject) is dict else getattr(subject, "__dict__", None)
    if type(surface) is not dict:
        return isinstance(subject, Mapping | list | tuple)
    if not surface.keys().isdisjoint(_TELLING) or not _TELLING.isdisjoint(_extra_names(subject)):
        return True
    kind, listed = surface.get("type"), surface.get("data")
    return (type(kind) is str and kind.startswith("response.")) or (type(listed) is list and _may_be_known(listed))


_TELLING = frozenset({"object", "http_response", "event", "step_details", "thread_id", "output", "choices"})


def _extra_names(subject: object) -> Iterable[str]:
    """The names of what a pydantic model keeps beside its declared fields."""
    extra = getattr(subject, "__pydantic_extra__", None) if hasattr(type(subject), "__pydantic_extra__") else None
    return extra if type(extra) is dict else ()


def _read(subject: object, *, nested: int) -> Readings | None:
    if isinstance(subject, list | tuple):
        return _page(subject, nested)
    surface = fields_in(subject)
    reader = READERS.get(string(subject, "object") or "") or READERS.get(_likeness(surface))
    if reader is not None:
        return tuple(reader(unwrapped(subject)))
    return _inner(subject, surface, nested)


def _likeness(surface: Mapping[str, object]) -> str:
    """Tell the kind of what a compatible server sent without a name by the fields that it has."""
    return next((name for name, known in _LIKENESSES if known(surface)), "")


def _has(surface: Mapping[str, object], *names: str) -> bool:
    return all(string(surface, name) for name in names)


def _first(surface: Mapping[str, object], name: str) -> object:
    return next(iter(items(surface, name)), None)


_LIKENESSES: tuple[tuple[str, Callable[[Mapping[str, object]], bool]], ...] = (
    ("thread.run.step", lambda seen: "step_details" in seen and _has(seen, "id", "run_id")),
    ("thread.message", lambda seen: "content" in seen and _has(seen, "id", "thread_id", "role")),
    ("thread.run", lambda seen: _has(seen, "id", "thread_id", "assistant_id", "status")),
    ("response", lambda seen: _has(seen, "id", "model") and bool(string(_first(seen, "output"), "type"))),
    ("chat.completion", lambda seen: get(_first(seen, "choices"), "message") is not None),
)


def _inner(subject: object, surface: Mapping[str, object], nested: int) -> Readings | None:
    """Read what a page, a stream event or a raw response wrapper holds, if it holds something known."""
    if nested == 0:
        return None
    if isinstance(surface.get("data"), list | tuple):
        return _page(surface["data"], nested, order=get(subject, "_options", "params", "order"), named=surface)
    return _read(_held(surface), nested=nested - 1)


def _held(surface: Mapping[str, object]) -> object:
    if (string(surface, "event") or "").startswith("thread."):
        return get(surface, "data")
    if (string(surface, "type") or "").startswith("response."):
        return get(surface, "response")
    return json_body(surface.get("http_response"))


def _page(listed: object, nested: int, *, order: object = None, named: object = None) -> Readings | None:
    """Read a list: a page of the API, which may be empty, or the user's own list of such objects."""
    members = items({"listed": listed}, "listed", most=_MOST_MEMBERS)
    found = tuple(_members(members, nested - 1))
    if not found:
        return () if not members and string(named, "object") == "list" else None
    backwards = _runs_backwards(members, order=order)
    return tuple(_listed(reading, backwards=backwards) for readings in found for reading in readings)


_MOST_MEMBERS = 10_000
_FIRST_FEW = 3


def _members(members: tuple[object, ...], nested: int) -> Iterator[Readings]:
    """Read the members of a list, unless the first few are all strangers."""
    strangers = 0
    for place, member in enumerate(members if nested >= 0 else ()):
        if strangers == place == _FIRST_FEW:
            return
        readings = _read(member, nested=nested)
        strangers += readings is None
        if readings is not None:
            yield readings


def _runs_backwards(members: tuple[object, ...], *, order: object) -> bool:
    """Tell whether a page runs from the newest to the oldest, as OpenAI's lists do unless asked for `asc`."""
    times = [time for member in members if (time := number(member, "created_at")) is not None]
    if times and times[0] != times[-1]:
        return times[0] > times[-1]
    return order != "asc"


def _listed(reading: Reading, *, backwards: bool) -> Reading:
    return replace(reading, backwards=backwards) if isinstance(reading, Message) else reading
