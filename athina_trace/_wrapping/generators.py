"""Drive generators and coroutines by native ones, so that the whole protocol behaves as undecorated.

`send`, `throw`, `close`, the return value and their async twins reach the inner one, which runs in its caller's own
context. Around each step only our variable is set and restored: no token is held across a `yield`, what the program
sets in its variables flows as undecorated, and the consumer never sees the log or the session of a stream it reads.
"""

from __future__ import annotations

import contextvars
import inspect
import sys
import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from typing import Any

from athina_trace._wrapping.calls import Call, attempt, run_in_thread, run_now
from athina_trace._wrapping.state import State, current

Follow = Callable[[Any, Call], Any]
"""(result, call) → what the program gets, where the call ends with the result; None where it ends with its return."""

_BATCH = 255
"""Texts of a stream that are handed over together: a call for each would be a third of what a stream costs."""


def entered(call: Call, outside: State) -> State:
    """The state in which the call's steps run: `outside`, and the call entered on top of it."""
    token = current.set(outside)
    attempt(call.enter)
    state = current.get()
    current.reset(token)
    return state


def drive_generator(inner: Any, call: Call, follow: Follow) -> Any:
    """A generator that does what `inner` does, and ends `call` when it ends."""
    if inner.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE:  # `types.coroutine`: awaited, and no stream
        return named(_iterable_coroutine(inner, call, follow), inner)
    return named(_generate(inner, call, current.get()), inner)


def drive_async_generator(inner: Any, call: Call) -> Any:
    """An async generator that does what `inner` does, and ends `call` when it ends."""
    return named(_generate_async(inner, call, current.get()), inner)


def drive_coroutine(inner: Coroutine[Any, Any, Any], call: Call, follow: Follow) -> Any:
    """A coroutine that does what `inner` does, and ends `call` when it ends, or when its result does."""
    return named(awaiting(lambda: (call, inner), follow), inner)


def _generate(inner: Any, call: Call, outside: State) -> Generator[Any, Any, Any]:
    state = entered(call, outside)
    # Bound once: these are half of what a step of ours does. `next` is quicker than `send(None)`, and before Python
    # 3.12 it does not count as a level of a recursion.
    enter, now, leave, send, advance = current.set, current.get, current.reset, inner.send, next
    texts: list[Any] = []
    keep = texts.append
    room = 0  # so that the first chunk is handed over at once, which notes its time
    resume: Callable[..., Any] = advance
    value: Any = inner
    try:
        while True:
            token = enter(state)
            try:
                item = resume(value)
            finally:
                state = now()
                leave(token)
            keep(item)
            # Text cannot change any more and may wait; anything else is read before the program gets it.
            if type(item) is not str or len(texts) > room:
                _hand_over(texts, call)
                room = _BATCH
            # The next step is taken outside this handler: an exception that the user's generator raises in it must
            # not get the thrown one as its context, which it would not have had undecorated.
            try:
                value = yield item
                if value is None:
                    resume, value = advance, inner
                else:
                    resume = send
            except BaseException as thrown:  # noqa: BLE001 - all of them belong to the inner generator
                value, resume = thrown, inner.throw
    except StopIteration as stop:
        _hand_over(texts, call)
        run_now(attempt(call.done, stop.value))
        return stop.value
    except BaseException as error:
        del value  # may be the error itself, which would then live in a circle with its own traceback
        _hand_over(texts, call)
        run_now(attempt(call.failed, error))
        raise


async def _generate_async(inner: Any, call: Call, outside: State) -> AsyncGenerator[Any, Any]:
    steps = Steps(entered(call, outside))
    item: Any
    texts: list[Any] = []
    room = 0
    closing: GeneratorExit | None = None
    # The event loop is to know of the outer generator only: it would close both at its end, in any order.
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        step = inner.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)
    value: Any = None
    try:
        while True:
            # `steps.begin(step)`, without the call: see `_generate`.
            token = current.set(steps.state)
            try:
                steps.pending, steps.step = next(step), step
                item = steps
            except StopIteration as stop:
                item = stop.value
            finally:
                steps.state = current.get()
                current.reset(token)
            if item is steps:
                item = await steps
            texts.append(item)
            if type(item) is not str or len(texts) > room:
                _hand_over(texts, call)
                room = _BATCH
            try:
                value = yield item
                resume = inner.asend
            except BaseException as thrown:  # noqa: BLE001 - all of them belong to the inner generator
                value, resume = thrown, inner.athrow
                closing = thrown if isinstance(thrown, GeneratorExit) else None
            step = resume(value)
    except StopAsyncIteration:
        _hand_over(texts, call)
        if (work := attempt(call.done, None)) is not None:
            await run_in_thread(work)
    except BaseException as error:
        del value  # as in `_generate`
        _hand_over(texts, call)
        # trio cancels what a generator awaits while it is closed: it was abandoned all the same.
        ended = error if closing is None or isinstance(error, Exception) else closing
        if (work := attempt(call.failed, ended)) is not None:
            await run_in_thread(work, ended)
        raise


