"""Read OpenAI's objects by shape: `read(object)` gives what it says as small frozen readings.

Understood are, as objects of any client version, as plain dictionaries and inside the client's raw
response wrappers: runs, messages, run steps, threads, pages of them (and plain lists), responses,
conversations, chat completions, their parsed variants, and the stream events that carry one whole.
Nothing here raises, sends a request, or walks anything but lists.

Sources: the API references of the Assistants, Responses, Conversations and Chat Completions APIs, the
types of the `openai` package 1.x to 3.x, and recorded traffic.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from athina_trace.openai.calls import chat_calls, is_call, item_call, step_calls, waiting_calls
from athina_trace.openai.readings import Answer, Key, Kind, Message, Output, Reading, Scope
from athina_trace.openai.shape import (
    data,
    fields_in,
    get,
    items,
    json_body,
    number,
    string,
    tame,
    text_of,
    unwrapped,
)
from athina_trace.openai.traits import failure, options, system_texts, template_prompt, tools, traits, usage

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
    return tuple((_chat if kind == "chat" else _response)(unwrapped(subject)))


_ANSWERING = frozenset({"choices", "output", "error", "usage"})


def may_be_known(subject: object) -> bool:
    """Tell strangers from what may be worth reading, at once: most of what a user's function returns is a stranger."""
    try:
        return _may_be_known(subject)
    except Exception:  # noqa: BLE001 - a foreign property may raise anything
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
    reader = _READERS.get(string(subject, "object") or "") or _READERS.get(_likeness(surface))
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


def _run(run: object) -> Iterable[Reading]:
    run_id = string(run, "id")
    if run_id is None:
        return
    key: Key = ("run", run_id)
    yield Answer(
        key=key,
        created=number(run, "created_at"),
        status=string(run, "status"),
        session=string(run, "thread_id"),
        model=string(run, "model"),
        system=system_texts(get(run, "instructions")),
        usage=usage(run),
        tools=tools(run),
        options=options(run),
        error=failure(run, what="run"),
        details=traits(run, run_id=run_id, assistant_id=string(run, "assistant_id")),
    )
    yield from waiting_calls(run, key)


def _response(response: object) -> Iterable[Reading]:
    key = _key("response", response)
    own, previous = string(response, "id"), string(response, "previous_response_id")
    output = items(response, "output")
    messages = [item for item in output if get(item, "type") == "message"]
    notes = [note for message in messages for part in items(message, "content") for note in items(part, "annotations")]
    yield Answer(
        key=key,
        created=number(response, "created_at"),
        status=string(response, "status"),
        session=string(response, "conversation", "id") or string(response, "conversation"),
        previous=previous,
        model=string(response, "model"),
        text=_joined(text_of(get(message, "content")) for message in messages),
        system=system_texts(get(response, "instructions")),
        prompt=template_prompt(get(response, "instructions")),
        usage=usage(response),
        tools=tools(response),
        options=options(response),
        error=failure(response, what="response"),
        details=traits(
            response,
            response_id=own,
            previous_response_id=previous,
            prompt_id=string(response, "prompt", "id"),
            prompt_version=string(response, "prompt", "version"),
            citations=_cited(notes),
        ),
    )
    yield from (item_call(item, key, place=place) for place, item in enumerate(output) if is_call(item))
    yield from _outputs(output)


def _outputs(output: tuple[object, ...]) -> Iterable[Output]:
    """Read outputs that stand beside their calls, as those of tools that the server runs do."""
    for item in output:
        call = string(item, "call_id")
        if call is not None and (string(item, "type") or "").endswith("_call_output"):
            yield Output(call=call, value=data(get(item, "output")))


def _chat(chat: object) -> Iterable[Reading]:
    key = _key("chat", chat)
    choice = next(iter(items(chat, "choices")), None)
    message = get(choice, "message")
    yield Answer(
        key=key,
        created=number(chat, "created"),
        status=string(choice, "finish_reason"),
        model=string(chat, "model"),
        text=_chat_text(message),
        usage=usage(chat),
        error=failure(chat, what="completion") or failure(choice, what="completion"),
        details=traits(chat, completion_id=string(chat, "id"), citations=_cited(items(message, "annotations"))),
    )
    yield from chat_calls(message, key)


def _chat_text(message: object) -> str | None:
    audio = string(message, "audio", "transcript")
    return text_of(get(message, "content")) or string(message, "refusal") or audio


def _message(message: object) -> Iterable[Reading]:
    message_id = string(message, "id")
    if message_id is None:
        return
    parts = items(message, "content")
    notes = [note for part in parts for note in items(part, "text", "annotations")]
    yield Message(
        id=message_id,
        thread=string(message, "thread_id"),
        run=string(message, "run_id"),
        role=string(message, "role"),
        created=number(message, "created_at"),
        text=text_of(get(message, "content")),
        files=_strings(parts, ("image_file", "file_id"), ("image_url", "url")),
        citations=_strings(notes, ("file_citation", "file_id"), ("file_path", "file_id"), ("url_citation", "url")),
        quotes=_strings(notes, ("file_citation", "quote")),
        progress=0 if get(message, "status") == "in_progress" else 1,
    )


def _step(step: object) -> Iterable[Reading]:
    run_id = string(step, "run_id")
    yield from step_calls(step, ("run", run_id)) if run_id else ()


def _scope(subject: object) -> Iterable[Reading]:
    own = string(subject, "id")
    yield from (Scope(session=own),) if own else ()


_READERS: dict[str, Callable[[object], Iterable[Reading]]] = {
    "thread.run": _run,
    "thread.run.step": _step,
    "thread.message": _message,
    "thread": _scope,
    "conversation": _scope,
    "response": _response,
    "chat.completion": _chat,
}


def _cited(notes: Iterable[object]) -> str:
    """Name what an answer cites, a page of the web or a file, each once."""
    return ", ".join(dict.fromkeys(_strings(notes, ("url",), ("url_citation", "url"), ("file_id",))))


def _joined(texts: Iterable[str]) -> str:
    return "\n".join(text for text in texts if text)


def _strings(subjects: Iterable[object], *places: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text for subject in subjects for place in places if (text := string(subject, *place)))


def _key(kind: Kind, subject: object) -> Key:
    """Name an answer by its id and, as small servers repeat those, its time; else by its content."""
    own, created = string(subject, "id"), number(subject, "created")
    if own is None and created is None:
        return kind, f"#{zlib.crc32(repr(data(subject)).encode('utf-8', 'replace')):08x}"
    return kind, own if own and created is None else f"{own or ''}@{created}"
