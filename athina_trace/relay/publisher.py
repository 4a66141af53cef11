"""Replaces the senders of an engine that delivers to a relay: one thread, one connection, many logs in flight."""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from athina_trace import _guard
from athina_trace._delivery.concurrency import Concurrency
from athina_trace._delivery.entry import Lease, Stored
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.results import Attempt, Result, Results
from athina_trace._delivery.retry import Verdict, verdict
from athina_trace._delivery.truncate import halved, truncate
from athina_trace.relay.connection import RELAY, Address, Loop, outcome_of
from athina_trace.relay.stream import Stream

_SUPERVISE_SECONDS = 1.0
_FEW = 16
"""With fewer leases in progress than this, the engine is asked for more."""


class Publisher:
    """Publishes leases, each in order, and reports to `results`. The public methods are for the engine's thread.

    The logs of an ordering key are published one after the other, each when the previous one is acknowledged, so that a
    log which has to be published again never comes after a later one. Different keys are published concurrently.
    """

    destination = RELAY
    unsent = None

    def __init__(
        self,
        address: Address,
        results: Results,
        *,
        clock: Any,
        max_bytes: int = 1_000_000,
        patience: float = 15.0,
        stream_type: type[Stream] = Stream,
    ) -> None:
        """`max_bytes`: longer entries are shortened. `patience`: seconds to wait for an acknowledgement."""
        # One connection is enough for everything that the engine leases, so only the controller's gate is used.
        self.controller = Concurrency(1, RELAY.name)
        self._results = results
        self._clock = clock
        self._make_stream = partial(
            _SharedStream, address, max_bytes=max_bytes, patience=patience, stream_type=stream_type
        )
        self._inbox: deque[Lease] = deque()
        self._held: dict[int, Lease] = {}  # by identity: a store that was replaced may lease a key once more
        self._thread: _PublishingThread | None = None
        self._is_closing = False

    @property
    def alive(self) -> int:
        """The number of publishing threads: one or zero."""
        return int(self._thread is not None and self._thread.is_running)

    def submit(self, lease: Lease) -> None:
        """Accept a lease whose entries are to be published."""
        self._held[id(lease)] = lease
        self._inbox.append(lease)
        if self._thread is not None:
            self._thread.wake()

    def start(self) -> None:
        """Start the thread. Raises RuntimeError if that is impossible."""
        if not self.alive and not self._is_closing:
            self._thread = _PublishingThread(self._make_stream(), self._run)
            self._thread.start()

    def supervise(self) -> float:
        """Replace a dead thread, and report its leases as failed. Return the seconds until the next check."""
        if self._held and not self.alive and not self._is_closing:
            if self._thread is not None:
                self._inbox.clear()
                outcome = Outcome(None, message="the publisher's thread died", possible_duplicate=True)
                while self._held:
                    _, lease = self._held.popitem()
                    self._results.put(Result(lease, Attempt(lease.entries[0], outcome, Verdict.RETRY), ended=True))
            with suppress(RuntimeError):  # the interpreter is shutting down, or has no threads left
                self.start()
        return _SUPERVISE_SECONDS if self._held else math.inf

    def _run(self, thread: _PublishingThread) -> None:
        try:
            thread.run(self._take(thread))
        except BaseException:  # noqa: BLE001 - `supervise` finds the dead thread, and what it held
            self._results.wake_event.wake()
            _guard.swallow("publishing logs")

    async def _take(self, thread: _PublishingThread) -> None:
        """Serve each lease in its own task, until closed and all leases are done."""
        tasks: set[asyncio.Task[None]] = set()
        try:
            while True:
                while self._inbox:
                    task = asyncio.get_running_loop().create_task(self._serve(self._inbox.popleft(), thread.stream))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                if self._is_closing:
                    break
                await thread.woken.wait()
                thread.woken.clear()
            if tasks:
                await asyncio.wait(tasks)
        finally:
            await thread.stream.close()

    async def _serve(self, lease: Lease, stream: _SharedStream) -> None:
        """Publish the entries of a lease in order, as long as they are accepted or refused, and report each."""
        last = lease.entries[-1]
        for entry in lease.entries:
            now = self._clock.monotonic()
            attempt: Attempt | None = None
            if not self._is_closing and not self.controller.gate.wait(now):
                request = self.controller.begin(now, lease.ordering_key, entry.reference, entry.kind)
                outcome = await stream.publish(lease.ordering_key, entry)
                found = self.controller.end(
                    request, outcome, self._clock.monotonic(), waiting=False, chance=self._clock.uniform()
                )
                attempt = Attempt(entry, outcome, found)
            ended = attempt is None or attempt.verdict in (Verdict.RETRY, Verdict.PAUSED) or entry is last
            if ended:
                self._held.pop(id(lease), None)
            self._results.put(Result(lease, attempt, ended), is_low=ended and len(self._held) < _FEW)
            if ended:
                break

    def close(self, seconds: float) -> None:
        """Wait for acknowledgements for most of `seconds`, and end the thread."""
        self._is_closing = True
        if self._thread is not None:
            self._thread.end(seconds)


