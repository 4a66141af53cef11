"""What an engine sends through when it delivers to a relay: one thread, one connection, many logs in flight."""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
from collections import deque
from contextlib import suppress
from typing import Any

from athina_trace import _guard
from athina_trace._delivery.concurrency import Concurrency
from athina_trace._delivery.entry import Lease, Stored
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.results import Attempt, Result, Results
from athina_trace._delivery.retry import Verdict, verdict
from athina_trace._delivery.truncate import truncate
from athina_trace.relay.connection import RELAY, Address, Loop, outcome_of
from athina_trace.relay.stream import Stream

_TEND_SECONDS = 1.0
_FEW = 16
"""Leases under way below which the engine is asked for more."""


class Publisher:
    """Publishes leases, each in order, and reports into `results`. Everything public is for the engine's thread.

    The logs of one ordering key are published one after the other, each once the one before it is acknowledged: a log
    that has to be published again must not come behind a later one. Different keys are in flight together.
    """

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
        self.destination = RELAY
        # One connection carries what the engine leases, however much: of the controller only the gate is needed.
        self.controller = Concurrency(1, RELAY.name)
        self._address = address
        self._results = results
        self._clock = clock
        self._max_bytes = max_bytes
        self._patience = patience
        self._stream_type = stream_type
        self._inbox: deque[Lease] = deque()
        self._held: dict[int, Lease] = {}  # by identity: a store that was replaced may lease a key once more
        self._thread: threading.Thread | None = None
        self._loop: Loop | None = None
        self._woken: asyncio.Event = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stream: Stream | None = None
        self._opening: asyncio.Task[Stream] | None = None
        self._is_closing = False

    @property
    def alive(self) -> int:
        """How many threads publish: one, or none."""
        return int(self._thread is not None and self._thread.is_alive())

    def submit(self, lease: Lease) -> None:
        """Take a lease whose entries are to be published."""
        self._held[id(lease)] = lease
        self._inbox.append(lease)
        self._wake()

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # it has just ended: `tend` starts another
                loop.call_soon_threadsafe(self._woken.set)

    def start(self) -> None:
        """Start the thread. Raises RuntimeError where no thread can be started."""
        if not self.alive and not self._is_closing:
            # Nothing of a thread that died is used again: its connection belongs to a loop that does not run.
            self._loop, self._woken, self._stream, self._opening = Loop(), asyncio.Event(), None, None
            if self._inbox:
                self._woken.set()
            # In a context of its own, as the engine's.
            self._thread = threading.Thread(
                target=contextvars.Context().run,
                args=(self._run, self._loop),
                name="athina-trace-publisher",
                daemon=True,
            )
            self._thread.start()

    def tend(self) -> float:
        """Look after the thread: report what a dead one held as failed, and start another. Seconds until next time."""
        if self._held and not self.alive and not self._is_closing:
            if self._thread is not None:
                self._inbox.clear()
                outcome = Outcome(None, message="the publisher's thread died", possible_duplicate=True)
                while self._held:
                    _, lease = self._held.popitem()
                    self._results.put(Result(lease, Attempt(lease.entries[0], outcome, Verdict.RETRY), ended=True))
            with suppress(RuntimeError):  # the interpreter is shutting down, or has no threads left
                self.start()
        return _TEND_SECONDS if self._held else math.inf

    def _run(self, loop: Loop) -> None:
        try:
            loop.run(self._take())
        except BaseException:  # noqa: BLE001 - `tend` finds the dead thread, and what it held
            self._results.wake_event.wake()
            _guard.swallow("publishing logs")

    async def _take(self) -> None:
        """Serve every lease in a task of its own, until closed and nothing is under way."""
        try:
            while not self._is_closing:
                await self._woken.wait()
                self._woken.clear()
                while self._inbox:
                    task = asyncio.get_running_loop().create_task(self._serve(self._inbox.popleft()))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
            if self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            if self._stream is not None:
                await self._stream.close()

    async def _serve(self, lease: Lease) -> None:
        """Publish the entries of a lease in order, for as long as they are taken or refused, and report each."""
        failed: Attempt | None = None
        for entry in lease.entries:
            now = self._clock.monotonic()
            if self._is_closing or self.controller.gate.wait(now):
                break
            request = self.controller.begin(now, lease.ordering_key, entry.reference)
            outcome = await self._publish(lease.ordering_key, entry)
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

    async def _publish(self, ordering_key: str, entry: Stored) -> Outcome:
        """Publish one entry, shortened to what may be stored; what came of it."""
        body = truncate(entry.body, limit=self._max_bytes) if len(entry.body) > self._max_bytes else entry.body
        try:
            stream = await self._opened()
            while True:
                outcome = await stream.publish(ordering_key, entry, body)
                if verdict(outcome.status) is not Verdict.SHRINK:
                    return outcome
                smaller = truncate(body, limit=len(body) // 2)
                if len(smaller) >= len(body):
                    return outcome
                body = smaller
        except Exception as error:  # noqa: BLE001 - whatever networks, proxies and servers can raise is an outcome here
            return outcome_of(error, self._address.names)

    async def _opened(self) -> Stream:
        """Give the connection, made when it is first needed and again whenever it was lost, once for all who wait."""
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

    def close(self, seconds: float) -> None:
        """Let what is in flight be acknowledged, for most of `seconds`, and end the thread."""
        self._is_closing = True
        self._wake()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(seconds * 0.7)
            loop = self._loop
            if self._thread.is_alive() and loop is not None:
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._abort)
                self._thread.join(seconds * 0.3)

    def _abort(self) -> None:
        """Give up what is in flight: as if the connection had been lost."""
        if self._stream is not None:
            self._stream.abort()
        if self._opening is not None:
            self._opening.cancel()
