"""Decides, in one place, which results keep a call open after it returns, and how the call ends with them.

A call ends when it returns, unless its result is

- a generator, an async generator or a coroutine: driven by `generators`;
- a future, that is, any object with `add_done_callback`, `result` and `exception` that is not an iterator (asyncio's
  tasks and futures, those of `concurrent.futures`);
- a result of a `multiprocessing` pool, from `apply_async` or `map_async`;
- a streaming response of a known web framework: Starlette and FastAPI, Flask, Django, Quart, Litestar, aiohttp, Bottle;
  one of LlamaIndex; a streamed run of the Agents SDK; Anthropic's stream helper, including its text stream; or a
  response of httpx or requests that has not been read yet;
- an iterator or async iterator of any class, that is, any object with `__next__` or `__anext__`, since reading consumes
  it. The same applies to the `receive()` of an anyio or trio channel;
- any other awaitable;
- a context manager of `contextlib`, or one that opens a stream: what it returns on entering ends the call as if it had
  been returned; if that does not continue, the call ends when the block is left;
- a tuple or dictionary of at most eight items, of which one or more are one of the above, except awaitables, futures
  and context managers: for example, a stream with the status and headers that Flask takes, or with its sources. If
  there are several streams, the last to end ends the call, and their texts are concatenated; copies made by
  `itertools.tee` are not followed;
- a greenlet, or another asynchronous result, of gevent.

Results that can be read again are logged as they are: lists, dictionaries, arrays, frames, query sets, complete
responses. So are files (`read`) and database cursors (`fetchone`, `fetchmany`, or a class of that name), which are not
read from beginning to end, Ray's references, and objects that have any attribute: mocks, weak proxies, context-local
objects.

If a framework's handler pushes its answer (Sanic's `send`, Tornado's `write`, Falcon's `resp.stream = …`), it returns
nothing: decorate the function that makes the pieces instead.

Items of a stream are read when they are yielded. Of a coroutine, which `asyncio.as_completed` yields before Python 3.13
and in a loop without `async`, only the name of its type is read.

Futures, dictionaries and responses remain the same objects. Iterators, awaitables and context managers are replaced by
a transparent proxy, also inside a tuple or dictionary: `isinstance`, attributes, `with` and equality behave as for the
object itself.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import sys
import types
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

import wrapt

from athina_trace._serialization.introspection import ABSENT, instance_dict, mro_of, static, type_name, type_placeholder
from athina_trace._wrapping import generators
from athina_trace._wrapping.calls import Call, attempt, run_now
from athina_trace._wrapping.followed import Abilities, StreamMaker, abilities_of, proxy_class
from athina_trace._wrapping.generators import Follow
from athina_trace._wrapping.several_streams import SeveralStreams

RETURNED: Final = frozenset({str, type(None), list, int, float, bool, bytes, set, frozenset})
"""Types of the most common results, none of which continue."""

# By name, so that no framework needs to be imported to recognise its objects.
_STREAMS_IN: Final[Mapping[str, tuple[str, ...]]] = {
    "starlette.responses.StreamingResponse": ("body_iterator",),
    "sse_starlette.sse.EventSourceResponse": ("body_iterator",),
    "werkzeug.wrappers.response.Response": ("response",),
    "django.http.response.StreamingHttpResponse": ("_iterator",),
    "quart.wrappers.response.Response": ("response", "iter"),
    "litestar.response.sse.ServerSentEvent": ("iterator", "content_async_iterator"),
    "litestar.response.streaming.Stream": ("iterator",),
    "aiohttp.web_response.Response": ("_body", "_iter"),
    "bottle.BaseResponse": ("body",),
    "httpx.Response": ("stream",),
    "httpx2.Response": ("stream",),
    "requests.models.Response": ("iter_content",),
    "llama_index.core.base.response.schema.StreamingResponse": ("response_gen",),
    "llama_index.core.base.response.schema.AsyncStreamingResponse": ("response_gen",),
    "agents.result.RunResultStreaming": ("stream_events",),
    **{
        f"anthropic.lib.streaming.{name}": ("_iterator",)
        for name in (
            *("_messages.MessageStream", "_messages.AsyncMessageStream"),
            *("_beta_messages.BetaMessageStream", "_beta_messages.BetaAsyncMessageStream"),
        )
    },
}
"""A response's class → the path of attributes to its stream, or to the function that makes the stream."""
_MOST_BESIDE: Final = 8
"""The largest tuple or dictionary that is searched for streams."""
_MOST_LAYERS: Final = 8
"""Maximum number of calls that end with the same stream, in an object that the program may return again and again."""
_ANSWERS_ALL: Final = frozenset({"unittest.mock.NonCallableMock", "werkzeug.local.LocalProxy", "celery.local.Proxy"})
_BELONGS_TO_C: Final = frozenset({"ray._raylet.ObjectRef"})
"""Awaitables that C code uses without checking their type: a proxy would crash the process."""
_STEPS: Final = frozenset({"__next__", "__anext__", "__await__"})
_MANAGERS: Final = ("contextlib._GeneratorContextManagerBase", "StreamManager", "ResponseContextManager")
"""Endings of the names of context managers for a single block; model clients use them for streams."""
_USED_NOT_READ: Final = ("read", "readline", "fetchone", "fetchmany", "__array__")
_FILES: Final = frozenset({"django.http.response.FileResponse"})

