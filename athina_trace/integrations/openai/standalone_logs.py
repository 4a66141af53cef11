"""Logs answers requested outside of decorated calls: one log for each run, response and completion.

A response or completion is logged as soon as it arrives. A run has no text itself: its log waits for the messages of
its thread until another run follows there, or for `PATIENCE` seconds. Steps that are listed later change the log. The
number of waiting logs is bounded, and so is the memory of logged answers, which keeps late polls from logging anything
twice. An answer that was never seen to end is logged as incomplete: some time after another run followed, when it has
to make room, or at the end of the process.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Final

from athina_trace import _periodic, _runtime
from athina_trace._answers.memory import Newest
from athina_trace._answers.records import RUN, Answer, Key, Record, ToolCall
from athina_trace._capture import emission
from athina_trace._capture.answer_logs import Origin, expect, is_logged, log_answer
from athina_trace._capture.draft import LogDraft
from athina_trace._wrapping.calls import run_now
from athina_trace.integrations.openai.pending_runs import PendingRun, Stage, is_message_of

PATIENCE: Final = 30.0
"""For how many seconds a finished run waits for its messages to be listed."""
_MOST_PENDING = 1024
_MOST_LOGGED = 16_384
_MOST_CHANGED = 256
"""How many written logs of runs can still be changed by their steps."""
_SILENT = ("failed", "expired", "cancelled")
"""Runs that end like this have no text, unless they had some output before: nothing is awaited."""


class StandaloneLogs:
    """The answers that wait to be logged, and those that were logged."""

    def __init__(self) -> None:
        self.reset()
        _periodic.register(self.run_periodically)

    def reset(self) -> None:
        """Forget everything: a forked child must not log its parent's answers."""
        self._lock = threading.RLock()  # a finalizer of an abandoned stream may report its answer meanwhile
        self._pending: Newest[PendingRun] = Newest(_MOST_PENDING)
        self._logged: Newest[bool] = Newest(_MOST_LOGGED)
        self._changeable: Newest[LogDraft] = Newest(_MOST_CHANGED)

    def note_logged(self, key: Key) -> None:
        """Note that this answer is in the log of a decorated call."""
        with self._lock:
            self._logged.put(key, value=True)
            self._pending.pop(key)

    def answered(
        self, answer: Answer, records: Sequence[Record], origin: Origin, *, new: bool, error: BaseException | None
    ) -> None:
        """Log an answer that arrived, or note its state.

        Args:
            answer: the answer, one of the records.
            records: the records of request and answer.
            origin: where the request was made.
            new: whether this request asked for it.
            error: what ended the request.
        """
        given_up = error is not None and not isinstance(error, Exception)
        if given_up or (new and answer.ended and answer.key[0] != RUN):
            # Before it is written, so that a poll in another thread does not log it again.
            self.note_logged(answer.key)
            log_answer(records, origin, error=error if given_up else None)
        else:
            self.follow(answer, records, origin, new=new)

    def follow(
        self,
        answer: Answer,
        records: Sequence[Record],
        origin: Origin,
        *,
        new: bool,
        broken_by: BaseException | None = None,
    ) -> None:
        """Note an answer's state. `broken_by` interrupted its stream, while the server continues with the answer."""
        due: list[PendingRun] = []
        with self._lock:
            pending = self._pending.get(answer.key)
            if new:  # an earlier answer with this id, as from test servers, was a different one
                self._logged.pop(answer.key)
                self._changeable.pop(answer.key)
            elif pending is None and (answer.key in self._logged or is_logged(answer, origin)):
                return
            if new and answer.key[0] == RUN and answer.details:  # a refused request has none, and ends no other run
                earlier = [each for each in self._pending.values() if each.thread == answer.session]
                earlier = [each for each in earlier if each.key != answer.key]
                # A thread has one active run at a time: nothing more will be known of the earlier ones.
                due += self._due([each for each in earlier if each.waiting_since is not None])
                for each in earlier:
                    if each.stage is Stage.RUNNING and each.asked_here:
                        each.presume_ended(GeneratorExit())  # unless it is polled soon, which shows how it ended
            if pending is None:
                asked_here = new or broken_by is not None
                pending = PendingRun(answer, origin.own_draft(origin.named_conversation()), asked_here=asked_here)
                expect(answer, pending.draft, origin)
                oldest = self._pending.put(answer.key, pending)
                due += [] if oldest is None else self._due([oldest])
            # Under the lock, since messages of its thread may arrive in another thread at the same time.
            pending.take(records)
            if broken_by is not None:
                pending.presume_ended(broken_by)
            elif not answer.ended:
                pending.seen_running()
            else:
                pending.seen_ended(answer)
                has_text = any(is_message_of(record, answer.key) for record in records)
                silent = answer.key[0] != RUN or (answer.status in _SILENT and not pending.has_output)
                due += self._due([pending]) if has_text or silent else []
        self._emit_all(due)
        self._wake_for(pending)

    def listed(self, records: Sequence[Record], thread: str | None, *, run: str | None, more: bool | None) -> None:
        """Take messages or steps of a thread that were listed.

        Args:
            records: the messages or steps.
            thread: the id of their thread.
            run: the only run whose messages or steps were requested, if any.
            more: whether there are further pages; None if it was no page of messages.
        """
        with self._lock:
            concerned = [each for each in self._pending.values() if each.thread == thread] if thread else []
            for each in concerned:
                each.take(records)
            due = [each for each in concerned if more is not None and each.note_listed(records, run=run, more=more)]
            self._due(due)
            owners = {record.owner: None for record in records if isinstance(record, ToolCall)}
            changed = [draft for owner in owners if (draft := self._changeable.get(owner)) is not None]
        self._emit_all(due)
        for each in concerned:
            self._wake_for(each)
        for draft in changed:
            draft.take(records)

    def _due(self, due: list[PendingRun]) -> list[PendingRun]:
        """Take out answers that are due to be logged; return those that this process may log."""
        for each in due:
            self._pending.pop(each.key)
            self._logged.put(each.key, value=True)
            if each.key[0] == RUN and not each.has_steps:
                self._changeable.put(each.key, each.draft)
        # An unfinished answer is logged by the process that asked for it.
        return [each for each in due if each.stage is not Stage.RUNNING or each.asked_here]

    def run_periodically(self, now: float, ending: bool) -> float:  # noqa: FBT001 - the signature of periodic callbacks
        """Log what has waited long enough, or at the end of the process everything; return the seconds to wait."""
        with self._lock:
            pending = self._pending.values()
            waits = [(each, each.waiting_since + PATIENCE - now) for each in pending if each.waiting_since is not None]
            due = self._due(pending if ending else [each for each, wait in waits if wait <= 0])
        self._emit_all(due)
        return min((wait for _, wait in waits if wait > 0), default=math.inf)

    def _wake_for(self, pending: PendingRun) -> None:
        """Wake the engine, so that it calls `run_periodically` when the patience ends."""
        if pending.waiting_since is not None and (runtime := _runtime.active()) is not None:
            runtime.wake()

    def _emit_all(self, due: list[PendingRun]) -> None:
        """Write logs, of which some are incomplete; errors of the API are in their answers."""
        for each in due:
            run_now(emission.emit(each.draft, error=each.reason_to_emit_as_incomplete()))


standalone_logs = StandaloneLogs()
