"""What replaces two methods of OpenAI's clients: `request`, and `_process_response`, which `request` ends with.

The first sees a request and what came of it; the second the body of an answer that cannot be parsed to what the program
wants. Both are plain functions: wrapt's wrappers make an object for each call, which takes three times as long.
"""

from __future__ import annotations

import threading
from typing import Any

from athina_trace import _guard, _runtime
from athina_trace._clock import clock
from athina_trace._wrapping import callables
from athina_trace.integrations.openai.normalise import NOTHING, body_of, normalise
from athina_trace.integrations.openai.request_record import RequestRecord
from athina_trace.integrations.openai.routes import route
from athina_trace.integrations.openai.run_details import fetch, fetch_async
from athina_trace.integrations.openai.stream_observer import StreamObserver

MARK = "_athina_trace"
"""The attribute of a client that is instrumented by itself: looking it up in a set takes longer."""


class Switch:
    """What is instrumented, and how."""

    everything = False
    """Every client, marked or not."""
    fetches = False
    """Whether a run that has ended is asked for its messages and steps."""


switch = Switch()


class _Unparsed(threading.local):
    """The error that a client raised over a body last, and httpx's response with that body.

    For each thread: between the two methods of one request no other request runs in it, whether sync or async.
    """

    error: Exception | None = None
    response: Any = None


_unparsed = _Unparsed()


def processed(method: Any) -> Any:
    """Replace `_process_response`: the client makes an answer of what came over the wire."""

    @callables.wraps(method)
    def patch(client: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(client, *args, **kwargs)
        except Exception as error:
            _unparsed.error, _unparsed.response = error, kwargs.get("response")
            raise

    return patch


def processed_async(method: Any) -> Any:
    """Replace `_process_response` of async clients."""

    @callables.wraps(method)
    async def patch(client: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await method(client, *args, **kwargs)
        except Exception as error:
            _unparsed.error, _unparsed.response = error, kwargs.get("response")
            raise

    return patch


def requested(method: Any) -> Any:
    """Replace `request`."""

    @callables.wraps(method)
    def patch(client: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_traced(client):
            return method(client, *args, **kwargs)
        started_ns = clock.perf_ns()
        try:
            answer = method(client, *args, **kwargs)
        except BaseException as error:
            _record_failure(args, kwargs, started_ns, error)
            raise
        request = _record(args, kwargs, started_ns, answer)
        if request is not None and switch.fetches:
            fetch(client, request)
        return answer

    return patch


def requested_async(method: Any) -> Any:
    """Replace `request` of async clients."""

    @callables.wraps(method)
    async def patch(client: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_traced(client):
            return await method(client, *args, **kwargs)
        started_ns = clock.perf_ns()
        try:
            answer = await method(client, *args, **kwargs)
        except BaseException as error:
            _record_failure(args, kwargs, started_ns, error)
            raise
        request = _record(args, kwargs, started_ns, answer)
        if request is not None and switch.fetches:
            await fetch_async(client, request)
        return answer

    return patch


def _is_traced(client: Any) -> bool:
    try:
        return (switch.everything or MARK in vars(client)) and _runtime.may_trace()
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.swallow("looking at a client of OpenAI's")
        return False


def _begin(args: Any, kwargs: Any, started_ns: int) -> RequestRecord | None:
    """Return the record of a request; None where it concerns no answer of a model."""
    options = args[1] if len(args) > 1 else kwargs["options"]
    about = route(options.method, options.url)
    return None if about is None else RequestRecord(about, options, started_ns)


def _record_failure(args: Any, kwargs: Any, started_ns: int, error: BaseException) -> None:
    try:
        unparsed = _unparsed.response if _unparsed.error is error else None
        _unparsed.error = _unparsed.response = None
        request = _begin(args, kwargs, started_ns)
        if request is not None:
            # An answer that does not fit what the program wants it parsed to, or is cut off, has come all the same.
            body = body_of(unparsed) if unparsed is not None else normalise(getattr(error, "completion", None))
            request.finished(body, error)
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.swallow("recording a failed request of OpenAI's client")


def _record(args: Any, kwargs: Any, started_ns: int, answer: Any) -> RequestRecord | None:
    """Record an answer; returns its request."""
    try:
        request = _begin(args, kwargs, started_ns)
        if request is None:
            return None
        streamed = bool(kwargs.get("stream"))
        # Not by its name: a model of the client that has no such field looks for it long.
        raw = getattr(answer, "__dict__", NOTHING).get("http_response")
        if raw is None and streamed:
            StreamObserver(request).attach(answer)
        elif raw is not None and (streamed or not hasattr(raw, "_content")):
            StreamObserver(request).attach_raw(answer, streamed=streamed)
        else:
            request.finished(normalise(answer))
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.swallow("recording an answer of OpenAI's client")
        return None
    return request
