"""Replacements for methods of OpenAI's clients: above all `request`, and `_process_response`, its last step.

The first sees a request and its outcome; the second the answer that the client itself made, and the response if
that cannot be parsed to what the program wants. Both are plain functions: wrapt's wrappers create an object for
each call, which takes three times as long.
"""

from __future__ import annotations

import contextvars
import logging
from itertools import count
from typing import Any, NamedTuple

from athina_trace import _guard, _runtime
from athina_trace._answers.records import Key
from athina_trace._capture import nesting
from athina_trace._capture.active_span import span_attributes
from athina_trace._capture.answer_logs import Origin
from athina_trace._capture.draft import current_draft
from athina_trace._clock import clock
from athina_trace._wrapping import callables
from athina_trace.context import current_scope
from athina_trace.integrations.openai.normalise import NOTHING, answer_of, body_of, normalise
from athina_trace.integrations.openai.request_record import RequestRecord
from athina_trace.integrations.openai.routes import CONVERSING, route, unlogged
from athina_trace.integrations.openai.run_details import fetch, fetch_async
from athina_trace.integrations.openai.stream_observer import StreamObserver

MARK = "_athina_trace"
"""Attribute that marks a single instrumented client: looking clients up in a set takes longer."""


class Switch:
    """What is instrumented, and how."""

    everything = False
    """Every client, marked or not."""
    fetches = False
    """Whether the messages and steps of runs that have ended are fetched."""


switch = Switch()


class _ActiveRequest:
    """A request in progress, and what the client itself made of it."""

    __slots__ = ("answer", "body", "client", "is_over", "is_recorded", "name", "options", "response", "within")

    def __init__(self, client: Any, options: Any) -> None:
        self.client, self.options = client, options
        self.name: Key | None = None
        """Its key among the spans and runs around it and inside it."""
        self.within: tuple[Key, ...] = ()
        if nesting.is_followed:
            # A tool that was switched on earlier may begin its span inside the request.
            self.name = ("request", str(next(_numbers)))
            self.within = nesting.begin(self.name)
        self.answer: Any = None
        """What `_process_response` returned; other tools may wrap it before the program gets it."""
        self.body: Any = None
        """The body as the client decoded it."""
        self.response: Any = None
        """The HTTP response that the client parsed, or could not: its body may not fit what the program wants."""
        self.is_recorded = self.is_over = False


_numbers = count()
_active: contextvars.ContextVar[_ActiveRequest | None] = contextvars.ContextVar("athina_trace_request", default=None)


def patched_process_response(method: Any) -> Any:
    """Replace `_process_response`, in which the client makes the answer from the HTTP response."""

    @callables.wraps(method)
    def patch(client: Any, *args: Any, **kwargs: Any) -> Any:
        response = kwargs.get("response")
        try:
            answer = method(client, *args, **kwargs)
        except Exception:
            _note_unparsed(response)
            raise
        _note_answer(client, kwargs, response, answer)
        return answer

    return patch


def patched_process_response_async(method: Any) -> Any:
    """Replace `_process_response` of async clients."""

    @callables.wraps(method)
    async def patch(client: Any, *args: Any, **kwargs: Any) -> Any:
        response = kwargs.get("response")
        try:
            answer = await method(client, *args, **kwargs)
        except Exception:
            _note_unparsed(response)
            raise
        _note_answer(client, kwargs, response, answer)
        return answer

    return patch


def patched_process_response_data(method: Any) -> Any:
    """Replace `_process_response_data`, in which the client makes an object from a decoded body or stream chunk."""

    @callables.wraps(method)
    def patch(client: Any, *args: Any, **kwargs: Any) -> Any:
        active = _active.get()
        if active is not None and active.client is client:
            active.body = kwargs.get("data")
        return method(client, *args, **kwargs)

    return patch


def _note_unparsed(response: Any) -> None:
    active = _active.get()
    if active is not None:
        active.response = response


def _note_answer(client: Any, kwargs: Any, response: Any, answer: Any) -> None:
    active = _active.get()
    if active is not None and active.client is client and not active.is_over:
        active.answer, active.response = answer, response
    elif _is_traced(client) and (sent := _take_sent(client)) is not None:
        _record(sent.options, kwargs, sent.started_ns, answer, response)


