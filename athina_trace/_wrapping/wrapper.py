"""Surround a call of any kind of function: plain, coroutine, generator, async generator, or one that returns those.

What happens around the call is a `Call`; how each kind of function is driven is here, once, for everything in this
package that decorates. Generators are driven by native generators, so that `send`, `throw`, `close`, the return value
and their async twins behave as undecorated, and each step runs in a copy of the context in which the generator was
made: no context variable is held across a `yield`, and the consumer's context stays as it was.
"""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, TypeVar

from athina_trace import _guard
from athina_trace._wrapping import callables, proxies
from athina_trace._wrapping.calls import Call, NullCall, complete, run_in_thread

T = TypeVar("T")

Open = Callable[[Callable[..., Any], object, "tuple[Any, ...]", "dict[str, Any]"], "Call | None"]
"""(function, instance, args, kwargs) → the call, or None where this one is not to be surrounded."""


def surround(function: Any, opened: Open, *, enabled: Callable[[], bool] | None = None) -> Any:
    """Wrap `function` so that each call runs inside the `Call` that `opened` gives for it.

    `enabled` is asked before each call; where it says no, next to nothing is done. It must not raise.

    `function` may be a function of any kind, a method, a class or static method object, a partial or a callable
    instance; the wrapper keeps its signature, kind, attributes and pickling. Raises `TypeError` where it is none.
    """
    target = callables.without_binding(function)
    if not callable(target):
        message = f"expected a function or another callable to decorate, got {type(function).__name__}"
        raise TypeError(message)
    if callables.is_coroutine_function(target):
        run = _coroutine_wrapper(opened)
    elif callables.is_kind(target, inspect.isgeneratorfunction) or callables.is_kind(
        target, inspect.isasyncgenfunction
    ):
        run = _stream_wrapper(opened)
    else:
        run = _plain_wrapper(opened)
    return proxies.proxy(function, run, enabled=enabled)


def _plain_wrapper(opened: Open) -> Callable[..., Any]:
    def plain(wrapped: Any, instance: object, args: Any, kwargs: Any) -> Any:
        try:  # what `_ours` does, without the time that it takes
            call = opened(wrapped, instance, args, kwargs)
            if call is not None:
                call.enter()
        except RecursionError:
            call = None
        except Exception:  # noqa: BLE001 - the guard decides
            _guard.swallow("opening a call")
            call = None
        if call is None:
            return wrapped(*args, **kwargs)
        try:
            result = wrapped(*args, **kwargs)
        except BaseException as error:
            complete(_ours(call.failed, error))
            raise
        finally:
            try:
                call.leave()
            except Exception:  # noqa: BLE001 - the guard decides
                _guard.swallow("leaving a call")
        return _finish(result, call)

    return plain


def _ours(step: Callable[..., T], *given: Any) -> T | None:
    """Take a step of ours, which must not fail in the program's call; None where it does."""
    try:
        return step(*given)
    except RecursionError:
        # The program's own call may be the last that there is room for: even to say so would take another one.
        return None
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.swallow("surrounding a call")
        return None


def _coroutine_wrapper(opened: Open) -> Callable[..., Any]:
    async def run(wrapped: Any, instance: object, args: Any, kwargs: Any) -> Any:
        call = _ours(opened, wrapped, instance, args, kwargs)
        if call is None:
            return await wrapped(*args, **kwargs)
        return await _await(wrapped(*args, **kwargs), call)

    def coroutine(wrapped: Any, instance: object, args: Any, kwargs: Any) -> Any:
        return _named(run(wrapped, instance, args, kwargs), wrapped)

    return coroutine


def _stream_wrapper(opened: Open) -> Callable[..., Any]:
    def stream(wrapped: Any, instance: object, args: Any, kwargs: Any) -> Any:
        call = _ours(opened, wrapped, instance, args, kwargs)
        result = wrapped(*args, **kwargs)
        return result if call is None else _finish(result, call)

    return stream


def _finish(result: Any, call: Call) -> Any:
    """End the call with `result`, or hand it on to where it will end: the end of a stream, an awaited coroutine."""
    driver = _driver(result)
    if driver is not None:
        driven = _ours(driver, result, call)
        return result if driven is None else driven
    try:  # as in `_plain_wrapper`
        if (rest := call.done(result)) is not None:
            complete(rest)
    except RecursionError:
        return result
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.swallow("ending a call")
    return result


async def _await(coroutine: Awaitable[Any], call: Call) -> Any:
    _ours(call.enter)
    try:
        result = await coroutine
    except BaseException as error:
        if (rest := _ours(call.failed, error)) is not None:
            await run_in_thread(rest, error)
        raise
    finally:
        _ours(call.leave)
    if _driver(result) is not None:
        return _finish(result, call)
    if (rest := _ours(call.done, result)) is not None:
        await run_in_thread(rest)
    return result


