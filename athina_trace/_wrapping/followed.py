"""Proxies of results that continue after the return: an iterator, an async iterator or an awaitable of any class.

The proxy is transparent. Its steps run with the call's log and session, what they give is read, and their end is the
call's end; everything else is done by the object inside.
"""

from __future__ import annotations

import copy
import sys
import types
from collections.abc import Callable, Generator, Iterable
from functools import lru_cache
from typing import Any

import wrapt

from athina_trace._serialization.introspection import ABSENT, Mark, nameplate, static
from athina_trace._wrapping import generators
from athina_trace._wrapping.calls import Call, DeferredWork, attempt, run_in_thread, run_now
from athina_trace._wrapping.state import current


class _Following:
    """A result that continues: its call, and the state in which its steps run."""

    __slots__ = ("_begun", "_call", "_ended", "_follow", "_state", "_texts", "_unbegun", "_waits")

    def __init__(self, call: Call, follow: generators.Follow, unbegun: object) -> None:
        self._call, self._follow, self._unbegun = call, follow, unbegun
        self._begun = self._ended = False
        self._state = generators.entered(call, current.get())
        self._texts: list[Any] = []
        self._waits: type | None = None  # as in `generators`

    def step(self, resume: Callable[..., Any], *given: Any) -> Any:
        """One step of a sync iterator: what it gives is a chunk."""
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
        if type(item) is not self._waits or len(self._texts) > generators.BATCH:
            generators.hand_over(self._texts, self._call)
            self._waits = str

    def inside(self, resume: Callable[..., Any], *given: Any) -> Any:
        """Run code of the result's, which sees the call's log and session."""
        token = current.set(self._state)
        try:
            return resume(*given)
        finally:
            self._state = current.get()
            current.reset(token)

    async def step_async(self, _proxy: object, resume: Callable[..., Any], *given: Any) -> Any:
        """One step of an async iterator, while which the proxy must not seem to be abandoned."""
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
        """What `inside` does, with code that may wait."""
        token = current.set(self._state)
        try:
            return await resume(*given, **named)
        finally:
            self._state = current.get()
            generators.leave(token)

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
        """The program is through with the result, wherever it is; one that it never began is a result like others."""
        # At the end of the program nothing can be loaded any more, and to read an object may take that.
        if sys.is_finalizing() and type(self._unbegun) is not Mark:
            self._unbegun = nameplate(self._unbegun)
        run_now(self.end(None, GeneratorExit()) if self._begun else self.end(self._unbegun))


@types.coroutine
def _awaited(awaitable: Any) -> Generator[Any, Any, Any]:
    # By the method, which other tools' proxies hand on, though they are not awaitable as `await` sees it.
    return (yield from awaitable.__await__())


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

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)  # wrapt's, for what the class does not have
        following = self._self_following
        # Of connections, for one, `send` is something else.
        if name in ("send", "throw") and hasattr(self.__wrapped__, "throw"):
            return lambda *given: following.step(found, *given)
        if name in ("asend", "athrow"):
            return lambda *given: following.step_async(self, found, *given)
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

    def __enter__(self) -> Any:
        entered = self.__wrapped__.__enter__()
        return self if entered is self.__wrapped__ else entered

    def __exit__(self, *error: object) -> Any:
        try:
            return self.__wrapped__.__exit__(*error)
        finally:
            self._self_following.abandon()

    async def __aenter__(self) -> Any:
        entered = await self.__wrapped__.__aenter__()
        return self if entered is self.__wrapped__ else entered

    async def __aexit__(self, *error: object) -> Any:
        try:
            return await self.__wrapped__.__aexit__(*error)
        finally:
            self._self_following.abandon()

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
        return self._self_following.step(next, iterator)


class _AsyncIterating(_Followed):
    def __aiter__(self) -> Any:
        self._self_iterator = self._self_following.inside(aiter, self.__wrapped__)
        return self

    def __anext__(self) -> Any:
        iterator = self.__wrapped__ if self._self_iterator is None else self._self_iterator
        return self._self_following.step_async(self, anext, iterator)


class _Awaitable(_Followed):
    def __await__(self) -> Generator[Any, Any, Any]:
        # Not handed on: `await` keeps nothing but this generator, and that keeps the proxy from being abandoned.
        return (yield from self._self_following.wait(self.__wrapped__).__await__())


@lru_cache(maxsize=8)
def proxy_class(abilities: Iterable[bool]) -> type[Any]:
    """The proxy that can do just this: to be an iterator is a question that programs ask of the class."""
    parts = (_Iterating, _AsyncIterating, _Awaitable)
    return type("Followed", tuple(part for part, has in zip(parts, abilities, strict=True) if has), {})
