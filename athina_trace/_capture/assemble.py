"""The rules by which a draft, and the way that its call ended, become the fields of one log.

Nothing here knows of decorators, disks or networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from athina_trace import _guard
from athina_trace._answers import libraries
from athina_trace._capture import failures, streams
from athina_trace._capture.draft import LogDraft
from athina_trace._clock import clock
from athina_trace._pipeline.redaction import NOTHING, Redaction, identifiers, redacted, type_only, without_arguments
from athina_trace._serialization import plain, text
from athina_trace._serialization.introspection import Placeholder, type_placeholder
from athina_trace._serialization.strings import is_clean

_NOTHING: Mapping[str, Any] = {}


def assemble(
    draft: LogDraft, defaults: Mapping[str, Any], redaction: Redaction, result: object, error: BaseException | None
) -> dict[str, Any]:
    """Return the fields of the log of a call that ended, as data; see `wire`.

    If several sources give a field, the strongest wins. From the weakest to the strongest:

    1. the settings (`defaults`: fields and `custom_attributes`)
    2. answers of the model's API, from `record` or an instrumented client
    3. measurements: the time, and how the call failed
    4. the call's arguments
    5. the session around it
    6. the call's result, as its response
    7. what the program sets: constants of the decorator, then `current_log().update(...)`

    with two exceptions: a model that the API names gives way to 7 only, and a log without a session belongs to the
    session of the call around it. Custom attributes are merged in the order 1, 2, 5, 4 and 7.

    Args:
        draft: what is known of the call.
        defaults: see 1.
        redaction: what the settings keep out of logs, in addition to what the draft and its scope do.
        result: what the call returned.
        error: what it raised instead; if that is not a failure, the draft has an `outcome`.
    """
    answer = _response(draft, result, error)
    recorded = _NOTHING if draft.accumulator is None and draft.only_answer is None else draft.answer_fields()
    took = (clock.perf_ns() - draft.started_ns) // 1_000_000
    failure = _NOTHING if error is None or draft.outcome is not None else failures.failure(error)
    inputs, named, attributes, scope = draft.inputs, draft.named, draft.attributes, draft.scope
    # By identity: nearly all logs keep everything, and testing a flag takes a function call.
    if not redaction is draft.redaction is scope.redaction is NOTHING:
        redaction |= draft.redaction | scope.redaction
        if redaction & Redaction.INPUTS:
            inputs, attributes = identifiers(inputs), without_arguments(attributes)
        if redaction & Redaction.NAMED:
            named = redacted(redaction, named)
            attributes = {name: value for name, value in attributes.items() if name != "response_error"}
            if failure:
                failure = {**failure, "error": type_only(failure["error"])}
    if not redaction is draft.options.redaction is NOTHING:
        # The decorator's options were applied to the arguments when those were read, and now to recorded answers.
        redaction |= draft.options.redaction
        recorded, answer = redacted(redaction, recorded), None if redaction & Redaction.RESPONSE else answer
    fields: dict[str, Any] = {
        **defaults,
        **recorded,
        "response_time": took,
        **failure,
        **inputs,
        **scope.fields,
        **named,
    }
    if answer is not None and "response" not in named:
        fields["response"] = answer
        draft.own_fields = ("response",)
    if failure:
        draft.own_fields = (*draft.own_fields, *failure)
    fields["external_reference_id"] = draft.external_reference_id
    if recorded.get("language_model_id") and "language_model_id" not in named:
        fields["language_model_id"] = recorded["language_model_id"]
    fields["custom_attributes"] = {
        **(defaults.get("custom_attributes") or _NOTHING),
        **(recorded.get("custom_attributes") or _NOTHING),
        **(draft.span or _NOTHING),
        **scope.attributes,
        **(inputs.get("custom_attributes") or _NOTHING),
        **attributes,
    }
    if draft.outcome is not None or draft.streamed is not None or draft.parent is not None:
        fields["custom_attributes"].update(_circumstances(draft))
    _complete(fields, draft.parent)
    return fields


def _response(draft: LogDraft, result: Any, raised: BaseException | None) -> Any:
    """Return the call's response, as data; None if the result has none, but other sources may have one."""
    streamed, read = draft.streamed, draft.options.response
    if read is not None and (streamed is not None or raised is None):
        answer = result if streamed is None else streamed.chunks
        try:
            answer = read(answer)
        except Exception as error:  # noqa: BLE001 - the program's function may raise anything
            _guard.raise_if_the_programs(error)
            draft.attributes["response_error"] = failures.message(error)
        # The function decides, even if it returns None.
        return "" if answer is None else plain(answer)
    if streamed is not None:
        return streams.joined(streamed.chunks)
    if type(result) is str:
        return result if is_clean(result) else text(result)  # most need no change, and so no call
    if result is None or draft.recognises(result):
        return None
    data: Any = streams.text_of_bytes(result) if issubclass(type(result), bytes) else plain(result)
    pieces = libraries.read(data)
    if not pieces:
        accumulator = draft.accumulator
        # A result that is not data says less than what the model answered during the call.
        if accumulator is not None and (type(result) is Placeholder or data == type_placeholder(result)):
            data = None if accumulator.fields().get("response") else data
        return data
    draft.own_accumulator().take_pieces(pieces)
    return libraries.fields_of(pieces).get("response", "")  # of these pieces alone, which may have been recorded before


def _complete(fields: dict[str, Any], parent: LogDraft | None) -> None:
    """Derive fields that no source gave from others: those that Athina requires or bases its evaluations on."""
    if parent is not None and fields.get("session_id") is None:
        fields["session_id"] = parent.session_id()
    prompt = fields.get("prompt")
    if fields.get("user_query") is None:
        if isinstance(prompt, str):
            fields["user_query"] = prompt
        elif isinstance(prompt, list):
            asked = [each for each in prompt if isinstance(each, dict) and each.get("role") == "user"]
            fields["user_query"] = _content_text(asked[-1].get("content")) if asked else None
    if prompt is None:
        fields["prompt"] = [{"role": "user", "content": fields.get("user_query") or ""}]
    if fields.get("language_model_id") is None:
        fields["language_model_id"] = "unknown"
    if fields.get("response") is None:
        fields["response"] = ""


def _content_text(content: object) -> str:
    """Return the text of a message: a string, or the text parts of a list of parts."""
    if not isinstance(content, list):
        return text(content)
    parts = [part.get("text") for part in content if isinstance(part, dict)]
    return "\n".join(part for part in parts if isinstance(part, str))


def _circumstances(draft: LogDraft) -> dict[str, Any]:
    """Return custom attributes that say how the call ended, and which call is around it."""
    attributes: dict[str, Any] = {} if draft.outcome is None else {"outcome": draft.outcome}
    if draft.streamed is not None:
        attributes["chunks"] = draft.streamed.count
        attributes["time_to_first_chunk_ms"] = (draft.streamed.first_ns - draft.started_ns) // 1_000_000
    if draft.parent is not None:
        attributes["parent_reference"] = draft.parent.external_reference_id
    return attributes
