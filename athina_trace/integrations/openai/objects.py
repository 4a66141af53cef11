"""Recognises OpenAI's objects, and reads them as records: `parse` plain data, a `Reader` the objects of one log.

It understands runs, messages, run steps, threads, pages of these (and plain lists), responses, conversations, chat
completions, their parsed variants, and the events and chunks of streams: as objects of any client version, as plain
dictionaries, and inside the client's raw response wrappers. Nothing here raises.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from athina_trace import _guard
from athina_trace._answers.libraries import answer_of
from athina_trace._answers.records import RUN, Answer, Record, ThreadMessage, ToolCall
from athina_trace._serialization.introspection import instance_dict
from athina_trace.integrations.openai.assistants import RunEvents, parse_message, parse_run, parse_session, parse_step
from athina_trace.integrations.openai.chat import ChatChunks, parse_chat
from athina_trace.integrations.openai.common import stated_failure, without_none
from athina_trace.integrations.openai.normalise import (
    Data,
    child,
    children,
    members,
    normalise,
    number,
    string,
)
from athina_trace.integrations.openai.responses import ResponseEvents, parse_response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Reader", "may_be_known", "parse", "parse_as"]

_PARSERS: dict[str, Callable[[Data], list[Record]]] = {
    "thread.run": parse_run,
    "thread.run.step": parse_step,
    "thread.message": parse_message,
    "thread": parse_session,
    "conversation": parse_session,
    "response": parse_response,
    "response.compaction": parse_response,
    "chat.completion": parse_chat,
    "text_completion": parse_chat,
}
"""By the objects' field `object`."""

_NAMES = frozenset(
    {"object", "http_response", "event", "step_details", "thread_id", "output", "output_text", "choices"}
)
"""Every known object has at least one of these fields."""
_REPEATING = ("content.", "refusal.", "tool_calls.function.arguments.", "logprobs.")
_EVENTS = ("response.", "chunk", *_REPEATING)
"""Beginnings of events' types: those of responses, and of the client's helper `stream()`, which repeats chunks."""
_WRAPPED = "raw_response_event"
"""The type of the events in which the Agents SDK wraps those of a response; Mistral's client has no such type."""
_FIRST_FEW = 3
_MOST_MEMBERS = 10_000
_NESTED = 3


def may_be_known(subject: object) -> bool:
    """Return False quickly for anything that cannot be one of OpenAI's objects, as most results of functions.

    No property of a foreign object is called, and only the first few items of a list are looked at.
    """
    try:
        return _may_be_known(subject)
    except Exception as error:  # noqa: BLE001 - a foreign property may raise anything; `normalise` finds out
        _guard.raise_if_the_programs(error)
        return True


def _may_be_known(subject: object) -> bool:
    if type(subject) is list or type(subject) is tuple:
        return any(map(_may_be_known, subject[:_FIRST_FEW]))
    # Not by `getattr`, which may run an object's own code.
    fields = subject if type(subject) is dict else instance_dict(subject)
    # Pydantic models store undeclared fields separately.
    extra = getattr(subject, "__pydantic_extra__", None) if hasattr(type(subject), "__pydantic_extra__") else None
    if not fields and extra is None and type(subject) is not dict:
        return issubclass(type(subject), Mapping | list | tuple)
    return _has_known_fields(fields) or (type(extra) is dict and _has_known_fields(extra))


def _has_known_fields(fields: dict[str, Any]) -> bool:
    if not _NAMES.isdisjoint(fields):
        return True
    kind, inner = fields.get("type"), fields.get("data")
    if type(kind) is str and (kind.startswith(_EVENTS) or kind == _WRAPPED):
        return True
    if type(inner) is list or type(inner) is tuple:
        return _may_be_known(inner)
    return inner is not None and not _NAMES.isdisjoint(inner if type(inner) is dict else instance_dict(inner))


