"""`instrument_openai`: have OpenAI's client record what its models answer.

Every call of every client, sync or async, OpenAI or Azure, its own class or a subclass, whatever the resource
(`create`, `parse`, `stream`, the polls, further pages, raw and streaming responses), goes exactly once through
`SyncAPIClient.request` or `AsyncAPIClient.request`. These two are patched, rather than forty methods that differ from
version to version and call each other: one call is one request, whose method, path and body say what it is about.
Beside them `_process_response` is, which has the answer as it came over the wire; a client without it is read at once.

`openai` is never imported from here: the patch waits for the user to do it.
"""

from __future__ import annotations

import contextvars
import sys
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import wrapt

from athina_trace import _functions, _guard, _runtime
from athina_trace._calls import Call, complete
from athina_trace.openai.details import fetch, fetch_async
from athina_trace.openai.following import Follower, follower_of
from athina_trace.openai.paths import route
from athina_trace.openai.watched import Watched

if TYPE_CHECKING:
    from types import ModuleType

_BASE = "openai._base_client"
_STREAMS = "openai._streaming"
_CLASSES = {"SyncAPIClient": "Stream", "AsyncAPIClient": "AsyncStream"}
_METHODS = ("request", "_process_response")
_NOTHING: Mapping[str, Any] = {}
_COPIES = ("copy", "with_options")
_OURS = "_athina_trace"
"""What an instrumented client is known by: to look it up in a set of weak references takes longer."""
_asking: contextvars.ContextVar[Watched | None] = contextvars.ContextVar("athina_trace_request", default=None)
"""The request under way in this context whose answer is wanted as it comes over the wire."""


class _Switch:
    """What is patched, and how."""

    def __init__(self) -> None:
        self.everything = False
        self.hooked = False
        self.fetches = False
        self.clients: weakref.WeakSet[Any] = weakref.WeakSet()


_switch = _Switch()


def instrument_openai(client: Any = None, *, fetch_details: bool = False) -> None:
    """Record every answer that an OpenAI client gets, by itself, in the log of the decorated call around it.

    Outside of every decorated call, each run, response and chat completion becomes a log of its own. The user's calls
    give exactly what they gave before.

    Args:
        client: the one client to instrument; without one, all clients of this process are, those made already, too.
        fetch_details: have a run that has ended asked for its messages and steps, which costs requests; otherwise
            its log has those that the program itself asks for.

    May be called again, before or after `openai` is imported and clients are made; `uninstrument_openai` undoes it.
    Raises `TypeError` where `client` is no OpenAI client.

    >>> instrument_openai()
    """
    _switch.fetches = fetch_details
    if client is not None:
        _instrument_client(client)
        return
    _switch.everything = True
    if _BASE in sys.modules:
        _patch(sys.modules[_BASE])
    elif not _switch.hooked:
        _switch.hooked = True
        wrapt.register_post_import_hook(_imported, _BASE)


def uninstrument_openai(client: Any = None) -> None:
    """Undo `instrument_openai`: for one client, or without one for the whole process.

    >>> uninstrument_openai()
    """
    for each in [client] if client is not None else list(_switch.clients):
        _restore_client(each)
    if client is None:
        _switch.everything = False
        for name in _CLASSES:
            for method in _METHODS:
                _restore(getattr(sys.modules.get(_BASE), name, None), method)


def _imported(module: ModuleType) -> None:
    if _switch.everything:
        _patch(module)


def _patch(module: ModuleType) -> None:
    for name in _CLASSES:
        owner = getattr(module, name, None)
        if not callable(getattr(owner, "request", None)):
            _guard.say(30, "openai", "this version of openai has no %s.request: it is not instrumented", name)
        elif not isinstance(vars(owner).get("request"), _Patched):
            _surround(owner, _request_async if "Async" in name else _request)
    for name in _CLASSES.values():
        stream = getattr(sys.modules.get(_STREAMS), name, None)
        if isinstance(stream, type):
            _functions.drive(stream, _returned)


def _surround(owner: Any, request: Any) -> None:
    """Patch a class of clients, or one client; `request` is the wrapper for its method of that name."""
    for name, wrapper in zip(_METHODS, (request, _parsing), strict=True):
        if callable(getattr(owner, name, None)):
            setattr(owner, name, _Patched(getattr(owner, name), wrapper))


class _Patched(wrapt.FunctionWrapper[Any, Any]):
    """A method of the client with our wrapper around it."""


