"""Runs of an assistant on a thread: created, polled, streamed, given tool outputs, cancelled; their steps."""

import time
from collections.abc import Iterable
from itertools import chain

from standin import run_life
from standin.assistants import Assistants
from standin.run_life import Run
from standin.wire import Answer, ApiError, Event, Json, Request, Routes, event, find, new_id, now, page

DONE = Event("[DONE]", "done")
ACTIVE = ("queued", "in_progress", "requires_action", "cancelling")
INHERITED = (
    "model",
    "tools",
    "tool_resources",
    "temperature",
    "top_p",
    "reasoning_effort",
    "response_format",
)
OWN = {
    "metadata": {},
    "max_completion_tokens": None,
    "max_prompt_tokens": None,
    "truncation_strategy": {"type": "auto", "last_messages": None},
    "tool_choice": "auto",
    "parallel_tool_calls": True,
}


class Runs:
    """All runs, by id.

    One that is not streamed is thought about for `latency` seconds, and moves on when it is next looked at.
    """

    def __init__(self, desk: Assistants, *, latency: float) -> None:
        self._desk = desk
        self._latency = latency
        self._runs: dict[str, Run] = {}

    def routes(self) -> Routes:
        """The endpoints of this part."""
        return {
            "POST /threads/runs": self._create_thread_and_run,
            "POST /threads/{thread}/messages": self._create_message,
            "POST /threads/{thread}/runs": lambda request: self._create(request, request.ids["thread"]),
            "GET /threads/{thread}/runs": self._list,
            "GET /threads/{thread}/runs/{run}": lambda request: Answer(self._current(request).wire),
            "POST /threads/{thread}/runs/{run}/cancel": self._cancel,
            "POST /threads/{thread}/runs/{run}/submit_tool_outputs": self._submit,
            "GET /threads/{thread}/runs/{run}/steps": self._list_steps,
            "GET /threads/{thread}/runs/{run}/steps/{step}": self._step,
        }

    def _create_message(self, request: Request) -> Answer:
        # Here and not among the messages, because only the runs know whether the thread is free.
        self._refuse_if_busy(request.ids["thread"], "Can't add messages to {thread} while a run {run} is active.")
        return Answer(self._desk.add_message(request.ids["thread"], request.body))

    def _create_thread_and_run(self, request: Request) -> Answer:
        thread = self._desk.new_thread(request.body.get("thread") or {})
        return self._create(request, thread["id"], before=[event("thread.created", thread)])

    def _create(self, request: Request, thread_id: str, *, before: Iterable[Event] = ()) -> Answer:
        self._desk.thread(thread_id)
        self._refuse_if_busy(thread_id, "Thread {thread} already has an active run {run}.")
        for message in request.body.get("additional_messages") or []:
            self._desk.add_message(thread_id, message)
        assistant = self._desk.assistant(request.body.get("assistant_id") or "")
        run = Run(_new_run(assistant, thread_id, request.body), self._desk.messages[thread_id])
        self._runs[run.wire["id"]] = run
        return self._go(run, chain(before, run_life.created(run)), request)

    def _go(self, run: Run, first: Iterable[Event], request: Request) -> Answer:
        """Let the run work: to its end where the request wants a stream, in its own time otherwise."""
        events = list(first)
        if not request.body.get("stream"):
            run.due = time.monotonic() + self._latency
            return Answer(run.wire)
        events += [*run_life.started(run), *run_life.worked(run), DONE]
        return Answer(events=events, thought=True)

    def _cancel(self, request: Request) -> Answer:
        run = self._current(request)
        if run.status not in ACTIVE:
            raise ApiError(400, f"Cannot cancel run with status '{run.status}'.")
        run.wire["status"] = "cancelling"
        answer = Answer(dict(run.wire))
        run_life.cancelled(run)
        return answer

    def _submit(self, request: Request) -> Answer:
        run = self._current(request)
        if run.status != "requires_action":
            raise ApiError(400, f'Runs in status "{run.status}" do not accept tool outputs.')
        calls = run.wire["required_action"]["submit_tool_outputs"]["tool_calls"]
        outputs = {out["tool_call_id"]: out.get("output") or "" for out in request.body.get("tool_outputs") or []}
        missing = [call["id"] for call in calls if call["id"] not in outputs]
        if missing:
            raise ApiError(400, f"Expected tool outputs for call_ids {missing}, got {sorted(outputs)}")
        return self._go(run, run_life.resumed(run, outputs), request)

    def _list(self, request: Request) -> Answer:
        thread = self._desk.thread(request.ids["thread"])["id"]
        runs = [run for run in self._runs.values() if run.wire["thread_id"] == thread]
        return Answer(page([self._caught_up(run).wire for run in runs], request))

    def _list_steps(self, request: Request) -> Answer:
        rows = page(self._current(request).steps, request)
        if any(name.startswith("include") for name in request.query):
            rows["data"] = [run_life.with_results(step) for step in rows["data"]]
        return Answer(rows)

    def _step(self, request: Request) -> Answer:
        steps = {step["id"]: step for step in self._current(request).steps}
        return Answer(find(steps, request.ids["step"], kind="run step"))

    def _current(self, request: Request) -> Run:
        """The run of the path, as far as it has come by now."""
        run = self._runs.get(request.ids["run"])
        if run is None or run.wire["thread_id"] != request.ids["thread"]:
            raise ApiError(404, f"No run found with id '{request.ids['run']}'.")
        return self._caught_up(run)

    def _caught_up(self, run: Run) -> Run:
        if run.status == "queued":
            list(run_life.started(run))
        if run.status == "in_progress" and time.monotonic() >= run.due:
            list(run_life.worked(run))
        return run

    def _refuse_if_busy(self, thread_id: str, message: str) -> None:
        for run in self._runs.values():
            if run.wire["thread_id"] == thread_id and self._caught_up(run).status in ACTIVE:
                raise ApiError(400, message.format(thread=thread_id, run=run.wire["id"]))


def _new_run(assistant: Json, thread_id: str, body: Json) -> Json:
    settings = {name: assistant[name] for name in INHERITED} | OWN
    given = {name: body[name] for name in settings if body.get(name) is not None}
    return (
        {
            "id": new_id("run_"),
            "object": "thread.run",
            "created_at": now(),
            "assistant_id": assistant["id"],
            "thread_id": thread_id,
            "status": "queued",
            "started_at": None,
            "expires_at": now() + 600,
            "cancelled_at": None,
            "failed_at": None,
            "completed_at": None,
            "required_action": None,
            "last_error": None,
            "incomplete_details": None,
            "usage": None,
            "instructions": _instructions(assistant, body),
        }
        | settings
        | given
    )


def _instructions(assistant: Json, body: Json) -> str:
    parts = (body.get("instructions") or assistant["instructions"], body.get("additional_instructions"))
    return "\n".join(part for part in parts if part)
