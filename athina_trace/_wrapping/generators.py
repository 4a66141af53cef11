"""Drives generators and coroutines with native ones, so that the whole protocol behaves as if undecorated.

`send`, `throw`, `close`, the return value and their async counterparts reach the inner one, which runs in its caller's
context. Around each step, only our own context variable is set and restored: no token is held across a `yield`, the
program's context variables are unaffected, and the consumer never sees the log or session of a stream that it reads.
While a step waits for the event loop, our variable stays set: its task does nothing else meanwhile, and other tasks
have their own contexts.
"""

from __future__ import annotations

import contextvars
import dis
import inspect
import sys
import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from functools import lru_cache
from itertools import islice, pairwise, repeat
from typing import Any

from athina_trace._wrapping.calls import Call, attempt, run_in_thread, run_now
from athina_trace._wrapping.state import State, current

Follow = Callable[[Any, Call], Any]
"""(result, call) → what the program gets, if the call ends with the result; None if it ends when it returns."""

BATCH = 255
"""Texts of a stream that are handed over together: one call each would be a third of the cost of a stream."""


def drive_generator(inner: Any, call: Call, follow: Follow) -> Any:
    """Return a generator that does what `inner` does, and ends `call` when it ends."""
    if inner.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE:  # `types.coroutine`: awaited, not a stream
        return named(_iterable_coroutine(Made(inner, call), follow), inner)
    outer: Any = _generate(_Held(inner, call), current.get())
    outer.__name__, outer.__qualname__ = inner.__name__, inner.__qualname__
    return outer


def drive_async_generator(inner: Any, call: Call) -> Any:
    """Return an async generator that does what `inner` does, and ends `call` when it ends."""
    return named(_generate_async(_Held(inner, call), current.get()), inner)


def drive_coroutine(inner: Coroutine[Any, Any, Any], call: Call, follow: Follow) -> Any:
    """Return a coroutine that does what `inner` does, and ends `call` when it, or its result, ends."""
    return named(awaiting(Made(inner, call).begin, follow), inner)


_OURS = 2
"""References to a coroutine that only a `Made` holds: its own, and that of `getrefcount`."""


class Made:
    """A coroutine that ours should await. If both are dropped, it is closed here, or Python would warn about both.

    The `call` that returned it, if any, then ends with the coroutine as its result. A coroutine that the program still
    references, and may await, is left alone.
    """

    __slots__ = ("awaitable", "call")

    def __init__(self, awaitable: Any, call: Call | None = None) -> None:
        self.awaitable, self.call = awaitable, call

    def begin(self) -> tuple[Call | None, Any]:
        """Return the call, and the awaitable to await inside it."""
        call, self.call = self.call, None
        return call, self.awaitable

    def __del__(self) -> None:
        if type(self.awaitable) is types.CoroutineType and sys.getrefcount(self.awaitable) <= _OURS:
            self.awaitable.close()
        if self.call is not None:
            attempt(self.call.collected, self.awaitable)


class _Held:
    """Held by a frame that drives a stream, and collected with it, even if the frame never runs (again)."""

    __slots__ = ("call", "inner", "texts")

    def __init__(self, inner: Any, call: Call) -> None:
        self.inner, self.call = inner, call
        self.texts: list[Any] = []

    def __del__(self) -> None:
        if self.inner is None:  # it came to its end
            return
        # It never began, or waits for an event loop that is closed; if it failed, this does nothing.
        if self.texts:
            hand_over(self.texts, self.call)
        attempt(self.call.collected, self.inner)


def _generate(held: _Held, outside: State) -> Generator[Any, Any, Any]:
    inner, call, texts = held.inner, held.call, held.texts
    # Bound once: these calls are half of the work of a step.
    enter, now, restore, send = current.set, current.get, current.reset, inner.send
    # A loop takes a step without a call, which is faster, and one recursion level less before Python 3.11. It
    # loses what the generator returns.
    by_loop = type(inner) is types.GeneratorType and _returns_nothing(inner.gi_code)
    resume: Callable[..., Any] = send
    value: Any = None
    returned: Any = None
    waits: type | None = None  # the type of items that are handed over later, once the first chunk has been noted
    token = enter(outside)
    try:
        attempt(call.enter)
        while not by_loop or inner.gi_frame is not None:  # a generator that has ended has no frame
            for item in islice(inner, BATCH) if by_loop else repeat(None, BATCH):
                if not by_loop:
                    item = next(inner) if value is None else resume(value)  # noqa: PLW2901 - of nothing
                    resume = send
                state = now()
                restore(token)
                texts.append(item)
                # Text is immutable and may wait; anything else is read before the program gets it.
                if type(item) is not waits:
                    waits = begin_or_hand_over(texts, call)
                # The next step is taken outside this handler: an exception that the user's generator raises then must
                # not have the thrown one as its context, which it would not have without us.
                try:
                    value = yield item
                except BaseException as thrown:  # noqa: BLE001 - all of them belong to the inner generator
                    value, resume = thrown, inner.throw
                token = enter(state)
                if value is not None and by_loop:
                    by_loop = False
                    break
            hand_over(texts, call)
    except StopIteration as stop:
        returned = stop.value
    except BaseException as error:
        leave(token)
        del value  # may be the error itself, which would form a cycle with its own traceback
        hand_over(texts, call)
        run_now(attempt(call.failed, error))
        raise
    restore(token)
    hand_over(texts, call)
    held.inner = None
    run_now(attempt(call.done, returned))
    return returned


