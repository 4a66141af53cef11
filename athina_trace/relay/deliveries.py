"""Sends the logs that a worker has claimed to Athina, with the engine's own senders.

A claim lasts for the consumer's `ack_wait`, and is renewed while the server answers. A worker that was suspended, or
cut off, for longer no longer sends the logs that it held, since another worker has them by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from athina_trace._clock import clock
from athina_trace._delivery.client import Client
from athina_trace._delivery.concurrency import Gate
from athina_trace._delivery.cost_estimates import estimator
from athina_trace._delivery.destination import ATHINA
from athina_trace._delivery.metrics import Traffic
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.results import Attempt, Result, Results
from athina_trace._delivery.retry import Verdict
from athina_trace._delivery.retry_policy import RetryPolicy
from athina_trace._delivery.routes import Kind
from athina_trace._delivery.senders import Connection, Senders
from athina_trace.relay.partitions import Held, Partition
from athina_trace.settings import Settings


class Deliveries:
    """The claims of a worker, and the senders for them: changed by its loop, read by the sending threads."""

    def __init__(self, settings: Settings, on_result: Callable[[Result], None]) -> None:
        """`on_result` is called with each result, by the loop given to `start`."""
        self.retry_policy = RetryPolicy(clock, ATHINA, max_attempts=settings.max_attempts)
        self._on_result = on_result
        self._held: dict[tuple[Kind, str], Held] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._senders = Senders(
            lambda: _Claimed(Client.of(settings), self._is_claimed),
            _Results(self._hand_over),
            clock=clock,
            limit=settings.connections,
            max_bytes=settings.max_log_bytes,
            revise=estimator() if settings.estimate_cost else None,
            is_queue=True,
        )

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the first sender."""
        self._loop = loop
        self._senders.start()

    def send(self, partition: Partition, held: Held) -> None:
        """Claim a log of a partition, and send it."""
        partition.held = held
        self._held[_key(held)] = held
        if held.message.kind is None:
            outcome = Outcome(None, message="a message of an unknown kind: not sent")
            self._hand_over(Result(held.lease, Attempt(held.lease.entries[0], outcome, Verdict.REFUSED), ended=True))
        else:
            self._senders.submit(held.lease)

    def release(self, partition: Partition, held: Held) -> None:
        """Release a claim: the log is done, or another worker may have it by now."""
        partition.held = None
        self._held.pop(_key(held), None)

    def supervise(self) -> None:
        """Supervise the senders, and warn if nothing is sent."""
        self._senders.supervise()
        ATHINA.warn(paused=self.gate.paused, outage=self.gate.outage)

    @property
    def gate(self) -> Gate:
        """Whether anything is sent at all."""
        return self._senders.controller.gate

    @property
    def limit(self) -> int:
        """The maximum number of requests in flight."""
        return self._senders.controller.limit

    def traffic(self) -> Traffic:
        """Return the requests in flight and their latencies."""
        return Traffic(self._senders.controller.in_flight, self._senders.controller.latency)

    def close(self, seconds: float) -> None:
        """Let running requests finish in that time. Not called by the loop, which must take their results."""
        self._senders.close(seconds)

    def _is_claimed(self, kind: Kind, reference: str) -> bool:
        held = self._held.get((kind, reference))
        return held is not None and held.claimed_until > clock.monotonic()

    def _hand_over(self, result: Result) -> None:
        """Take a result from any thread into the loop."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: another worker will get the log
                self._loop.call_soon_threadsafe(self._on_result, result)


def _key(held: Held) -> tuple[Kind, str]:
    return held.lease.entries[0].kind, held.message.reference


class _Results(Results):
    """Passes each result on at once, instead of keeping it for an engine."""

    def __init__(self, hand_over: Callable[[Result], None]) -> None:
        super().__init__(lambda _: None)
        self._hand_over = hand_over

    def put(self, result: Result, *, is_low: bool = False) -> None:  # noqa: ARG002 - an engine's
        self._hand_over(result)


class _Claimed:
    """A connection to Athina that sends only logs that are still claimed."""

    def __init__(self, inner: Connection, is_claimed: Callable[[Kind, str], bool]) -> None:
        self._inner = inner
        self._is_claimed = is_claimed
        self.expire = inner.expire
        self.close = inner.close

    def deliver(self, kind: Kind, target: str, body: bytes) -> Outcome:
        if not self._is_claimed(kind, target):
            return Outcome(None, message="this worker held the log for too long, and another may have it")
        return self._inner.deliver(kind, target, body)
