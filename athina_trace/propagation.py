"""Work that goes elsewhere takes its context along: to threads, to callbacks, to other processes."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import quote, unquote

from athina_trace._capture.draft import current_draft
from athina_trace._pipeline.redaction import Redaction
from athina_trace._wrapping import proxies, wrapper
from athina_trace.context import Given, Scoped, current_scope

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    P = ParamSpec("P")

F = TypeVar("F")
T = TypeVar("T")
C = TypeVar("C", bound="MutableMapping[str, str]")

_CARRIED: Final = (
    "session_id",
    "customer_id",
    "customer_user_id",
    "environment",
    "prompt_slug",
    "language_model_id",
)
_PREFIX: Final = "athina."
_LONGEST_HEADER: Final = 8192
_MOST_MEMBERS: Final = 180
_LONGEST_VALUE: Final = 1024


def wrap(function: F) -> F:
    """`function`, of any kind, bound to the context of now: session, customer, the running log, every context variable.

    For callables that run later or elsewhere: threads, timers, callbacks. Each call has a copy of the context, so
    that what it sets there reaches neither its caller nor the next call. Keeps signature and kind.

    >>> with athina_session("thread_1", customer_id="disney"):
    ...     ask = wrap(lambda: inject({})["baggage"])
    >>> ask()
    'athina.session_id=thread_1,athina.customer_id=disney'
    """
    captured = contextvars.copy_context()

    def run(wrapped: Any, _instance: object, args: Any, kwargs: Any) -> Any:
        context = captured.copy()
        return wrapper.drive_in(context.run(wrapped, *args, **kwargs), context)

    return cast("F", proxies.proxy(function, run))


class ContextThreadPoolExecutor(ThreadPoolExecutor):
    """A `ThreadPoolExecutor` whose work runs in the context in which it was submitted.

    >>> with ContextThreadPoolExecutor() as pool, athina_session("thread_1"):
    ...     pool.submit(inject, {}).result()
    {'baggage': 'athina.session_id=thread_1'}
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule `fn(*args, **kwargs)` in a copy of the current context; `map` does so, too."""
        run: Any = contextvars.copy_context().run
        return super().submit(run, fn, *args, **kwargs)


def inject(carrier: C) -> C:
    """Write the current scope into `carrier`, a dictionary or HTTP headers, and give it back.

    It goes into the one entry `baggage` (W3C Baggage), beside what others wrote there: session, customer,
    environment, `prompt_slug`, model, the rate of a sample, and whether the scope is private; custom attributes do
    not travel. Values are percent-encoded. What would make the entry longer than 8192 characters is left out.

    >>> with athina_session("thread 1"):
    ...     inject({"x-request-id": "7"})
    {'x-request-id': '7', 'baggage': 'athina.session_id=thread%201'}
    """
    key = next((name for name in carrier if name.lower() == "baggage"), "baggage")
    others = [member for member in carrier.get(key, "").split(",") if member.strip() and not _is_ours(member)]
    header = ",".join(member.strip() for member in others)
    for member in _members():
        longer = f"{header},{member}" if header else member
        header = longer if len(longer) <= _LONGEST_HEADER else header
    if header:
        carrier[key] = header
    return carrier


def _members() -> list[str]:
    scope, draft = current_scope(), current_draft()
    redaction = scope.redaction if draft is None else scope.redaction | draft.redaction
    values: dict[str, Any] = {name: scope.fields.get(name) for name in _CARRIED}
    values["session_id"] = draft.session_id() if draft is not None else values["session_id"]
    # First what keeps things back: it must not be the one that finds no room.
    first = {"private": int(redaction) or None, "sample_rate": scope.sample_rate}
    return [
        f"{_PREFIX}{name}={quote(str(value), safe='', errors='replace')}"
        for name, value in {**first, **values}.items()
        if value is not None
    ]


def _is_ours(member: str) -> bool:
    return member.strip().startswith(_PREFIX)


def extract(carrier: Mapping[str, str]) -> Scoped:
    """Give the scope that stands in `carrier`, to be entered by `with` or used as a decorator.

    What is malformed, unknown or too long is left out; a carrier without baggage gives a scope that changes nothing.
    Baggage says who is talking: take it from your own services only, never from strangers.

    >>> with extract({"baggage": "athina.session_id=thread_1"}):
    ...     reference = log_inference(response="Hello")
    >>> recent_logs()[-1]["session_id"]
    'thread_1'
    """
    header: Any = next((value for name, value in carrier.items() if str(name).lower() == "baggage"), "")
    values = _values(header if isinstance(header, str) else "")
    fields: dict[str, Any] = {name: values[name] for name in _CARRIED if name in values}
    return Scoped(Given(fields, {}, _redaction(values.get("private")), _rate(values.get("sample_rate"))))


def _values(header: str) -> dict[str, str]:
    if len(header) > _LONGEST_HEADER:
        return {}
    members = (member.partition(";")[0].strip().partition("=") for member in header.split(",")[:_MOST_MEMBERS])
    named = ((name.strip()[len(_PREFIX) :], unquote(value.strip())) for name, _, value in members if _is_ours(name))
    return {name: value for name, value in named if 0 < len(value) <= _LONGEST_VALUE and value.isprintable()}


def _redaction(said: str | None) -> Redaction:
    """What is kept out; where the number cannot be read, everything."""
    if said is None:
        return Redaction.NOTHING
    everything = Redaction.EVERYTHING
    return everything & int(said) if said.isdecimal() and said.isascii() else everything


def _rate(said: str | None) -> float | None:
    try:
        rate = float(said or "")
    except ValueError:
        return None
    return rate if 0 <= rate <= 1 else None
