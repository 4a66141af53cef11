"""What is known of the answers of one log: records in, in any order and as often as they come; the log's fields out.

Every answer, message and tool call is kept once; of its snapshots the one furthest on wins. How the fields are made of
them is in `merge`.
"""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from athina_trace._answers.merge import merge
from athina_trace._answers.records import (
    RUN,
    Answer,
    Key,
    Record,
    SessionSeen,
    ThreadMessage,
    ToolCall,
    ToolOutput,
    merge_calls,
    merge_snapshots,
)
from athina_trace._answers.sources import sources

if TYPE_CHECKING:
    from collections.abc import Iterable

    from athina_trace._answers.sources import ObjectReader, Source

__all__ = ["AnswerAccumulator", "may_be_known"]


def may_be_known(subject: object) -> bool:
    """Return False at once for what no source understands, as most results of decorated functions."""
    return any(source.may_be_known(subject) for source in sources)


class AnswerAccumulator:
    """What is known of the answers that belong to one log. Several threads may use it at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Made when a program records an object itself: most logs have only what an integration saw.
        self._readers: list[tuple[Source, ObjectReader]] | None = None
        self._answers: dict[Key, Answer] = {}
        self._messages: dict[str, tuple[int, ThreadMessage]] = {}
        self._calls: dict[tuple[Key, str], ToolCall] = {}
        self._outputs: dict[str, list[object]] = {}
        self._sessions: dict[str, None] = {}

    def add(self, subject: object) -> bool:
        """Take an object, or a chunk or event of a stream; True where it was understood. Never raises."""
        if not may_be_known(subject):
            return False
        with self._lock:
            if self._readers is None:
                self._readers = [(source, source.Reader()) for source in sources]
            for source, reader in self._readers:
                records = reader.read(subject) if source.may_be_known(subject) else None
                if records is not None:
                    self._take_all(records)
                    return True
        return False

    def take(self, records: Iterable[Record]) -> None:
        """Take the records of one object, or of one request and its answer."""
        with self._lock:
            self._take_all(records)

    def fields(self) -> dict[str, Any]:
        """Return the log's fields under Athina's names, as JSON-safe data; what is unknown is absent."""
        with self._lock:
            for _, reader in self._readers or ():
                self._take_all(reader.streamed())
            answers = list(self._answers.values())
            messages = list(self._messages.values())
            calls = list(self._calls.values())
            outputs, sessions = self._outputs.copy(), list(self._sessions)
        if len(answers) > 1:
            # The requests' order counts where an instrumented client noted it, else the server's clock.
            by_request = all(answer.order is not None for answer in answers)
            answers.sort(key=lambda answer: answer.order or 0 if by_request else _time(answer.created))
        messages.sort(key=lambda placed: (_time(placed[1].created), placed[0]))
        calls.sort(key=lambda call: _time(call.created))
        placed = [message for _, message in messages]
        return merge(answers, messages=placed, calls=calls, outputs=outputs, sessions=sessions)

    def _take_all(self, records: Iterable[Record]) -> None:
        outputs: dict[str, list[object]] = {}
        keys: dict[Key, Key] = {}
        for record in records:
            match record:
                case Answer():
                    keys[record.key] = self._take_answer(record)
                case ToolCall():
                    record.owner = keys.get(record.owner, record.owner)
                    known = self._calls.get((record.owner, record.key))
                    self._calls[record.owner, record.key] = record if known is None else merge_calls(known, record)
                case ThreadMessage():
                    self._take_message(record)
                case ToolOutput():
                    outputs.setdefault(record.call, []).append(record.value)
                case SessionSeen():
                    self._sessions[record.session] = None
        for call, given in outputs.items():
            # A request may bring all earlier outputs along, and some servers repeat ids: the first, then the second.
            earlier = self._outputs.get(call, [])
            self._outputs[call] = given if given[: len(earlier)] == earlier else earlier + given

    def _take_answer(self, new: Answer) -> Key:
        """Keep an answer; returns the key that it is kept under."""
        kind, own = key = new.key
        # Some servers repeat ids, or send none: the further answers of one id are numbered.
        known, number = self._answers.get(key), 1
        while known is not None and kind != RUN and not _are_one(known, new):
            number += 1
            key = (kind, f"{own}#{number}")
            known = self._answers.get(key)
        if key != new.key:
            new = replace(new, key=key)
        self._answers[key] = new if known is None else merge_snapshots(known, new)
        return key

    def _take_message(self, new: ThreadMessage) -> None:
        """Keep the message; its place decides the order among messages of one second."""
        if "#" not in new.id:
            # Leave out the message that was read off the request for a thread, once the server shows it.
            placeholder = next(
                (
                    each.id
                    for _, each in self._messages.values()
                    if "#" in each.id and (each.thread, each.text) == (new.thread, new.text)
                ),
                None,
            )
            if placeholder is not None:
                del self._messages[placeholder]
        count = len(self._messages) + 1
        place, known = self._messages.get(new.id, (-count if new.backwards else count, new))
        self._messages[new.id] = (place, new if new.progress >= known.progress else known)


def _are_one(known: Answer, new: Answer) -> bool:
    """Whether two snapshots of one id show one answer: those of two requests never do, nor two different contents."""
    if known.request is not None and new.request is not None:
        return known.request == new.request
    first, second = known.text or "", new.text or ""
    if not (first.startswith(second) or second.startswith(first)):
        return False
    # Of an answer that is still streamed, some servers count the tokens so far in each chunk.
    is_growing = known.status is None or new.status is None
    return is_growing or not known.usage or not new.usage or known.usage == new.usage


def _time(created: float | None) -> float:
    return math.inf if created is None else created
