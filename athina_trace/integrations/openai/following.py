"""Streams of an instrumented client: watched while the user reads them, and never touched otherwise.

The stream stays the client's own object. What it iterates is replaced by an iterator that looks at each item on its
way, so that everything which reads it (a `for` loop, an event handler, the client's helpers) stays as it was. A stream
ends once: with its last event, exhausted, failed, closed early, or given up, which the garbage collector tells.
"""

from __future__ import annotations

import inspect
import math
import os
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from athina_trace import _guard, _periodic
from athina_trace._clock import clock
from athina_trace._wrapping.calls import Call, complete
from athina_trace.integrations.openai.bodies import Body
from athina_trace.integrations.openai.shape import get, json_body
from athina_trace.integrations.openai.streams import ChatChunks, ResponseEvents, RunEvents
from athina_trace.integrations.openai.watched import Watched

if TYPE_CHECKING:
    from typing_extensions import Self

_VISIT_SECONDS = 5.0
"""How often streams that were given up are looked for while any is open."""
_MARK = "_athina_trace_follower"
_PIECES: dict[str | None, Callable[[], _Pieces]] = {"chat": ChatChunks, "response": ResponseEvents}


class _Pieces(Protocol):
    @property
    def ended(self) -> bool: ...

    def add(self, piece: object, /) -> None: ...

    def result(self) -> object: ...


class Follower:
    """Follows the stream of one request to its end."""

    def __init__(self, request: Watched) -> None:
        self.request = request
        self.reading = False
        self._pieces = _PIECES.get(request.route.kind, RunEvents)()
        self._count = 0
        self._first_ns = 0
        self._calls: list[Call] = []
        self._unfinished = [True]
        self._whole: object = None
        self._body: Body | None = None
        self._finalizer: Any = None
        _open.add(self)

    # -- what is followed

    def attach(self, stream: Any) -> None:
        """Follow a stream of the client, sync or async."""
        inner = stream._iterator  # noqa: SLF001 - the one place through which every reader of a stream goes
        stream._iterator = _EachAsync(inner, self) if hasattr(inner, "__anext__") else _Each(inner, self)  # noqa: SLF001
        setattr(stream, _MARK, self)
        self._watch_closing(stream.response)
        self._watch_life(stream)

    def attach_raw(self, response: Any, *, streamed: bool) -> None:
        """Follow a response that the client gave unparsed: a stream comes of its `parse`, a body of its reading."""
        self._whole = None if streamed else response
        self._body = Body(response.http_response)
        if streamed:
            self._watch_parsing(response)
        self._watch_closing(response)
        self._watch_life(response)

    def _watch_parsing(self, response: Any) -> None:
        parse = response.parse

        def parsed(*args: Any, **kwargs: Any) -> Any:
            return self._parsed(parse(*args, **kwargs))

        async def parsed_async(*args: Any, **kwargs: Any) -> Any:
            return self._parsed(await parse(*args, **kwargs))

        response.parse = parsed_async if inspect.iscoroutinefunction(parse) else parsed

    def _parsed(self, stream: Any) -> Any:
        try:
            if hasattr(stream, "_iterator") and getattr(stream, _MARK, None) is None:
                self.attach(stream)
                if self._body is not None:
                    self._body.forget()
        except Exception:  # noqa: BLE001 - the guard decides
            _guard.swallow("following a stream")
        return stream

    def _watch_closing(self, response: Any) -> None:
        for name in ("close", "aclose"):
            close = getattr(response, name, None)
            if close is not None:
                watched = _closing_async if inspect.iscoroutinefunction(close) else _closing
                setattr(response, name, watched(close, self))

    def _watch_life(self, stream: Any) -> None:
        if self._finalizer is not None:
            self._finalizer.detach()
        # Only noted: the garbage collector may call at any moment, even in the middle of our own work.
        self._finalizer = weakref.finalize(stream, _given_up.append, self)
        self._finalizer.atexit = False

    # -- what comes of it

    def took(self, piece: object) -> None:
        """An item is on its way to the user."""
        try:
            if self._count == 0:
                self._first_ns = clock.perf_ns()
            self._count += 1
            self._pieces.add(piece)
            if self._pieces.ended and self.request.route.kind != "chat":  # whose usage comes after the end
                self.finish()
        except Exception:  # noqa: BLE001 - the guard decides
            _guard.swallow("reading a stream's chunk")

    def then(self, call: Call) -> bool:
        """Have `call` end with this stream; False where it cannot."""
        mine = self.request.draft is not None and self.request.draft is getattr(call, "draft", None)
        if mine and self._unfinished:
            self._calls.append(call)
            return True
        return False

    def finish(self, error: BaseException | None = None) -> None:
        """The stream has ended, or is given up; only the first call counts. Never raises."""
        try:
            self._unfinished.pop()
        except IndexError:
            return
        _open.discard(self)
        try:
            if self._finalizer is not None:
                self._finalizer.detach()
            self._record(error)
        except Exception:  # noqa: BLE001 - the guard decides
            _guard.swallow("recording a stream")
        for call in self._calls:
            complete(call.done(None) if error is None else call.failed(error))

    def close(self) -> None:
        """The user closed the stream: early, unless it is just being read to its end."""
        if self._is_read():
            self.finish()
        elif not self.reading:
            self.give_up()

    def give_up(self) -> None:
        """Nobody reads on: what came is all that there will be, which may be everything."""
        self.finish(None if self._pieces.ended else GeneratorExit())

    def _is_read(self) -> bool:
        """Whether the user has read a body to its end, in whichever way."""
        if self._whole is not None and json_body(get(self._whole, "http_response")) is not None:
            return True
        return self._body is not None and self._body.is_whole

    def _record(self, error: BaseException | None) -> None:
        request = self.request
        if self._body is not None and not self._count:
            self._take_copy(self._body)
        if self._count:
            waited = (self._first_ns - request.started_ns) // 1_000_000
            request.attributes = {"chunks": self._count, "time_to_first_chunk_ms": waited}
        if self._whole is None:
            request.streamed(self._pieces.result(), error)
        else:
            request.done(self._whole, error)

    def _take_copy(self, body: Body) -> None:
        """Read what the user has read in pieces of their own."""
        if self._whole is None:
            for event in body.events():
                self._pieces.add(event)
        else:
            self._whole = body.json() or self._whole


