"""Proxies of results that continue after the return: iterators, awaitables and context managers of any class.

The proxy is transparent. Its steps run with the call's log and session, what they give is read, and their end is the
call's end; everything else is done by the object inside.
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
"""What `receive()` of a channel raises at its end. Whatever else it raises, the next one may give something."""
_TAKEN: Final = {
    "send": ("throw", "step"),  # of connections, for one, it is something else
    "throw": ("throw", "step"),
    "asend": ("athrow", "step_async"),
    "athrow": ("athrow", "step_async"),
    "receive": ("__anext__", "receive_async"),
    "receive_nowait": ("__anext__", "receive"),
}
"""Methods that take a step → what an object has of which they do, and the method of `_Following` that runs them."""


class _Following:
    """A result that continues: its call, and the state in which its steps run."""

    __slots__ = ("_begun", "_call", "_ended", "_entered", "_follow", "_state", "_texts", "_unbegun", "_waits")

    def __init__(self, call: Call, follow: generators.Follow, unbegun: object) -> None:
        self._call, self._follow, self._unbegun = call, follow, unbegun
        self._begun = self._ended = False
        self._entered: Any = None  # a proxy of what a context manager gave
        # The state in which the steps run: the one that is found, and the call entered on top of it.
        token = current.set(current.get())
        attempt(call.enter)
        self._state = current.get()
        current.reset(token)
        self._texts: list[Any] = []
        self._waits: type | None = None  # as in `generators`

    def step(self, _proxy: object, resume: Callable[..., Any], *given: Any) -> Any:
        """Take one step of a sync iterator: what it gives is a chunk."""
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
        """Run code of the result's, which sees the call's log and session."""
        token = current.set(self._state)
        try:
            return resume(*given, **named)
        finally:
            self._state = current.get()
            current.reset(token)

    async def step_async(self, _proxy: object, resume: Callable[..., Any], *given: Any) -> Any:
        """Take one step of an async iterator, during which the proxy must not seem to be abandoned."""
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
        """Do what `inside` does, with code that may wait."""
        token = current.set(self._state)
        try:
            return await resume(*given, **named)
        finally:
            self._state = current.get()
            generators.leave(token)

    def receive(self, _proxy: object, receive: Callable[..., Any], *given: Any) -> Any:
        """Take what a channel holds."""
        self._begun = True
        try:
            item = self.inside(receive, *given)
        except Exception as error:
            run_now(self._end_if_exhausted(error))
            raise
        self._keep(item)
        return item

    async def receive_async(self, _proxy: object, receive: Callable[..., Any], *given: Any) -> Any:
        """Wait for what a channel holds."""
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
        """Do what `inside` does, for a context manager: a session that it enters holds in its block, as undecorated."""
        scope, (_, log) = self._state[0], current.get()
        try:
            return self.inside(resume, *given)
        finally:
            if self._state[0] is not scope:
                current.set((self._state[0], log))

    async def across_async(self, resume: Callable[..., Any], *given: Any) -> Any:
        """Do what `across` does, with code that may wait."""
        scope, (_, log) = self._state[0], current.get()
        try:
            return await self.inside_async(resume, *given)
        finally:
            if self._state[0] is not scope:
                current.set((self._state[0], log))

    def enter(self, given: Any) -> Any:
        """Return what the block is given: what its context manager gave on entering, or that followed."""
        followed = None if self._ended else attempt(self._follow, given, self._call)
        if followed is None:
            self._unbegun = given
            return given
        self._ended, self._entered = True, followed
        return followed

    def make(self, make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the function that gives its stream, which ends the call where it is the first."""
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
        """Await a result, whose own result ends the call, or continues in its turn."""
        self._begun = True
        try:
            result = await self.inside_async(_awaited, awaitable)
        except BaseException as error:
            if (work := self.end(None, error)) is not None:
                await run_in_thread(work, error)
            raise
        # Some objects, such as pools of connections, are what awaiting them gives: that is not followed again.
        ends = self._ended or result is awaitable
        if not ends and (followed := attempt(self._follow, result, self._call)) is not None:
            self._ended = True
            return followed
        if (work := self.end(result)) is not None:
            await run_in_thread(work)
        return result

    def end(self, value: object, error: BaseException | None = None) -> DeferredWork:
        """End the call; only the first time counts."""
        if self._ended:
            return None
        self._ended = True
        generators.hand_over(self._texts, self._call)
        return attempt(self._call.done, value) if error is None else attempt(self._call.failed, error)

    def abandon(self) -> None:
        """End the call: the program is through with the result. One that it never began is a result like others."""
        if self._entered is not None:
            entered, self._entered = self._entered, None
            is_proxy = issubclass(type(entered), _Followed)
            # Or it is an object whose iterator is followed.
            followed: Any = entered if is_proxy else instance_dict(entered).get("_iterator")
            if issubclass(type(followed), _Followed):
                followed._self_following.abandon()  # noqa: SLF001 - how wrapt keeps what is not the wrapped one's
        # At the end of the program nothing can be loaded any more, and to read an object may take that.
        if sys.is_finalizing() and type(self._unbegun) is not Placeholder:
            self._unbegun = type_placeholder(self._unbegun)
        run_now(self.end(None, GeneratorExit()) if self._begun else self.end(self._unbegun))


