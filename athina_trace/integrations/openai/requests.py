"""One request and its answer, as an instrumented client saw them: `Exchange` → readings.

An answer alone says what the model said; the request says what it was asked: messages or input, instructions,
tools, options, outputs of tools. What the answer says itself always comes first, ids above all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from athina_trace import _guard
from athina_trace.integrations.openai.objects import read, read_as
from athina_trace.integrations.openai.readings import Answer, Kind, Message, Output, Reading, Scope
from athina_trace.integrations.openai.shape import data, get, items, string, text_of, whole
from athina_trace.integrations.openai.traits import options, system_texts, tools

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Exchange", "error_text", "prompt_of", "question_in", "read_exchange"]


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A request of an instrumented client and what came back."""

    kind: Kind | None = None
    """What kind of answer was asked for; None where no model answers (a message is posted, a list read)."""
    order: int
    """Requests count in the order of this number: the clock's, when they began."""
    params: Mapping[str, object] = field(default_factory=dict)
    """The request's parameters by name, those given by position too."""
    answer: object = None
    """What came back; of a stream that failed, what its accumulator had by then."""
    error: BaseException | None = None
    session: str | None = None
    """The session that earlier requests told, for an answer that names none."""
    query: str | None = None
    """What the user asked in earlier requests, for one that brings no question."""

    def question(self) -> str | None:
        """What the user said last in this request."""
        told = (_said(item) for place in reversed(_PLACES) for item in reversed(items(self.params, *place)))
        return question_in(said for said in told if said is not None) or string(self.params, "input")


def question_in(backwards: Iterable[Mapping[str, str]]) -> str | None:
    """What the user said last in words: an image by itself asks nothing. Messages come the last one first."""
    return next((said["content"] for said in backwards if said["role"] == "user" and said["content"]), None)


def read_exchange(exchange: Exchange) -> tuple[Reading, ...] | None:
    """Return what request and answer say together; None where the answer is none of the known kinds."""
    readings = read(exchange.answer)
    if readings is None and exchange.kind is not None:
        readings = read_as(exchange.kind, exchange.answer) or _failed(exchange, exchange.kind)
    asked = (_asked(r, exchange) if isinstance(r, Answer) and r.key[0] == exchange.kind else r for r in readings or ())
    others: tuple[Reading, ...] = (*_outputs(exchange.params), *_opening(readings or (), exchange.params))
    return (*asked, *others) if others or readings is not None else None


def _opening(readings: tuple[Reading, ...], params: Mapping[str, object]) -> Iterator[Message]:
    """Read the messages that a thread was made with: its object does not tell them."""
    if len(readings) == 1 and isinstance(readings[0], Scope):
        thread = readings[0].session
        for place, item in enumerate(items(params, "messages")):
            text = text_of(get(item, "content"))
            yield Message(id=f"{thread}#{place}", thread=thread, role=string(item, "role"), text=text)


def _failed(exchange: Exchange, kind: Kind) -> tuple[Reading, ...] | None:
    """Stand in for the answer that a failed request did not give."""
    if exchange.error is None:
        return None
    session = string(exchange.params, "thread_id")
    status = "failed" if isinstance(exchange.error, Exception) else "cancelled"
    return (Answer(key=(kind, f"{status}-{exchange.order}"), status=status, session=session),)


def error_text(error: object) -> str:
    """Return the API's own message where the exception carries one, else its type and text."""
    said = next(filter(None, (string(error, *place) for place in _MESSAGES)), None)
    return said[:_LONGEST] if said else ": ".join(filter(None, (type(error).__name__, _as_string(error))))


_MESSAGES = (("body", "message"), ("body", "error", "message"), ("body", "error"), ("body", "detail"), ("body",))
"""Where servers say what was wrong: OpenAI, Azure, and smaller ones."""
_LONGEST = 2000
"""Characters; what proxies say may be a whole page."""


def _as_string(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - a foreign `__str__` may raise anything
        _guard.pass_on(error)
        return ""


def _asked(answer: Answer, exchange: Exchange) -> Answer:
    """Add what the request says to what the answer says."""
    params = exchange.params
    prompt = (*answer.prompt, *prompt_of(params))
    return replace(
        answer,
        order=exchange.order,
        status=_status(answer, exchange.error),
        session=answer.session
        or string(params, "conversation", "id")
        or string(params, "conversation")
        or exchange.session,
        previous=answer.previous or string(params, "previous_response_id"),
        model=answer.model or string(params, "model"),
        system=_system(answer, params),
        prompt=prompt,
        query=question_in(reversed(prompt)) or exchange.query,
        tools=answer.tools or tools(params),
        functions=tuple(map(data, items(params, "functions"))),
        options={**options(params), **answer.options},
        error=error_text(exchange.error) if isinstance(exchange.error, Exception) else answer.error,
        status_code=whole(exchange.error, "status_code"),
    )


def _status(answer: Answer, error: BaseException | None) -> str | None:
    """Call what an exception broke off failed, whatever its last snapshot said."""
    broken = isinstance(error, Exception) and (answer.status is None or not answer.ended)
    return "failed" if broken else answer.status


def _system(answer: Answer, params: Mapping[str, object]) -> tuple[str, ...]:
    own = answer.system or system_texts(get(params, "instructions"))
    added = system_texts(get(params, "additional_instructions"))
    return (*own, *(text for text in added if not any(text in known for known in own)))


def prompt_of(params: Mapping[str, object]) -> Iterator[Mapping[str, str]]:
    """Read the messages of a request, whichever API it went to."""
    text = string(params, "input")
    if text is not None:
        yield {"role": "user", "content": text}
    yield from (said for place in _PLACES for item in items(params, *place) if (said := _said(item)))


_PLACES = (("messages",), ("input",), ("thread", "messages"), ("additional_messages",))
"""Where the messages of a request stand."""


def _said(item: object) -> Mapping[str, str] | None:
    role = string(item, "role")
    if role is not None:
        return {"role": role, "content": text_of(get(item, "content"))}
    output = _output(item)
    return None if output is None else {"role": "tool", "content": _as_text(output.value)}


def _as_text(value: object) -> str:
    """An output as text: what is neither text nor parts with text stands there as JSON."""
    return text_of(value) or ("" if value in (None, "") else json.dumps(data(value), ensure_ascii=False))


def _outputs(params: Mapping[str, object]) -> Iterable[Output]:
    """Read what the caller's tools gave back: run, response and chat each have a place of their own."""
    places = (("tool_outputs",), ("input",), ("messages",))
    return (output for place in places for item in items(params, *place) if (output := _output(item)))


def _output(item: object) -> Output | None:
    call = string(item, "tool_call_id") or string(item, "call_id")
    value = get(item, "output") if get(item, "output") is not None else get(item, "content")
    return None if call is None or value is None else Output(call=call, value=data(value))
