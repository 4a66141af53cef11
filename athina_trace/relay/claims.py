"""What a worker has claimed: logs that no other worker is given, until some time.

The claim is the consumer's `ack_wait`, renewed while the server answers. A worker that was stopped, or cut off, for
longer sends nothing of what it held: another has it by then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from athina_trace._delivery.entry import Lease
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.routes import Kind
from athina_trace._delivery.senders import Connection
from athina_trace.relay.names import Message


@dataclass
class Held:
    """A log that this worker has claimed.

    Attributes:
        reply: where to acknowledge it.
        sequence: its number in the stream.
        deliveries: how often it was given to a worker, this time included.
        claimed_until: when another worker may be given it, monotonic.
    """

    lease: Lease
    message: Message
    headers: dict[str, str]
    reply: str
    sequence: int
    deliveries: int
    claimed_until: float


@dataclass
class Partition:
    """What this worker knows of one partition.

    Attributes:
        pulled_until: when the request for its next log ends, monotonic; 0 where there is none.
        held: what it works on, and None between two logs.
        acknowledge: where the last log has to be acknowledged, until the server shows that it knows.
        taken: the number in the stream of the last log that Athina took or refused.
    """

    number: int
    pulled_until: float = 0.0
    held: Held | None = None
    acknowledge: str | None = None
    taken: int = 0


class Claims:
    """What a worker holds: changed by its loop, asked by the threads that send. `monotonic` is a clock, seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._held: dict[tuple[Kind, str], Held] = {}

    def take(self, partition: Partition, held: Held) -> None:
        """Hold a log of a partition."""
        partition.held = held
        self._held[_key(held)] = held

    def release(self, partition: Partition, held: Held) -> None:
        """Hold it no more: it was dealt with, or may be another worker's by now."""
        partition.held = None
        self._held.pop(_key(held), None)

    def connection(self, inner: Connection) -> Connection:
        """A connection to Athina that sends only what is claimed at that moment."""
        return _Claimed(inner, self._is_claimed)

    def _is_claimed(self, kind: Kind, reference: str) -> bool:
        held = self._held.get((kind, reference))
        return held is not None and held.claimed_until > self._monotonic()


def _key(held: Held) -> tuple[Kind, str]:
    return held.lease.entries[0].kind, held.message.reference


class _Claimed:
    def __init__(self, inner: Connection, is_claimed: Callable[[Kind, str], bool]) -> None:
        self._inner = inner
        self._is_claimed = is_claimed
        self.expire = inner.expire
        self.close = inner.close

    def deliver(self, kind: Kind, target: str, body: bytes) -> Outcome:
        if not self._is_claimed(kind, target):
            return Outcome(None, message="this worker held the log for too long, and another may have it")
        return self._inner.deliver(kind, target, body)
