"""Collects the records of one log, in any order and any number of times, and turns them into the log's fields.

Every answer, message and tool call is kept once; of its snapshots, the most advanced one wins. `merge` makes the fields
from them. Objects of other libraries, which are read by their shape, fill in fields that no record gives.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from athina_trace._answers.libraries import Answers, Piece
from athina_trace._answers.merge import merge
from athina_trace._answers.records import (
    AS_OBJECT,
    RUN,
    Answer,
    Documents,
    Key,
    Record,
    SessionSeen,
    ThreadMessage,
    ToolCall,
    ToolOutput,
    merge_calls,
    merge_snapshots,
    merge_sources,
)
from athina_trace._answers.sources import may_be_known, sources

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from athina_trace._answers.sources import ObjectReader, Source

__all__ = ["AnswerAccumulator"]

# Here, so that they are imported with this module: see `_runtime._make`.
_SOURCES = sources()


class AnswerAccumulator:
    """What is known of the answers in one log. Thread-safe."""

    __slots__ = (
        "_answers",
        "_calls",
        "_documents",
        "_lock",
        "_messages",
        "_names",
        "_outputs",
        "_pieces",
        "_readers",
        "_sessions",
    )

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a finalizer may record meanwhile
        # Created when the program records an object itself: most logs only have what an integration saw.
        self._readers: list[tuple[Source, ObjectReader]] | None = None
        # Answer → source → its snapshot of the answer.
        self._answers: dict[Key, dict[str, Answer]] = {}
        self._names: dict[Key, Key] = {}
        self._messages: dict[str, tuple[int, ThreadMessage]] = {}
        self._calls: dict[tuple[Key, str, str, int], ToolCall] = {}
        self._outputs: dict[str, list[object]] = {}
        self._sessions: dict[str, None] = {}
        self._documents: dict[str, None] = {}
        self._pieces: Answers | None = None

    def add(self, subject: object) -> bool:
        """Take an object, or a chunk or event of a stream; return True if it was understood. Never raises."""
        if not may_be_known(subject):
            return False
        with self._lock:
            if self._readers is None:
                self._readers = [(source, source.Reader()) for source in _SOURCES]
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

    def take_pieces(self, pieces: Iterable[Piece]) -> str:
        """Take the pieces of an object of another library; return the text that is new in them."""
        with self._lock:
            if self._pieces is None:
                self._pieces = Answers()
            return self._pieces.add(pieces)

    def fields(self) -> dict[str, Any]:
        """Return the log's fields under Athina's names, as JSON-safe data, without unknown ones."""
        with self._lock:
            for _, reader in self._readers or ():
                self._take_all(reader.streamed())
            answers: list[Answer] = []
            for key, snapshots in self._answers.items():
                if len(snapshots) > 1:  # under the key by which tool calls refer to it
                    answers.append(replace(merge_sources(snapshots.values()), key=key))
                else:
                    answers += snapshots.values()
            # By the order of the requests if an instrumented client noted it for all, else by the server's clock.
            if len(answers) > 1:
                by_request = all(answer.order is not None for answer in answers)
                answers.sort(key=lambda answer: answer.order or 0 if by_request else _time(answer.created))
            messages: list[ThreadMessage] = []
            if self._messages:
                placed = sorted(self._messages.values(), key=lambda placed: (_time(placed[1].created), placed[0]))
                messages = [message for _, message in placed]
            outputs = self._outputs.copy()
            calls = self._distinct_calls(outputs) if self._calls else []
            sessions, documents = tuple(self._sessions), tuple(self._documents)
            read = {} if self._pieces is None else self._pieces.fields()
        fields = merge(answers, messages=messages, calls=calls, outputs=outputs, sessions=sessions, documents=documents)
        return {**read, **fields} if read else fields

    def _distinct_calls(self, outputs: dict[str, list[object]]) -> list[ToolCall]:
        """Return each call once, in order; sources may know a call by different ids, or by none.

        Args:
            outputs: outputs by call id; those of a call's other ids are moved to the id that is kept.
        """
        by_owner: dict[Key, dict[str, list[ToolCall]]] = {}
        for call in self._calls.values():
            by_owner.setdefault(call.owner, {}).setdefault(call.source, []).append(call)
        distinct: list[ToolCall] = []
        for owner, by_source in by_owner.items():
            if len(by_source) == 1:
                distinct += next(iter(by_source.values()))
                continue
            ranked = sorted(by_source, key=lambda source: (_fidelity(self._answers.get(owner), source), source))
            kept = by_source[ranked.pop()]
            for source in reversed(ranked):
                kept = _with_calls_of(kept, by_source[source], outputs)
            distinct += kept
        return sorted(distinct, key=lambda call: _time(call.created))

    def _take_all(self, records: Iterable[Record]) -> None:
        outputs: dict[str, list[object]] = {}
        keys: dict[Key, Key] = {}
        # Counts the ids of calls since the last answer: some models give all calls of one answer the same id.
        shown: dict[str, int] = {}
        for record in records:
            match record:
                case Answer():
                    keys[record.key] = self._take_answer(record)
                    shown.clear()
                case ToolCall():
                    record.owner = keys.get(record.owner, record.owner)
                    # A run lists the calls that it waits for, and its steps list them again.
                    number = shown.get(record.key, 0)
                    if record.owner[0] != RUN:
                        shown[record.key] = number + 1
                    place = record.owner, record.source, record.key, number
                    known = self._calls.get(place)
                    self._calls[place] = record if known is None else merge_calls(known, record)
                case ThreadMessage():
                    self._take_message(record)
                case ToolOutput():
                    outputs.setdefault(record.call, []).append(record.value)
                case Documents():
                    self._documents.update(dict.fromkeys(record.texts))
                case SessionSeen():
                    self._sessions[record.session] = None
        for call, given in outputs.items():
            # A request may repeat all earlier outputs; otherwise they are further ones, since some servers repeat ids.
            earlier = self._outputs.get(call, [])
            self._outputs[call] = given if given[: len(earlier)] == earlier else earlier + given

    def _take_answer(self, new: Answer) -> Key:
        """Keep an answer; return its key."""
        if not self._answers:  # most logs have only one
            self._names = dict.fromkeys((new.key, *new.names), new.key)
            self._answers[new.key] = {new.source: new}
            return new.key
        known_as = self._names.get(new.key, new.key)
        if known_as not in self._answers:
            # One source may use a name for two answers; a name that another source used means the same answer.
            named = (self._names[name] for name in new.names if name in self._names)
            known_as = next((key for key in named if new.source not in self._answers[key]), known_as)
        kind, own = key = known_as
        # Some servers repeat ids, or send none: further answers with the same id are numbered.
        snapshots, number = self._answers.get(key), 1
        while snapshots is not None and kind != RUN and not _are_one(snapshots.get(new.source), new):
            number += 1
            key = (kind, f"{own}#{number}")
            snapshots = self._answers.get(key)
        for name in (new.key, *new.names):
            self._names.setdefault(name, known_as)
        if key != new.key:
            new = replace(new, key=key)
        snapshots = self._answers.setdefault(key, {})
        known = snapshots.get(new.source)
        snapshots[new.source] = new if known is None else merge_snapshots(known, new)
        return key

    def _take_message(self, new: ThreadMessage) -> None:
        """Keep the message; its place decides the order of messages within one second."""
        if "#" not in new.id:
            # Drop the message that was read from the request for a thread, once the server returns it.
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


def _are_one(known: Answer | None, new: Answer) -> bool:
    """Return whether two snapshots with the same id, from one source, are of the same answer.

    Those of different requests are not, and neither are different texts. `known` is None if only other sources have
    a snapshot with this id: that is of the same answer.
    """
    if known is None:
        return True
    if known.request is not None and new.request is not None:
        return known.request == new.request
    first, second = known.text or "", new.text or ""
    if not (first.startswith(second) or second.startswith(first)):
        return False
    # While an answer is streamed, some servers send the token counts so far in each chunk.
    is_growing = known.status is None or new.status is None
    return is_growing or not known.usage or not new.usage or known.usage == new.usage


def _fidelity(snapshots: Mapping[str, Answer] | None, source: str) -> int:
    answer = (snapshots or {}).get(source)
    return AS_OBJECT if answer is None else answer.fidelity


def _with_calls_of(kept: list[ToolCall], others: list[ToolCall], outputs: dict[str, list[object]]) -> list[ToolCall]:
    """Merge the calls of another source into those of a better one: by id, else by position and tool."""
    merged = dict(_numbered(kept))
    places = list(merged)
    for place, (name, other) in enumerate(_numbered(others)):
        found = name if name in merged else None
        if found is None and place < len(places) and merged[places[place]].tool == other.tool:
            found = places[place]
            if other.key in outputs:
                outputs.setdefault(found[0], outputs.pop(other.key))
        if found is None:
            merged[name] = other
        else:
            known = merged[found]
            whole = merge_calls(replace(other, progress=min(other.progress, known.progress)), known)
            merged[found] = replace(whole, key=known.key)
    return list(merged.values())


def _numbered(calls: list[ToolCall]) -> Iterator[tuple[tuple[str, int], ToolCall]]:
    """Yield the calls of an answer, each with its id and a number that distinguishes calls with the same id."""
    before: Counter[str] = Counter()
    for call in calls:
        yield (call.key, before[call.key]), call
        before[call.key] += 1


def _time(created: float | None) -> float:
    return math.inf if created is None else created
