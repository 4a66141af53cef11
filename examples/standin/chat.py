"""Chat completions, whole or as a stream of chunks."""

from collections.abc import Iterator

from standin.script import Message, Step, next_step, offer
from standin.wire import (
    Answer,
    Event,
    Json,
    Request,
    Routes,
    dated,
    missing,
    new_id,
    now,
    pieces,
    plain_text,
    tokens,
)


def routes() -> Routes:
    """The one endpoint of this part; it keeps no state."""
    return {"POST /chat/completions": _create}


def _create(request: Request) -> Answer:
    messages = request.body.get("messages")
    if not messages:
        raise missing(name="messages")
    form = request.body.get("response_format") or {}
    tools = offer(request.body.get("tools"), request.body.get("tool_choice"))
    schema = form.get("json_schema", {}).get("schema")
    step = next_step(
        [Message(each["role"], plain_text(each.get("content"))) for each in messages], tools, schema=schema
    )
    if request.body.get("stream"):
        return Answer(events=list(_chunks(request.body, step)), thought=True)
    return Answer(_completion(request.body, step), thought=True)


def _completion(body: Json, step: Step) -> Json:
    choice = {"index": 0, "message": _message(step), "logprobs": None, "finish_reason": _reason(step)}
    return _head(body, "chat.completion") | {"choices": [choice], "usage": _usage(body, step)}


def _message(step: Step) -> Json:
    message: Json = {"role": "assistant", "content": step.text or None, "refusal": None, "annotations": []}
    if step.call:
        function = {"name": step.call.name, "arguments": step.call.arguments}
        message["tool_calls"] = [{"id": new_id("call_"), "type": "function", "function": function}]
    return message


def _chunks(body: Json, step: Step) -> Iterator[Event]:
    head = _head(body, "chat.completion.chunk")
    counted = bool((body.get("stream_options") or {}).get("include_usage"))
    usage: Json = {"usage": None} if counted else {}
    for delta in _deltas(step):
        yield Event(head | {"choices": [_chunk(delta)]} | usage)
    yield Event(head | {"choices": [_chunk({}, reason=_reason(step))]} | usage)
    if counted:
        yield Event(head | {"choices": [], "usage": _usage(body, step)})
    yield Event("[DONE]")


def _deltas(step: Step) -> Iterator[Json]:
    if step.call:
        function = {"name": step.call.name, "arguments": ""}
        call = {"index": 0, "id": new_id("call_"), "type": "function", "function": function}
        yield {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None}
        for piece in pieces(step.call.arguments):
            yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
        return
    yield {"role": "assistant", "content": "", "refusal": None}
    for piece in pieces(step.text):
        yield {"content": piece}


def _chunk(delta: Json, *, reason: str | None = None) -> Json:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def _head(body: Json, kind: str) -> Json:
    model = dated(body.get("model") or "gpt-4o-mini")
    described = {"model": model, "service_tier": "default", "system_fingerprint": "fp_373a14eb6f"}
    return {"id": new_id("chatcmpl-", size=29), "object": kind, "created": now(), **described}


def _reason(step: Step) -> str:
    return "tool_calls" if step.call else "stop"


def _usage(body: Json, step: Step) -> Json:
    read = tokens(body.get("tools"), *(plain_text(each.get("content")) for each in body["messages"]))
    written = tokens(step.text, step.call and step.call.arguments)
    spent = {
        "reasoning_tokens": 0,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    }
    details = {
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": spent,
    }
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written, **details}
