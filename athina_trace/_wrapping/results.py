"""Which results continue after the return, and how their call ends with them. The one place that decides it.

A call ends with its return, unless its result is

- a generator, an async generator or a coroutine: driven by `generators`;
- a future, that is whatever has `add_done_callback`, `result` and `exception`, and is no iterator (asyncio's tasks and
  futures, those of `concurrent.futures`);
- the result of a pool of `multiprocessing`, which `apply_async` and `map_async` give;
- a streaming response of a known web framework: Starlette's and FastAPI's, Flask's, Django's, Quart's, Litestar's,
  aiohttp's, Bottle's; one of LlamaIndex; a streamed run of the Agents SDK; Anthropic's helper, which is read by
  its texts, too; or one of httpx or requests that is not read yet;
- an iterator or async iterator of any class, that is whatever has `__next__` or `__anext__`: to read it uses it up.
  So does the `receive()` of a channel of anyio or trio;
- any other awaitable;
- a context manager of `contextlib`, or one that opens a stream: what it gives on entering ends the call as if it had
  been returned, or else that is the result when the block is left;
- a tuple or a dictionary of at most eight items, of which one or more are one of the above, awaitables, futures and
  context managers excepted: a stream and the status and headers that Flask takes, or sources. Of several streams, the
  last to end ends the call, and their texts follow one another; copies that `itertools.tee` makes are none.
- a greenlet, or another result, of gevent.

What may be read again is a result as it is: lists, dictionaries, arrays, frames, query sets, responses whose body is
there. So are files (`read`) and cursors of databases (`fetchone`, `fetchmany`, or a class called so), which are used
rather than read through, references to results of Ray, and proxies that answer every question: mocks, weak references,
context-local objects.

Where a framework's handler pushes its answer (`send` of Sanic, `write` of Tornado, `resp.stream = …` of Falcon),
nothing is returned: what is to be decorated there is the function that gives the pieces.

What a stream yields is read when it is yielded: of a coroutine, as `asyncio.as_completed` gives them before Python 3.13
and to a loop without `async`, that is the name of its type.

Futures, dictionaries and responses stay the objects that they are. Iterators, awaitables and context managers are
replaced by a transparent proxy: `isinstance`, attributes, `with`, equality are those of the object itself. The
same holds for one inside of a tuple or a dictionary.
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
from athina_trace._wrapping.several import Several

RETURNED: Final = frozenset({str, type(None), list, int, float, bool, bytes, set, frozenset})
"""Types of the commonest results, none of which continues."""

# By name: no framework is imported in order to recognise its objects.
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
"""Where they keep what is still to be read, or is called for it: an attribute of an attribute."""
_MOST_BESIDE: Final = 8
"""Items of a tuple or a dictionary among which streams are looked for."""
_MOST_LAYERS: Final = 8
"""Calls that end with one stream in an object which the program may return again and again."""
_ANSWERS_ALL: Final = frozenset({"unittest.mock.NonCallableMock", "werkzeug.local.LocalProxy", "celery.local.Proxy"})
_BELONGS_TO_C: Final = frozenset({"ray._raylet.ObjectRef"})
"""Awaitables that code in C takes for what it made, without asking: a proxy would end the process."""
_STEPS: Final = frozenset({"__next__", "__anext__", "__await__"})
_MANAGERS: Final = ("contextlib._GeneratorContextManagerBase", "StreamManager", "ResponseContextManager")
"""How the names of context managers end that are made for one block: clients of models call those of streams so."""
_USED_NOT_READ: Final = ("read", "readline", "fetchone", "fetchmany", "__array__")
_FILES: Final = frozenset({"django.http.response.FileResponse"})

_exact: dict[type, Follow] = {
    types.GeneratorType: lambda inner, call: generators.drive_generator(inner, call, follow),
    types.AsyncGeneratorType: generators.drive_async_generator,
    types.CoroutineType: lambda inner, call: generators.drive_coroutine(inner, call, follow),
}
# Weak, so that classes made on the fly can go.
_by_shape: weakref.WeakKeyDictionary[type, Follow] = weakref.WeakKeyDictionary()


def drive(kind: type, driver: Follow) -> None:
    """Register `driver` to end the calls whose results are exactly of this type.

    It gives what the program gets, or None for a result that is like any other of its shape.
    """
    _exact[kind] = driver


def follow(result: Any, call: Call) -> Any:
    """End `call` with `result` and return what the program gets; None where the call ends with its return."""
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
    """End the call with its return."""


def _driver(kind: type) -> Follow:  # noqa: PLR0911 - one for each way to continue
    names = [type_name(base) for base in mro_of(kind)]
    if not (_ANSWERS_ALL | _BELONGS_TO_C).isdisjoint(names) or kind in weakref.ProxyTypes:
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
    """Return whether it is a future. Calls of gRPC have callbacks, too, and give what is read or awaited of them."""
    has_all = all(static(kind, name) is not ABSENT for name in ("add_done_callback", "result", "exception"))
    return has_all and static(kind, "__next__", "__anext__") is ABSENT


def _abilities(kind: type) -> Abilities:
    """Return what the proxy of such a result can do; nothing where it is a result as it is."""
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
    # In place: a program that keeps the dictionary reads the streams out of it, too.
    followed = _followed_in([*result.items()], call) if len(result) <= _MOST_BESIDE else {}
    for name, stream in followed.items():
        if stream is not result[name]:
            _place(stream, result[name])
    result.update(followed)
    return result if followed else None


drive(tuple, _follow_in_tuple)
drive(dict, _follow_in_dict)


def _followed_in(items: Iterable[tuple[Any, Any]], call: Call) -> dict[Any, Any]:
    """Return the streams among these items, by place or name, as the program is to get them."""
    streams: dict[Any, Any] = {}
    with suppress(TypeError):  # even a class can refuse to be looked up
        for name, item in items:
            kind = type(item)
            if kind not in RETURNED and kind is not dict and _is_stream(kind) and _layers(item) < _MOST_LAYERS:
                streams[name] = item
    if len(streams) == 1:
        given = {name: follow(stream, call) for name, stream in streams.items()}
    elif any(type_name(type(stream)) == "itertools._tee" for stream in streams.values()):
        return {}  # they give the same: which of them would be the answer?
    else:
        given = Several(call).followed(streams, follow)
    return {name: stream for name, stream in given.items() if stream is not None}


_placed: weakref.WeakValueDictionary[tuple[int, int], Any] = weakref.WeakValueDictionary()
"""What took the place of a stream in an object of the program's own, by its id and the calls that follow it."""