_exact: dict[type, Follow] = {
    types.GeneratorType: lambda inner, call: generators.drive_generator(inner, call, follow),
    types.AsyncGeneratorType: generators.drive_async_generator,
    types.CoroutineType: lambda inner, call: generators.drive_coroutine(inner, call, follow),
}
# Weak, so that dynamically created classes can be collected.
_by_shape: weakref.WeakKeyDictionary[type, Follow] = weakref.WeakKeyDictionary()


def drive(kind: type, driver: Follow) -> None:
    """Register `driver` to end calls whose results are of exactly this type.

    It returns what the program gets, or None for a result to which the general rules apply.
    """
    _exact[kind] = driver


def follow(result: Any, call: Call) -> Any:
    """End `call` with `result` and return what the program gets; None if the call ends when it returns."""
    kind = type(result)
    try:
        exact = _exact.get(kind)
    except TypeError:  # even a class can refuse to be looked up
        return None
    if exact is not None and (followed := exact(result, call)) is not None:
        return followed
    driver = _by_shape.get(kind)
    if driver is None:
        driver = _by_shape[kind] = _driver(kind)
    return driver(result, call)


def _returned(_result: Any, _call: Call) -> None:
    """Let the call end when it returns."""


def _driver(kind: type) -> Follow:  # noqa: PLR0911 - one for each way to continue
    names = [type_name(base) for base in mro_of(kind)]
    if not (_ANSWERS_ALL | _BELONGS_TO_C).isdisjoint(names) or any(kind is each for each in weakref.ProxyTypes):
        return _returned
    if issubclass(kind, wrapt.BaseObjectProxy):
        return _follow_proxied
    if _is_future(kind):
        return _follow_future
    if static(kind, "rawlink") is not ABSENT and static(kind, "successful") is not ABSENT:
        return _follow_greenlet
    if "multiprocessing.pool.ApplyResult" in names:
        return _follow_pooled
    path = next((_STREAMS_IN[name] for name in names if name in _STREAMS_IN), None)
    if path is not None:
        return _returned if _FILES & {*names} else lambda result, call: _follow_response(result, path, call)
    abilities = _abilities(kind)
    return (lambda result, call: proxy_class(abilities)(result, call, follow, result)) if abilities else _returned


def _is_future(kind: type) -> bool:
    """Return whether it is a future. Calls of gRPC also have callbacks, but are read or awaited."""
    has_all = all(static(kind, name) is not ABSENT for name in ("add_done_callback", "result", "exception"))
    return has_all and static(kind, "__next__", "__anext__") is ABSENT


def _abilities(kind: type) -> Abilities:
    """Return the abilities of the proxy for such a result; none if it is not followed."""
    names = [type_name(base) for base in mro_of(kind)]
    if static(kind, *_USED_NOT_READ) is not ABSENT or any(name.endswith(("Cursor", "cursor")) for name in names):
        return frozenset()
    found = abilities_of(kind)
    continues = not _STEPS.isdisjoint(found) or any(name.endswith(_MANAGERS) for name in names)
    return found if continues else frozenset()


def _follow_in_tuple(result: tuple[Any, ...], call: Call) -> Any:
    followed = _followed_in(enumerate(result), call) if len(result) <= _MOST_BESIDE else {}
    return tuple(followed.get(at, item) for at, item in enumerate(result)) if followed else None


def _follow_in_dict(result: dict[Any, Any], call: Call) -> Any:
    # In place, since the program may keep the dictionary and read the streams from it.
    followed = _followed_in([*result.items()], call) if len(result) <= _MOST_BESIDE else {}
    for name, stream in followed.items():
        if stream is not result[name]:
            _place(stream, result[name])
    result.update(followed)
    return result if followed else None


drive(tuple, _follow_in_tuple)
drive(dict, _follow_in_dict)


def _followed_in(items: Iterable[tuple[Any, Any]], call: Call) -> dict[Any, Any]:
    """Return the streams among these items, by place or name, each as the program gets it."""
    streams: dict[Any, Any] = {}
    with suppress(TypeError):  # even a class can refuse to be looked up
        for name, item in items:
            kind = type(item)
            if kind not in RETURNED and kind is not dict and _is_stream(kind) and _layers(item) < _MOST_LAYERS:
                streams[name] = item
    if not streams:
        return {}
    if len(streams) == 1:
        given = {name: follow(stream, call) for name, stream in streams.items()}
    elif any(type_name(type(stream)) == "itertools._tee" for stream in streams.values()):
        return {}  # all of them yield the same items, so none is the one answer
    else:
        given = SeveralStreams(call).followed(streams, follow)
    return {name: stream for name, stream in given.items() if stream is not None}


