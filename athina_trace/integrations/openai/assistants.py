"""The Assistants API: reads runs, their steps, the messages of their threads, and streams of these as records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from athina_trace._answers.records import FINISHED, RUN, Answer, Key, Record, SessionSeen, ThreadMessage, ToolCall
from athina_trace.integrations.openai.common import (
    call_body,
    citations,
    content_text,
    failure,
    found_chunks,
    instructions,
    messages,
    model_options,
    offered_tools,
    outputs,
    question,
    served,
    stated_failure,
    usage_counts,
)
from athina_trace.integrations.openai.deltas import grow
from athina_trace.integrations.openai.normalise import Data, child, children, members, number, string

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["RunEvents", "add_request", "opening_messages", "parse_message", "parse_run", "parse_session", "parse_step"]

_PROGRESS = {None: 0, "queued": 0, "in_progress": 1, "requires_action": 2, "cancelling": 3}
"""Any other status is final."""


def parse_run(run: Data) -> list[Record]:
    """Read a run, and the tool calls whose outputs it waits for in `requires_action`."""
    own = string(run, "id")
    if own is None:
        return []
    status = string(run, "status")
    answer = Answer(
        key=(RUN, own),
        created=number(run, "created_at"),
        status=status,
        progress=_PROGRESS.get(status, FINISHED),
        session=string(run, "thread_id"),
        model=string(run, "model"),
        system=instructions(run.get("instructions"))[0],
        usage=usage_counts(run),
        tools=offered_tools(run),
        options=model_options(run),
        error=failure(run, what="run"),
        details=served(run, {"run_id": own, "assistant_id": string(run, "assistant_id")}),
    )
    waiting = children(child(child(run, "required_action"), "submit_tool_outputs"), "tool_calls")
    return [answer, *(_call(call, place, answer.key) for place, call in enumerate(waiting))]


def parse_step(step: Data) -> list[Record]:
    """Read the tool calls of a run's step, with the outputs that it has."""
    run = string(step, "run_id")
    if run is None:
        return []
    calls: list[Record] = []
    for place, call in enumerate(children(child(step, "step_details"), "tool_calls")):
        made = _call(call, place, (RUN, run), prefix=f"{string(step, 'id')}/")
        made.created, made.session = number(step, "created_at"), string(step, "thread_id")
        made.progress = 0 if step.get("status") == "in_progress" else 1
        calls.append(made)
    return calls


def _call(call: Data, place: int, owner: Key, *, prefix: str = "") -> ToolCall:
    """Read a tool call; its `place`, in the step that `prefix` names, replaces a missing id."""
    return ToolCall(
        key=string(call, "id") or f"{prefix}#{place}",
        owner=owner,
        body=call_body(call),
        output=child(call, "function").get("output"),
        context=found_chunks(child(call, "file_search")),
    )


def parse_message(message: Data) -> list[Record]:
    """Read a message of a thread."""
    own = string(message, "id")
    if own is None:
        return []
    parts = children(message, "content")
    notes = [note for part in parts for note in children(child(part, "text"), "annotations")]
    files = [string(child(part, "image_file"), "file_id") or string(child(part, "image_url"), "url") for part in parts]
    quotes = [string(child(note, "file_citation"), "quote") for note in notes]
    return [
        ThreadMessage(
            id=own,
            thread=string(message, "thread_id"),
            run=string(message, "run_id"),
            role=string(message, "role"),
            created=number(message, "created_at"),
            text=content_text(message.get("content")),
            files=tuple(file for file in files if file),
            citations=citations(notes),
            quotes=tuple(quote for quote in quotes if quote),
            progress=0 if message.get("status") == "in_progress" else 1,
        )
    ]


def parse_session(session: Data) -> list[Record]:
    """Read a thread, or a conversation of the Responses API."""
    own = string(session, "id")
    return [] if own is None else [SessionSeen(session=own)]


def add_request(answer: Answer, params: Data) -> None:
    """Add the parameters of the request for a run."""
    thread = members(child(params, "thread"), "messages")
    answer.prompt = (*answer.prompt, *messages(thread), *messages(members(params, "additional_messages")))
    answer.query = question(reversed(answer.prompt))
    # A run has its instructions, but not always those that its request added.
    system = answer.system or instructions(params.get("instructions"))[0]
    added = instructions(params.get("additional_instructions"))[0]
    answer.system = (*system, *(text for text in added if not any(text in shown for shown in system)))
    answer.session = answer.session or string(params, "thread_id")


def request_outputs(params: Data) -> Sequence[Record]:
    """Read the outputs of the program's tools from a request."""
    return outputs(members(params, "tool_outputs"))


def opening_messages(thread: str, params: Data) -> Iterable[ThreadMessage]:
    """Read the messages that a thread was created with, since its object does not contain them."""
    for place, message in enumerate(children(params, "messages")):
        text = content_text(message.get("content"))
        yield ThreadMessage(id=f"{thread}#{place}", thread=thread, role=string(message, "role"), text=text)


class RunEvents:
    """Assembles the events of an Assistants stream into a run, its steps and its messages."""

    def __init__(self) -> None:
        self._last: dict[str, dict[str, Any]] = {}
        self._deltas: dict[str, dict[str, Any]] = {}
        self._failure: str | None = None
        self.ended = False

    def add(self, event: Data) -> None:
        """Take the next event."""
        subject, name = child(event, "data"), string(event, "event") or ""
        own = string(subject, "id")
        if own is None or not name.startswith("thread."):
            self._failure = self._failure or stated_failure(event) or stated_failure(subject)
            return
        if name.endswith(".delta"):
            grow(self._deltas.setdefault(own, {}), child(subject, "delta"))
            return
        self._last[own] = dict(subject)
        self.ended = name in _LAST_EVENTS
        # A finished object is complete: its deltas would repeat it.
        if subject.get("status") != "in_progress":
            self._deltas.pop(own, None)

    def result(self) -> list[Any]:
        """Return the last snapshot of every object in the stream; an unfinished one includes its deltas."""
        shown = [{**subject, **self._deltas.get(own, {})} for own, subject in self._last.items()]
        for run in shown if self._failure is not None and not self.ended else ():
            if run.get("object") == "thread.run":  # no event of the run says that it failed
                run |= {"status": "failed", "last_error": {"message": self._failure}}
        return shown


_LAST_EVENTS = frozenset(
    f"thread.run.{state}" for state in ("completed", "requires_action", "incomplete", "failed", "cancelled", "expired")
)
"""After these events, only `done` follows."""