def _generate(inner: Generator[Any, Any, Any], call: Call, context: contextvars.Context) -> Generator[Any, Any, Any]:
    _ours(context.run, call.enter)
    resume: Callable[..., Any] = inner.send
    value: Any = None
    try:
        while True:
            item = context.run(resume, value)
            try:
                call.chunk(item)
            except Exception:  # noqa: BLE001 - the guard decides
                _guard.swallow("reading a stream's chunk")
            # The next step is taken outside this handler: an exception that the user's generator raises in it must
            # not get the thrown one as its context, which it would not have had undecorated.
            try:
                value = yield item
                resume = inner.send
            except BaseException as thrown:  # noqa: BLE001 - all of them belong to the inner generator
                value, resume = thrown, inner.throw
    except StopIteration as stop:
        complete(_ours(call.done, stop.value))
        return stop.value
    except BaseException as error:
        del value  # may be the error itself, which would then live in a circle with its own traceback
        complete(_ours(call.failed, error))
        raise


async def _generate_async(
    inner: AsyncGenerator[Any, Any], call: Call, context: contextvars.Context
) -> AsyncGenerator[Any, Any]:
    _ours(context.run, call.enter)
    resume: Callable[..., Any] = inner.asend
    value: Any = None
    try:
        while True:
            item = await _Step(resume(value), context)
            try:
                call.chunk(item)
            except Exception:  # noqa: BLE001 - the guard decides
                _guard.swallow("reading a stream's chunk")
            try:
                value = yield item
                resume = inner.asend
            except BaseException as thrown:  # noqa: BLE001 - all of them belong to the inner generator
                value, resume = thrown, inner.athrow
    except StopAsyncIteration:
        if (rest := _ours(call.done, None)) is not None:
            await run_in_thread(rest)
    except BaseException as error:
        del value  # as in `_generate`
        if (rest := _ours(call.failed, error)) is not None:
            await run_in_thread(rest, error)
        raise


class _Step:
    """Await one step of an async generator, in `context` whenever its code runs."""

    __slots__ = ("_context", "_step")

    def __init__(self, step: Awaitable[Any], context: contextvars.Context) -> None:
        self._step, self._context = step.__await__(), context

    def __await__(self) -> Generator[Any, Any, Any]:
        resume: Callable[..., Any] = self._step.send
        value: Any = None
        while True:
            try:
                pending = self._context.run(resume, value)
            except StopIteration as stop:
                return stop.value
            try:
                value = yield pending
                resume = self._step.send
            except BaseException as thrown:  # noqa: BLE001 - all of them belong to the inner generator
                value, resume = thrown, self._step.throw


def _drive_generator(inner: Any, call: Call) -> Any:
    return _named(_generate(inner, call, contextvars.copy_context()), inner)


def _drive_async_generator(inner: Any, call: Call) -> Any:
    return _named(_generate_async(inner, call, contextvars.copy_context()), inner)


def _drive_coroutine(inner: Coroutine[Any, Any, Any], call: Call) -> Any:
    return _named(_await(inner, call), inner)


def drive_in(result: Any, context: contextvars.Context) -> Any:
    """`result`, or, where it is a generator or coroutine of any kind, one whose every step runs in `context`."""
    if isinstance(result, GeneratorType):
        return _named(_generate(result, NullCall(), context), result)
    if isinstance(result, AsyncGeneratorType):
        return _named(_generate_async(result, NullCall(), context), result)
    return _named(_await_in(result, context), result) if isinstance(result, CoroutineType) else result


async def _await_in(coroutine: Coroutine[Any, Any, Any], context: contextvars.Context) -> Any:
    return await _Step(coroutine, context)


def _named(outer: Any, inner: Any) -> Any:
    """Give a coroutine or generator of ours the name that tracebacks and warnings would show undecorated."""
    name = getattr(inner, "__name__", None)
    if type(name) is str:
        qualname = getattr(inner, "__qualname__", name)
        outer.__name__, outer.__qualname__ = name, qualname if type(qualname) is str else name
    return outer


_DRIVERS: dict[type, Callable[[Any, Call], Any]] = {
    GeneratorType: _drive_generator,
    AsyncGeneratorType: _drive_async_generator,
    CoroutineType: _drive_coroutine,
}


def _driver(result: Any) -> Callable[[Any, Call], Any] | None:
    try:
        return _DRIVERS.get(type(result))
    except TypeError:  # even a class can refuse to be looked up
        return None


def drive(kind: type, driver: Callable[[Any, Call], Any]) -> None:
    """Have results of exactly this type end their calls through `driver`, which gives the result back."""
    _DRIVERS[kind] = driver
