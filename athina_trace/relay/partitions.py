"""The partitions of a relay's stream, from the view of one worker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nats.aio.client import Client as NatsClient

from athina_trace._delivery.entry import Lease
from athina_trace.relay.connection import ApiError, api
from athina_trace.relay.names import Names, RelayMessage
from athina_trace.relay.setup import SECOND, consumers, partition_faults, stream_faults

_LEARN_SECONDS = 30.0
"""How often the stream is read again, since the number of its partitions may change."""


@dataclass
class Held:
    """A log that this worker has claimed.

    Attributes:
        reply: the subject for its acknowledgement.
        sequence: its number in the stream.
        deliveries: how often it was given to a worker, including this time.
        claimed_until: when another worker may get it, monotonic.
    """

    lease: Lease
    message: RelayMessage
    headers: dict[str, str]
    reply: str
    sequence: int
    deliveries: int
    claimed_until: float


@dataclass
class Partition:
    """This worker's view of one partition.

    Attributes:
        pulled_until: when the request for its next log ends, monotonic; 0 if there is none.
        held: the current log; None between two logs.
        acknowledge: the subject for acknowledging the last log, until the server shows that it knows.
        taken: the number in the stream of the last log that Athina accepted or refused.
    """

    number: int
    pulled_until: float = 0.0
    held: Held | None = None
    acknowledge: str | None = None
    taken: int = 0


class Partitions:
    """All partitions of one stream; `now` is monotonic, seconds."""

    def __init__(self, names: Names) -> None:
        self.ack_wait = 30.0
        """How long a claim lasts, in seconds."""
        self._names = names
        self._all: list[Partition] = []
        self._learned_at = float("-inf")
        self._next_probe = self._probes_left = 0

    def __iter__(self) -> Iterator[Partition]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def find(self, number: int) -> Partition | None:
        """Return the partition with this number; None if it no longer exists."""
        return self._all[number] if number < len(self._all) else None

    def are_stale(self, now: float) -> bool:
        """Return whether the stream should be read again."""
        return now - self._learned_at > _LEARN_SECONDS

    async def learn(self, client: NatsClient, now: float) -> None:
        """Read the partitions of the stream. Raises `ApiError` if its settings would lose logs."""
        self._learned_at = now
        config = (await api(client, f"STREAM.INFO.{self._names.stream}"))["config"]
        there = await consumers(client, self._names)
        faults = stream_faults(config) + partition_faults(self._names, len(config["subjects"]), there)
        for consumer in there.known.values():
            self.ack_wait = consumer["config"]["ack_wait"] / SECOND
        if faults:
            raise ApiError(412, 0, "; ".join(faults[:3]))
        had, wanted = len(self._all), len(config["subjects"])
        # Their number changes only while the stream is empty, so removed partitions hold no log.
        self._all = self._all[:wanted] + [Partition(number) for number in range(had, wanted)]

    def allow_probes(self) -> None:
        """Allow another probe of each partition, while nothing is delivered."""
        self._probes_left = len(self._all)

    def take_probe(self, now: float) -> Partition | None:
        """Return the next partition to request a probe from; None while an answer is awaited."""
        is_asking = any(each.held is not None or now <= each.pulled_until for each in self._all)
        if is_asking or not self._probes_left:
            return None
        self._probes_left -= 1
        partition = self._all[self._next_probe % len(self._all)]
        self._next_probe += 1
        return partition
