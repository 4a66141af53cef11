"""Proxies for results that continue after the call returns: iterators, awaitables and context managers of any class.

A proxy is transparent. Its steps run with the call's log and session, the items are read, and its end ends the call;
everything else is left to the object inside.
"""

from __future__ import annotations

import copy
import functools
import sys
import types
from collections.abc import Callable, Generator
from typing import Any, Final

import wrapt

from athina_trace._serialization.introspection import (
    ABSENT,
    Placeholder,
    instance_dict,
    mro_of,
    static,
    type_name,
    type_placeholder,
)
from athina_trace._wrapping import generators
from athina_trace._wrapping.calls import Call, DeferredWork, attempt, run_in_thread, run_now
from athina_trace._wrapping.state import current

_EXHAUSTED: Final = frozenset({"anyio.EndOfStream", "trio.EndOfChannel"})
"""Raised by a channel's `receive()` at its end. After any other exception, the channel may still be used."""
_TAKEN: Final = {
    "send": ("throw", "step"),  # without `throw` it means something else, for example for connections
    "throw": ("throw", "step"),
    "asend": ("athrow", "step_async"),
    "athrow": ("athrow", "step_async"),
    "receive": ("__anext__", "receive_async"),
    "receive_nowait": ("__anext__", "receive"),
}
"""Methods that take a step → a method that objects also have if so, and the method of `_Following` that runs them."""


