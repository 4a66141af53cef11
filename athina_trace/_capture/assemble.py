"""The rules of capture: a draft, and how its call ended → the fields of one log.

Pure: nothing here knows of decorators, disks or networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from athina_trace import _guard
from athina_trace._capture import messages, streams
from athina_trace._capture.arguments import Options
from athina_trace._capture.draft import LogDraft
from athina_trace._clock import clock
from athina_trace._pipeline.redaction import RESPONSE, withhold, without
from athina_trace._pipeline.wire import to_wire
from athina_trace._serialization import plain, shown, text

_NOTHING: Mapping[str, Any] = {}
_MOST_HELD = 100


def finish(
    draft: LogDraft,
    options: Options,
    defaults: Mapping[str, Any],
    *,
    result: object = None,
    error: BaseException | None = None,
) -> dict[str, Any]:
    """The log of a call that ended, as the JSON object to send.

    `defaults` are the settings' fields and `custom_attributes`; the order in which sources win is the order of the
    merges below, weakest first.
    """
    answer = _response(draft, options, result, failed=error is not None)
    recorded: Mapping[str, Any] = shown(draft.ledger.fields()) if draft.ledger is not None else _NOTHING
    if draft.answers:
        recorded = {**messages.merged(draft.answers), **recorded}
    ended: dict[str, Any] = {"response_time": (clock.perf_ns() - draft.started_ns) // 1_000_000}
    if error is not None:
        ended.update(_failure(error))
    if hides := draft.hides | draft.scope.hides:
        withhold(hides, draft, ended)
    if hides := hides | options.hides:
        recorded, answer = without(hides, recorded), None if hides & RESPONSE else answer
    fields = {
        **defaults,
        **recorded,
        **ended,
        **draft.inputs,
        **draft.scope.fields,
        **({"response": answer} if answer is not None else _NOTHING),
        **draft.named,
    }
    fields["external_reference_id"] = draft.external_reference_id
    if recorded.get("language_model_id") and "language_model_id" not in draft.named:
        fields["language_model_id"] = recorded["language_model_id"]  # the model that answered, over a session's label
    if fields.get("session_id") is None and draft.parent is not None:
        fields["session_id"] = draft.parent.session_id()
    fields["custom_attributes"] = {
        **(defaults.get("custom_attributes") or _NOTHING),
        **(recorded.get("custom_attributes") or _NOTHING),
        **draft.scope.attributes,
        **draft.attributes,
    }
    if error is not None or draft.chunks is not None or draft.parent is not None:
        fields["custom_attributes"].update(_details(draft, error))
    _complete(fields)
    return to_wire(fields)


def _response(draft: LogDraft, options: Options, result: object, *, failed: bool) -> str | None:
    """What the call answered, as text; None where the result says nothing and others may."""
    if options.response is not None and (draft.chunks is not None or not failed):
        return _read_by(options.response, draft, result)
    if draft.chunks is not None:
        return streams.joined(draft.chunks)
    if type(result) is str:
        return text(result)
    if result is None or draft.recognises(result):
        return None
    data: Any = streams.text_of_bytes(result) if isinstance(result, bytes) else plain(result)
    answer = messages.answer_of(data)
    if answer is not None:
        draft.answers = [answer]
    return draft.written(data) if answer is None else str(answer.get("response", ""))


def _read_by(read: Callable[[Any], Any], draft: LogDraft, result: object) -> str:
    """What the user's function says that the answer is; where it raises, the log goes on without."""
    answer = result if draft.chunks is None else draft.chunks
    try:
        return draft.read(read(answer))
    except Exception as error:  # noqa: BLE001 - the user's function may raise anything
        _guard.pass_on(error)
        draft.attributes["response_error"] = _message(error)
        return draft.read(answer)


def _complete(fields: dict[str, Any]) -> None:
    """Fill what Athina requires, or derives evaluations from, out of what is there."""
    if fields.get("user_query") is None:
        fields["user_query"] = _last_user_message(fields.get("prompt"))
    if fields.get("prompt") is None:
        query = fields.get("user_query")
        fields["prompt"] = [{"role": "user", "content": query or ""}]
    if fields.get("language_model_id") is None:
        fields["language_model_id"] = "unknown"
    if fields.get("response") is None:
        fields["response"] = ""


def _last_user_message(prompt: object) -> str | None:
    if not isinstance(prompt, list):
        return prompt if isinstance(prompt, str) else None
    messages = [m for m in prompt if isinstance(m, dict) and m.get("role") == "user"]
    return _content_text(messages[-1].get("content")) if messages else None


def _content_text(content: object) -> str:
    """The text of a message: a string, or the text parts of a list of parts."""
    if not isinstance(content, list):
        return text(content)
    parts = [p.get("text") for p in content if isinstance(p, dict)]
    return "\n".join(p for p in parts if isinstance(p, str))


def _failure(error: BaseException) -> dict[str, Any]:
    """`error` and `status_code` of a failed call; a cancelled or abandoned one has not failed."""
    if not isinstance(error, Exception):
        return {}
    failure: dict[str, Any] = {"error": _message(error)}
    for each in _held(error):
        response = _attribute(each, "response")
        status = _attribute(each, "status_code") or _attribute(response, "status_code")
        if isinstance(status, int):
            failure["status_code"] = status
            break
    return failure


def _held(error: BaseException) -> list[BaseException]:
    """The exception, or those that a group holds, at any depth; at most 100."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting and len(found) < _MOST_HELD:
        each = waiting.pop(0)
        # Python 3.10 has no groups of its own; the package that brings them names them alike.
        held = _attribute(each, "exceptions") if type(each).__name__.endswith("ExceptionGroup") else None
        inner = [part for part in held if isinstance(part, BaseException)] if isinstance(held, tuple) else []
        waiting = inner + waiting
        if not inner:
            found.append(each)
    return found


def _attribute(value: object, name: str) -> Any:
    try:
        return getattr(value, name, None)
    except Exception as fault:  # noqa: BLE001 - a user's exception class may do anything in a property
        _guard.pass_on(fault)
        return None


def _message(error: BaseException) -> str:
    kind = type(error).__name__
    try:
        message = f"{kind}: {error}" if str(error) else kind
        held = _held(error)
        return text(message if held == [error] else "\n".join([message, *map(_message, held)]))
    except Exception as fault:  # noqa: BLE001 - a user's exception class may do anything in a property
        _guard.pass_on(fault)
        return kind


def _details(draft: LogDraft, error: BaseException | None) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if error is not None and not isinstance(error, Exception):
        details["outcome"] = "incomplete" if isinstance(error, GeneratorExit) else "cancelled"
    if draft.chunks is not None:
        details["chunks"] = draft.chunk_count
        details["time_to_first_chunk_ms"] = (draft.first_chunk_ns - draft.started_ns) // 1_000_000
    if draft.parent is not None:
        details["parent_reference"] = draft.parent.external_reference_id
    return details
