"""The ledger of one log: readings in, in any order and as often as they come; the log's fields out.

Every answer, message and tool call is kept once, under its id; of its snapshots the one furthest on wins.
What the fields are made of is told in `folding`.
"""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from athina_trace.integrations.openai.folding import Records, fields_of
from athina_trace.integrations.openai.objects import may_be_known, read
from athina_trace.integrations.openai.pieces import Pieces, is_piece
from athina_trace.integrations.openai.readings import Answer, Key, Message, Output, Reading, Scope, ToolCall, merged
from athina_trace.integrations.openai.requests import Exchange, read_exchange

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Ledger", "Told"]


class Ledger:
    """What is known of the answers that belong to one log. Several threads may use it at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: Pieces | None = None
        self._answers: dict[Key, Answer] = {}
        self._messages: dict[str, tuple[int, Message]] = {}
        self._calls: dict[tuple[Key, str], ToolCall] = {}
        self._outputs: dict[str, list[object]] = {}
        self._sessions: dict[str, None] = {}

    @staticmethod
    def may_know(subject: object) -> bool:
        """Whether it is worth adding this: False at once for what is none of OpenAI's objects."""
        return may_be_known(subject)

    def add(self, subject: object) -> bool:
        """Take an OpenAI object, an `Exchange` with one, or a stream's chunk or event; True where it was understood.

        Never raises.
        """
        if not isinstance(subject, Exchange) and not may_be_known(subject):
            return False
        readings = read_exchange(subject) if isinstance(subject, Exchange) else read(subject)
        self.take(readings or ())
        return self._add_piece(subject) or readings is not None

    def take(self, readings: Iterable[Reading]) -> None:
        """Take what was read already."""
        with self._lock:
            self._take_all(tuple(readings))

    def _take_all(self, readings: tuple[Reading, ...]) -> None:
        outputs: dict[str, list[object]] = {}
        for reading in readings:
            if isinstance(reading, Output):
                outputs.setdefault(reading.call, []).append(reading.value)
            else:
                self._take(reading)
        for call, given in outputs.items():
            # A request may bring all earlier outputs along, and some servers give ids anew: the first, then the second.
            known = self._outputs.get(call, [])
            self._outputs[call] = given if given[: len(known)] == known else known + given

    def _add_piece(self, subject: object) -> bool:
        if not is_piece(subject):
            return False
        with self._lock:
            self._pieces = self._pieces or Pieces()
            self._pieces.add(subject)
        return True

    def fields(self) -> dict[str, Any]:
        """Return the log's fields under Athina's names, as plain data; what is unknown is absent."""
        with self._lock:
            for whole in self._pieces.results() if self._pieces is not None else ():
                self._take_all(read(whole) or ())
            records = self._records()
        return fields_of(records)

    def _records(self) -> Records:
        return Records(
            answers=tuple(self._answers_in_order()),
            messages=tuple(message for _, message in sorted(self._messages.values(), key=_message_order)),
            calls=tuple(sorted(self._calls.values(), key=_call_order)),
            outputs={call: tuple(values) for call, values in self._outputs.items()},
            sessions=tuple(self._sessions),
        )

    def _take(self, reading: Reading) -> None:
        match reading:
            case Answer():
                known = self._answers.get(reading.key)
                self._answers[reading.key] = reading if known is None else merged(known, reading)
            case Message():
                self._take_message(reading)
            case ToolCall():
                self._take_call(reading)
            case Scope():
                self._sessions[reading.session] = None

    def _take_message(self, new: Message) -> None:
        """Keep the message; its place settles the order among messages of one second."""
        if "#" not in new.id:
            self._drop_stand_in(new)
        count = len(self._messages) + 1
        place, known = self._messages.get(new.id, (-count if new.backwards else count, new))
        self._messages[new.id] = (place, new if new.progress >= known.progress else known)

    def _drop_stand_in(self, new: Message) -> None:
        """Leave out the message that was read off the request for a thread, once the server tells it."""
        known = (message for _, message in self._messages.values() if "#" in message.id)
        said = (new.thread, new.text)
        stand_in = next((message.id for message in known if (message.thread, message.text) == said), None)
        if stand_in is not None:
            del self._messages[stand_in]

    def _take_call(self, new: ToolCall) -> None:
        known = self._calls.get((new.owner, new.key), new)
        first, second = (known, new) if new.progress >= known.progress else (new, known)
        self._calls[new.owner, new.key] = replace(
            second,
            body={**first.body, **second.body},
            output=first.output if second.output is None else second.output,
            context=second.context or first.context,
            created=first.created if second.created is None else second.created,
            session=second.session or first.session,
        )

    def _answers_in_order(self) -> Iterable[Answer]:
        """Sort by the requests' order where an instrumented client told it, else by the server's clock."""
        answers = list(self._answers.values())
        if all(answer.order is not None for answer in answers):
            return sorted(answers, key=lambda answer: answer.order or 0)
        return sorted(answers, key=lambda answer: _time(answer.created))


class Told(Ledger):
    """A ledger of fields that are known already."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields  # and nothing else: it is made for one reading

    def fields(self) -> dict[str, Any]:
        """Return them."""
        return self._fields


def _message_order(placed: tuple[int, Message]) -> tuple[float, int]:
    place, message = placed
    return _time(message.created), place


def _call_order(call: ToolCall) -> float:
    return _time(call.created)


def _time(created: float | None) -> float:
    return math.inf if created is None else created