_placed: weakref.WeakValueDictionary[tuple[int, int], Any] = weakref.WeakValueDictionary()
"""Proxies that replaced a stream in one of the program's objects, by their id and the number of calls that follow."""


def _place(followed: Any, stream: Any) -> None:
    layers = _layers(stream) + 1
    _placed[id(followed), layers] = followed


def _layers(stream: Any) -> int:
    """Return how many calls follow this stream in one of the program's objects, which several may have returned."""
    return next((layers for layers in range(_MOST_LAYERS, 0, -1) if _placed.get((id(stream), layers)) is stream), 0)


def _is_stream(kind: type) -> bool:
    names = {type_name(base) for base in mro_of(kind)}
    return not _abilities(kind).isdisjoint({"__next__", "__anext__"}) if names.isdisjoint(_STREAMS_IN) else True


def _follow_proxied(result: Any, call: Call) -> Any:
    """Follow a wrapt proxy, which has its own abilities and those of the object inside."""
    abilities: Abilities = frozenset()
    inside = result
    while issubclass(type(inside), wrapt.BaseObjectProxy):
        abilities |= _abilities(type(inside)) & _STEPS
        inside = inside.__wrapped__
    if _is_future(type(inside)):
        return _follow_future(result, call)
    if type(inside) in RETURNED or type(inside) is dict:
        return None
    abilities |= _abilities(type(inside))
    return proxy_class(abilities)(result, call, follow, result) if abilities else None


# ---- futures


def _follow_future(future: Any, call: Call) -> Any:
    if future.done():
        _end_with(future, call)
    else:
        future.add_done_callback(lambda future: attempt(_end_with, future, call))
    return future


def _end_with(future: Any, call: Call) -> None:
    if future.cancelled():
        work = call.failed(asyncio.CancelledError())
    else:
        # `exception()` would mark it as retrieved: asyncio would not warn if the program never retrieves it.
        error = future._exception if hasattr(future, "_exception") else future.exception()  # noqa: SLF001
        work = call.done(future.result()) if error is None else call.failed(error)
    if work is None:
        return
    if asyncio._get_running_loop() is None:  # noqa: SLF001 - documented, never raises
        work()
    else:
        asyncio.get_running_loop().run_in_executor(None, work)


def _follow_greenlet(greenlet: Any, call: Call) -> Any:
    def end() -> None:
        error = greenlet.exception
        if error is None and issubclass(type(greenlet.value), BaseException):  # it was killed
            error = greenlet.value
        run_now(attempt(call.done, greenlet.value) if error is None else attempt(call.failed, error))

    if greenlet.ready():
        end()
    else:
        # In a new greenlet: the hub, which calls back, must not wait for a lock or a disk.
        greenlet.rawlink(lambda _: sys.modules["gevent"].spawn(end))
    return greenlet


# ---- responses


def _follow_response(response: Any, path: tuple[str, ...], call: Call) -> Any:
    *outer, attribute = path
    holder = response
    for name in outer:
        holder = getattr(holder, name, None)
    body: Any = getattr(holder, attribute, None)
    # httpx and requests keep a body that they have read beside its stream; responses of Flask's `send_file`
    # pass on a file.
    kept = instance_dict(response)
    is_read = kept.get("_content", False) is not False or kept.get("direct_passthrough") is True
    if is_read or isinstance(body, (str, bytes, list, tuple)):
        return None
    kind = type(body)
    if static(kind, "read") is not ABSENT:
        return None
    if _layers(body) == _MOST_LAYERS:
        return None
    abilities = abilities_of(kind)
    abilities |= {step for step, at in (("__next__", "__iter__"), ("__anext__", "__aiter__")) if hasattr(kind, at)}
    if not abilities.isdisjoint({"__next__", "__anext__"}):
        followed = proxy_class(abilities)(body, call, follow, type_placeholder(response))
    elif issubclass(kind, types.FunctionType | types.MethodType | functools.partial | StreamMaker):
        followed = StreamMaker(body, call, follow, type_placeholder(response))
    else:
        return None
    _place(followed, body)
    setattr(holder, attribute, followed)
    return response


# ---- results of pools


def _follow_pooled(result: Any, call: Call) -> Any:
    event, turn = result._event, itertools.count()  # noqa: SLF001 - nothing else says when it is there
    note = event.set

    def end() -> None:
        if next(turn) == 0:
            lost.detach()
            run_now(attempt(call.done if result._success else call.failed, result._value))  # noqa: SLF001 - as above

    def note_and_end() -> None:
        note()
        end()

    # For pools that are terminated, or whose thread was about to set the event when it was replaced.
    lost = weakref.finalize(event, _end_without, call, type_placeholder(result))
    event.set = note_and_end
    if event.is_set():
        end()
    return result


def _end_without(call: Call, name: str) -> None:
    run_now(attempt(call.done, name))
