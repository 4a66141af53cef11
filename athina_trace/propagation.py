"""Carry the session to threads, callbacks and other processes."""

from __future__ import annotations

import contextvars
import math
from collections.abc import Callable, Mapping, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import quote, unquote

from athina_trace._capture.draft import current_draft
from athina_trace._pipeline.redaction import Redaction
from athina_trace._wrapping import generators, proxies
from athina_trace.context import Scoped, ScopeOverrides, current_scope

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
# W3C Baggage: systems must propagate at least 8192 bytes and 180 members.
_LONGEST_HEADER: Final = 8192
_MOST_MEMBERS: Final = 180
_LONGEST_VALUE: Final = 1024


def wrap(function: F) -> F:
    """Bind a function of any kind to the current context: session, customer, running log and all context variables.

    For callables that run later or elsewhere: threads, timers, callbacks. Each call runs in its own copy of the
    context, so that changes there affect neither its caller nor the next call. Keeps signature and kind.

    >>> with athina_session("thread_1", customer_id="disney"):
    ...     ask = wrap(lambda: inject({})["baggage"])
    >>> ask()
    'athina.session_id=thread_1,athina.customer_id=disney'
    """
    # Copied again for each call: a context can be entered only once at a time.
    captured = contextvars.copy_context()

    def run(wrapped: Any, _instance: object, args: Any, kwargs: Any) -> Any:
        context = captured.copy()
        return generators.drive_in(context.run(wrapped, *args, **kwargs), context)

    return cast("F", proxies.proxy(function, run))


class ContextThreadPoolExecutor(ThreadPoolExecutor):
    """A `ThreadPoolExecutor` whose work runs in the context in which it was submitted.

    >>> with ContextThreadPoolExecutor() as pool, athina_session("thread_1"):
    ...     pool.submit(inject, {}).result()
    {'baggage': 'athina.session_id=thread_1'}
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule `fn(*args, **kwargs)` in a copy of the current context; so does `map`."""
        run: Any = contextvars.copy_context().run
        return super().submit(run, fn, *args, **kwargs)


def inject(carrier: C) -> C:
    """Write the current scope into `carrier`, a dictionary or HTTP headers, and return the carrier.

    Adds to the entry `baggage` (W3C Baggage) the session, customer, environment, `prompt_slug`, model, sample rate, and
    whether the scope is private; custom attributes are not included. Values are percent-encoded. Members that would
    make the entry longer than 8192 characters are left out.

    >>> with athina_session("thread 1"):
    ...     inject({"x-request-id": "7"})
    {'x-request-id': '7', 'baggage': 'athina.session_id=thread%201'}
    """
    scope, draft = current_scope(), current_draft()
    values: dict[str, Any] = {
        # First, so that it is never left out: it keeps content private.
        "private": int(scope.redaction if draft is None else scope.redaction | draft.redaction) or None,
        "sample_rate": scope.sample_rate,
        **{name: scope.fields.get(name) for name in _CARRIED},
    }
    if draft is not None:
        values["session_id"] = draft.session_id()
    key = next((name for name in carrier if name.lower() == "baggage"), "baggage")
    others = [member for member in carrier.get(key, "").split(",") if member.strip() and not _is_ours(member)]
    header = ",".join(member.strip() for member in others)
    for name, value in values.items():
        if value is not None:
            member = f"{_PREFIX}{name}={quote(str(value), safe='', errors='replace')}"
            longer = f"{header},{member}" if header else member
            header = longer if len(longer) <= _LONGEST_HEADER else header
    if header:
        carrier[key] = header
    return carrier


def _is_ours(member: str) -> bool:
    return member.strip().startswith(_PREFIX)


def extract(carrier: Mapping[str, str]) -> Scoped:
    """Return the scope in `carrier`, to be entered with `with` or used as a decorator.

    Malformed, unknown or oversized members are ignored; a carrier without baggage yields a scope that changes nothing.
    Baggage names the customer: accept it from your own services only.

    >>> with extract({"baggage": "athina.session_id=thread_1"}):
    ...     reference = log_inference(response="Hello")
    >>> recent_logs()[-1]["session_id"]
    'thread_1'
    """
    header: Any = next((value for name, value in carrier.items() if str(name).lower() == "baggage"), "")
    values: dict[str, str] = {}
    if isinstance(header, str) and len(header) <= _LONGEST_HEADER:
        for member in header.split(",")[:_MOST_MEMBERS]:
            # A member's properties follow a semicolon; ours have none.
            name, _, value = member.partition(";")[0].strip().partition("=")
            value = unquote(value.strip())
            if _is_ours(name) and 0 < len(value) <= _LONGEST_VALUE and value.isprintable():
                values[name.strip()[len(_PREFIX) :]] = value
    redaction = Redaction.NOTHING
    if (private := values.get("private")) is not None:
        # If the number is invalid, all content is kept private.
        everything = Redaction.EVERYTHING
        redaction = everything & int(private) if private.isdecimal() and private.isascii() else everything
    try:
        rate = float(values.get("sample_rate", "nan"))
    except ValueError:
        rate = math.nan
    fields: dict[str, Any] = {name: values[name] for name in _CARRIED if name in values}
    return Scoped(ScopeOverrides(fields, {}, redaction, rate if 0 <= rate <= 1 else None))
