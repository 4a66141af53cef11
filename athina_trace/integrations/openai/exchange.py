"""Reads one request of an instrumented client and its answer as records.

The answer shows what the model wrote; the request adds what it was asked: messages or input, instructions, tools,
options, tool outputs. If both have a value, such as an id, the answer's counts.
"""

from __future__ import annotations

import json
from types import ModuleType
from typing import TYPE_CHECKING, Any

from athina_trace import _guard
from athina_trace._answers.records import FINISHED, RUN, Answer, Record, SessionSeen
from athina_trace._serialization import text
from athina_trace._serialization.introspection import attribute_or_none
from athina_trace.integrations.openai import assistants, chat, responses
from athina_trace.integrations.openai.common import model_options, offered_tools, stated_failure
from athina_trace.integrations.openai.normalise import Data, child, normalise, string
from athina_trace.integrations.openai.objects import parse, parse_as

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["add_request", "error_text", "read_exchange"]

_APIS: dict[str, ModuleType] = {RUN: assistants, "response": responses, "chat": chat}


def read_exchange(
    kind: str | None,
    params: Data,
    given: Any,
    *,
    order: int,
    request: int | None = None,
    error: BaseException | None = None,
) -> Sequence[Record] | None:
    """Return the records of a request and its answer; None if no model was asked, and nothing known came.

    Args:
        kind: the kind of answer that was asked for; None if no model answers (a message is posted, a list read).
        params: the request's parameters by name, as plain data.
        given: what came back, as plain data; of a stream that failed, what had come by then.
        order: sorts requests: the clock's reading when they began.
        request: the number of a request that asks a model; None if it asks for the state of an earlier answer.
        error: what ended the request.
    """
    records = parse(given)
    if kind is None:
        if records is not None and len(records) == 1 and isinstance(records[0], SessionSeen):
            return [records[0], *assistants.opening_messages(records[0].session, params)]
        return records
    if records is None:
        records = parse_as(kind, given)
    if records is None:
        if error is None and (request is None or not _is_foreign(given)):
            return None
        # Replaces the missing answer: the request failed, or a proxy answered with a page of its own.
        status = "failed" if isinstance(error, Exception | None) else "cancelled"
        missing = Answer(key=(kind, f"{status}-{order}"), status=status)
        if error is None:
            came = text(given)
            missing.error = f"the server did not return a model's answer{': ' if came else ''}{came}"[:_LONGEST]
        records = [missing]
    for record in records:
        if isinstance(record, Answer) and record.key[0] == kind:
            record.order, record.request = order, request
            add_request(record, params)
            if error is not None:
                _add_failure(record, error)
    return [*records, *_APIS[kind].request_outputs(params)]


def _is_foreign(answer: Any) -> bool:
    """Return whether something foreign came in place of an answer, or an empty stream, but no object of the API."""
    return type(answer) is not dict or (bool(answer) and not string(answer, "object"))


def add_request(answer: Answer, params: Data) -> None:
    """Add the request's parameters to the answer."""
    _APIS[answer.key[0]].add_request(answer, params)
    answer.session = answer.session or responses.conversation_of(params)
    answer.model = answer.model or string(params, "model")
    answer.tools = answer.tools or offered_tools(params)
    # Options that the server reports win over those that were requested.
    answer.options = {**model_options(params), **answer.options}


def _add_failure(answer: Answer, error: BaseException) -> None:
    """Add the error that ended the request."""
    if isinstance(error, Exception):
        answer.error = error_text(error)
        # An unfinished answer has failed, whatever its last snapshot says.
        if answer.status is None or not answer.ended:
            answer.status, answer.progress = "failed", FINISHED
    code = normalise(attribute_or_none(error, "status_code"))
    answer.status_code = code if type(code) is int else None


def error_text(error: object) -> str:
    """Return the API's own message if the exception has one, else its type and text."""
    body = normalise(attribute_or_none(error, "body"))
    if type(body) is list and len(body) == 1:  # as Gemini lists its errors
        body = body[0]
    places: list[Any] = [body]
    if type(body) is dict:
        # The places where servers put the message: OpenAI, Azure, and smaller ones.
        places = [body.get("message"), child(body, "error").get("message"), stated_failure(body), body.get("detail")]
    message = next((place for place in places if type(place) is str and place), None)
    if message is not None:
        return message[:_LONGEST]
    try:
        # The client's text may omit what is in an unknown form, such as the list of what a request lacks.
        text = json.dumps(body, ensure_ascii=False) if body and type(body) in (dict, list) else str(error)
    except Exception as fault:  # noqa: BLE001 - a foreign `__str__` may raise anything
        _guard.raise_if_the_programs(fault)
        text = ""
    return (f"{type(error).__name__}: {text}" if text else type(error).__name__)[:_LONGEST]


_LONGEST = 2000
"""Characters; a proxy may answer with a whole page."""