def _place(followed: Any, stream: Any) -> None:
    layers = _layers(stream) + 1
    _placed[id(followed), layers] = followed


def _layers(stream: Any) -> int:
    """Return how many calls follow what is in an object of the program's: one may give what another gave, and so on."""
    return next((layers for layers in range(_MOST_LAYERS, 0, -1) if _placed.get((id(stream), layers)) is stream), 0)


def _is_stream(kind: type) -> bool:
    names = {type_name(base) for base in mro_of(kind)}
    return not _abilities(kind).isdisjoint({"__next__", "__anext__"}) if names.isdisjoint(_STREAMS_IN) else True


def _follow_proxied(result: Any, call: Call) -> Any:
    """Follow a proxy of wrapt, which can do what it defines itself and what the object inside can do."""
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
        # `exception()` would count as retrieving it: asyncio would no longer warn where the program never does.
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
        # Of its own greenlet: the hub, which calls back, must not wait for a lock or a disk.
        greenlet.rawlink(lambda _: sys.modules["gevent"].spawn(end))
    return greenlet


# ---- responses


def _follow_response(response: Any, path: tuple[str, ...], call: Call) -> Any:
    *outer, attribute = path
    holder = response
    for name in outer:
        holder = getattr(holder, name, None)
    body: Any = getattr(holder, attribute, None)
    # What httpx and requests have read they keep, beside the stream that they read it from; what Flask's `send_file`
    # gives passes a file on.
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

    # Of a pool that is terminated, or whose thread was about to set the event when that was replaced.
    lost = weakref.finalize(event, _end_without, call, type_placeholder(result))
    event.set = note_and_end
    if event.is_set():
        end()
    return result


def _end_without(call: Call, name: str) -> None:
    run_now(attempt(call.done, name))