def parse_as(kind: str, plain: Any) -> list[Record] | None:
    """Read data as an answer of this kind although it does not look like one, such as an error."""
    if type(plain) is list and len(plain) == 1:  # as Gemini lists its errors
        plain = plain[0]
    if kind == RUN or type(plain) is not dict:
        return None
    if not members(plain, "choices") and not members(plain, "output") and stated_failure(plain) is None:
        foreign = _parse_foreign(kind, plain)
        if foreign is not None:
            return foreign
    if _ANSWER_NAMES.isdisjoint(plain) and stated_failure(plain) is None:
        return None
    return _PARSERS["chat.completion" if kind == "chat" else "response"](plain)


_ANSWER_NAMES = frozenset({"choices", "output", "output_text", "error", "usage"})


def _parse_foreign(kind: str, plain: dict[str, Any]) -> list[Record] | None:
    """Read an answer in a server's own form: Ollama's, Google's, Anthropic's."""
    fields = answer_of(plain)
    if not fields:
        return None
    key = (kind, string(plain, "id") or f"#{zlib.crc32(repr(plain).encode('utf-8', 'replace')):08x}")
    calls = [
        ToolCall(key=string(call, "id") or f"#{place}", owner=key, body=without_none(call))
        for place, call in enumerate(fields.get("tool_calls", ()))
    ]
    usage = {name: count for name, count in fields.items() if name.endswith("_tokens")}
    return [Answer(key=key, model=fields.get("language_model_id"), text=fields.get("response"), usage=usage), *calls]


def parse(plain: Any, nested: int = _NESTED) -> list[Record] | None:
    """Return the records of plain data, with at most `nested` levels of lists and events; None if it is unknown."""
    if type(plain) is list:
        return _parse_page(plain, nested)
    if type(plain) is not dict:
        return None
    parser = _PARSERS.get(string(plain, "object") or "") or _parser_by_fields(plain)
    if parser is not None:
        return parser(plain)
    if nested and type(plain.get("data")) is list:
        order = child(child(plain, "_options"), "params").get("order")
        return _parse_page(plain["data"], nested, order=order, is_page=plain.get("object") == "list")
    inner = None
    if (string(plain, "event") or "").startswith("thread."):
        inner = plain.get("data")
    elif (string(plain, "type") or "").startswith("response."):
        inner = plain.get("response")
    return parse(inner, nested - 1) if nested else None


def _parser_by_fields(data: Data) -> Callable[[Data], list[Record]] | None:
    """Recognise an object by its fields, since some compatible servers leave out the field `object`."""
    kind = None
    if string(data, "id"):
        if "step_details" in data and string(data, "run_id"):
            kind = "thread.run.step"
        elif "content" in data and string(data, "thread_id") and string(data, "role"):
            kind = "thread.message"
        elif string(data, "thread_id") and string(data, "assistant_id") and string(data, "status"):
            kind = "thread.run"
        elif string(data, "model") and (string(_first(data, "output"), "type") or string(data, "output_text")):
            kind = "response"
    if kind is None and _first(data, "choices").get("message") is not None:
        kind = "chat.completion"
    return None if kind is None else _PARSERS[kind]


def _first(data: Data, name: str) -> Data:
    return next(iter(children(data, name)), {})


def _parse_page(listed: list[Any], nested: int, *, order: object = None, is_page: bool = False) -> list[Record] | None:
    """Read a list: a page of the API, which may be empty, or the program's own list of objects."""
    parsed = [parse(member, nested - 1) for member in listed[:_MOST_MEMBERS]] if nested else []
    # If the first items are all unknown, the list is not ours, whatever follows.
    if all(each is None for each in parsed[:_FIRST_FEW]):
        return [] if is_page and not listed else None
    times = [time for member in listed if type(member) is dict and (time := number(member, "created_at")) is not None]
    # OpenAI's lists run from the newest to the oldest unless `asc` is requested.
    backwards = times[0] > times[-1] if times and times[0] != times[-1] else order != "asc"
    records = [record for each in parsed if each is not None for record in each]
    for record in records:
        if isinstance(record, ThreadMessage):
            record.backwards = backwards
    return records