@types.coroutine
def _awaited(awaitable: Any) -> Generator[Any, Any, Any]:
    # By the method, which other tools' proxies hand on, though they are not awaitable as `await` sees it.
    return (yield from awaitable.__await__())


class _LacksError(AttributeError, TypeError):
    """The object inside lacks a method: `hasattr` takes it for an `AttributeError`, what needs it says `TypeError`."""


def _method_of_the_inner(name: str) -> Any:
    """Return the attribute for a method that wrapt's proxies have whatever is inside: programs ask for it."""

    def method(proxy: _Followed) -> Any:
        inner = proxy.__wrapped__
        # As Python does: `__getattr__` is not asked for methods of the class. No helper: this is in the program's call.
        found = getattr(inner, name, ABSENT) if hasattr(type(inner), name) else ABSENT
        if found is ABSENT:
            raise _LacksError(f"object of type {type(inner).__name__!r} has no {name}()")
        return found

    return property(method)


class _Followed(wrapt.BaseObjectProxy[Any]):
    """The proxy of `result`, with which `call` ends.

    Args:
        result: the object inside.
        call: the call that gave it.
        follow: what decides whether the call ends with what an awaitable gives.
        unbegun: what to log as the result where the program never begins to read it.
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
        found = super().__getattr__(name)  # wrapt's, for what the class does not have
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
            # Async streams of clients and other tools call it `close`, too.
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
    def __length_hint__(self) -> Any:  # which wrapt does not hand on
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
    """What is no iterator itself, but gives one: it ends the call where the program iterates rather than awaits."""

    def __iter__(self) -> Any:
        return self._self_following.make(iter, self.__wrapped__)


class _AsyncIterable(_Followed):
    def __aiter__(self) -> Any:
        return self._self_following.make(aiter, self.__wrapped__)


class _Awaitable(_Followed):
    def __await__(self) -> Generator[Any, Any, Any]:
        # Not handed on: `await` keeps nothing but this generator, and that keeps the proxy from being abandoned.
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
    "__iter__": _Iterable,  # behind those of iterators, which have these, too
    "__aiter__": _AsyncIterable,
    "__await__": _Awaitable,
    "__enter__": _Entered,
    "__aenter__": _AsyncEntered,
    "__call__": _Called,
}
_EXITS: Final = (("__enter__", "__exit__"), ("__aenter__", "__aexit__"))
Abilities = frozenset[str]
"""Which of these methods a proxy has: what an object can do is a question that programs ask of its class."""


def abilities_of(kind: type) -> Abilities:
    """Return the abilities that a class has; one set to None is not inherited."""
    methods = ((name, static(kind, name)) for name in _PARTS)
    return frozenset(name for name, method in methods if method is not ABSENT and method is not None)


@functools.lru_cache(maxsize=64)
def proxy_class(abilities: Abilities) -> type[Any]:
    """Return the proxy that can do just this; wrapt's own seem to leave everything."""
    lacks = {exit_: None for enter, exit_ in _EXITS if enter not in abilities}
    return type("Followed", tuple(part for name, part in _PARTS.items() if name in abilities), lacks)


class StreamMaker:
    """In place of a function that is called for the stream that a response is made of: that stream ends the call."""

    def __init__(self, make: Callable[..., Any], call: Call, follow: generators.Follow, unbegun: object) -> None:
        self._make, self._following = make, _Following(call, follow, unbegun)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._following.make(self._make, *args, **kwargs)

    def __del__(self) -> None:
        attempt(self._following.abandon)
