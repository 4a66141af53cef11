"""The commonest answers, read the short way: a finished response or completion that says something and calls nothing.

Reading by shape takes nothing for granted, and its time. What the client gives in most calls is one of its own models,
with every field of the type that the API promises: such a one is read here attribute by attribute, in a tenth of the
time. Whatever is out of the ordinary gives None, and is read by shape. Both ways give the same log, which tests hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    conversation = seen.get("conversation") or params.get("conversation")
    session = chain.session if conversation is None else _conversation(conversation)
    return _told(
        _asked(params, chain.query, seen["instructions"] or params.get("instructions")),
        seen,
        _said(seen["output"]),
        session_id=session or previous or params.get("previous_response_id"),
        model_options={**_asked_options(params), **_used_options(seen)},
        custom_attributes=_traits(seen, response_id=seen["id"], previous_response_id=previous, status="completed"),
    )


def _chat(answer: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    seen = _look(answer)
    choice = seen["choices"][0].__dict__
    message = choice["message"].__dict__
    if seen["object"] != "chat.completion" or any(map(message.get, _MORE_THAN_TEXT)):
        raise _UnusualError
    return _told(
        _asked(params, None, None),
        seen,
        _text(message["content"]),
        model_options=_asked_options(params),
        custom_attributes=_traits(seen, completion_id=seen["id"], status=choice["finish_reason"]),
    )


_MORE_THAN_TEXT = ("tool_calls", "function_call", "refusal", "audio")


def _look(model: Any) -> Mapping[str, Any]:
    """A model's fields, those too that its class does not declare."""
    extra = model.__pydantic_extra__
    return {**model.__dict__, **extra} if extra else model.__dict__


def _text(value: Any) -> str:
    if type(value) is not str or not value:
        raise _UnusualError
    return value


def _told(asked: dict[str, Any], seen: Mapping[str, Any], response: str, **more: Any) -> dict[str, Any]:
    """The fields of a log; what says nothing is left out."""
    fields = asked
    fields["language_model_id"] = _text(seen["model"])
    _add_tokens(fields, seen["usage"])
    if response:
        fields["response"] = response
    for name, value in more.items():
        if value:
            fields[name] = value
    return fields


def _asked(params: Mapping[str, Any], earlier: str | None, instructions: Any) -> dict[str, Any]:
    """The prompt, and the user's last question; one of nothing but an image has no text."""
    if not _RARE.isdisjoint(params):
        raise _UnusualError
    given = params.get("input")
    said: list[Mapping[str, str]]
    query: str | None
    if type(given) is str and given:
        said, query = [{"role": "user", "content": given}], given
    else:
        said = list(prompt_of(params))
        query = next((message["content"] for message in reversed(said) if message["role"] == "user"), earlier)
    if instructions:
        said.insert(0, {"role": "system", "content": _text(instructions)})
    fields: dict[str, Any] = {"prompt": said} if said else {}
    if query:
        fields["user_query"] = query
    return fields


_RARE = frozenset({"tools", "functions", "additional_instructions", "thread", "tool_outputs", "additional_messages"})


def _said(output: Iterable[Any]) -> str:
    """All texts of all messages."""
    texts: list[str] = []
    for item in output:
        seen = item.__dict__
        if seen["type"] == "message":
            for part in seen["content"]:
                if part.type != "output_text":
                    raise _UnusualError
                if part.text:
                    texts.append(part.text)
        elif "call" in seen["type"]:
            raise _UnusualError
    return "\n".join(texts)


def _conversation(given: Any) -> Any:
    """The id of a conversation that is named by itself or by an object."""
    if type(given) is str:
        return given
    return _text(given["id"] if type(given) is dict else given.id)


def _add_tokens(fields: dict[str, Any], usage: Any) -> None:
    seen = usage.__dict__
    prompt, completion = ("input_tokens", "output_tokens") if "input_tokens" in seen else _OLD_NAMES
    counts = seen[prompt], seen[completion], seen["total_tokens"]
    if usage.__pydantic_extra__ or {*map(type, counts)} != _INTEGERS:
        raise _UnusualError
    fields["prompt_tokens"], fields["completion_tokens"], fields["total_tokens"] = counts


_OLD_NAMES = ("prompt_tokens", "completion_tokens")
_INTEGERS = {int}


def _traits(seen: Mapping[str, Any], **traits: Any) -> dict[str, Any]:
    """Ids, how the request was served, and the counts within the counts: summed where two groups have one of a name."""
    for name in _SERVED:
        traits[name] = seen.get(name)
    traits = {name: value for name, value in traits.items() if value}
    for name, group in seen["usage"].__dict__.items():
        if group is not None and name[-7:] == "details":
            if group.__pydantic_extra__:
                raise _UnusualError
            for kind, count in group.__dict__.items():
                if type(count) is int and count >= 0:
                    traits[kind] = traits.get(kind, 0) + count
    return traits


_SERVED = ("service_tier", "system_fingerprint")


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
