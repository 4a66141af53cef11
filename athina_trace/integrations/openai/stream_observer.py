"""Observes the streams of an instrumented client while the program reads them, without reading them itself.

The stream remains the client's own object. Its inner iterator is replaced by one that looks at each item, so that
everything which reads the stream (a `for` loop, an event handler, the client's helpers) works as before. A stream
ends once: with its last event, exhausted, failed, closed early, or abandoned, which the garbage collector reports.
"""

from __future__ import annotations

import inspect
import math
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from athina_trace import _guard, _periodic
from athina_trace._clock import clock
from athina_trace._wrapping.calls import Call, run_now
from athina_trace.integrations.openai.assistants import RunEvents
from athina_trace.integrations.openai.chat import ChatChunks
from athina_trace.integrations.openai.normalise import Data, normalise, normalise_fresh
from athina_trace.integrations.openai.request_record import RequestRecord
from athina_trace.integrations.openai.response_tee import ResponseTee
from athina_trace.integrations.openai.responses import ResponseEvents

if TYPE_CHECKING:
    from typing_extensions import Self

_VISIT_SECONDS = 5.0
"""How often abandoned streams are logged while any stream is open."""
_MARK = "_athina_trace_observer"


class _Assembler(Protocol):
    @property
    def ended(self) -> bool: ...

    def add(self, chunk: Data, /) -> None: ...

    def result(self) -> Any: ...


_ASSEMBLERS: dict[str | None, Callable[[], _Assembler]] = {"chat": ChatChunks, "response": ResponseEvents}


class StreamObserver:
    """Observes the stream, or the unparsed response, of one request until its end."""

    def __init__(self, request: RequestRecord) -> None:
        self.request = request
        self.reading = False
        """Whether the client is just reading the next item."""
        self._assembler = _ASSEMBLERS.get(request.route.kind, RunEvents)()
        self._ends_with_answer = request.route.kind != "chat"
        """Whether the stream ends with its answer. The usage of a chat completion follows it."""
        self._count = 0
        self._first_ns = 0
        self._calls: list[Call] = []
        self._unfinished = [True]
        self._body: ResponseTee | None = None
        self._raw: Any = None
        """The unparsed response, if its body is the answer itself."""
        self._finalizers: list[weakref.finalize[Any, Any]] = []
        _open.add(self)

    # Observing

    def attach(self, stream: Any) -> None:
        """Observe a stream of the client, sync or async."""
        inner = stream._iterator  # noqa: SLF001 - the one place through which every reader of a stream goes
        stream._iterator = _AsyncItems(inner, self) if hasattr(inner, "__anext__") else _Items(inner, self)  # noqa: SLF001
        setattr(stream, _MARK, self)
        self._observe_end_of(stream, stream.response)

    def attach_raw(self, response: Any, *, streamed: bool) -> None:
        """Observe an unparsed response: its `parse` makes a stream, or the program reads its body."""
        self._raw = None if streamed else response
        self._body = ResponseTee(response.http_response)
        setattr(response, _MARK, self)
        if streamed:
            self._observe_parsing(response)
        self._observe_end_of(response, response)

    def _observe_parsing(self, response: Any) -> None:
        parse = response.parse

        def attached(stream: Any) -> Any:
            with _guard.shield("observing a stream"):
                if hasattr(stream, "_iterator") and getattr(stream, _MARK, None) is None:
                    self.attach(stream)
            return stream

        def parsed(*args: Any, **kwargs: Any) -> Any:
            return attached(parse(*args, **kwargs))

        async def parsed_async(*args: Any, **kwargs: Any) -> Any:
            return attached(await parse(*args, **kwargs))

        response.parse = parsed_async if inspect.iscoroutinefunction(parse) else parsed

    def _observe_end_of(self, stream: Any, response: Any) -> None:
        """Note when the response is closed, and when the program drops the stream."""
        for name in ("close", "aclose"):
            close = getattr(response, name, None)
            if close is not None:
                observed = _closing_async if inspect.iscoroutinefunction(close) else _closing
                setattr(response, name, observed(close, self))
        # Of a raw response and the stream that was parsed from it, either may live longer, and be read.
        finalizer = weakref.finalize(stream, self._note_dropped)
        finalizer.atexit = False
        self._finalizers.append(finalizer)

    def _note_dropped(self) -> None:
        """Note that the program dropped every object from which the answer can be read."""
        # Only noted, since the garbage collector may call this at any moment, even in the middle of our own work.
        if not any(finalizer.alive for finalizer in self._finalizers):
            _dropped.append(self)

    # Recording

    def saw(self, item: object) -> None:
        """Look at an item on its way to the program."""
        try:
            if self._count == 0:
                self._first_ns = clock.perf_ns()
                if self._body is not None:  # only now: a tool may parse it, but the program read the body
                    self._body.discard()
            self._count += 1
            chunk = normalise_fresh(item)
            if type(chunk) is dict:
                self._assembler.add(chunk)
            if self._ends_with_answer and self._assembler.ended:
                self.finish()
        except Exception:  # noqa: BLE001 - the guard decides
            _guard.swallow("reading a stream's chunk")

    def end_with(self, call: Call) -> bool:
        """Let the decorated call that returned this stream end with it; return False if it cannot."""
        draft: object = self.request.origin.draft  # a decorated call is the draft of its log
        if draft is call and self._unfinished:
            self._calls.append(call)
            return True
        return False

    def finish(self, error: BaseException | None = None) -> None:
        """Record the stream, which has ended or is abandoned; only the first call counts. Never raises."""
        try:
            self._unfinished.pop()  # atomic, since several threads may end the stream
        except IndexError:
            return
        _open.discard(self)
        with _guard.shield("recording a stream"):
            for finalizer in self._finalizers:
                finalizer.detach()
            self._record(error)
        # Last, since the log of the decorated call contains what was recorded above.
        for call in self._calls:
            run_now(call.done(None) if error is None else call.failed(error))

    def close(self) -> None:
        """Record the stream, which the program closed: early, unless it was read to its end."""
        read = self._raw is not None and normalise(self._raw) is not None
        if read or (self._body is not None and self._body.is_whole):
            self.finish()
        elif not self.reading:
            self.give_up()

    def give_up(self) -> None:
        """Record what came so far, which may be everything: nothing more will come."""
        self.finish(None if self._assembler.ended else GeneratorExit())

    def _record(self, error: BaseException | None) -> None:
        request = self.request
        if self._raw is not None:
            body = self._body.json() if self._body is not None else None
            request.finished(body or normalise(self._raw), error)
            return
        if self._count:
            waited = (self._first_ns - request.origin.started_ns) // 1_000_000
            request.origin.attributes = {"chunks": self._count, "time_to_first_chunk_ms": waited}
        elif self._body is not None:
            for event in self._body.events():  # what the program read as lines, bytes or text
                self._assembler.add(event)
        request.stream_ended(self._assembler.result(), error)