class Reader:
    """Reads the objects of one log, and assembles any number of streams whose chunks are interleaved in any way."""

    def __init__(self) -> None:
        self._chats: dict[tuple[str | None, float | None], ChatChunks] = {}
        self._responses: list[ResponseEvents] = []
        self._runs = RunEvents()

    def read(self, subject: object) -> Iterable[Record] | None:
        """Return the object's records: none yet for a chunk, None if its kind is unknown."""
        plain = normalise(subject)
        kind = self._add_chunk(plain) if type(plain) is dict else None
        if kind == "chat":
            return ()
        records = parse(plain)
        return () if records is None and kind is not None else records

    def streamed(self) -> Iterable[Record]:
        """Return the records of the streams so far."""
        results = [*(chat.result() for chat in self._chats.values()), *(each.result() for each in self._responses)]
        results += self._runs.result()
        return [record for result in results for record in parse(result) or ()]

    def _add_chunk(self, plain: Data) -> str | None:
        """Take a chunk or an event of a stream; return the kind of its answer, or None for anything else."""
        name, kind = string(plain, "object"), string(plain, "type") or ""
        if kind == "chunk":
            plain = child(plain, "chunk")
            name = string(plain, "object")
        elif (kind == _WRAPPED or name is None) and type(plain.get("data")) is dict and "event" not in plain:
            plain = plain["data"]
            name, kind = string(plain, "object"), string(plain, "type") or ""
        elif self._chats and kind.startswith(_REPEATING):
            return "chat"
        key = (string(plain, "id"), number(plain, "created"))
        if _is_chat_chunk(plain, name):
            chat = self._chat_of(key, plain)
            if chat is not None:
                chat.add(plain)
            return "chat"
        if name == "text_completion" and (
            key in self._chats or any(choice.get("finish_reason") is None for choice in children(plain, "choices"))
        ):
            # A legacy completion and its chunks have the same `object`: only the last chunk has a finish reason.
            self._chats.setdefault(key, ChatChunks()).add(plain)
            return "chat"
        if kind.startswith("response."):
            # Only the first event says which response it belongs to, and some frameworks' models leave that out.
            if not self._responses or self._responses[-1].ended or kind == "response.created":
                self._responses.append(ResponseEvents())
            self._responses[-1].add(plain)
            return "response"
        if (string(plain, "event") or "").startswith("thread."):
            self._runs.add(plain)
            return RUN
        return None

    def _chat_of(self, key: tuple[str | None, float | None], chunk: Data) -> ChatChunks | None:
        """Return the completion that a chunk belongs to, if need be a new one; None if it belongs to none yet."""
        chat = self._chats.get(key)
        if chat is not None:
            return chat
        deltas = [child(choice, "delta") for choice in children(chunk, "choices")]
        # Some servers send each chunk's own time instead of the answer's, or a different id with each chunk.
        alike = [each for (own, _), each in self._chats.items() if own == key[0]]
        last = next(reversed(alike or [*self._chats.values()]), None)
        if last is None and key[0] is None and not deltas:
            return None  # Azure's first chunk, about the prompt
        begins = not alike and any("role" in delta for delta in deltas)
        if last is not None and not begins and not (last.ended and any(deltas)):
            return last
        self._chats[key] = chat = ChatChunks()
        return chat


def _is_chat_chunk(plain: Data, name: str | None) -> bool:
    """Return whether this is a chunk of a chat completion, whatever its field `object`.

    Perplexity's first and last chunk have names of its own; those of Azure's filter have no name and no delta.
    """
    if name == "chat.completion.chunk":
        return True
    if name in _PARSERS or type(plain.get("choices")) is not list:
        return False
    if name is None and "prompt_filter_results" in plain:
        return True
    choices = children(plain, "choices")
    return any("delta" in each or ("content_filter_results" in each and "message" not in each) for each in choices)