class _PublishingThread:
    """A thread with its own loop and connection. Nothing of it is reused once it has died."""

    def __init__(self, stream: _SharedStream, run: Callable[[_PublishingThread], None]) -> None:
        self.stream = stream
        self.woken = asyncio.Event()
        self.loop = Loop()
        self.is_running = False  # the thread itself must not be asked: see `worker._EngineThread`
        # In a separate context, like the engine's thread.
        self._thread = threading.Thread(
            target=contextvars.Context().run, args=(run, self), name="athina-trace-publisher", daemon=True
        )

    def start(self) -> None:
        """Start it. Raises RuntimeError if that is impossible."""
        self.is_running = True
        try:
            self._thread.start()
        except RuntimeError:
            self.is_running = False
            raise

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run `main` in this thread, which then ends."""
        try:
            self.loop.run(main)
        finally:
            self.is_running = False

    def wake(self) -> None:
        """Wake it to look for new leases."""
        with suppress(RuntimeError):  # it has just ended: `supervise` starts another
            self.loop.call_soon_threadsafe(self.woken.set)

    def end(self, seconds: float) -> None:
        """Wait for publications in flight for most of `seconds`; then abandon them."""
        self.wake()
        if self._thread.is_alive():
            self._thread.join(seconds * 0.7)
            if self._thread.is_alive():
                with suppress(RuntimeError):
                    self.loop.call_soon_threadsafe(self.stream.abort)
                self._thread.join(seconds * 0.3)


class _SharedStream:
    """The connection of one loop to the stream, opened on first use, and again whenever it was lost."""

    def __init__(self, address: Address, *, max_bytes: int, patience: float, stream_type: type[Stream]) -> None:
        self._address = address
        self._max_bytes = max_bytes
        self._patience = patience
        self._stream_type = stream_type
        self._stream: Stream | None = None
        self._opening: asyncio.Task[Stream] | None = None

    async def publish(self, ordering_key: str, entry: Stored) -> Outcome:
        """Publish one entry, shortened to what may be stored, and return the outcome."""
        body = truncate(entry.body, limit=self._max_bytes)
        try:
            stream = await self._opened()
            while True:
                outcome = await stream.publish(ordering_key, entry, body)
                smaller = halved(body) if verdict(outcome.status) is Verdict.TRUNCATE else None
                if smaller is None:
                    return outcome
                body = smaller
        except Exception as error:  # noqa: BLE001 - whatever networks, proxies and servers can raise is an outcome here
            return outcome_of(error, self._address.names)

    async def _opened(self) -> Stream:
        """Return the connection; all waiting tasks share it."""
        if self._stream is not None and self._stream.is_closed:
            stream, self._stream = self._stream, None
            await stream.close()
        if self._stream is not None:
            return self._stream
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open())
        return await self._opening

    async def _open(self) -> Stream:
        try:
            stream = self._stream_type(self._address, patience=self._patience)
            await stream.open()
            self._stream = stream
            return stream
        finally:
            self._opening = None

    def abort(self) -> None:
        """Abandon publications in flight, as if the connection had been lost."""
        if self._stream is not None:
            self._stream.abort()
        if self._opening is not None:
            self._opening.cancel()

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._stream is not None:
            await self._stream.close()
