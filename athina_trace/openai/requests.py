"""One request and its answer, as an instrumented client saw them: `Exchange` → readings.

An answer alone says what the model said; the request says what it was asked: messages or input, instructions,
tools, options, outputs of tools. What the answer says itself always comes first, ids above all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from athina_trace.openai.objects import read
from athina_trace.openai.readings import Answer, Kind, Output, Reading
from athina_trace.openai.shape import data, get, items, string, text_of, whole
from athina_trace.openai.traits import options, system_texts, tools

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Exchange", "error_text", "read_exchange"]


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A request of an instrumented client and what came back."""

    kind: Kind | None = None
    """What kind of answer was asked for; None where no model answers (a message is posted, a list read)."""
    order: int
    """The place of the request among all that the process sent: requests count in the order they began."""
    params: Mapping[str, object] = field(default_factory=dict)
    """The request's parameters by name, those given by position too."""
    answer: object = None
    """What came back; of a stream that failed, what its accumulator had by then."""
    error: BaseException | None = None


def read_exchange(exchange: Exchange) -> tuple[Reading, ...] | None:
    """Return what request and answer say together; None where the answer is none of the known kinds."""
    readings = read(exchange.answer)
    if readings is None:
        readings = _failed(exchange)
    asked = (_asked(r, exchange) if isinstance(r, Answer) and r.key[0] == exchange.kind else r for r in readings or ())
    outputs = tuple(_outputs(exchange.params))
    return (*asked, *outputs) if outputs or readings is not None else None


def _failed(exchange: Exchange) -> tuple[Reading, ...] | None:
    """Stand in for the answer that a failed request did not give; without a kind there was none to be had."""
    if exchange.kind is None or exchange.error is None:
        return None
    session = string(exchange.params, "thread_id")
    return (Answer(key=(exchange.kind, f"failed-{exchange.order}"), status="failed", session=session),)


def error_text(error: object) -> str:
    """Return the API's own message where the exception carries one, else its type and text."""
    said = string(error, "body", "message") or string(error, "body", "error", "message")
    return said or ": ".join(filter(None, (type(error).__name__, _as_string(error))))


def _as_string(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a foreign `__str__` may raise anything
        return ""


def _asked(answer: Answer, exchange: Exchange) -> Answer:
    """Add what the request says to what the answer says."""
    params = exchange.params
    prompt = tuple(_prompt(params))
    return replace(
        answer,
        order=exchange.order,
        session=answer.session or string(params, "conversation", "id") or string(params, "conversation"),
        previous=answer.previous or string(params, "previous_response_id"),
        model=answer.model or string(params, "model"),
        system=_system(answer, params),
        prompt=prompt,
        query=next((message["content"] for message in reversed(prompt) if message["role"] == "user"), None),
        tools=answer.tools or tools(params),
        options={**options(params), **answer.options},
        error=answer.error if exchange.error is None else error_text(exchange.error),
        status_code=whole(exchange.error, "status_code"),
    )


def _system(answer: Answer, params: Mapping[str, object]) -> tuple[str, ...]:
    own = answer.system or system_texts(get(params, "instructions"))
    added = system_texts(get(params, "additional_instructions"))
    return (*own, *(text for text in added if not any(text in known for known in own)))


def _prompt(params: Mapping[str, object]) -> Iterator[Mapping[str, str]]:
    """Read the messages of a request, whichever API it went to."""
    text = string(params, "input")
    if text is not None:
        yield {"role": "user", "content": text}
    places = (("messages",), ("input",), ("thread", "messages"), ("additional_messages",))
    yield from (said for place in places for item in items(params, *place) if (said := _said(item)))


def _said(item: object) -> Mapping[str, str] | None:
    role = string(item, "role")
    if role is not None:
        return {"role": role, "content": text_of(get(item, "content"))}
    output = _output(item)
    return None if output is None else {"role": "tool", "content": _as_text(output.value)}


def _as_text(value: object) -> str:
    return text_of(value) or ("" if value is None else _as_string(data(value)))


def _outputs(params: Mapping[str, object]) -> Iterable[Output]:
    """Read what the caller's tools gave back: run, response and chat each have a place of their own."""
    places = (("tool_outputs",), ("input",), ("messages",))
    return (output for place in places for item in items(params, *place) if (output := _output(item)))


def _output(item: object) -> Output | None:
    call = string(item, "tool_call_id") or string(item, "call_id")
    value = get(item, "output") if get(item, "output") is not None else get(item, "content")
    return None if call is None or value is None else Output(call=call, value=data(value))
