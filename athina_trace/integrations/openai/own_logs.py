"""Logs of answers that were asked for outside of every decorated call: one for each run, response and completion.

A response or completion is logged the moment it is there. A run says nothing itself: its log waits for the messages of
its thread, until another run follows there, or for `PATIENCE` seconds. Steps that are listed later change the log. What
waits is bounded, and so is the memory of what was logged, so that a poll that comes late logs nothing twice.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from athina_trace import _periodic, _runtime
from athina_trace._capture import emission
from athina_trace._capture.arguments import Options
from athina_trace._capture.draft import LogDraft
from athina_trace._capture.manual import update_log
from athina_trace._clock import clock
from athina_trace._wrapping.calls import complete
from athina_trace.context import Scope
from athina_trace.integrations.openai.ledger import Ledger
from athina_trace.integrations.openai.memory import Bounded
from athina_trace.integrations.openai.readings import Answer, Key, Message, Reading, ToolCall

PATIENCE: Final = 30.0
"""Seconds that a finished run waits for its messages to be listed."""
_MOST_WAITING = 1024
_MOST_LOGGED = 16_384
_MOST_CHANGED = 256
"""Runs whose steps may still come once their logs are written."""
_NO_OPTIONS = Options()
_SILENT = ("failed", "expired", "cancelled")
"""A run that ended so has nothing to say, unless it spoke before: nothing is waited for."""


class Asked(NamedTuple):
    """Where and when a request was made: what a log of its own takes over."""

    started_ns: int
    scope: Scope
    parent: LogDraft | None = None
    """The decorated call that the request was made in, where that has ended already."""
    attributes: Mapping[str, Any] | None = None

    def draft(self, ledger: Ledger) -> LogDraft:
        """A draft that nobody else sees."""
        draft = LogDraft({}, {}, dict(self.attributes or {}))
        draft.scope, draft.parent, draft.ledger = self.scope, self.parent, ledger
        draft.started_ns = self.started_ns
        return draft


class _Waiting:
    """A run, or a response made in the background, until it is logged."""

    def __init__(self, answer: Answer, draft: LogDraft, ledger: Ledger) -> None:
        self.key, self.thread = answer.key, answer.session
        self.draft, self.ledger = draft, ledger
        self.own_messages = self.own_steps = self.spoke = False
        self.finished = False
        """Whether it was seen to have ended, rather than a stream of it, or so it seemed."""
        self.changed: Mapping[str, Any] = {}
        """What its log was changed to since it was written."""
        self.cut: BaseException | None = None
        """What broke off the stream that told of it last."""
        self.since: float | None = None
        """When it was seen to have ended, seconds since the epoch."""

    def take(self, readings: Sequence[Reading]) -> None:
        """More is told of it."""
        self.ledger.take(readings)
        self.own_messages |= any(_is_said_by(each, self.key) for each in readings)
        calls = [each for each in readings if isinstance(each, ToolCall) and each.owner == self.key]
        self.spoke |= bool(calls)
        self.own_steps |= any(call.created is not None for call in calls)

    def change(self) -> None:
        """Add what its steps tell to its log, unless that shows less than all."""
        runtime = _runtime.active()
        if runtime is None or runtime.policy.hides or self.draft.scope.hides:
            return
        told = self.ledger.fields()
        known = {name: told[name] for name in ("tool_calls", "context") if told.get(name)}
        if known and known != self.changed:
            self.changed = known
            update_log(external_reference_id=self.draft.external_reference_id, **known)

    def ended(self, cut: BaseException | None = None) -> None:
        if self.since is None or self.cut is not None:
            self.cut = cut
            self.since = clock.time()
            self.draft.named["response_time"] = (clock.perf_ns() - self.draft.started_ns) // 1_000_000

    def goes_on(self) -> None:
        """It was seen at work: whoever asks will ask again, but after a broken stream that is less sure."""
        if self.since is not None and not self.finished:
            self.since = clock.time() if self.cut is not None else None


class OwnLogs:
    """What waits for its log, and what was logged."""

    def __init__(self) -> None:
        self.forget()
        _periodic.leave(self.tend)

    def forget(self) -> None:
        """Begin with nothing: a forked child must not log what its parent waits for."""
        self._lock = threading.Lock()
        self._waiting: Bounded[_Waiting] = Bounded(_MOST_WAITING)
        self._logged: Bounded[bool] = Bounded(_MOST_LOGGED)
        self._written: Bounded[_Waiting] = Bounded(_MOST_CHANGED)

    def note(self, key: Key) -> None:
        """This answer is in the log of a decorated call."""
        with self._lock:
            self._logged.put(key, True)  # noqa: FBT003 - a set, in order
            self._waiting.pop(key)

    def answered(self, answer: Answer, readings: Sequence[Reading], asked: Asked, *, new: bool) -> None:
        """An answer came, or the state of one. `new`: it was just asked for."""
        if answer.ended and (new and answer.key[0] != "run"):
            ledger = Ledger()
            ledger.take(readings)
            self.note(answer.key)
            emit(asked.draft(ledger))
            return
        self._emit_all(self._follow(answer, readings, asked, new=new))

    def cut_off(self, answer: Answer, readings: Sequence[Reading], asked: Asked, error: BaseException) -> None:
        """The stream of an answer broke off or was given up, and the server goes on: it may be asked after."""
        self._emit_all(self._follow(answer, readings, asked, new=False, cut=error))

    def _follow(
        self,
        answer: Answer,
        readings: Sequence[Reading],
        asked: Asked,
        *,
        new: bool,
        cut: BaseException | None = None,
    ) -> list[_Waiting]:
        with self._lock:
            waiting = self._waiting.get(answer.key)
            if new:  # whatever had this id before, as in a test's server: this is another one
                self._logged.pop(answer.key)
                self._written.pop(answer.key)
            elif waiting is None and answer.key in self._logged:
                return []
            # A refused request, which has no id to tell of, has overtaken nothing.
            due = self._overtaken(answer) if new and answer.key[0] == "run" and answer.details else []
            if waiting is None:
                ledger = Ledger()
                waiting = _Waiting(answer, asked.draft(ledger), ledger)
                due += self._evicted(self._waiting.put(answer.key, waiting))
            waiting.take(readings)
            if cut is not None:
                waiting.ended(cut)
            else:
                due += self._if_told(waiting, answer, readings)
        self._wake(waiting)
        return due

    def _if_told(self, waiting: _Waiting, answer: Answer, readings: Sequence[Reading]) -> list[_Waiting]:
        """The answer itself, where it ended and there is nothing more to wait for."""
        if not answer.ended:
            waiting.goes_on()
            return []
        waiting.finished = True
        waiting.ended()
        waiting.spoke |= bool(answer.usage.get("completion_tokens"))
        streamed = any(isinstance(each, Message) for each in readings if _is_said_by(each, answer.key))
        silent = answer.key[0] != "run" or (answer.status in _SILENT and not waiting.spoke)
        return self._taken([waiting]) if streamed or silent else []

    def listed(self, readings: Sequence[Reading], thread: str | None, *, run: str | None, more: bool | None) -> None:
        """Messages or steps of a thread came.

        `run`: the only one that the list was asked for; `more`: whether further pages are there, None where no page
        of messages was listed.
        """
        with self._lock:
            concerned = [each for each in self._waiting.values() if each.thread == thread] if thread else []
            due = self._taken([each for each in concerned if self._add(each, readings, run=run, more=more)])
            changed = self._told_more(readings)
        self._emit_all(due)
        for each in concerned:
            self._wake(each)
        for each in changed:
            each.change()

    def _told_more(self, readings: Sequence[Reading]) -> list[_Waiting]:
        """Logs that were written before their steps came."""
        owners = dict.fromkeys(each.owner for each in readings if isinstance(each, ToolCall))
        concerned = [known for owner in owners if (known := self._written.get(owner)) is not None]
        for each in concerned:
            each.ledger.take(readings)
        return concerned

    def _add(self, waiting: _Waiting, readings: Sequence[Reading], *, run: str | None, more: bool | None) -> bool:
        """Give messages or steps to a run that waits; True where all of its messages have come."""
        waiting.take(readings)
        if more is None or run not in (None, waiting.key[1]):
            return False
        if waiting.since is None:
            if waiting.own_messages:  # who looks for an answer in this way may never ask how the run stands
                waiting.ended()
            return False
        passed = bool(readings) and not _is_said_by(readings[-1], waiting.key)
        return not more or (waiting.own_messages and passed)

    def _overtaken(self, new: Answer) -> list[_Waiting]:
        ended = [each for each in self._waiting.values() if each.thread == new.session and each.since is not None]
        return self._taken([each for each in ended if each.key != new.key])

    def _evicted(self, oldest: _Waiting | None) -> list[_Waiting]:
        """What had to make room: logged if it has ended; what nobody asked after for so long is forgotten."""
        if oldest is None or oldest.since is None:
            return []
        self._logged.put(oldest.key, True)  # noqa: FBT003 - a set, in order
        return [oldest]

    def _taken(self, due: list[_Waiting]) -> list[_Waiting]:
        for each in due:
            self._waiting.pop(each.key)
            self._logged.put(each.key, True)  # noqa: FBT003 - a set, in order
            if each.key[0] == "run" and not each.own_steps:
                self._written.put(each.key, each)
        return due

    def tend(self, now: float, _ending: bool) -> float:  # noqa: FBT001 - an errand
        """Log what has waited long enough; in how many seconds to come again."""
        with self._lock:
            waits = [(each, each.since + PATIENCE - now) for each in self._waiting.values() if each.since is not None]
            due = self._taken([each for each, wait in waits if wait <= 0])
        self._emit_all(due)
        return min((wait for _, wait in waits if wait > 0), default=math.inf)

    def _wake(self, waiting: _Waiting) -> None:
        """Have the engine come by when the patience ends."""
        if waiting.since is not None and (runtime := _runtime.active()) is not None:
            runtime.wake()

    def _emit_all(self, due: list[_Waiting]) -> None:
        for each in due:
            # An exception stands in the ledger.
            emit(each.draft, None if isinstance(each.cut, Exception) else each.cut)


def _is_said_by(reading: Reading, key: Key) -> bool:
    return isinstance(reading, Message) and ("run", reading.run) == key and reading.role == "assistant"


def emit(draft: LogDraft, error: BaseException | None = None) -> None:
    """Write a log of its own. `error`: why it is incomplete; what the API said stands in the ledger."""
    complete(emission.emit(draft, _NO_OPTIONS, error=error))


own_logs = OwnLogs()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=own_logs.forget)