class _Following:
    """What is known of a followed result: its call, and the state in which its steps run."""

    __slots__ = ("_begun", "_call", "_ended", "_entered", "_follow", "_state", "_texts", "_unbegun", "_waits")

    def __init__(self, call: Call, follow: generators.Follow, unbegun: object) -> None:
        self._call, self._follow, self._unbegun = call, follow, unbegun
        self._begun = self._ended = False
        self._entered: Any = None  # a proxy for what a context manager returned on entering
        # The state in which the steps run: the current one, with the call entered.
        token = current.set(current.get())
        attempt(call.enter)
        self._state = current.get()
        current.reset(token)
        self._texts: list[Any] = []
        self._waits: type | None = None  # as in `generators`

    def step(self, _proxy: object, resume: Callable[..., Any], *given: Any) -> Any:
        """Take one step of a sync iterator, and keep its item as a chunk."""
        self._begun = True
        try:
            token = current.set(self._state)
            try:
                item = resume(*given)
            finally:
                self._state = current.get()
                current.reset(token)
        except StopIteration as stop:
            run_now(self.end(stop.value))
            raise
        except BaseException as error:
            run_now(self.end(None, error))
            raise
        self._keep(item)
        return item

    def _keep(self, item: object) -> None:
        self._texts.append(item)
        if type(item) is not self._waits:
            self._waits = generators.begin_or_hand_over(self._texts, self._call)
        elif len(self._texts) > generators.BATCH:
            generators.hand_over(self._texts, self._call)

    def inside(self, resume: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """Run code of the result with the call's log and session."""
        token = current.set(self._state)
        try:
            return resume(*given, **named)
        finally:
            self._state = current.get()
            current.reset(token)

    async def step_async(self, _proxy: object, resume: Callable[..., Any], *given: Any) -> Any:
        """Take one step of an async iterator. The argument `_proxy` keeps the proxy alive meanwhile."""
        self._begun = True
        try:
            item = await self.inside_async(resume, *given)
        except StopAsyncIteration:
            if (work := self.end(None)) is not None:
                await run_in_thread(work)
            raise
        except BaseException as error:
            if (work := self.end(None, error)) is not None:
                await run_in_thread(work, error)
            raise
        self._keep(item)
        return item

    async def inside_async(self, resume: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """Do what `inside` does, for async code."""
        token = current.set(self._state)
        try:
            return await resume(*given, **named)
        finally:
            self._state = current.get()
            generators.leave(token)

    def receive(self, _proxy: object, receive: Callable[..., Any], *given: Any) -> Any:
        """Take an item from a channel."""
        self._begun = True
        try:
            item = self.inside(receive, *given)
        except Exception as error:
            run_now(self._end_if_exhausted(error))
            raise
        self._keep(item)
        return item

    async def receive_async(self, _proxy: object, receive: Callable[..., Any], *given: Any) -> Any:
        """Wait for an item from a channel."""
        self._begun = True
        try:
            item = await self.inside_async(receive, *given)
        except Exception as error:
            if (work := self._end_if_exhausted(error)) is not None:
                await run_in_thread(work)
            raise
        self._keep(item)
        return item

    def _end_if_exhausted(self, error: Exception) -> DeferredWork:
        names = map(type_name, mro_of(type(error)))
        return None if _EXHAUSTED.isdisjoint(names) else self.end(None)

    def across(self, resume: Callable[..., Any], *given: Any) -> Any:
        """Do what `inside` does, for a context manager: a session that it enters also applies to its block."""
        scope, (_, log) = self._state[0], current.get()
        try:
            return self.inside(resume, *given)
        finally:
            if self._state[0] is not scope:
                current.set((self._state[0], log))

    async def across_async(self, resume: Callable[..., Any], *given: Any) -> Any:
        """Do what `across` does, for async code."""
        scope, (_, log) = self._state[0], current.get()
        try:
            return await self.inside_async(resume, *given)
        finally:
            if self._state[0] is not scope:
                current.set((self._state[0], log))

    def enter(self, given: Any) -> Any:
        """Return what `with` binds: what the context manager returned on entering, followed if it continues."""
        followed = None if self._ended else attempt(self._follow, given, self._call)
        if followed is None:
            self._unbegun = given
            return given
        self._ended, self._entered = True, followed
        return followed

    def make(self, make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the function that makes the stream; the first stream ends the call."""
        is_first, self._begun = not self._begun, True
        try:
            made = self.inside(make, *args, **kwargs)
        except BaseException as error:
            run_now(self.end(None, error))
            raise
        followed = attempt(self._follow, made, self._call) if is_first else None
        if followed is None:
            run_now(self.end(made))
            return made
        self._ended = True
        return followed

    async def wait(self, awaitable: Any) -> Any:
        """Await a result; what it results in ends the call, or is followed as well."""
        self._begun = True
        try:
            result = await self.inside_async(_awaited, awaitable)
        except BaseException as error:
            if (work := self.end(None, error)) is not None:
                await run_in_thread(work, error)
            raise
        # Awaiting some objects, such as connection pools, returns the object itself: it is not followed again.
        ends = self._ended or result is awaitable
        if not ends and (followed := attempt(self._follow, result, self._call)) is not None:
            self._ended = True
            return followed
        if (work := self.end(result)) is not None:
            await run_in_thread(work)
        return result

    def end(self, value: object, error: BaseException | None = None) -> DeferredWork:
        """End the call, once."""
        if self._ended:
            return None
        self._ended = True
        generators.hand_over(self._texts, self._call)
        return attempt(self._call.done, value) if error is None else attempt(self._call.failed, error)

    def abandon(self) -> None:
        """End the call: the program no longer uses the result. If it never began to, the result itself is logged."""
        if self._entered is not None:
            entered, self._entered = self._entered, None
            is_proxy = issubclass(type(entered), _Followed)
            # Otherwise it is an object whose iterator is followed.
            followed: Any = entered if is_proxy else instance_dict(entered).get("_iterator")
            if issubclass(type(followed), _Followed):
                followed._self_following.abandon()  # noqa: SLF001 - wrapt's prefix for a proxy's own attributes
        # At interpreter shutdown nothing can be imported, which reading an object may need.
        if sys.is_finalizing() and type(self._unbegun) is not Placeholder:
            self._unbegun = type_placeholder(self._unbegun)
        run_now(self.end(None, GeneratorExit()) if self._begun else self.end(self._unbegun))


@types.coroutine
def _awaited(awaitable: Any) -> Generator[Any, Any, Any]:
    # Calls the method, since other tools' proxies forward it, although `await` does not accept them.
    return (yield from awaitable.__await__())


class _LacksError(AttributeError, TypeError):
    """The object inside lacks a method: an `AttributeError` for `hasattr`, a `TypeError` for built-in functions."""


def _method_of_the_inner(name: str) -> Any:
    """Return a property for a method that wrapt's proxies always have, so that the object inside decides `hasattr`."""

    def method(proxy: _Followed) -> Any:
        inner = proxy.__wrapped__
        # Like Python, without `__getattr__` for special methods. Inlined, since the program calls it.
        found = getattr(inner, name, ABSENT) if hasattr(type(inner), name) else ABSENT
        if found is ABSENT:
            raise _LacksError(f"object of type {type(inner).__name__!r} has no {name}()")
        return found

    return property(method)


class _Followed(wrapt.BaseObjectProxy[Any]):
    """The proxy for `result`, whose end ends `call`.

    Args:
        result: the object inside.
        call: the call that returned it.
        follow: decides whether the result of an awaitable ends the call.
        unbegun: what to log as the result if the program never begins to read it.
    """

    def __init__(self, result: Any, call: Call, follow: generators.Follow, unbegun: object) -> None:
        super().__init__(result)
        self._self_following = _Following(call, follow, unbegun)
        self._self_iterator: Any = None

    __len__ = _method_of_the_inner("__len__")
    __getitem__ = _method_of_the_inner("__getitem__")
    __enter__ = _method_of_the_inner("__enter__")
    __aenter__ = _method_of_the_inner("__aenter__")

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)  # wrapt's: reads it from the object inside
        following = self._self_following
        needed, run = _TAKEN.get(name, ("", ""))
        if run and hasattr(self.__wrapped__, needed):
            return functools.partial(getattr(following, run), self, found)
        if name == "aclose":
            return _closing(found, following)
        if name != "close":
            return found

        def close(*given: Any, **named: Any) -> Any:
            closing = following.inside(found, *given, **named)
            # For async streams of some clients and tools, `close` is a coroutine.
            if static(type(closing), "__await__") is not ABSENT:
                return _closing(lambda: closing, following)()
            following.abandon()
            return closing

        return close

    def __reduce__(self) -> Any:
        return self.__wrapped__.__reduce__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__wrapped__.__reduce_ex__(protocol)

    def __copy__(self) -> Any:
        return copy.copy(self.__wrapped__)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.__wrapped__, memo)

    def __del__(self) -> None:
        attempt(self._self_following.abandon)


def _closing(close: Callable[..., Any], following: _Following) -> Callable[..., Any]:
    async def closed(*given: Any, **named: Any) -> Any:
        try:
            return await following.inside_async(close, *given, **named)
        finally:
            following.abandon()

    return closed


class _Iterating(_Followed):
    def __length_hint__(self) -> Any:  # wrapt does not forward it
        hint = getattr(type(self.__wrapped__), "__length_hint__", None)
        return NotImplemented if hint is None else hint(self.__wrapped__)

    def __iter__(self) -> Any:
        self._self_iterator = self._self_following.inside(iter, self.__wrapped__)
        return self

    def __next__(self) -> Any:
        iterator = self.__wrapped__ if self._self_iterator is None else self._self_iterator
        return self._self_following.step(self, next, iterator)


class _AsyncIterating(_Followed):
    def __aiter__(self) -> Any:
        self._self_iterator = self._self_following.inside(aiter, self.__wrapped__)
        return self

    def __anext__(self) -> Any:
        iterator = self.__wrapped__ if self._self_iterator is None else self._self_iterator
        return self._self_following.step_async(self, anext, iterator)


class _Iterable(_Followed):
    """Not an iterator, but has one, which ends the call if the program iterates instead of awaiting."""

    def __iter__(self) -> Any:
        return self._self_following.make(iter, self.__wrapped__)


class _AsyncIterable(_Followed):
    def __aiter__(self) -> Any:
        return self._self_following.make(aiter, self.__wrapped__)


class _Awaitable(_Followed):
    def __await__(self) -> Generator[Any, Any, Any]:
        # A generator with `self` in it: `await` keeps only the generator alive, and so the proxy is not abandoned.
        return (yield from self._self_following.wait(self.__wrapped__).__await__())


class _Entered(_Followed):
    def __enter__(self) -> Any:
        following = self._self_following
        try:
            given = following.across(self.__wrapped__.__enter__)
        except BaseException as error:
            run_now(following.end(None, error))
            raise
        return self if given is self.__wrapped__ else following.enter(given)

    def __exit__(self, *error: object) -> Any:
        try:
            return self._self_following.across(self.__wrapped__.__exit__, *error)
        finally:
            self._self_following.abandon()


class _AsyncEntered(_Followed):
    async def __aenter__(self) -> Any:
        following = self._self_following
        try:
            given = await following.across_async(self.__wrapped__.__aenter__)
        except BaseException as error:
            if (work := following.end(None, error)) is not None:
                await run_in_thread(work, error)
            raise
        return self if given is self.__wrapped__ else following.enter(given)

    async def __aexit__(self, *error: object) -> Any:
        try:
            return await self._self_following.across_async(self.__wrapped__.__aexit__, *error)
        finally:
            self._self_following.abandon()


class _Called(_Followed):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)