def patched_status_error(method: Any) -> Any:
    """Replace `_make_status_error_from_response`, which is called when the server answers with an error status."""

    @callables.wraps(method)
    def patch(client: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        error = method(client, response, *args, **kwargs)
        if _has_own_request(client) and (sent := _take_sent(client)) is not None:
            _record_failure(sent.options, sent.started_ns, error)
        return error

    return patch


def _has_own_request(client: Any) -> bool:
    """Return whether an instrumented client does this in its own `request`, which is not inside ours."""
    active = _active.get()
    return (active is None or active.client is not client or active.is_over) and _is_traced(client)


class _Sent(NamedTuple):
    """A request that is sent by a client with its own `request`."""

    request: Any
    client: Any
    options: Any
    started_ns: int


_sent: contextvars.ContextVar[_Sent | None] = contextvars.ContextVar("athina_trace_sent", default=None)


def patched_build_request(method: Any) -> Any:
    """Replace `_build_request`, which is called before a request is sent, for the first time or again."""

    @callables.wraps(method)
    def patch(client: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
        request = method(client, options, *args, **kwargs)
        if _has_own_request(client):
            before = _sent.get()
            is_again = before is not None and before.client is client and kwargs.get("retries_taken")
            started_ns = before.started_ns if before is not None and is_again else clock.perf_ns()
            _sent.set(_Sent(request, client, options, started_ns))
        return request

    return patch


def patched_connection_error(method: Any) -> Any:
    """Replace `__init__` of the exception that a client raises if no server answers."""

    @callables.wraps(method)
    def patch(error: Any, *args: Any, **kwargs: Any) -> None:
        method(error, *args, **kwargs)
        sent = _sent.get()
        if sent is not None and sent.request is getattr(error, "request", None):
            _take_sent(sent.client)
            _record_failure(sent.options, sent.started_ns, error)

    return patch


def _take_sent(client: Any) -> _Sent | None:
    """Take the finished request of a client with its own `request`, which another tool installed before our patch.

    None for a request that was built before our patch, too.
    """
    sent = _sent.get()
    if sent is None or sent.client is not client:
        return None
    _sent.set(None)
    message = (
        "the `request` of an OpenAI client was replaced before instrument_openai() was called: its requests are "
        "logged, except those cancelled before an answer arrives; call instrument_openai() first to log these, too"
    )
    _guard.log_throttled(logging.INFO, "own request", message)
    return sent


def patched_request(method: Any, *, is_base: bool = True) -> Any:
    """Replace `request`.

    Args:
        method: the method to replace.
        is_base: whether it is the base class's method. In a subclass, only what the client itself answers is recorded,
            unless the patched method of the base class records it.
    """

    @callables.wraps(method)
    def patch(client: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_traced(client):
            return method(client, *args, **kwargs)
        started_ns, around, active = clock.perf_ns(), _active.get(), _ActiveRequest(client, _options(args, kwargs))
        token = _active.set(active)
        try:
            answer = method(client, *args, **kwargs)
        except BaseException as error:
            _end(active, around, token)
            if not active.is_recorded:
                _record_failure(active.options, started_ns, error, active)
            raise
        _end(active, around, token)
        own = answer if active.answer is None and is_base else active.answer
        request = None
        if own is not None and not active.is_recorded:
            request = _record(active.options, kwargs, started_ns, own, active.response, active)
        if request is not None and switch.fetches:
            fetch(client, request)
        return answer

    return patch


def patched_request_async(method: Any, *, is_base: bool = True) -> Any:
    """Replace `request` of async clients, like `patched_request`."""

    @callables.wraps(method)
    async def patch(client: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_traced(client):
            return await method(client, *args, **kwargs)
        started_ns, around, active = clock.perf_ns(), _active.get(), _ActiveRequest(client, _options(args, kwargs))
        token = _active.set(active)
        try:
            answer = await method(client, *args, **kwargs)
        except BaseException as error:
            _end(active, around, token)
            if not active.is_recorded:
                _record_failure(active.options, started_ns, error, active)
            raise
        _end(active, around, token)
        own = answer if active.answer is None and is_base else active.answer
        request = None
        if own is not None and not active.is_recorded:
            request = _record(active.options, kwargs, started_ns, own, active.response, active)
        if request is not None and switch.fetches:
            await fetch_async(client, request)
        return answer

    return patch


def _end(active: _ActiveRequest, around: _ActiveRequest | None, token: contextvars.Token[Any]) -> None:
    """End a request. If the same request is around it, from a subclass's `request`, that has nothing left to record."""
    active.is_over = True
    if active.name is not None:
        nesting.end(active.name)
    try:  # noqa: SIM105 - making a context manager takes longer than all the rest here
        _active.reset(token)
    except ValueError:  # an async request that is closed in another context than it began in
        pass
    if around is None or around.client is not active.client or around.is_over:
        return
    with _guard.shield("comparing two requests of OpenAI's client"):
        outer, inner = around.options, active.options
        # The options may be copied on the way in; but a hook of the client may also make a request of its own.
        around.is_recorded |= outer is inner or (
            (outer.method, outer.url, outer.json_data) == (inner.method, inner.url, inner.json_data)
        )


def _options(args: Any, kwargs: Any) -> Any:
    """Return the client's options for a request, which may be passed by position."""
    return args[1] if len(args) > 1 else kwargs.get("options")


def _is_traced(client: Any) -> bool:
    if switch.everything:  # without the guard, since the client is not looked at
        return _runtime.may_trace()
    with _guard.shield("inspecting a client of OpenAI"):
        return MARK in vars(client) and _runtime.may_trace()
    return False


def _begin(options: Any, started_ns: int, active: _ActiveRequest | None) -> RequestRecord | None:
    """Return the record of a request; None if it does not concern a model's answer."""
    about = route(options.method, options.url)
    if about is None:
        _report_unlogged(unlogged(options.method, options.url))
        return None
    _runtime.active()  # makes a runtime, which at the end of the process logs what still waits
    around = nesting.within() if active is None else active.within
    origin = Origin(started_ns, current_scope(), current_draft(), around, span_attributes())
    return RequestRecord(about, options, origin, None if active is None else active.name)


def patched_connect(method: Any) -> Any:
    """Replace `connect` of a resource, which opens a WebSocket without `request`."""
    api = "realtime" if "realtime" in method.__module__ else "live" if "live" in method.__module__ else "responses"

    @callables.wraps(method)
    def patch(resource: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_traced(resource._client):  # noqa: SLF001 - how the client's own resources find it
            _report_unlogged(f"{api}.connect")
        return method(resource, *args, **kwargs)

    return patch


_reported: set[str] = set()


def _report_unlogged(api: str | None) -> None:
    """Warn once per process that answers of this API are not logged."""
    if api is None or api in _reported:
        return
    _reported.add(api)
    # Users who instrument the client may expect logs of conversations, but hardly of embeddings.
    if api in CONVERSING or api.endswith(".connect"):
        message = (
            "answers that OpenAI's client gets through %s are not logged; log them yourself with log_inference(...)"
        )
        _guard.log_throttled(logging.WARNING, f"unlogged {api}", message, api)
    else:
        message = "requests of OpenAI's client to %s are not logged: they do not return a model's answer"
        _guard.log_throttled(logging.INFO, f"unlogged {api}", message, api)


def _record_failure(options: Any, started_ns: int, error: BaseException, active: _ActiveRequest | None = None) -> None:
    with _guard.shield("recording a failed request of OpenAI's client"):
        request = _begin(options, started_ns, active)
        if request is not None:
            # There is an answer even if it is cut off, or does not fit what the program wants it parsed to.
            body = body_of(active.response) if active is not None and active.response is not None else None
            request.finished(normalise(getattr(error, "completion", None)) if body is None else body, error)


def _record(
    options: Any,
    kwargs: Any,
    started_ns: int,
    answer: Any,
    response: Any,
    active: _ActiveRequest | None = None,
) -> RequestRecord | None:
    """Record an answer, which the client made of the HTTP `response`; return its request."""
    try:
        request = _begin(options, started_ns, active)
        if request is None:
            return None
        streamed = bool(kwargs.get("stream"))
        # Not by `getattr`, which takes long on a client's model that lacks the field.
        raw = getattr(answer, "__dict__", NOTHING).get("http_response")
        if raw is None and streamed:
            StreamObserver(request).attach(answer)
        elif raw is not None and (streamed or not hasattr(raw, "_content")):
            StreamObserver(request).attach_raw(answer, streamed=streamed)
        else:
            # Outside of decorated calls, everything is read before the program gets the answer, and could change it.
            decoded = None if active is None or request.origin.draft is not None else active.body
            request.finished(answer_of(response, answer, decoded))
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.swallow("recording an answer of OpenAI's client")
        return None
    return request
