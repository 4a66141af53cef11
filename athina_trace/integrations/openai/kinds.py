"""What each kind of OpenAI's objects says: runs, steps, messages, threads, conversations, responses, completions.

Each reader takes what has the shape of its kind, and gives nothing for what is missing.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from athina_trace.integrations.openai.calls import chat_calls, is_call, item_call, step_calls, waiting_calls
from athina_trace.integrations.openai.readings import Answer, Key, Kind, Message, Output, Reading, Scope
from athina_trace.integrations.openai.shape import data, get, items, number, string, text_of
from athina_trace.integrations.openai.traits import (
    failure,
    options,
    system_texts,
    template_prompt,
    tools,
    traits,
    usage,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["READERS"]


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
        ),
        citations=_cited(notes),
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
        details=traits(chat, completion_id=string(chat, "id")),
        citations=_cited(items(message, "annotations")),
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
        citations=_cited(notes),
        quotes=_strings(notes, ("file_citation", "quote")),
        progress=0 if get(message, "status") == "in_progress" else 1,
    )


def _step(step: object) -> Iterable[Reading]:
    run_id = string(step, "run_id")
    yield from step_calls(step, ("run", run_id)) if run_id else ()


def _scope(subject: object) -> Iterable[Reading]:
    own = string(subject, "id")
    yield from (Scope(session=own),) if own else ()


READERS: dict[str, Callable[[object], Iterable[Reading]]] = {
    "thread.run": _run,
    "thread.run.step": _step,
    "thread.message": _message,
    "thread": _scope,
    "conversation": _scope,
    "response": _response,
    "chat.completion": _chat,
}
"""By the name that an object gives itself."""


def _cited(notes: Iterable[object]) -> tuple[str, ...]:
    """Name the pages of the web and the files that annotations of a text refer to."""
    return _strings(notes, *_CITED)


_CITED = (("url",), ("file_id",), ("url_citation", "url"), ("file_citation", "file_id"), ("file_path", "file_id"))
"""Where they stand: in responses themselves, else below the name of their type."""


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