@lru_cache(maxsize=1024)
def _returns_nothing(code: types.CodeType) -> bool:
    """Return whether every `return` of a generator returns None, judging by its bytecode."""
    for before, instruction in pairwise(dis.get_instructions(code)):
        if instruction.opname == "RETURN_CONST":  # of Python 3.12 and 3.13
            gives_nothing = instruction.argrepr == "None"
        elif instruction.opname == "RETURN_VALUE":
            gives_nothing = before.argrepr == "None" and not instruction.is_jump_target
        else:
            continue
        if not gives_nothing:
            return False
    return True


async def _generate_async(held: _Held, outside: State) -> AsyncGenerator[Any, Any]:
    inner, call, texts = held.inner, held.call, held.texts
    enter, now, restore, asend = current.set, current.get, current.reset, inner.asend
    waits: type | None = None
    closing = False
    value: Any = None
    # The event loop must know of the outer generator only, or it would close both at its end, in any order.
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        step = asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)
    token = enter(outside)
    try:
        attempt(call.enter)
        while True:
            for _ in repeat(None, BATCH):
                item = await step
                state = now()
                try:  # noqa: SIM105 - for each chunk, and a context manager takes longer than all the rest
                    restore(token)
                except ValueError:  # the step began in another context
                    pass
                texts.append(item)
                if type(item) is not waits:
                    waits = begin_or_hand_over(texts, call)
                try:
                    value = yield item
                    resume = asend
                except BaseException as thrown:  # noqa: BLE001 - all of them belong to the inner generator
                    value, resume = thrown, inner.athrow
                    closing = isinstance(thrown, GeneratorExit)
                token = enter(state)
                step = resume(value)
            hand_over(texts, call)
    except StopAsyncIteration:
        leave(token)
        hand_over(texts, call)
        if (work := attempt(call.done, None)) is not None:
            await run_in_thread(work)
    except BaseException as error:
        leave(token)
        del value, step  # as above: the step may hold what was thrown, and no other name may hold the error
        hand_over(texts, call)
        # trio cancels what a generator awaits while it is closed: it was abandoned all the same.
        abandoned = closing and not isinstance(error, Exception)
        if (work := attempt(call.failed, GeneratorExit() if abandoned else error)) is not None:
            await run_in_thread(work, GeneratorExit() if abandoned else error)
        raise


def begin_or_hand_over(texts: list[Any], call: Call) -> type:
    """Note a stream's first text, or hand over all chunks if the last is not a text; return the type that may wait."""
    if type(texts[-1]) is str:
        attempt(call.begun)
    else:
        hand_over(texts, call)
    return str


def hand_over(texts: list[Any], call: Call) -> None:
    """Pass the chunks since the last time to the call."""
    if texts:
        attempt(call.chunks, texts)
        texts.clear()


def leave(token: contextvars.Token[State]) -> None:
    """Restore our variable after a step, unless that is done, or the step ended in another context."""
    try:  # noqa: SIM105 - for each stream, and a context manager takes three times as long
        current.reset(token)
    except (RuntimeError, ValueError):
        # A step that still waits when it is collected ends in any context, where there is nothing to restore.
        pass


async def awaiting(begin: Callable[[], tuple[Call | None, Awaitable[Any]]], follow: Follow) -> Any:
    """Call `begin`, and await its awaitable inside its call, which ends with it, or with its result.

    Our variable stays set while it waits: other tasks have their own contexts.
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
def _iterable_coroutine(made: Made, follow: Follow) -> Generator[Any, Any, Any]:
    return (yield from awaiting(made.begin, follow).__await__())


def named(outer: Any, inner: Any) -> Any:
    """Give our coroutine or generator the name of the original, for tracebacks and warnings."""
    name = getattr(inner, "__name__", None)
    if type(name) is str:
        qualname = getattr(inner, "__qualname__", name)
        outer.__name__, outer.__qualname__ = name, qualname if type(qualname) is str else name
    return outer


# ---- a separate context, for `athina_trace.wrap`


def drive_in(result: Any, context: contextvars.Context) -> Any:
    """Return `result`; a generator or coroutine of any kind is replaced by one whose steps run in `context`."""
    if isinstance(result, types.GeneratorType):
        if result.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE:
            return named(_iterable_coroutine(Made(_Awaited(result, context), Call()), _nothing), result)
        return named(_generate(_Held(_InContext(result, context), Call()), current.get()), result)
    if isinstance(result, types.AsyncGeneratorType):
        return named(_generate_async(_Held(_InContext(result, context), Call()), current.get()), result)
    if isinstance(result, types.CoroutineType):
        made = Made(result)
        return named(awaiting(lambda: (Call(), _Awaited(made.awaitable, context)), _nothing), result)
    return result


def _nothing(_result: object, _call: Call) -> None:
    """End the context with the coroutine that runs in it."""


class _InContext:
    """A generator, sync or async, or a step of an async one, that runs in `context`."""

    def __init__(self, generator: Any, context: contextvars.Context) -> None:
        self._generator, self._context = generator, context

    def __await__(self) -> _InContext:
        return self

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
        steps = self._awaitable if isinstance(self._awaitable, types.GeneratorType) else self._awaitable.__await__()
        return (yield from _generate(_Held(_InContext(steps, self._context), Call()), current.get()))
