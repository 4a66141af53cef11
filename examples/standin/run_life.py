"""The life of one run: every change of state, as the events that a stream would send.

A run that is not streamed lives the same life; its events are simply thrown away.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

from parcels import RETURNS
from standin.assistants import new_message, text_part
from standin.script import RETURNS_FILE, RETURNS_FILE_ID, Call, Message, Step, next_step, offer
from standin.wire import Event, Json, event, new_id, now, pieces, tokens

CITATION = f"【4:0†{RETURNS_FILE}】"


@dataclass
class Run:
    """A run: the object that clients see, its steps, and what it remembers between two requests."""

    wire: Json
    messages: list[Json]
    due: float = 0.0
    steps: list[Json] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    @property
    def status(self) -> str:
        """queued, in_progress, requires_action, cancelling, cancelled, or completed."""
        return str(self.wire["status"])


def created(run: Run) -> Iterator[Event]:
    """The run has been asked for."""
    yield event("thread.run.created", run.wire)
    yield event("thread.run.queued", run.wire)


def started(run: Run) -> Iterator[Event]:
    """A worker has taken the run up."""
    run.wire.update(status="in_progress", started_at=run.wire["started_at"] or now())
    yield event("thread.run.in_progress", run.wire)


def worked(run: Run) -> Iterator[Event]:
    """The model has taken its next step: it called a function, or it answered and the run is over."""
    history = [Message(message["role"], _text(message)) for message in run.messages]
    history += [Message("tool", output) for output in run.outputs]
    form = run.wire["response_format"]
    schema = form["json_schema"].get("schema") if isinstance(form, dict) and "json_schema" in form else None
    step = next_step(history, offer(run.wire["tools"], run.wire["tool_choice"]), schema=schema)
    if step.search:
        yield from _searched(run, step.search)
    yield from _called(run, step.call) if step.call else _answered(run, step)


def resumed(run: Run, outputs: dict[str, str]) -> Iterator[Event]:
    """The caller has brought what its functions returned, by the id of the call."""
    step = run.steps[-1]
    for call in step["step_details"]["tool_calls"]:
        call["function"]["output"] = outputs[call["id"]]
        run.outputs.append(outputs[call["id"]])
        yield _step_done(run, step, text=call["function"]["arguments"])
    run.wire.update(status="queued", required_action=None)
    yield event("thread.run.queued", run.wire)


def cancelled(run: Run) -> None:
    """The run has stopped because the caller asked for it."""
    run.wire.update(status="cancelled", cancelled_at=now(), expires_at=None, required_action=None)
    for step in run.steps:
        if step["status"] == "in_progress":
            step.update(status="cancelled", cancelled_at=now())


def _searched(run: Run, query: str) -> Iterator[Event]:
    step = yield from _step_begun(run, {"type": "tool_calls", "tool_calls": []})
    found = {"file_id": RETURNS_FILE_ID, "file_name": RETURNS_FILE, "score": 0.87}
    ranking = {"ranker": "default_2024_08_21", "score_threshold": 0.0}
    call = {"id": new_id("call_"), "type": "file_search"}
    yield _step_delta(step, {"index": 0, **call, "file_search": {}})
    step["step_details"]["tool_calls"] = [{**call, "file_search": {"ranking_options": ranking, "results": [found]}}]
    yield _step_done(run, step, text=query)


def _called(run: Run, call: Call) -> Iterator[Event]:
    step = yield from _step_begun(run, {"type": "tool_calls", "tool_calls": []})
    made = {"id": new_id("call_"), "type": "function"}
    function: Json = {"name": call.name, "arguments": "", "output": None}
    yield _step_delta(step, {"index": 0, **made, "function": function})
    for piece in pieces(call.arguments):
        yield _step_delta(step, {"index": 0, "type": "function", "function": {"arguments": piece}})
    asked = {"name": call.name, "arguments": call.arguments}
    step["step_details"]["tool_calls"].append({**made, "function": {**asked, "output": None}})
    action = {
        "type": "submit_tool_outputs",
        "submit_tool_outputs": {"tool_calls": [{**made, "function": asked}]},
    }
    run.wire.update(status="requires_action", required_action=action)
    yield event("thread.run.requires_action", run.wire)


def _answered(run: Run, step: Step) -> Iterator[Event]:
    message = new_message(run.wire["thread_id"], "assistant", content=[])
    message.update(assistant_id=run.wire["assistant_id"], run_id=run.wire["id"], status="in_progress")
    message.update(incomplete_details=None, incomplete_at=None, completed_at=None)
    details = {"type": "message_creation", "message_creation": {"message_id": message["id"]}}
    made = yield from _step_begun(run, details)
    yield event("thread.message.created", message)
    yield event("thread.message.in_progress", message)
    yield from _spoken(message, step)
    message.update(status="completed", completed_at=now())
    run.messages.append(message)
    yield event("thread.message.completed", message)
    yield _step_done(run, made, text=step.text)
    run.wire.update(status="completed", completed_at=now(), expires_at=None, usage=_total(run))
    yield event("thread.run.completed", run.wire)


def _spoken(message: Json, step: Step) -> Iterator[Event]:
    for piece in pieces(step.text):
        yield _message_delta(message, piece, [])
    quoted = [_citation(len(step.text))] if step.search else []
    if quoted:
        yield _message_delta(message, CITATION, [{"index": 0, **quoted[0]}])
    message["content"] = [text_part(step.text + CITATION * len(quoted), quoted)]


def _citation(start: int) -> Json:
    span = {"start_index": start, "end_index": start + len(CITATION)}
    return {"type": "file_citation", "text": CITATION, **span, "file_citation": {"file_id": RETURNS_FILE_ID}}


def _message_delta(message: Json, text: str, annotations: list[Json]) -> Event:
    part = {"index": 0, "type": "text", "text": {"value": text, "annotations": annotations}}
    delta = {"id": message["id"], "object": "thread.message.delta", "delta": {"content": [part]}}
    return event("thread.message.delta", delta)


def _step_begun(run: Run, details: Json) -> Generator[Event, None, Json]:
    """Open a step and announce it; returns the step."""
    step = {
        "id": new_id("step_"),
        "object": "thread.run.step",
        "created_at": now(),
        "run_id": run.wire["id"],
        "assistant_id": run.wire["assistant_id"],
        "thread_id": run.wire["thread_id"],
        "type": details["type"],
        "status": "in_progress",
        "cancelled_at": None,
        "completed_at": None,
        "expires_at": run.wire["expires_at"],
        "failed_at": None,
        "last_error": None,
        "step_details": details,
        "usage": None,
    }
    run.steps.append(step)
    yield event("thread.run.step.created", step)
    yield event("thread.run.step.in_progress", step)
    return step


def _step_delta(step: Json, call: Json) -> Event:
    details = {"type": "tool_calls", "tool_calls": [call]}
    delta = {"id": step["id"], "object": "thread.run.step.delta", "delta": {"step_details": details}}
    return event("thread.run.step.delta", delta)


def _step_done(run: Run, step: Json, *, text: str) -> Event:
    read = tokens(run.wire["instructions"], run.wire["tools"], *map(_text, run.messages), *run.outputs)
    step.update(status="completed", completed_at=now(), usage=_usage(read, tokens(text)))
    return event("thread.run.step.completed", step)


def _total(run: Run) -> Json:
    used = [step["usage"] for step in run.steps]
    return _usage(sum(part["prompt_tokens"] for part in used), sum(part["completion_tokens"] for part in used))


def _usage(read: int, written: int) -> Json:
    # "prompt_token_details", without the s, is how the Assistants API spells it.
    details = {
        "prompt_token_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written, **details}


def _text(message: Json) -> str:
    return "\n".join(part["text"]["value"] for part in message["content"] if part["type"] == "text")


def with_results(step: Json) -> Json:
    """The same step with the text that its search found, which OpenAI sends only to those who ask."""
    calls = step["step_details"].get("tool_calls", [])
    for call in calls:
        for found in call.get("file_search", {}).get("results", []):
            found["content"] = [{"type": "text", "text": RETURNS}]
    return step
