"""Follows one request of an instrumented client from its start to its answer, its failure or the end of its stream.

Inside a decorated call, the answer goes into that call's log; outside, it becomes a log of its own.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from athina_trace import _fork
from athina_trace._answers.memory import UNCHAINED, Chain, ConversationMemory
from athina_trace._answers.records import RUN, Answer, Key, Record, SessionSeen, ThreadMessage
from athina_trace._capture.answer_logs import Origin, expect, log_answer
from athina_trace.integrations.openai.exchange import read_exchange
from athina_trace.integrations.openai.normalise import NOTHING, Data, normalise, string
from athina_trace.integrations.openai.objects import parse
from athina_trace.integrations.openai.responses import conversation_of, question_of
from athina_trace.integrations.openai.standalone_logs import standalone_logs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from athina_trace.integrations.openai.routes import Route

memory = ConversationMemory()
_fork.register("chains", after_in_child=memory.reset)
_numbers = count()


class RequestRecord:
    """A request that concerns a model's answer."""

    __slots__ = ("answer", "name", "origin", "params", "query", "route")

    def __init__(self, route: Route, options: Any, origin: Origin, name: Key | None) -> None:
        """Take the parameters of the request.

        Args:
            route: what it is about.
            options: the client's options for the request: `json_data` is its body, `extra_json` what the program adds,
                `params` its query.
            origin: where and when it was made.
            name: its key among the spans and runs around it and inside it.
        """
        self.route = route
        self.origin = origin
        self.name = name
        params = normalise(options.json_data)
        self.params: dict[str, Any] = params if type(params) is dict else {}
        if options.extra_json:
            self.params.update(normalise(options.extra_json) or NOTHING)
        # The path names a run's thread; if the request fails, there is no answer to name it.
        if route.session is not None and route.kind == RUN:
            self.params["thread_id"] = route.session
        self.query: Data = options.params if isinstance(options.params, dict) else NOTHING
        self.answer: Answer | None = None
        """The model's answer, once it was read."""

    def stream_ended(self, result: Any, error: BaseException | None) -> None:
        """Record what a stream yielded until its end, or until `error` ended it."""
        if error is None and self.route.kind in ("response", RUN):
            answers = [record for record in parse(result) or () if isinstance(record, Answer)]
            if not any(answer.ended or answer.status == "requires_action" for answer in answers):
                error = GeneratorExit()  # the server ended this stream early
        self.finished(result, error)

    def finished(self, result: Any, error: BaseException | None = None) -> None:
        """Record the result of the request, or what had come by the time that `error` ended it.

        Args:
            result: plain data.
            error: an `Exception` for a failure; anything else for an answer that was abandoned or cancelled.
        """
        # If a poll fails, the answer has not failed.
        kind = self.route.kind if error is None or self.route.asks else None
        chain = _chain(self.params) if kind == "response" else UNCHAINED
        records = read_exchange(
            kind,
            self.params,
            result,
            order=self.origin.started_ns,
            request=next(_numbers) if self.route.asks else None,
            error=error,
        )
        answers = [each for each in records or () if isinstance(each, Answer)]
        self.answer = answer = answers[0] if answers else None
        if answer is not None and chain is not UNCHAINED and answer.key[0] == kind:
            answer.session, answer.query = answer.session or chain.session, answer.query or chain.query
        if records is None:
            if error is None:
                self._remember_items(())
        elif answer is None or self.route.kind is None:
            self._record_side(records, result)
        else:
            if (error is None or answer.status != "failed") and answer.ended:
                self._remember(answer)
            if answer.key[0] == RUN and (self.route.asks or "tool_outputs" in self.params):
                # Add what was posted to the thread earlier to a new run, or to one that another call began.
                records = [*memory.posted_to(answer.session), *records]
            self._record_answer(answer, records, error)

    def _remember(self, answer: Answer) -> None:
        if answer.key[0] == "response":
            own = answer.details.get("response_id")
            memory.remember_response(own, answer.session, answer.query, chained=answer.previous is not None)
        elif answer.key[0] == RUN and answer.status == "completed":
            memory.answered(answer.session)

    def _record_answer(self, answer: Answer, records: Sequence[Record], error: BaseException | None) -> None:
        if self.name is not None:
            answer.names = (*answer.names, self.name)
        origin, open_draft = self.origin, self.origin.open_draft
        if open_draft is not None:
            if self.route.asks and answer.ended and answer.key[0] != RUN:
                log_answer(records, origin)
            else:
                # An answer that was requested elsewhere also belongs to this call, which waits for it.
                expect(answer, open_draft, origin)
                open_draft.take(records)
            if answer.ended:
                standalone_logs.note_logged(answer.key)
            return
        # Servers finish runs and background responses even if the stream is not read: the program may still poll them.
        continues = bool(answer.details) and (answer.key[0] == RUN or self.params.get("background") is True)
        if error is not None and continues:
            standalone_logs.follow(answer, records, origin, new=False, broken_by=error)
        else:
            standalone_logs.answered(answer, records, origin, new=self.route.asks, error=error)

    def _record_side(self, records: Sequence[Record], result: Any) -> None:
        """Record what is not an answer itself: messages, steps, threads, conversations."""
        messages = [each for each in records if isinstance(each, ThreadMessage)]
        # Without parameters it is a list of messages, which were posted earlier, perhaps by another process.
        if self.params and (messages or self.route.session is None):
            memory.remember_posted(messages)
        self._remember_items(records)
        if (open_draft := self.origin.open_draft) is not None:
            open_draft.take(records)
        elif records:
            thread = self.route.session or next((each.thread for each in messages), None)
            more = type(result) is dict and result.get("has_more") is True if self.route.lists_messages else None
            standalone_logs.listed(records, thread, run=string(self.query, "run_id"), more=more)

    def _remember_items(self, records: Sequence[Record]) -> None:
        """Remember the question that a conversation began with, or that was added without requesting a response."""
        made = next((each.session for each in records if isinstance(each, SessionSeen)), None)
        conversation = self.route.session or made
        query = question_of(self.params.get("items"))
        if query and conversation is not None:
            memory.remember_question(conversation, query)


def _chain(params: Data) -> Chain:
    """Return the conversation that a request for a response continues, and the question of earlier requests in it."""
    conversation, previous = conversation_of(params), string(params, "previous_response_id")
    if conversation is None and previous is None:
        return UNCHAINED
    known = memory.chain_of(conversation, previous)
    return Chain(conversation or known.session or previous, known.query)