def observer_of(stream: object) -> StreamObserver | None:
    """Return the observer of a stream or unparsed response."""
    found = getattr(stream, _MARK, None)
    return found if isinstance(found, StreamObserver) else None


class _Items:
    """Passes on the items of a stream, and shows each to the observer."""

    def __init__(self, inner: Iterator[Any], observer: StreamObserver) -> None:
        self._inner, self._observer = inner, observer

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        observer = self._observer
        observer.reading = True
        try:
            item = next(self._inner)
        except StopIteration:
            observer.finish()
            raise
        except BaseException as error:
            observer.finish(error)
            raise
        finally:
            observer.reading = False
        observer.saw(item)
        return item


class _AsyncItems:
    """`_Items` for async code."""

    def __init__(self, inner: AsyncIterator[Any], observer: StreamObserver) -> None:
        self._inner, self._observer = inner, observer

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        observer = self._observer
        observer.reading = True
        try:
            item = await self._inner.__anext__()
        except StopAsyncIteration:
            observer.finish()
            raise
        except BaseException as error:
            observer.finish(error)
            raise
        finally:
            observer.reading = False
        observer.saw(item)
        return item


def _closing(close: Callable[[], Any], observer: StreamObserver) -> Callable[[], Any]:
    def closed() -> Any:
        try:
            return close()
        finally:
            observer.close()

    return closed


def _closing_async(close: Callable[[], Awaitable[Any]], observer: StreamObserver) -> Callable[[], Awaitable[Any]]:
    async def closed() -> Any:
        try:
            return await close()
        finally:
            observer.close()

    return closed


_open: set[StreamObserver] = set()
_dropped: deque[StreamObserver] = deque()


def _run_periodically(_now: float, ending: bool) -> float:  # noqa: FBT001 - the signature of periodic callbacks
    """Log abandoned streams; at the end of the process, all that are still open."""
    while _dropped:
        _dropped.popleft().give_up()
    for observer in tuple(_open) if ending else ():
        observer.give_up()
    return _VISIT_SECONDS if _open else math.inf


def reset() -> None:
    """Forget all streams: a forked child must not log its parent's."""
    _open.clear()
    _dropped.clear()


_periodic.register(_run_periodically)
