"""In place of the senders, where an engine delivers to a relay: one thread, one connection, many logs in flight."""

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
"""Leases under way below which the engine is asked for more."""


class Publisher:
    """Publishes leases, each in order, and reports into `results`. Everything public is for the engine's thread.

    The logs of one ordering key are published one after the other, each once the one before it is acknowledged: a log
    that has to be published again must not come behind a later one. Different keys are in flight together.
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
        """`max_bytes`: longer entries are shortened. `patience`: seconds that an acknowledgement may take."""
        # One connection carries what the engine leases, however much: of the controller only the gate is needed.
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
        """How many threads publish: one, or none."""
        return int(self._thread is not None and self._thread.is_running)

    def submit(self, lease: Lease) -> None:
        """Take a lease whose entries are to be published."""
        self._held[id(lease)] = lease
        self._inbox.append(lease)
        if self._thread is not None:
            self._thread.wake()

    def start(self) -> None:
        """Start the thread. Raises RuntimeError where no thread can be started."""
        if not self.alive and not self._is_closing:
            self._thread = _PublishingThread(self._make_stream(), self._run)
            self._thread.start()

    def supervise(self) -> float:
        """Replace a dead thread, and report what it held as failed. Seconds until next time."""
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
        """Serve every lease in a task of its own, until closed and nothing is under way."""
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
        """Publish the entries of a lease in order, for as long as they are taken or refused, and report each."""
        failed: Attempt | None = None
        for entry in lease.entries:
            now = self._clock.monotonic()
            if self._is_closing or self.controller.gate.wait(now):
                break
            request = self.controller.begin(now, lease.ordering_key, entry.reference, entry.kind)
            outcome = await stream.publish(lease.ordering_key, entry)
            found = self.controller.end(
                request, outcome, self._clock.monotonic(), waiting=False, chance=self._clock.uniform()
            )
            attempt = Attempt(entry, outcome, found)
            if found in (Verdict.RETRY, Verdict.PAUSED):
                failed = attempt
                break
            self._results.put(Result(lease, attempt, ended=False))
        self._held.pop(id(lease), None)
        self._results.put(Result(lease, failed, ended=True), is_low=len(self._held) < _FEW)

    def close(self, seconds: float) -> None:
        """Let what is in flight be acknowledged, for most of `seconds`, and end the thread."""
        self._is_closing = True
        if self._thread is not None:
            self._thread.end(seconds)


class _PublishingThread:
    """A thread with a loop and a connection of its own. Nothing of it is used again once it has died."""

    def __init__(self, stream: _SharedStream, run: Callable[[_PublishingThread], None]) -> None:
        self.stream = stream
        self.woken = asyncio.Event()
        self.loop = Loop()
        self.is_running = False  # the thread itself must not be asked, see `worker.Worker`
        # In a context of its own, as the engine's.
        self._thread = threading.Thread(
            target=contextvars.Context().run, args=(run, self), name="athina-trace-publisher", daemon=True
        )

    def start(self) -> None:
        """Start it. Raises RuntimeError where no thread can be started."""
        self.is_running = True
        try:
            self._thread.start()
        except RuntimeError:
            self.is_running = False
            raise

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run `main` in this thread, which is over then."""
        try:
            self.loop.run(main)
        finally:
            self.is_running = False

    def wake(self) -> None:
        """Have it look for new leases."""
        with suppress(RuntimeError):  # it has just ended: `supervise` starts another
            self.loop.call_soon_threadsafe(self.woken.set)

    def end(self, seconds: float) -> None:
        """Wait for what is in flight, for most of `seconds`; then give it up."""
        self.wake()
        if self._thread.is_alive():
            self._thread.join(seconds * 0.7)
            if self._thread.is_alive():
                with suppress(RuntimeError):
                    self.loop.call_soon_threadsafe(self.stream.abort)
                self._thread.join(seconds * 0.3)


class _SharedStream:
    """The connection of one loop to the stream, made when it is first needed and again whenever it was lost."""

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
        """Return the connection; all who wait for it share one."""
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
        """Give up what is in flight: as if the connection had been lost."""
        if self._stream is not None:
            self._stream.abort()
        if self._opening is not None:
            self._opening.cancel()

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._stream is not None:
            await self._stream.close()
