"""The status of a relay: how far behind each partition is, its workers, and refused logs."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from athina_trace.relay.connection import ApiError, NoAnswerError, api
from athina_trace.relay.names import Names
from athina_trace.relay.setup import consumers, partition_faults, stream_faults

_ANSWER_SECONDS = 0.5
"""How long workers have to answer, since a suspended one never does; rates are measured over this time."""
_NOT_FOUND = 404
_MOST_BEHIND = 20
_FRACTION = re.compile(r"(\.\d{1,6})\d*")


@dataclass(frozen=True)
class PartitionStatus:
    """One partition.

    Attributes:
        lag: waiting logs, including the one in flight.
        in_flight: whether a worker has one.
        waiting_since: when the oldest was stored, seconds since the epoch; None if none waits.
        rate: accepted or refused logs per second.
    """

    number: int
    lag: int
    in_flight: bool
    waiting_since: float | None
    rate: float


@dataclass(frozen=True)
class RelayStatus:
    """The state of a relay at a time `at`, seconds since the epoch; `refused` is None if no server answers."""

    at: float
    stream: str
    waiting: int
    bytes: int
    max_bytes: int
    refused: int | None
    rate: float
    waiting_since: float | None
    partitions: list[PartitionStatus]
    workers: list[dict[str, Any]]
    faults: list[str]

    def behind(self) -> list[PartitionStatus]:
        """Return the partitions with waiting logs, those that are furthest behind first; at most 20."""
        return sorted((each for each in self.partitions if each.lag), key=lambda each: -each.lag)[:_MOST_BEHIND]


async def read(client: NatsClient, names: Names) -> RelayStatus:
    """Read the status of a relay. Raises `ApiError` and `NoAnswerError`."""
    try:
        info = await api(client, f"STREAM.INFO.{names.stream}")
    except NoAnswerError as error:
        raise NoAnswerError(
            f"{error}, although a server accepted the connection: the stream {names.stream} has no leader, since most "
            "of its servers are down, or JetStream is off"
        ) from None
    # All at once: while a server is down, a count takes four seconds, and an answer may never come.
    asking, began = asyncio.gather(consumers(client, names), _refused(client, names)), time.monotonic()
    workers = await _workers(client, names)
    seconds = time.monotonic() - began
    there, (earlier, refused) = await asyncio.gather(consumers(client, names), asking)
    count = len(info["config"]["subjects"])
    partitions: list[PartitionStatus] = []
    behind: list[int] = []
    for number, name in enumerate(map(names.consumer, range(count))):
        consumer = there.known.get(name)
        if consumer is None:
            continue
        lag, taken = consumer["num_pending"] + consumer["num_ack_pending"], consumer["ack_floor"]["consumer_seq"]
        behind += [number] if lag else []
        partitions.append(
            PartitionStatus(
                number,
                lag,
                in_flight=consumer["num_ack_pending"] > 0,
                waiting_since=None,
                rate=round(max(0, taken - earlier.known.get(name, consumer)["ack_floor"]["consumer_seq"]) / seconds, 1),
            )
        )
    oldest = dict(zip(behind, await asyncio.gather(*(_oldest(client, names, each) for each in behind)), strict=True))
    partitions = [replace(each, waiting_since=oldest.get(each.number)) for each in partitions]
    return RelayStatus(
        at=time.time(),
        stream=names.stream,
        waiting=info["state"]["messages"],
        bytes=info["state"]["bytes"],
        max_bytes=info["config"]["max_bytes"],
        refused=refused,
        rate=round(sum(each.rate for each in partitions), 1),
        waiting_since=min((each.waiting_since for each in partitions if each.waiting_since), default=None),
        partitions=partitions,
        workers=workers,
        faults=[*filter(None, (*stream_faults(info["config"]), *partition_faults(names, count, there), there.silence))],
    )


async def _refused(client: NatsClient, names: Names) -> int | None:
    try:
        return int((await api(client, f"STREAM.INFO.{names.refused_stream}"))["state"]["messages"])
    except ApiError as error:
        if error.code != _NOT_FOUND:
            raise
        return 0
    except NoAnswerError:
        return None  # it has its own leader, which may be down


async def _oldest(client: NatsClient, names: Names, partition: int) -> float | None:
    try:
        found = await api(
            client, f"STREAM.MSG.GET.{names.stream}", {"seq": 1, "next_by_subj": names.subject(partition)}
        )
    except (ApiError, NoAnswerError):
        return None  # it was taken meanwhile
    return moment(found["message"]["time"])


def moment(text: str) -> float:
    """Parse a JetStream time, which may have nanoseconds, as seconds since the epoch."""
    # Python 3.10 accepts six digits of a fraction, and no Z.
    six_digits = _FRACTION.sub(lambda found: found[1].ljust(7, "0"), text.replace("Z", "+00:00"))
    parsed = datetime.fromisoformat(six_digits)
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).timestamp()


async def _workers(client: NatsClient, names: Names) -> list[dict[str, Any]]:
    """Ask all workers for their status; return those that answer in time, by name."""
    found: list[dict[str, Any]] = []

    async def note(message: Msg) -> None:
        if message.data:
            found.append(json.loads(message.data))

    inbox = client.new_inbox()
    try:
        subscription = await client.subscribe(inbox, cb=note)
        await client.publish(names.workers_subject, b"", reply=inbox)
        await asyncio.sleep(_ANSWER_SECONDS)
        await subscription.unsubscribe()
    except nats.errors.Error as error:
        raise NoAnswerError(f"{type(error).__name__}: {error}") from error
    return sorted(found, key=lambda each: str(each["name"]))
