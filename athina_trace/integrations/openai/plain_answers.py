"""The commonest answers, read the short way: a finished response or completion that says something and calls nothing.

Reading by shape takes nothing for granted, and its time. What comes over the wire in most calls has every field, of the
type that the API promises: such an answer is read here name by name, in a tenth of the time. Whatever is out of the
ordinary gives None, and is read by shape. Both ways give the same log, which tests hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from athina_trace import _guard
from athina_trace.integrations.openai.memory import Chain
from athina_trace.integrations.openai.requests import prompt_of, question_in
from athina_trace.integrations.openai.traits import USAGE_DETAILS, options

__all__ = ["plain_chat", "plain_response"]


class _UnusualError(Exception):
    """This one wants reading by shape."""


def plain_response(answer: Any, params: Mapping[str, Any], chain: Chain) -> dict[str, Any] | None:
    """The fields of a log of this response alone, or None."""
    try:
        return _response(answer, params, chain)
    except Exception as error:  # noqa: BLE001 - whatever is missing or of another type: it is not plain
        _guard.pass_on(error)
        return None


def plain_chat(answer: Any, params: Mapping[str, Any]) -> dict[str, Any] | None:
    """The fields of a log of this chat completion alone, or None."""
    try:
        return _chat(answer, params)
    except Exception as error:  # noqa: BLE001 - whatever is missing or of another type: it is not plain
        _guard.pass_on(error)
        return None


def _response(seen: Any, params: Mapping[str, Any], chain: Chain) -> dict[str, Any]:
    usual = seen["object"] == "response" and seen["status"] == "completed"
    if not usual or any(map(seen.get, _MORE_TO_TELL)):
        raise _UnusualError
    previous = seen.get("previous_response_id")
    conversation = seen.get("conversation") or params.get("conversation")
    session = chain.session if conversation is None else _conversation(conversation)
    return _told(
        _asked(params, chain.query, seen.get("instructions") or params.get("instructions")),
        seen,
        _said(seen["output"]),
        session_id=session or previous or params.get("previous_response_id"),
        model_options={**options(params), **options(seen)},
        custom_attributes=_traits(seen, response_id=seen["id"], previous_response_id=previous, status="completed"),
    )


_MORE_TO_TELL = ("tools", "error", "incomplete_details", "prompt")


def _chat(seen: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    choice = seen["choices"][0]
    message = choice["message"]
    usual = seen["object"] == "chat.completion" and not (seen.get("error") or choice.get("error"))
    if not usual or any(map(message.get, _MORE_THAN_TEXT)):
        raise _UnusualError
    return _told(
        _asked(params, None, None),
        seen,
        _text(message["content"]),
        model_options=options(params),
        custom_attributes=_traits(seen, completion_id=seen["id"], status=choice["finish_reason"]),
    )


_MORE_THAN_TEXT = ("tool_calls", "function_call", "refusal", "audio", "annotations")


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
    """The prompt, and the user's last question."""
    if not _RARE.isdisjoint(params):
        raise _UnusualError
    given = params.get("input")
    said: list[Mapping[str, str]]
    query: str | None
    if type(given) is str and given:
        said, query = [{"role": "user", "content": given}], given
    else:
        said = list(prompt_of(params))
        query = question_in(reversed(said)) or earlier
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
        if item["type"] == "message":
            for part in item["content"]:
                if part["type"] != "output_text" or part.get("annotations"):
                    raise _UnusualError
                if part["text"]:
                    texts.append(part["text"])
        elif "call" in item["type"] or "approval" in item["type"]:
            raise _UnusualError
    return "\n".join(texts)


def _conversation(given: Any) -> Any:
    """The id of a conversation that is named by itself or by an object."""
    if type(given) is str:
        return given
    return _text(given["id"])


def _add_tokens(fields: dict[str, Any], usage: Any) -> None:
    prompt, completion = _OLD_NAMES if "prompt_tokens" in usage else ("input_tokens", "output_tokens")
    counts = usage[prompt], usage[completion], usage["total_tokens"]
    if any(map(_is_no_count, counts)):
        raise _UnusualError
    fields["prompt_tokens"], fields["completion_tokens"], fields["total_tokens"] = counts


_OLD_NAMES = ("prompt_tokens", "completion_tokens")


def _is_no_count(value: Any) -> bool:
    return type(value) is not int or value < 0


def _traits(seen: Mapping[str, Any], **traits: Any) -> dict[str, Any]:
    """Ids, how the request was served, and the counts within the counts: summed where two groups have one of a name."""
    for name in _SERVED:
        traits[name] = seen.get(name)
    traits = {name: _text(value) for name, value in traits.items() if value}
    usage = seen["usage"]
    for group in filter(None, map(usage.get, USAGE_DETAILS)):
        for kind, count in group.items():
            if count is not None:
                if _is_no_count(count):
                    raise _UnusualError
                traits[kind] = traits.get(kind, 0) + count
    return traits


_SERVED = ("service_tier", "system_fingerprint")