def _hand_over(texts: list[Any], call: Call) -> None:
    """Have the call read what was yielded since the last time."""
    if texts:
        attempt(call.chunks, texts)
        texts.clear()


class Steps:
    """Runs awaitables, one after the other, whose code sees our variable as `state`, and may change it."""

    __slots__ = ("pending", "state", "step")

    def __init__(self, state: State) -> None:
        self.state = state
        self.step: Any = None
        """What runs, and in `pending` what it waits for."""
        self.pending: Any = None

    def begin(self, step: Any) -> Any:
        """Run `step` until it has to wait. Gives its result; or this object, which is to be awaited for that."""
        self.step = step
        token = current.set(self.state)
        try:
            self.pending = next(step)
        except StopIteration as stop:
            return stop.value
        finally:
            self.state = current.get()
            current.reset(token)
        return self

    def __await__(self) -> Generator[Any, Any, Any]:
        step, pending = self.step, self.pending
        resume: Callable[..., Any]
        while True:
            try:
                value = yield pending
                if value is None:
                    resume, value = next, step
                else:
                    resume = step.send
            except BaseException as thrown:  # noqa: BLE001 - all of them belong to what is awaited
                value, resume = thrown, step.throw
            token = current.set(self.state)
            try:
                pending = resume(value)
            except StopIteration as stop:
                return stop.value
            finally:
                self.state = current.get()
                current.reset(token)


def iterator_of(awaitable: Any) -> Any:
    """What `await` iterates over, with `send` and `throw`, which iterators of any class need not have."""
    if isinstance(awaitable, types.GeneratorType):  # of `types.coroutine`
        return awaitable
    steps = awaitable.__await__()
    return steps if hasattr(steps, "send") and hasattr(steps, "throw") else (step for step in steps)


async def awaiting(begin: Callable[[], tuple[Call | None, Awaitable[Any]]], follow: Follow) -> Any:
    """Await what `begin` gives inside of the call that it gives, which ends with it, or with what it results in.

    Our variable stays set while it waits: other tasks have contexts of their own.
    """
    call, coroutine = begin()
    if call is None:
        return await coroutine
    attempt(call.enter)
    try:
        result = await coroutine
    except BaseException as error:
        if (work := attempt(call.failed, error)) is not None:
            await run_in_thread(work, error)
        raise
    finally:
        attempt(call.leave)
    if (followed := attempt(follow, result, call)) is not None:
        return followed
    if (work := attempt(call.done, result)) is not None:
        await run_in_thread(work)
    return result


@types.coroutine
def _iterable_coroutine(inner: Any, call: Call, follow: Follow) -> Generator[Any, Any, Any]:
    return (yield from awaiting(lambda: (call, inner), follow).__await__())


def named(outer: Any, inner: Any) -> Any:
    """Give a coroutine or generator of ours the name that tracebacks and warnings would show undecorated."""
    name = getattr(inner, "__name__", None)
    if type(name) is str:
        qualname = getattr(inner, "__qualname__", name)
        outer.__name__, outer.__qualname__ = name, qualname if type(qualname) is str else name
    return outer


# ---- a context of its own, for `athina_trace.wrap`


def drive_in(result: Any, context: contextvars.Context) -> Any:
    """`result`, or, where it is a generator or coroutine of any kind, one whose every step runs in `context`."""
    if isinstance(result, types.GeneratorType):
        if result.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE:
            return named(_iterable_coroutine(_Awaited(result, context), Call(), _nothing), result)
        return named(_generate(_InContext(result, context), Call(), current.get()), result)
    if isinstance(result, types.AsyncGeneratorType):
        return named(_generate_async(_InContext(result, context), Call(), current.get()), result)
    if isinstance(result, types.CoroutineType):
        return named(awaiting(lambda: (Call(), _Awaited(result, context)), _nothing), result)
    return result


def _nothing(_result: object, _call: Call) -> None:
    """A context ends with the coroutine that runs in it."""


class _InContext:
    """A generator, sync or async, or a step of an async one: whatever of it runs, runs in `context`."""

    def __init__(self, generator: Any, context: contextvars.Context) -> None:
        self._generator, self._context = generator, context

    def __next__(self) -> Any:
        return self._context.run(next, self._generator)

    def send(self, value: Any) -> Any:
        return self._context.run(self._generator.send, value)

    def throw(self, error: BaseException) -> Any:
        return self._context.run(self._generator.throw, error)

    def asend(self, value: Any) -> _InContext:
        return _InContext(self._generator.asend(value), self._context)

    def athrow(self, error: BaseException) -> _InContext:
        return _InContext(self._generator.athrow(error), self._context)


class _Awaited:
    """An awaitable that runs in `context`."""

    def __init__(self, awaitable: Any, context: contextvars.Context) -> None:
        self._awaitable, self._context = awaitable, context

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = _InContext(iterator_of(self._awaitable), self._context)
        return (yield from _generate(steps, Call(), current.get()))