def _instrument_client(client: Any) -> None:
    if not all(callable(getattr(client, name, None)) for name in ("request", "with_options")):
        raise TypeError(f"instrument_openai() takes a client of the openai package, got {type(client).__name__}")
    if not isinstance(vars(client).get("request"), _Patched):
        is_async = any(kind.__name__ == "AsyncAPIClient" for kind in type(client).__mro__)
        _surround(client, _request_async if is_async else _request)
        for name in _COPIES:
            setattr(client, name, _Patched(getattr(client, name), _copied))
        setattr(client, _OURS, True)
        _switch.clients.add(client)


def _copied(wrapped: Any, _instance: object, args: Any, kwargs: Any) -> Any:
    """`client.with_options(...)` gives a client that is instrumented, too."""
    made = wrapped(*args, **kwargs)
    _instrument_client(made)
    return made


def _restore_client(client: Any) -> None:
    for name in (*_METHODS, *_COPIES):
        if isinstance(vars(client).get(name), _Patched):
            delattr(client, name)
    vars(client).pop(_OURS, None)
    _switch.clients.discard(client)


def _restore(owner: Any, name: str) -> None:
    """Put the client's own method back, unless somebody else has patched it since: theirs would go with ours."""
    patched = vars(owner).get(name) if owner is not None else None
    if isinstance(patched, _Patched):
        setattr(owner, name, patched.__wrapped__)


def _parsing(wrapped: Any, _client: Any, args: Any, kwargs: Any) -> Any:
    """The client makes an answer of what came over the wire."""
    watched = _asking.get()
    # Within a request another one may be made, by a hook of the transport: its answer is not this one's.
    if watched is not None and getattr(kwargs.get("options"), "json_data", None) is watched.params:
        watched.wire = kwargs.get("response")
    return wrapped(*args, **kwargs)


def _request(wrapped: Any, client: Any, args: Any, kwargs: Any) -> Any:
    watched = _begun(wrapped, client, args, kwargs)
    if watched is None:
        return wrapped(*args, **kwargs)
    try:
        result = wrapped(*args, **kwargs)
    except BaseException as error:
        _failed(watched, error)
        raise
    finally:
        _asking.set(None)
    _came(watched, result, kwargs)
    if _switch.fetches:
        fetch(client, watched)
    return result


async def _request_async(wrapped: Any, client: Any, args: Any, kwargs: Any) -> Any:
    watched = _begun(wrapped, client, args, kwargs)
    if watched is None:
        return await wrapped(*args, **kwargs)
    try:
        result = await wrapped(*args, **kwargs)
    except BaseException as error:
        _failed(watched, error)
        raise
    finally:
        _asking.set(None)
    _came(watched, result, kwargs)
    if _switch.fetches:
        await fetch_async(client, watched)
    return result


def _begun(wrapped: Any, client: Any, args: Any, kwargs: Any) -> Watched | None:
    """A request that concerns an answer; None for any other, and where another wrapper of ours sees it already."""
    try:
        if not _switch.everything and _OURS not in vars(client):
            return None
        options = args[1] if len(args) > 1 else kwargs["options"]
        about = route(options.method, options.url)
        if about is None or not _runtime.may_trace() or isinstance(wrapped, wrapt.BoundFunctionWrapper):
            return None
        watched = Watched(about, options)
        if about.asks and about.kind != "run" and watched.draft is None:
            _asking.set(watched)
        return watched  # noqa: TRY300 - what follows is the guard
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.fault("looking at a request of OpenAI's client")
        return None


def _failed(watched: Watched, error: BaseException) -> None:
    try:
        # An answer that was cut off comes with the exception that says so.
        watched.done(getattr(error, "completion", None), error)
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.fault("recording a failed request of OpenAI's client")


def _came(watched: Watched, result: Any, kwargs: Any) -> None:
    try:
        streamed = kwargs.get("stream")
        # Not by its name: a model of the client that has no such field looks for it long.
        raw = getattr(result, "__dict__", _NOTHING).get("http_response")
        if raw is None and not streamed:
            if watched.wire is None or not watched.leave_unread(result):
                watched.done(result)
        elif raw is None:
            Follower(watched).attach(result)
        elif streamed or not hasattr(raw, "_content"):
            Follower(watched).attach_raw(result, streamed=bool(streamed))
        else:
            watched.done(result)
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.fault("recording an answer of OpenAI's client")


def _returned(stream: Any, call: Call) -> Any:
    """A decorated function returned a stream of the client: its call ends when the stream does."""
    follower = follower_of(stream)
    if follower is None or not follower.then(call):
        complete(call.done(stream))
    return stream
