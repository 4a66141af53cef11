"""What stands in for two methods of OpenAI's clients: `request`, and `_process_response`, which `request` ends with.

The first sees a request and what came of it, the second the answer as it came over the wire. Both are plain functions:
a wrapper of wrapt's that stands in a class makes an object for each call, which takes three times as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from athina_trace import _guard, _runtime
from athina_trace._clock import clock
from athina_trace._wrapping import callables
from athina_trace.integrations.openai.details import fetch, fetch_async
from athina_trace.integrations.openai.following import Follower
from athina_trace.integrations.openai.paths import Route, route
from athina_trace.integrations.openai.shape import json_body
from athina_trace.integrations.openai.watched import Watched, leave_unread

MARK = "_athina_trace"
"""What a client that is instrumented by itself is known by: to look it up in a set takes longer."""
_NOTHING: Mapping[str, Any] = {}


class Switch:
    """What is instrumented, and how."""

    everything = False
    """Every client, marked or not."""
    fetches = False
    """Whether a run that has ended is asked for its messages and steps."""


switch = Switch()
_came_last: tuple[Any, Any] = None, None
"""The answer that a client made last, or the error that it raised instead, and httpx's response behind it. Between
this and the end of its request another thread may put one here; whoever does not find his own reads it at once."""


def processed(method: Any) -> Any:
    """Stand in for `_process_response`: the client makes an answer of what came over the wire."""

    @callables.wraps(method)
    def patch(client: Any, *args: Any, **kwargs: Any) -> Any:
        global _came_last  # noqa: PLW0603 - see there
        try:
            answer = method(client, *args, **kwargs)
        except Exception as error:
            _came_last = error, kwargs.get("response")
            raise
        _came_last = answer, kwargs.get("response")
        return answer

    return patch


def processed_async(method: Any) -> Any:
    """`processed` for async clients."""

    @callables.wraps(method)
    async def patch(client: Any, *args: Any, **kwargs: Any) -> Any:
        global _came_last  # noqa: PLW0603 - see there
        try:
            answer = await method(client, *args, **kwargs)
        except Exception as error:
            _came_last = error, kwargs.get("response")
            raise
        _came_last = answer, kwargs.get("response")
        return answer

    return patch


def requested(method: Any) -> Any:
    """Stand in for `request`."""

    @callables.wraps(method)
    def patch(client: Any, *args: Any, **kwargs: Any) -> Any:
        began = clock.perf_ns()
        try:
            answer = method(client, *args, **kwargs)
        except BaseException as error:
            _failed(client, args, kwargs, began, error)
            raise
        watched = _came(client, args, kwargs, began, answer)
        if watched is not None and switch.fetches:
            fetch(client, watched)
        return answer

    return patch


def requested_async(method: Any) -> Any:
    """`requested` for async clients."""

    @callables.wraps(method)
    async def patch(client: Any, *args: Any, **kwargs: Any) -> Any:
        began = clock.perf_ns()
        try:
            answer = await method(client, *args, **kwargs)
        except BaseException as error:
            _failed(client, args, kwargs, began, error)
            raise
        watched = _came(client, args, kwargs, began, answer)
        if watched is not None and switch.fetches:
            await fetch_async(client, watched)
        return answer

    return patch


def _route(client: Any, options: Any) -> Route | None:
    """What a request is about; None where it concerns no answer, or nobody wants to know."""
    if not (switch.everything or MARK in vars(client)) or not _runtime.may_trace():
        return None
    return route(options.method, options.url)


def _failed(client: Any, args: Any, kwargs: Any, began: int, error: BaseException) -> None:
    global _came_last
    try:
        (last, wire), _came_last = _came_last, (None, None)
        options = args[1] if len(args) > 1 else kwargs["options"]
        about = _route(client, options)
        if about is not None:
            # An answer that does not fit what the program wants it parsed to, or is cut off, has come all the same.
            answer = json_body(wire) if last is error else getattr(error, "completion", None)
            Watched(about, options, began).done(answer, error)
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.swallow("recording a failed request of OpenAI's client")


def _came(client: Any, args: Any, kwargs: Any, began: int, answer: Any) -> Watched | None:
    """Record an answer; its request, where something may be left to ask."""
    global _came_last
    try:
        (last, wire), _came_last = _came_last, (None, None)
        options = args[1] if len(args) > 1 else kwargs["options"]
        about = _route(client, options)
        if about is None:
            return None
        streamed = kwargs.get("stream")
        # Not by its name: a model of the client that has no such field looks for it long.
        raw = getattr(answer, "__dict__", _NOTHING).get("http_response")
        if raw is None and not streamed and last is answer and leave_unread(about, options, began, answer, wire):
            return None
        watched = Watched(about, options, began)
        if raw is None and streamed:
            Follower(watched).attach(answer)
        elif raw is not None and (streamed or not hasattr(raw, "_content")):
            Follower(watched).attach_raw(answer, streamed=bool(streamed))
        else:
            watched.done(answer)
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.swallow("recording an answer of OpenAI's client")
        return None
    return watched