_PARTS: Final[dict[str, type[_Followed]]] = {
    "__next__": _Iterating,
    "__anext__": _AsyncIterating,
    "__iter__": _Iterable,  # after those of iterators, which also have these methods
    "__aiter__": _AsyncIterable,
    "__await__": _Awaitable,
    "__enter__": _Entered,
    "__aenter__": _AsyncEntered,
    "__call__": _Called,
}
_EXITS: Final = (("__enter__", "__exit__"), ("__aenter__", "__aexit__"))
Abilities = frozenset[str]
"""Which of these methods a proxy has: programs check an object's class for what it can do."""


def abilities_of(kind: type) -> Abilities:
    """Return the abilities of a class; a method set to None counts as missing."""
    methods = ((name, static(kind, name)) for name in _PARTS)
    return frozenset(name for name, method in methods if method is not ABSENT and method is not None)


@functools.lru_cache(maxsize=64)
def proxy_class(abilities: Abilities) -> type[Any]:
    """Return the proxy class with exactly these abilities; wrapt's own proxies appear to have all."""
    lacks = {exit_: None for enter, exit_ in _EXITS if enter not in abilities}
    return type("Followed", tuple(part for name, part in _PARTS.items() if name in abilities), lacks)


class StreamMaker:
    """Replaces a function that makes a response's stream: the first stream that it makes ends the call."""

    def __init__(self, make: Callable[..., Any], call: Call, follow: generators.Follow, unbegun: object) -> None:
        self._make, self._following = make, _Following(call, follow, unbegun)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._following.make(self._make, *args, **kwargs)

    def __del__(self) -> None:
        attempt(self._following.abandon)
