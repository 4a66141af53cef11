"""Which results continue after the return, and how their call ends with them. The one place that decides it.

A call ends with its return, unless its result is

- a generator, an async generator or a coroutine: driven by `generators`;
- a future, that is whatever has `add_done_callback` (asyncio's tasks and futures, those of `concurrent.futures`);
- a streaming response of a known web framework: Starlette's and FastAPI's, Flask's, Django's, Quart's, Litestar's,
  aiohttp's, Bottle's; or one of httpx that is not read yet;
- an iterator or async iterator of any class, that is whatever has `__next__` or `__anext__`: to read it uses it up;
- any other awaitable;
- a tuple of a stream and what is known beside it, such as the status and headers that Flask takes, or sources: exactly
  one of the items is one of the above, awaitables and futures excepted.

What may be read again is a result as it is: lists, dictionaries, arrays, frames, query sets, responses whose body is
there. So are files (`read`) and cursors of databases (`fetchone`, or a class called so), which are used rather than
read through, and proxies that answer every question: mocks, weak references, context-local objects.

Futures and responses stay the objects that they are. Iterators and awaitables are replaced by a transparent proxy:
`isinstance`, attributes, `with`, equality are those of the object itself. So it is with the one inside of a tuple.
"""

from __future__ import annotations

import asyncio
import types
import weakref
from collections.abc import Mapping
from typing import Any, Final

import wrapt

from athina_trace._serialization.introspection import ABSENT, instance_dict, mro_of, nameplate, static, type_name
from athina_trace._wrapping import generators
from athina_trace._wrapping.calls import Call, attempt
from athina_trace._wrapping.followed import proxy_class
from athina_trace._wrapping.generators import Follow

RETURNED: Final = frozenset({str, type(None), dict, list, int, float, bool, bytes, set, frozenset})
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
}
"""Where they keep what is still to be read: an attribute of an attribute."""
_MOST_BESIDE: Final = 8
"""Items of a tuple among which a stream is looked for."""
_ANSWERS_ALL: Final = frozenset({"unittest.mock.NonCallableMock", "werkzeug.local.LocalProxy", "celery.local.Proxy"})
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
    path = next((_STREAMS_IN[name] for name in names if name in _STREAMS_IN), None)
    if path is not None:
        return _returned if _FILES & {*names} else lambda result, call: _follow_response(result, path, call)
    abilities = _abilities(kind)
    return (lambda result, call: _follow_steps(result, call, abilities)) if any(abilities) else _returned


def _abilities(kind: type) -> tuple[bool, bool, bool]:
    """Whether it is an iterator, an async iterator, an awaitable."""
    names = (type_name(base) for base in mro_of(kind))
    if static(kind, *_USED_NOT_READ) is not ABSENT or any(name.endswith(("Cursor", "cursor")) for name in names):
        return False, False, False
    # A class that says None is not what its base is.
    methods = (static(kind, name) for name in ("__next__", "__anext__", "__await__"))
    sync, is_async, awaited = (method is not ABSENT and method is not None for method in methods)
    return sync, is_async, awaited


def _follow_in_tuple(result: tuple[Any, ...], call: Call) -> Any:
    if len(result) > _MOST_BESIDE:
        return None
    try:
        streams = [at for at, item in enumerate(result) if type(item) not in RETURNED and _is_stream(type(item))]
    except TypeError:  # even a class can refuse to be looked up
        return None
    if len(streams) != 1 or (followed := follow(result[streams[0]], call)) is None:
        return None
    return *result[: streams[0]], followed, *result[streams[0] + 1 :]


drive(tuple, _follow_in_tuple)


def _is_stream(kind: type) -> bool:
    names = {type_name(base) for base in mro_of(kind)}
    return any(_abilities(kind)[:2]) if names.isdisjoint(_STREAMS_IN) else True


def _follow_proxied(result: Any, call: Call) -> Any:
    """What a proxy of wrapt can do is what it defines itself, and what the object inside can do."""
    abilities = [False, False, False]
    inside = result
    while issubclass(type(inside), wrapt.BaseObjectProxy):
        abilities = [a or b for a, b in zip(abilities, _abilities(type(inside)), strict=True)]
        inside = inside.__wrapped__
    if follow_inside := type(inside) not in RETURNED:
        abilities = [a or b for a, b in zip(abilities, _abilities(type(inside)), strict=True)]
    if static(type(inside), "add_done_callback") is not ABSENT:
        return _follow_future(result, call)
    return _follow_steps(result, call, tuple(abilities)) if follow_inside and any(abilities) else None


def _follow_steps(result: Any, call: Call, abilities: tuple[bool, ...]) -> Any:
    return proxy_class(abilities)(result, call, follow, result)


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
    body = getattr(holder, attribute, None)
    if isinstance(body, (str, bytes, list, tuple)) or static(type(body), "read") is not ABSENT:
        return None
    abilities = (static(type(body), "__iter__") is not ABSENT, static(type(body), "__aiter__") is not ABSENT, False)
    # What httpx has read it keeps, beside the stream that it read it from.
    if not any(abilities) or "_content" in instance_dict(response):
        return None
    setattr(holder, attribute, proxy_class(abilities)(body, call, follow, nameplate(response)))
    return response