def follower_of(stream: object) -> Follower | None:
    """Who follows a stream."""
    found = getattr(stream, _MARK, None)
    return found if isinstance(found, Follower) else None


class _Each:
    """Hands on the items of a stream, and looks at each."""

    def __init__(self, inner: Iterator[Any], follower: Follower) -> None:
        self._inner, self._follower = inner, follower

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        follower = self._follower
        follower.reading = True
        try:
            item = next(self._inner)
        except StopIteration:
            follower.finish()
            raise
        except BaseException as error:
            follower.finish(error)
            raise
        finally:
            follower.reading = False
        follower.took(item)
        return item


class _EachAsync:
    """`_Each` for async code."""

    def __init__(self, inner: AsyncIterator[Any], follower: Follower) -> None:
        self._inner, self._follower = inner, follower

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        follower = self._follower
        follower.reading = True
        try:
            item = await self._inner.__anext__()
        except StopAsyncIteration:
            follower.finish()
            raise
        except BaseException as error:
            follower.finish(error)
            raise
        finally:
            follower.reading = False
        follower.took(item)
        return item


def _closing(close: Callable[[], Any], follower: Follower) -> Callable[[], Any]:
    def closed() -> Any:
        try:
            return close()
        finally:
            follower.close()

    return closed


def _closing_async(close: Callable[[], Awaitable[Any]], follower: Follower) -> Callable[[], Awaitable[Any]]:
    async def closed() -> Any:
        try:
            return await close()
        finally:
            follower.close()

    return closed


_open: set[Follower] = set()
_given_up: deque[Follower] = deque()


def _tend(_now: float, ending: bool) -> float:  # noqa: FBT001 - an errand
    """Log the streams that were given up; at the end of the process, all that are still open."""
    while _given_up:
        _given_up.popleft().give_up()
    for follower in tuple(_open) if ending else ():
        follower.give_up()
    return _VISIT_SECONDS if _open else math.inf


def _forget() -> None:
    """Begin with nothing: a forked child must not log its parent's streams."""
    _open.clear()
    _given_up.clear()


_periodic.leave(_tend)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
