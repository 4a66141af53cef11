"""A worker: takes logs from the stream and delivers them to Athina with the engine's own senders.

Each partition has one consumer, with one log in flight, across all workers: any worker may take the next log of any
partition, but not while the previous log is in flight. So workers share the work, come and go, and keep every
conversation in order, without knowing of each other.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import nats.errors
from nats.aio.msg import Msg

from athina_trace import _guard
from athina_trace._clock import clock
from athina_trace._delivery.client import Client
from athina_trace._delivery.entry import Lease, Stored
from athina_trace._delivery.metrics import Traffic
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.results import Result
from athina_trace._delivery.retry import Verdict
from athina_trace.errors import SettingsError
from athina_trace.relay.connection import Address, ApiError, NoAnswerError, store
from athina_trace.relay.deliveries import Deliveries
from athina_trace.relay.link import PULL_SECONDS, Link
from athina_trace.relay.names import MESSAGE_ID, REASON, STATUS, read
from athina_trace.relay.partitions import Held, Partition, Partitions
from athina_trace.settings import Settings

_TICK_SECONDS = 0.25
_NO_LOG = ("404", "408")
"""Status of a request that found no log in time."""
_NO_LEADER = "503"
_CHANGES = ("Leadership Change", "Server Shutdown")
"""Status of a request at a server that no longer leads its partition."""
_RECONNECT_SECONDS = (0.25, 15.0)
"""The first and the longest pause after failures to connect."""
_GRACE_SECONDS = 2.0
"""How long a request may be overdue before it is repeated."""


@dataclass
class Counters:
    """Counts since the worker started."""

    delivered: int = 0
    refused: int = 0
    failed: int = 0
    began: float = field(default_factory=time.time)


class RelayWorker:
    """Delivers the logs in the stream, until stopped."""

    def __init__(self, settings: Settings) -> None:
        """Raises `SettingsError` if the settings lack a relay or a key."""
        if settings.api_key is None:
            raise SettingsError("there is no ATHINA_API_KEY, so nothing can be delivered")
        Client.prepare(settings.base_url)
        self.counters = Counters()
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._address = Address.of(settings)
        self._exit_timeout = settings.exit_timeout
        self._deliveries = Deliveries(settings, self._on_result)
        self._partitions = Partitions(self._address.names)
        self._link: Link | None = None
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """End soon. Call it from the loop, for example in its signal handlers."""
        self._stopping.set()

    async def run(self) -> None:
        """Take and deliver logs until `stop`; reconnect for as long as it takes."""
        self._deliveries.start(asyncio.get_running_loop())
        pause = _RECONNECT_SECONDS[0]
        while not self._stopping.is_set():
            try:
                opened = await self._open()
                pause = _RECONNECT_SECONDS[0]
                await self._take(opened)
            except (ApiError, NoAnswerError, PermissionError, nats.errors.Error) as error:  # noqa: PERF203 - connect again
                # Publishing to a connection that was just lost raises the client's own errors.
                is_own = isinstance(error, nats.errors.Error)
                self._warn(NoAnswerError(f"{type(error).__name__}: {error}") if is_own else error)
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause * (1 + clock.uniform() / 4))
                pause = min(2 * pause, _RECONNECT_SECONDS[1])
            finally:
                if self._stopping.is_set():
                    await self._give_back()
                link, self._link = self._link, None
                if link is not None:
                    await link.close()
        await asyncio.to_thread(self._deliveries.close, 0.1)

    def _warn(self, error: Exception) -> None:
        if isinstance(error, PermissionError):
            words = "the relay at %s denied access (%s): check ATHINA_RELAY and ATHINA_RELAY_CREDENTIALS"
        elif isinstance(error, NoAnswerError):
            words = "the relay at %s cannot be used (%s): tried again; check ATHINA_RELAY, its servers and the network"
        else:
            words = "the relay at %s cannot be used (%s): run `athina-trace relay --setup`; tried again"
        _guard.log_throttled(logging.WARNING, f"relay {type(error).__name__}", words, self._address, error)

    async def _open(self) -> Link:
        """Connect, read the partitions, and request the first logs."""
        link = await Link.open(self._address, name=f"athina-trace relay {self.name}")
        try:
            await self._partitions.learn(link.client, clock.monotonic())
            self._link = link
            await link.listen(self._on_message, self._on_question)
            for partition in self._partitions:
                # Athina has it, but the lost connection may not have acknowledged it.
                if partition.acknowledge is not None:
                    await link.acknowledge(partition.acknowledge)
                partition.pulled_until = 0.0
        except BaseException:
            self._link = None
            await link.close()
            raise
        return link

    async def _take(self, link: Link) -> None:
        """Take logs until the connection is lost or the worker is stopped."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        lost = asyncio.ensure_future(link.lost.wait())
        try:
            while not (self._stopping.is_set() or link.lost.is_set()):
                await self._tick()
                await asyncio.wait((stopping, lost), timeout=_TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            lost.cancel()
        if link.lost.is_set() and not self._stopping.is_set():
            raise NoAnswerError("the connection was lost")

    async def _tick(self) -> None:
        """Renew claims, repeat unanswered requests, and supervise the senders."""
        now = clock.monotonic()
        self._deliveries.supervise()
        for partition in self._partitions:
            held = partition.held
            if held is not None and now > held.claimed_until:
                self._deliveries.release(partition, held)
            elif held is not None and held.claimed_until - now < self._partitions.ack_wait * 2 / 3:
                self._spawn(self._renew(held))
        if self._link is not None and self._partitions.are_stale(now):
            # While servers elect a leader, none may answer, and the known partitions are still right.
            with suppress(NoAnswerError):
                await self._partitions.learn(self._link.client, now)
        if self._deliveries.gate.is_shut:
            self._partitions.allow_probes()
            await self._probe(now)
            return
        for partition in self._partitions:
            if partition.held is None and now > partition.pulled_until:
                await self._pull(partition, now)

    async def _probe(self, now: float) -> None:
        """While nothing is delivered, request one log now and then, from another partition each time."""
        if not self._deliveries.gate.wait(now) and (partition := self._partitions.take_probe(now)) is not None:
            await self._pull(partition, now, is_probe=True)

    async def _renew(self, held: Held) -> None:
        """Renew a claim, which is extended once the server has answered."""
        asked = clock.monotonic()
        if self._link is None:
            return
        with suppress(NoAnswerError):
            await self._link.renew(held.reply)
            held.claimed_until = max(held.claimed_until, asked + self._partitions.ack_wait)

    async def _pull(self, partition: Partition, now: float, *, is_probe: bool = False) -> None:
        """Request the next log of a partition."""
        if self._link is None:
            return
        partition.pulled_until = now + (_GRACE_SECONDS if is_probe else PULL_SECONDS + _GRACE_SECONDS)
        await self._link.ask_for_next(partition.number, at_once=is_probe)

    async def _on_message(self, message: Msg) -> None:
        """Handle a log, or the end of a request for one."""
        partition = self._partitions.find(int(message.subject.rpartition(".")[2]))
        if partition is None:
            return  # the end of a request for a log of a partition that was removed
        partition.acknowledge = None
        now = clock.monotonic()
        headers = message.headers or {}
        if "Status" in headers and not message.reply:
            await self._on_no_log(partition, headers, now)
            return
        partition.pulled_until = 0.0
        tokens = message.reply.split(".")
        deliveries, sequence = int(tokens[-5]), int(tokens[-4])
        if self._stopping.is_set():
            await self._return(message.reply)
            return
        if sequence == partition.taken:  # its acknowledgement was lost
            await self._acknowledge(partition, message.reply)
            return
        read_message = read(message.headers, message.data)
        entry = Stored(sequence, read_message.kind or "log", read_message.reference, message.data)
        lease = Lease(str(partition.number), deliveries - 1, [entry])
        claimed_until = now + self._partitions.ack_wait
        held = Held(lease, read_message, headers, message.reply, sequence, deliveries, claimed_until)
        self._deliveries.send(partition, held)

    async def _on_no_log(self, partition: Partition, headers: dict[str, str], now: float) -> None:
        """Repeat a request that found no log in time; warn about anything else, and wait a second."""
        status = headers["Status"]
        if status not in _NO_LOG:
            partition.pulled_until = now + 1.0
            words = headers.get("Description", "it has no leader at the moment")
            shown = f"{self._address.names.consumer(partition.number)}: {words}"
            is_passing = status == _NO_LEADER or words in _CHANGES
            self._warn(NoAnswerError(shown) if is_passing else ApiError(int(status), 0, shown))
            return
        partition.pulled_until = 0.0
        if self._deliveries.gate.is_shut:
            await self._probe(now)
        elif not self._stopping.is_set():
            await self._pull(partition, now)

    def _on_result(self, result: Result) -> None:
        partition = self._partitions.find(int(result.lease.ordering_key))
        held = None if partition is None else partition.held
        if partition is None or held is None or held.lease is not result.lease:
            return  # done, or another worker has it by now
        if result.attempt is None:
            self._deliveries.release(partition, held)
            self._spawn(self._return(held.reply))  # nothing may be sent now: other workers may try
            return
        gate, now = self._deliveries.gate, clock.time()
        attempt, wait = self._deliveries.retry_policy.decide(
            result.attempt, held.deliveries, now, tries=gate.tries, is_outage=gate.outage is not None
        )
        self._deliveries.release(partition, held)
        if attempt.verdict is Verdict.DELIVERED:
            self.counters.delivered += 1
            partition.taken = held.sequence
            self._spawn(self._acknowledge(partition, held.reply))
        elif attempt.verdict is Verdict.REFUSED:
            self._spawn(self._refuse(partition, held, attempt.outcome))
        else:
            self.counters.failed += 1
            self._spawn(self._return(held.reply, seconds=wait))

    async def _acknowledge(self, partition: Partition, reply: str) -> None:
        """Acknowledge a log, and ask for the next one of its partition, in one message."""
        partition.acknowledge = reply
        link = self._link
        if link is None or not link.is_open:
            return  # once there is a connection again
        if self._stopping.is_set() or self._deliveries.gate.is_shut:
            await link.acknowledge(reply)
            return
        partition.pulled_until = clock.monotonic() + PULL_SECONDS + _GRACE_SECONDS
        await link.acknowledge_and_ask_for_next(reply, partition.number)

    async def _return(self, reply: str, *, seconds: float = 0.0) -> None:
        """Return a log, if connected; otherwise the server gives it to another worker when our claim ends."""
        if self._link is not None and self._link.is_open:
            await self._link.return_log(reply, seconds=seconds)

    async def _refuse(self, partition: Partition, held: Held, outcome: Outcome) -> None:
        """Store a refused log in the stream of refused logs, and only then acknowledge it."""
        headers = {
            **held.headers,
            MESSAGE_ID: f"{held.headers.get(MESSAGE_ID, '')}:{held.sequence}",
            STATUS: str(outcome.status or ""),
            REASON: outcome.message.encode("ascii", "backslashreplace").decode(),
        }
        if self._link is None:
            return  # another worker will get it, and store it
        try:
            await store(self._link.client, self._address.names.refused_subject, held.message.body, headers)
        except (ApiError, NoAnswerError) as error:
            self._warn(error)
            await self._return(held.reply, seconds=1.0)
            return
        self.counters.refused += 1
        partition.taken = held.sequence
        _guard.log_throttled(
            logging.WARNING,
            f"refused {outcome.status}",
            "Athina refused log %s with status %s (%s); it is kept, see `athina-trace logs --relay`",
            held.message.reference,
            outcome.status,
            outcome.message,
        )
        await self._acknowledge(partition, held.reply)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Any) -> None:
        with _guard.shield("answering the relay"):
            try:
                await work
            except nats.errors.Error as error:
                self._warn(NoAnswerError(f"{type(error).__name__}: {error}"))

    async def _on_question(self, message: Msg) -> None:
        """Answer a request for the worker's status."""
        if message.reply and self._link is not None:
            await self._link.client.publish(message.reply, json.dumps(self.report()).encode())

    def report(self) -> dict[str, Any]:
        """Return the worker's state as JSON-compatible data."""
        gate = self._deliveries.gate
        return {
            "name": self.name,
            "delivered": self.counters.delivered,
            "refused": self.counters.refused,
            "failed": self.counters.failed,
            "held": sum(each.held is not None for each in self._partitions),
            "limit": self._deliveries.limit,
            "paused": gate.paused or gate.outage,
            "last_error": self._deliveries.retry_policy.last_error,
            "began": self.counters.began,
        }

    @property
    def obstacle(self) -> str | None:
        """Why no logs are taken from the stream; None if they are, or will be once Athina is back."""
        if self._stopping.is_set():
            return "this worker is stopping"
        if self._link is None or not self._link.is_open:
            return "there is no connection to the relay"
        return "Athina refuses the API key" if self._deliveries.gate.paused else None

    def traffic(self) -> Traffic:
        """Return this worker's requests in flight and their latencies."""
        return self._deliveries.traffic()

    async def backlog(self) -> tuple[int, float | None] | None:
        """Return how many logs are in the stream, and since when the oldest waits; None if no server answers."""
        return await self._link.backlog() if self._link is not None and self._link.is_open else None

    async def _give_back(self) -> None:
        """Let running requests finish within the exit timeout, and return everything else to other workers at once."""
        link = self._link
        if link is not None:
            await link.stop_listening()
        await asyncio.to_thread(self._deliveries.close, self._exit_timeout)
        await asyncio.sleep(0)  # their results reach the loop
        for partition in self._partitions:
            held = partition.held
            if held is not None:
                self._deliveries.release(partition, held)
                await self._return(held.reply)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        if link is not None:
            await link.flush()
