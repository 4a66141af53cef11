"""An answer that is not whole yet: a run, which says nothing itself, or a response that is made in the background."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING

from athina_trace._answers.records import RUN, Answer, Key, Record, ThreadMessage, ToolCall
from athina_trace._clock import clock

if TYPE_CHECKING:
    from athina_trace._answers.accumulator import AnswerAccumulator
    from athina_trace._capture.draft import LogDraft

__all__ = ["PendingRun", "Stage", "is_message_of"]


class Stage(enum.Enum):
    """What is known of the end of a pending answer.

    RUNNING ──its stream broke off, or its messages were listed──▶ PRESUMED_ENDED ──found at work──▶ RUNNING
       └──────────────────seen in a final state──────────────────▶ ENDED ◀──────────┘
    """

    RUNNING = enum.auto()
    PRESUMED_ENDED = enum.auto()
    ENDED = enum.auto()


class PendingRun:
    """A run or a background response until it is logged. Not for several threads at once."""

    def __init__(self, answer: Answer, draft: LogDraft, *, asked_here: bool) -> None:
        """`asked_here`: this process asked for it, rather than only for its state."""
        self.key, self.thread = answer.key, answer.session
        self.draft = draft
        self.asked_here = asked_here
        self.stage = Stage.RUNNING
        self.waiting_since: float | None = None
        """Since when its messages are waited for, seconds since the epoch; None while it runs."""
        self.broken_by: BaseException | None = None
        """What broke off the stream that showed it last."""
        self.has_messages = self.has_steps = self.has_output = False

    @property
    def accumulator(self) -> AnswerAccumulator:
        """What is known of it."""
        return self.draft.own_accumulator()

    def take(self, records: Sequence[Record]) -> None:
        """Take further records of it."""
        self.accumulator.take(records)
        self.has_messages |= any(is_message_of(record, self.key) for record in records)
        calls = [record for record in records if isinstance(record, ToolCall) and record.owner == self.key]
        self.has_output |= bool(calls)
        self.has_steps |= any(call.created is not None for call in calls)

    def seen_running(self) -> None:
        """Note that it was found at work: the program will ask again, less surely so after a broken stream."""
        if self.stage is Stage.PRESUMED_ENDED:
            self.waiting_since = clock.time() if self.broken_by is not None else None
            self.stage = Stage.RUNNING if self.broken_by is None else self.stage

    def presume_ended(self, broken_by: BaseException | None = None) -> None:
        """Note that its stream broke off, or its messages were listed: nothing more may be asked."""
        if self.stage is Stage.RUNNING or (broken_by is not None and self.broken_by is not None):
            self._start_waiting(broken_by)
            self.stage = Stage.PRESUMED_ENDED

    def seen_ended(self, answer: Answer) -> None:
        """Note that it was seen in a final state."""
        if self.stage is Stage.RUNNING or self.broken_by is not None:
            self._start_waiting(None)
        self.stage = Stage.ENDED
        self.has_output |= bool(answer.usage.get("completion_tokens"))

    def _start_waiting(self, broken_by: BaseException | None) -> None:
        self.broken_by = broken_by
        self.waiting_since = clock.time()
        self.draft.named["response_time"] = (clock.perf_ns() - self.draft.started_ns) // 1_000_000

    def note_listed(self, records: Sequence[Record], *, run: str | None, more: bool) -> bool:
        """Return whether a page of messages shows that all of its own were listed.

        Args:
            records: what the page had.
            run: the only run that the page was asked for, if any.
            more: whether further pages are there.
        """
        if run not in (None, self.key[1]):
            return False
        if self.waiting_since is None:
            if self.has_messages:  # who looks for an answer in this way may never ask for the run's state
                self.presume_ended()
            return False
        passed = bool(records) and not is_message_of(records[-1], self.key)
        return not more or (self.has_messages and passed)

    def reason_to_emit_as_incomplete(self) -> BaseException | None:
        """Return why its log is incomplete; None where it is not, or where the log has the API's own error."""
        if self.stage is Stage.RUNNING:
            return GeneratorExit()
        return None if isinstance(self.broken_by, Exception) else self.broken_by


def is_message_of(record: Record, key: Key) -> bool:
    """Return whether this is a message in which that run speaks."""
    return isinstance(record, ThreadMessage) and (RUN, record.run) == key and record.role == "assistant"
