"""The commonest answers, read the short way: a finished response or completion that says something and calls nothing.

Reading by shape takes nothing for granted, and its time. What the client gives in most calls is one of its own models,
with every field of the type that the API promises: such a one is read here attribute by attribute, in a tenth of the
time. Whatever is out of the ordinary gives None, and is read by shape. Both ways give the same log, which tests hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from athina_trace.openai.memory import Chain
from athina_trace.openai.requests import prompt_of
from athina_trace.openai.traits import OPTION_NAMES, OPTIONS, options

__all__ = ["plain_chat", "plain_response"]

_NONE: Mapping[str, Any] = {}


class _UnusualError(Exception):
    """This one wants reading by shape."""


def plain_response(answer: Any, params: Mapping[str, Any], chain: Chain) -> dict[str, Any] | None:
    """The fields of a log of this response alone, or None."""
    try:
        return _response(answer, params, chain)
    except Exception:  # noqa: BLE001 - whatever is missing or of another type: it is not plain
        return None


def plain_chat(answer: Any, params: Mapping[str, Any]) -> dict[str, Any] | None:
    """The fields of a log of this chat completion alone, or None."""
    try:
        return _chat(answer, params)
    except Exception:  # noqa: BLE001 - whatever is missing or of another type: it is not plain
        return None


def _response(answer: Any, params: Mapping[str, Any], chain: Chain) -> dict[str, Any]:
    seen = _look(answer)
    usual = seen["object"] == "response" and seen["status"] == "completed" and not seen["tools"]
    if not usual or seen["error"] is not None or seen["incomplete_details"] is not None:
        raise _UnusualError
    previous = seen["previous_response_id"]
    session = _conversation(seen.get("conversation")) or _conversation(params.get("conversation")) or chain.session
    fields = {
        **_asked(params, chain.query, seen["instructions"] or params.get("instructions")),
        **_tokens(seen["usage"]),
        "language_model_id": _text(seen["model"]),
        "response": "\n".join([text for item in seen["output"] for text in _said(item.__dict__)]),
        "session_id": session or previous or params.get("previous_response_id"),
        "model_options": {**_asked_options(params), **_used_options(seen)},
        "custom_attributes": _traits(seen, response_id=seen["id"], previous_response_id=previous, status="completed"),
    }
    return {name: value for name, value in fields.items() if value or value == 0}


def _chat(answer: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    seen = _look(answer)
    choice = seen["choices"][0].__dict__
    message = choice["message"].__dict__
    if seen["object"] != "chat.completion" or any(map(message.get, _MORE_THAN_TEXT)):
        raise _UnusualError
    fields = {
        **_asked(params, None, None),
        **_tokens(seen["usage"]),
        "language_model_id": _text(seen["model"]),
        "response": _text(message["content"]),
        "model_options": _asked_options(params),
        "custom_attributes": _traits(seen, completion_id=seen["id"], status=choice["finish_reason"]),
    }
    return {name: value for name, value in fields.items() if value or value == 0}


_MORE_THAN_TEXT = ("tool_calls", "function_call", "refusal", "audio")


def _look(model: Any) -> Mapping[str, Any]:
    """A model's fields, those too that its class does not declare."""
    extra = model.__pydantic_extra__
    return {**model.__dict__, **extra} if extra else model.__dict__


def _text(value: Any) -> str:
    if type(value) is not str or not value:
        raise _UnusualError
    return value


def _asked(params: Mapping[str, Any], earlier: str | None, instructions: Any) -> dict[str, Any]:
    if not _RARE.isdisjoint(params):
        raise _UnusualError
    given = params.get("input")
    said = [{"role": "user", "content": given}] if type(given) is str and given else list(prompt_of(params))
    query = next((message["content"] for message in reversed(said) if message["role"] == "user"), earlier)
    system = [{"role": "system", "content": _text(instructions)}] if instructions else []
    # A question of nothing but an image has no text.
    return {"prompt": [*system, *said], "user_query": query} if query else {"prompt": [*system, *said]}


_RARE = frozenset({"tools", "functions", "additional_instructions", "thread", "tool_outputs", "additional_messages"})


def _said(item: Mapping[str, Any]) -> list[str]:
    kind = item["type"]
    if kind == "message":
        return [text for part in item["content"] if (text := _part(part.__dict__))]
    if "call" in kind:
        raise _UnusualError
    return []


def _part(part: Mapping[str, Any]) -> str:
    if part["type"] != "output_text":
        raise _UnusualError
    return part["text"]  # type: ignore[no-any-return]


def _conversation(given: Any) -> Any:
    """The id of a conversation that is named by itself or by an object."""
    if given is None or type(given) is str:
        return given
    return _text(given["id"] if type(given) is dict else given.id)


def _tokens(usage: Any) -> dict[str, Any]:
    seen = usage.__dict__
    prompt, completion = ("input_tokens", "output_tokens") if "input_tokens" in seen else _OLD_NAMES
    counts = {
        "prompt_tokens": seen[prompt],
        "completion_tokens": seen[completion],
        "total_tokens": seen["total_tokens"],
    }
    if usage.__pydantic_extra__ or {*map(type, counts.values())} != _INTEGERS:
        raise _UnusualError
    return counts


_OLD_NAMES = ("prompt_tokens", "completion_tokens")
_INTEGERS = {int}


def _traits(seen: Mapping[str, Any], **ids: str | None) -> dict[str, Any]:
    """Ids, how the request was served, and the counts within the counts."""
    traits: dict[str, Any] = {name: text for name, text in ids.items() if text}
    for name in _SERVED:
        if value := seen.get(name):
            traits[name] = value
    for name, group in seen["usage"].__dict__.items():
        if group is not None and name[-7:] == "details":
            _add_details(traits, group)
    return traits


_SERVED = ("service_tier", "system_fingerprint")


def _add_details(traits: dict[str, Any], group: Any) -> None:
    """Add a group's counts, summed where both groups have one of a name."""
    if group.__pydantic_extra__:
        raise _UnusualError
    for name, count in group.__dict__.items():
        if type(count) is int and count >= 0:
            traits[name] = traits.get(name, 0) + count


def _asked_options(params: Mapping[str, Any]) -> Mapping[str, Any]:
    return _NONE if OPTION_NAMES.isdisjoint(params) else options(params)


def _used_options(seen: Mapping[str, Any]) -> dict[str, Any]:
    used: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name in OPTION_NAMES.intersection(seen):
        value = seen[name]
        if value is None:
            continue
        if name == "reasoning":
            name, value = "reasoning_effort", value.effort  # noqa: PLW2901 - the only option that is an object
        if type(value) in _SCALARS:
            into, known = (used, OPTIONS[name]) if name in OPTIONS else (extra, name)
            into[known] = value
        elif value is not None:
            raise _UnusualError
    return {**used, "extra_options": extra} if extra else used


_SCALARS = (str, int, float)
