"""What a worker has claimed is sent to Athina with the engine's own senders.

A claim is the consumer's `ack_wait`, renewed while the server answers. A worker that was stopped, or cut off, for
longer sends nothing of what it held: another has it by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from athina_trace._delivery.concurrency import Gate
from athina_trace._delivery.destination import ATHINA
from athina_trace._delivery.metrics import Traffic
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.results import Attempt, Result, Results
from athina_trace._delivery.retry import Verdict
from athina_trace._delivery.retry_policy import RetryPolicy
from athina_trace._delivery.routes import Kind
from athina_trace._delivery.senders import Connection, Senders
from athina_trace.relay.partitions import Held, Partition


class Deliveries:
    """The claims of one worker, and the senders for them: changed by its loop, asked by the threads that send."""

    def __init__(  # noqa: PLR0913 - settings of one thing, all by name
        self,
        connect_athina: Callable[[], Connection],
        on_result: Callable[[Result], None],
        *,
        clock: Any,
        connections: int,
        max_bytes: int,
        max_attempts: int,
        revise: Callable[[bytes], bytes] | None,
    ) -> None:
        """`on_result` is called with each result, by the loop that `start` is given."""
        self.retry_policy = RetryPolicy(clock, ATHINA, max_attempts=max_attempts)
        self._on_result = on_result
        self._monotonic: Callable[[], float] = clock.monotonic
        self._held: dict[tuple[Kind, str], Held] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._senders = Senders(
            lambda: _Claimed(connect_athina(), self._is_claimed),
            _Results(self._hand_over),
            clock=clock,
            limit=connections,
            max_bytes=max_bytes,
            revise=revise,
            is_queue=True,
        )

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the first sender."""
        self._loop = loop
        self._senders.start()

    def send(self, partition: Partition, held: Held) -> None:
        """Claim a log of a partition, and have it sent."""
        partition.held = held
        self._held[_key(held)] = held
        if held.message.kind is None:
            outcome = Outcome(None, message="a message of an unknown kind, which was not sent")
            self._hand_over(Result(held.lease, Attempt(held.lease.entries[0], outcome, Verdict.REFUSED), ended=True))
        else:
            self._senders.submit(held.lease)

    def release(self, partition: Partition, held: Held) -> None:
        """Release a claim: the log was dealt with, or may be another worker's by now."""
        partition.held = None
        self._held.pop(_key(held), None)

    def supervise(self) -> None:
        """Supervise the senders, and warn where nothing is sent."""
        self._senders.supervise()
        ATHINA.warn(paused=self.gate.paused, outage=self.gate.outage)

    @property
    def gate(self) -> Gate:
        """Whether anything is sent at all."""
        return self._senders.controller.gate

    @property
    def limit(self) -> int:
        """How many requests may be in flight."""
        return self._senders.controller.limit

    def traffic(self) -> Traffic:
        """Return what the requests do now, and took."""
        return Traffic(self._senders.controller.in_flight, self._senders.controller.latency)

    def close(self, seconds: float) -> None:
        """Let present requests end in that time. Not by the loop, which has to take their results."""
        self._senders.close(seconds)

    def _is_claimed(self, kind: Kind, reference: str) -> bool:
        held = self._held.get((kind, reference))
        return held is not None and held.claimed_until > self._monotonic()

    def _hand_over(self, result: Result) -> None:
        """Take a result from any thread into the loop."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: what was held is given to another in time
                self._loop.call_soon_threadsafe(self._on_result, result)


def _key(held: Held) -> tuple[Kind, str]:
    return held.lease.entries[0].kind, held.message.reference


class _Results(Results):
    """Hands each result over at once, rather than to an engine that comes for it."""

    def __init__(self, hand_over: Callable[[Result], None]) -> None:
        super().__init__(lambda _: None)
        self._hand_over = hand_over

    def put(self, result: Result, *, is_low: bool = False) -> None:  # noqa: ARG002 - an engine's
        self._hand_over(result)


class _Claimed:
    """A connection to Athina that sends only what is claimed at that moment."""

    def __init__(self, inner: Connection, is_claimed: Callable[[Kind, str], bool]) -> None:
        self._inner = inner
        self._is_claimed = is_claimed
        self.expire = inner.expire
        self.close = inner.close

    def deliver(self, kind: Kind, target: str, body: bytes) -> Outcome:
        if not self._is_claimed(kind, target):
            return Outcome(None, message="this worker held the log for too long, and another may have it")
        return self._inner.deliver(kind, target, body)
