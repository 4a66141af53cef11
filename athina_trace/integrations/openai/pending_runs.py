"""Tracks an answer that is not complete yet: a run, which has no text itself, or a background response."""

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
    """Whether a pending answer is known to have ended.

    RUNNING ──its stream broke off, or its messages were listed──▶ PRESUMED_ENDED ──found running──▶ RUNNING
       └──────────────────seen in a final state──────────────────▶ ENDED ◀──────────┘
    """

    RUNNING = enum.auto()
    PRESUMED_ENDED = enum.auto()
    ENDED = enum.auto()


class PendingRun:
    """A run or a background response until it is logged. Not thread-safe."""

    def __init__(self, answer: Answer, draft: LogDraft, *, asked_here: bool) -> None:
        """`asked_here`: whether this process requested the answer, rather than only its state."""
        self.key, self.thread = answer.key, answer.session
        self.draft = draft
        self.asked_here = asked_here
        self.stage = Stage.RUNNING
        self.waiting_since: float | None = None
        """Since when its messages are awaited, in seconds since the epoch; None while it runs."""
        self.broken_by: BaseException | None = None
        """What interrupted its last stream."""
        self.has_messages = self.has_steps = self.has_output = False

    @property
    def accumulator(self) -> AnswerAccumulator:
        """The accumulator of its log."""
        return self.draft.own_accumulator()

    def take(self, records: Sequence[Record]) -> None:
        """Take further records of the answer."""
        self.accumulator.take(records)
        self.has_messages |= any(is_message_of(record, self.key) for record in records)
        calls = [record for record in records if isinstance(record, ToolCall) and record.owner == self.key]
        self.has_output |= bool(calls)
        self.has_steps |= any(call.created is not None for call in calls)

    def seen_running(self) -> None:
        """Note that it is still running: the program will ask again, but less surely after an interrupted stream."""
        if self.stage is Stage.PRESUMED_ENDED:
            self.waiting_since = clock.time() if self.broken_by is not None else None
            self.stage = Stage.RUNNING if self.broken_by is None else self.stage

    def presume_ended(self, broken_by: BaseException | None = None) -> None:
        """Note that its stream was interrupted or its messages were listed: the program may not ask for it again."""
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
        """Return whether all its messages have been listed, once a page of messages was.

        Args:
            records: the page's records.
            run: the only run whose messages were requested, if any.
            more: whether there are further pages.
        """
        if run not in (None, self.key[1]):
            return False
        if self.waiting_since is None:
            if self.has_messages:  # a program that finds the answer here may never ask for the run's state
                self.presume_ended()
            return False
        passed = bool(records) and not is_message_of(records[-1], self.key)
        return not more or (self.has_messages and passed)

    def reason_to_emit_as_incomplete(self) -> BaseException | None:
        """Return why its log is incomplete; None if it is complete, or has the API's own error."""
        if self.stage is Stage.RUNNING:
            return GeneratorExit()
        return None if isinstance(self.broken_by, Exception) else self.broken_by


def is_message_of(record: Record, key: Key) -> bool:
    """Return whether this is a message that the run wrote."""
    return isinstance(record, ThreadMessage) and (RUN, record.run) == key and record.role == "assistant"
