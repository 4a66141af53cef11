"""Which results continue after the return, and how their call ends with them. The one place that decides it.

A call ends with its return, unless its result is

- a generator, an async generator or a coroutine: driven by `generators`;
- a future, that is whatever has `add_done_callback` (asyncio's tasks and futures, those of `concurrent.futures`);
- the result of a pool of `multiprocessing`, which `apply_async` and `map_async` give;
- a streaming response of a known web framework: Starlette's and FastAPI's, Flask's, Django's, Quart's, Litestar's,
  aiohttp's, Bottle's; or one of httpx or requests that is not read yet;
- an iterator or async iterator of any class, that is whatever has `__next__` or `__anext__`: to read it uses it up.
  So does the `receive()` of a channel of anyio or trio;
- any other awaitable;
- a context manager of `contextlib`, or one that opens a stream: what it gives on entering ends the call as if it had
  been returned, or else that is the result when the block is left;
- a tuple or a dictionary of a stream and what is known beside it, such as the status and headers that Flask takes, or
  sources: exactly one of the items is one of the above, awaitables, futures and context managers excepted.

What may be read again is a result as it is: lists, dictionaries, arrays, frames, query sets, responses whose body is
there. So are files (`read`) and cursors of databases (`fetchone`, or a class called so), which are used rather than
read through, and proxies that answer every question: mocks, weak references, context-local objects.

Where a framework's handler pushes its answer (`send` of Sanic, `write` of Tornado, `resp.stream = …` of Falcon),
nothing is returned: what is to be decorated there is the function that gives the pieces.

Futures, dictionaries and responses stay the objects that they are. Iterators, awaitables and context managers are
replaced by a transparent proxy: `isinstance`, attributes, `with`, equality are those of the object itself. So it is
with the one inside of a tuple or a dictionary.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import types
import weakref
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, Final

import wrapt

from athina_trace._serialization.introspection import ABSENT, instance_dict, mro_of, nameplate, static, type_name
from athina_trace._wrapping import generators
from athina_trace._wrapping.calls import Call, attempt, run_now
from athina_trace._wrapping.followed import Abilities, StreamMaker, abilities_of, proxy_class
from athina_trace._wrapping.generators import Follow

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
}
"""Where they keep what is still to be read, or is called for it: an attribute of an attribute."""
_MOST_BESIDE: Final = 8
"""Items of a tuple or a dictionary among which a stream is looked for."""
_ANSWERS_ALL: Final = frozenset({"unittest.mock.NonCallableMock", "werkzeug.local.LocalProxy", "celery.local.Proxy"})
_STEPS: Final = frozenset({"__next__", "__anext__", "__await__"})
_MANAGERS: Final = ("contextlib._GeneratorContextManagerBase", "StreamManager", "ResponseContextManager")
"""How the names of context managers end that are made for one block: clients of models call those of streams so."""
_USED_NOT_READ: Final = ("read", "readline", "fetchone", "__array__")
_FILES: Final = frozenset({"django.http.response.FileResponse"})

_exact: dict[type, Follow] = {
    types.GeneratorType: lambda inner, call: generators.drive_generator(inner, call, follow),
    types.AsyncGeneratorType: generators.drive_async_generator,
    types.CoroutineType: lambda inner, call: generators.drive_coroutine(inner, call, follow),
}
# Weak, so that classes made on the fly can go.
_by_shape: weakref.WeakKeyDictionary[type, Follow] = weakref.WeakKeyDictionary()


def drive(kind: type, driver: Follow) -> None:
    """Have results of exactly this type end their calls through `driver`.

    It gives what the program gets, or None for a result that is like any other of its shape.
    """
    _exact[kind] = driver


def follow(result: Any, call: Call) -> Any:
    """Have `call` end with `result` and give what the program gets; None where the call ends with its return."""
    kind = type(result)
    try:
        exact, driver = _exact.get(kind), _by_shape.get(kind)
    except TypeError:  # even a class can refuse to be looked up
        return None
    if exact is not None and (followed := exact(result, call)) is not None:
        return followed
    if driver is None:
        driver = _by_shape[kind] = _driver(kind)
    return driver(result, call)


def _returned(_result: Any, _call: Call) -> None:
    """The call ends with its return."""


def _driver(kind: type) -> Follow:
    names = [type_name(base) for base in mro_of(kind)]
    if not _ANSWERS_ALL.isdisjoint(names) or kind in weakref.ProxyTypes:
        return _returned
    if issubclass(kind, wrapt.BaseObjectProxy):
        return _follow_proxied
    if static(kind, "add_done_callback") is not ABSENT:
        return _follow_future
    if "multiprocessing.pool.ApplyResult" in names:
        return _follow_pooled
    path = next((_STREAMS_IN[name] for name in names if name in _STREAMS_IN), None)
    if path is not None:
        return _returned if _FILES & {*names} else lambda result, call: _follow_response(result, path, call)
    abilities = _abilities(kind)
    return (lambda result, call: proxy_class(abilities)(result, call, follow, result)) if abilities else _returned


def _abilities(kind: type) -> Abilities:
    """What the proxy of such a result can do; nothing where it is a result as it is."""
    names = [type_name(base) for base in mro_of(kind)]
    if static(kind, *_USED_NOT_READ) is not ABSENT or any(name.endswith(("Cursor", "cursor")) for name in names):
        return frozenset()
    found = abilities_of(kind)
    continues = not _STEPS.isdisjoint(found) or any(name.endswith(_MANAGERS) for name in names)
    return found if continues else frozenset()


def _follow_in_tuple(result: tuple[Any, ...], call: Call) -> Any:
    at, followed = _followed_beside(result, call)
    return None if followed is None else (*result[:at], followed, *result[at + 1 :])


def _follow_in_dict(result: dict[Any, Any], call: Call) -> Any:
    names = [*result]
    at, followed = _followed_beside(result.values(), call)
    if followed is None:
        return None
    result[names[at]] = followed
    return result


drive(tuple, _follow_in_tuple)
drive(dict, _follow_in_dict)


def _followed_beside(items: Collection[Any], call: Call) -> tuple[int, Any]:
    """The place of the only stream among these items, and what is to take it; None where there is no such."""
    if len(items) <= _MOST_BESIDE:
        with suppress(TypeError):  # even a class can refuse to be looked up
            kinds = enumerate(map(type, items))
            streams = [at for at, kind in kinds if kind not in RETURNED and kind is not dict and _is_stream(kind)]
            if len(streams) == 1:
                at = streams[0]
                return at, follow([*items][at], call)
    return 0, None


def _is_stream(kind: type) -> bool:
    names = {type_name(base) for base in mro_of(kind)}
    return not _abilities(kind).isdisjoint({"__next__", "__anext__"}) if names.isdisjoint(_STREAMS_IN) else True


def _follow_proxied(result: Any, call: Call) -> Any:
    """What a proxy of wrapt can do is what it defines itself, and what the object inside can do."""
    abilities: Abilities = frozenset()
    inside = result
    while issubclass(type(inside), wrapt.BaseObjectProxy):
        abilities |= _abilities(type(inside)) & _STEPS
        inside = inside.__wrapped__
    if static(type(inside), "add_done_callback") is not ABSENT:
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


# ---- responses


def _follow_response(response: Any, path: tuple[str, ...], call: Call) -> Any:
    *outer, attribute = path
    holder = response
    for name in outer:
        holder = getattr(holder, name, None)
    body: Any = getattr(holder, attribute, None)
    # What httpx and requests have read they keep, beside the stream that they read it from.
    if isinstance(body, (str, bytes, list, tuple)) or instance_dict(response).get("_content", False) is not False:
        return None
    kind = type(body)
    if static(kind, "read") is not ABSENT:
        return None
    abilities = abilities_of(kind)
    abilities |= {step for step, at in (("__next__", "__iter__"), ("__anext__", "__aiter__")) if hasattr(kind, at)}
    if not abilities.isdisjoint({"__next__", "__anext__"}):
        setattr(holder, attribute, proxy_class(abilities)(body, call, follow, nameplate(response)))
    elif issubclass(kind, types.FunctionType | types.MethodType | functools.partial):
        setattr(holder, attribute, StreamMaker(body, call, follow, nameplate(response)))
    else:
        return None
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
    lost = weakref.finalize(event, _end_without, call, nameplate(result))
    event.set = note_and_end
    if event.is_set():
        end()
    return result


def _end_without(call: Call, name: str) -> None:
    run_now(attempt(call.done, name))
