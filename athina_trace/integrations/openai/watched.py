"""One request of an instrumented client, from its start to its answer, its failure, or the end of its stream.

Inside a decorated call the answer goes into that call's log; outside of every one it becomes a log of its own.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from athina_trace import _runtime
from athina_trace._capture.draft import current_draft
from athina_trace._clock import clock
from athina_trace.context import current_scope
from athina_trace.integrations.openai.ledger import Ledger
from athina_trace.integrations.openai.memory import NOTHING, Chain, Memory
from athina_trace.integrations.openai.objects import read
from athina_trace.integrations.openai.own_logs import Asked, emit, own_logs
from athina_trace.integrations.openai.paths import Route
from athina_trace.integrations.openai.readings import Answer, Message, Reading, Scope
from athina_trace.integrations.openai.requests import Exchange, read_exchange
from athina_trace.integrations.openai.shape import get, json_body, string
from athina_trace.integrations.openai.unread import entry_of

if TYPE_CHECKING:
    from collections.abc import Mapping

memory = Memory()
_NOTHING: Mapping[str, Any] = {}
_GOES_ON = frozenset({"conversation", "previous_response_id"})

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=memory.forget)


class Watched:
    """A request that concerns an answer of a model."""

    __slots__ = ("answer", "attributes", "draft", "params", "query", "route", "scope", "started_ns")

    def __init__(self, route: Route, options: Any, began: int) -> None:
        """`options` are the client's own for one request: `json_data` is its body, `params` its query.

        `began`: when, by the clock's `perf_ns`. What surrounds the request is found here, also when it has ended.
        """
        self.route = route
        self.params = _params(options)
        if route.scope is not None and route.kind == "run":
            self.params = {**self.params, "thread_id": route.scope}
        self.query = options.params if isinstance(options.params, dict) else _NOTHING
        self.draft = current_draft()
        self.scope = current_scope()
        self.started_ns = began
        self.attributes: dict[str, Any] | None = None
        self.answer: Answer | None = None
        """What the model answered, once that was read."""

    def streamed(self, result: object, error: BaseException | None) -> None:
        """A stream gave `result` until it ended, or `error` ended it."""
        if error is None and self.route.kind in ("response", "run") and not _is_whole(result):
            error = GeneratorExit()  # the server said no more in this stream
        self.done(result, error)

    def done(self, result: object, error: BaseException | None = None) -> None:
        """The request gave `result`, or what there was of it when `error` ended it."""
        readings = self._read(result, error)
        if readings is None:
            if error is None:
                self._remember_said(())
            return
        self.answer = next((each for each in readings if isinstance(each, Answer)), None)
        if self.answer is not None and self.route.kind is not None:
            again = not self.route.asks and self.draft is None and memory.has(self.answer.key)
            if error is None or self.answer.status != "failed":
                self._remember(self.answer)
            if not again:
                self._record_answer(self.answer, self._with_question(self.answer, readings), error)
        else:
            self._record_side(readings, result)

    def _read(self, result: object, error: BaseException | None) -> tuple[Reading, ...] | None:
        # A poll that fails is no answer that failed.
        kind = self.route.kind if error is None or self.route.asks else None
        chain = _chain(self.params) if self.route.kind == "response" else NOTHING
        return read_exchange(
            Exchange(
                kind=kind,
                order=self.started_ns,
                params=self.params,
                answer=result,
                error=error,
                session=chain.session,
                query=chain.query,
            )
        )

    def _remember(self, answer: Answer) -> None:
        if answer.key[0] == "response" and answer.ended:
            own = answer.details.get("response_id")
            memory.responded(own, answer.session, answer.query, chained=answer.previous is not None)
        elif answer.key[0] == "run" and answer.status == "completed":
            memory.answered(answer.session)

    def _with_question(self, answer: Answer, readings: tuple[Reading, ...]) -> tuple[Reading, ...]:
        """Give a run what was posted to its thread before: a new one, or one that was begun in another call."""
        asks = answer.key[0] == "run" and (self.route.asks or "tool_outputs" in self.params)
        return (*memory.asked(answer.session), *readings) if asks else readings

    def _record_answer(self, answer: Answer, readings: tuple[Reading, ...], error: BaseException | None) -> None:
        if self.draft is not None and not self.draft.ended:
            self.draft.take(readings)
            if answer.ended:
                own_logs.note(answer.key)
        elif error is not None and self._may_go_on(answer):
            own_logs.cut_off(answer, readings, self._asked(), error)
        elif error is not None and not isinstance(error, Exception):
            self._record_cut_off(readings, error)
            own_logs.note(answer.key)
        else:
            own_logs.answered(answer, readings, self._asked(), new=self.route.asks)

    def _may_go_on(self, answer: Answer) -> bool:
        """Whether the server goes on with an answer when nobody reads its stream."""
        return bool(answer.details) and (answer.key[0] == "run" or self.params.get("background") is True)

    def _record_cut_off(self, readings: tuple[Reading, ...], error: BaseException) -> None:
        """A cancelled request, or a stream that was given up: what came of it is all that there will be."""
        ledger = Ledger()
        ledger.take(readings)
        emit(self._asked().draft(ledger), error)

    def _asked(self) -> Asked:
        return Asked(self.started_ns, self.scope, self.draft, self.attributes)

    def _record_side(self, readings: tuple[Reading, ...], result: object) -> None:
        messages = [each for each in readings if isinstance(each, Message)]
        if self.params and (messages or self.route.scope is None):
            memory.posted(messages)
        self._remember_said(readings)
        if self.draft is not None and not self.draft.ended:
            self.draft.take(readings)
        elif readings:
            thread = self.route.scope or next((each.thread for each in messages), None)
            more = _has_more(result) if self.route.listed else None
            own_logs.listed(readings, thread, run=string(self.query, "run_id"), more=more)

    def _remember_said(self, readings: tuple[Reading, ...]) -> None:
        """What a conversation was begun with, or was given without asking for a response."""
        given = self.params.get("items")
        conversation = self.route.scope or next((each.session for each in readings if isinstance(each, Scope)), None)
        if given and conversation is not None:
            asked = Exchange(order=0, params={"input": given})
            query = asked.question()
            if query is not None:
                memory.said(conversation, query)


def leave_unread(route: Route, options: Any, began: int, answer: object, wire: Any) -> bool:
    """Log an answer as it came over the wire; False where it has to be read now.

    That is so inside a decorated call, under settings that rewrite or leave out, for a response that has not ended
    well, and where a request holds more than its method takes, which may be secrets. `options` and `began` are those
    of `Watched`, `wire` is the response of httpx that the answer came in.
    """
    writer, scope, kind = _runtime.active(), current_scope(), route.kind
    if writer is None or not writer.takes_unread or scope.hides or scope.sample_rate is not None:
        return False
    if kind is None or kind == "run" or not route.asks or options.extra_json or current_draft() is not None:
        return False
    seen = getattr(answer, "__dict__", _NOTHING)
    own = seen.get("id")
    if kind == "response" and not (type(own) is str and seen.get("status") == "completed"):
        return False
    params = _params(options)
    chain = NOTHING if kind == "chat" else _chain(params)
    entry = entry_of(wire, kind, chain, (clock.perf_ns() - began) // 1_000_000, scope, writer.defaults)
    if entry is None:
        return False
    writer.put(entry)
    if kind == "response":
        given = params.get("input")
        asked = given if type(given) is str else Exchange(order=0, params=params).question()
        chained = params.get("previous_response_id") is not None
        memory.responded(own, chain.session, asked or chain.query, chained=chained)
    return True


def _params(options: Any) -> Mapping[str, Any]:
    """The body of a request of the client, where that is a JSON object; what the program adds to it wins."""
    body, more = options.json_data, options.extra_json
    known = body if isinstance(body, dict) else _NOTHING
    return {**known, **more} if more else known


def _chain(params: Mapping[str, Any]) -> Chain:
    """The conversation that a request for a response goes on with, and what earlier requests told of it."""
    if _GOES_ON.isdisjoint(params):
        return NOTHING
    given = params.get("conversation")
    conversation = given if isinstance(given, str) else string(given, "id")
    previous = string(params, "previous_response_id")
    known = memory.before(conversation, previous)
    return Chain(conversation or known.session or previous, known.query)


def _is_whole(streamed: object) -> bool:
    """Whether a stream told of the end of its answer, or of a run that waits for its tools."""
    answers = (reading for reading in read(streamed) or () if isinstance(reading, Answer))
    return any(answer.ended or answer.status == "requires_action" for answer in answers)


def _has_more(page: object) -> bool:
    whole = json_body(get(page, "http_response")) or page
    return get(whole, "has_more") is True
