"""A worker: takes logs from the stream and delivers them to Athina with the engine's own senders.

Each partition has one consumer, with one log in flight, for all workers: any worker may take the next log of any
partition, and none may while the one before it is under way. So workers share the work, come and go, and keep the order
of every conversation, without knowing of each other.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import field as data_field
from functools import partial
from typing import Any

import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from athina_trace import _guard
from athina_trace._clock import clock
from athina_trace._delivery.client import Client
from athina_trace._delivery.costs import estimator
from athina_trace._delivery.destination import ATHINA
from athina_trace._delivery.entry import Lease, Stored
from athina_trace._delivery.metrics import Traffic
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.results import Attempt, Result, Results
from athina_trace._delivery.retry import Verdict
from athina_trace._delivery.retry_policy import RetryPolicy
from athina_trace._delivery.routes import Kind
from athina_trace._delivery.senders import Connection, Senders
from athina_trace.errors import SettingsError
from athina_trace.relay.claims import Claims, Held, Partition
from athina_trace.relay.connection import Address, ApiError, NoAnswerError, api, ask, close, connect, store
from athina_trace.relay.names import MESSAGE_ID, REASON, STATUS, read
from athina_trace.relay.setup import SECOND, consumers, partition_faults, stream_faults
from athina_trace.relay.status import moment
from athina_trace.settings import Settings

PULL_SECONDS = 10.0
"""How long a request for the next log waits at the server: what a stopped worker may still be given after that time."""
_TICK_SECONDS = 0.25
_NO_LOG = ("404", "408")
"""Status of a request that found no log, at once or within its time."""
_NO_LEADER = "503"
_CHANGES = ("Leadership Change", "Server Shutdown")
"""What becomes of a request that waits at a server which leads its partition no longer."""
_RECONNECT_SECONDS = (0.25, 15.0)
"""Pause after the first failure to connect, and the longest."""
_LEARN_SECONDS = 30.0
"""How often the stream is looked at again: its partitions may be more, or fewer."""
_BACKLOG_SECONDS = 1.0
"""How long metrics wait for the stream's: a server that hangs must not take all other figures with it."""
_GRACE_SECONDS = 2.0
"""How much later than it should a request may end before it is made again."""


@dataclass
class Counters:
    """What a worker did since it began."""

    delivered: int = 0
    refused: int = 0
    failed: int = 0
    lost_claims: int = 0
    began: float = data_field(default_factory=time.time)


class _Results(Results):
    """Hands each result to the worker's loop rather than to an engine."""

    def __init__(self, hand_over: Callable[[Result], None]) -> None:
        super().__init__(lambda _: None)
        self._hand_over = hand_over

    def put(self, result: Result, *, is_low: bool = False) -> None:  # noqa: ARG002 - an engine's
        self._hand_over(result)


class Worker:
    """Delivers what is in the stream, until stopped."""

    def __init__(  # noqa: PLR0913 - settings of one thing, all by name
        self,
        address: Address,
        connect_athina: Callable[[], Connection],
        *,
        clock: Any,
        connections: int = 64,
        max_bytes: int = 1_000_000,
        max_attempts: int = 500,
        exit_timeout: float = 2.0,
        revise: Callable[[bytes], bytes] | None = None,
    ) -> None:
        """Take the settings; see `settings.Settings` for each."""
        self.counters = Counters()
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._address = address
        self._names = address.names
        self._clock = clock
        self._exit_timeout = exit_timeout
        self._retry_policy = RetryPolicy(clock, ATHINA, max_attempts=max_attempts)
        self._results = _Results(self._hand_over)
        self._claims = Claims(clock.monotonic)
        self._senders = Senders(
            lambda: self._claims.connection(connect_athina()),
            self._results,
            clock=clock,
            limit=connections,
            max_bytes=max_bytes,
            revise=revise,
        )
        self._partitions: list[Partition] = []
        self._ack_wait = 30.0
        self._client: NatsClient | None = None
        self._inbox = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._lost = asyncio.Event()
        self._next_probe = self._probes_left = 0
        self._subscription: Subscription | None = None
        self._learned = float("-inf")
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    def of(cls, settings: Settings) -> Worker:
        """Make the worker that the settings ask for. Raises `SettingsError` where they lack a relay or a key."""
        if settings.api_key is None:
            raise SettingsError("there is no ATHINA_API_KEY, so nothing can be delivered")
        Client.prepare(settings.base_url)
        connect_athina = partial(
            Client,
            base_url=settings.base_url,
            key=settings.api_key.get_secret_value(),
            api_version=settings.api_version,
            total=settings.request_timeout,
        )
        return cls(
            Address.of(settings),
            connect_athina,
            clock=clock,
            connections=settings.connections,
            max_bytes=settings.max_log_bytes,
            max_attempts=settings.max_attempts,
            exit_timeout=settings.exit_timeout,
            revise=estimator() if settings.estimate_cost else None,
        )

    def stop(self) -> None:
        """End soon. From the loop, as signal handlers of the loop are called."""
        self._stopping.set()

    async def run(self) -> None:
        """Take and deliver until `stop`; connect again for as long as it takes."""
        self._loop = asyncio.get_running_loop()
        self._senders.start()
        pause = _RECONNECT_SECONDS[0]
        while not self._stopping.is_set():
            self._lost = asyncio.Event()
            try:
                await self._open()
                pause = _RECONNECT_SECONDS[0]
                await self._take()
            except (ApiError, NoAnswerError, PermissionError, nats.errors.Error) as error:
                # Publishing into a connection that was just lost raises the client's own errors.
                is_own = isinstance(error, nats.errors.Error)
                self._warn(NoAnswerError(f"{type(error).__name__}: {error}") if is_own else error)
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause * (1 + self._clock.uniform() / 4))
                pause = min(2 * pause, _RECONNECT_SECONDS[1])
            finally:
                if self._stopping.is_set():
                    await self._give_back()
                client, self._client = self._client, None
                if client is not None:
                    await close(client)
        await asyncio.to_thread(self._senders.close, 0.1)

    def _warn(self, error: Exception) -> None:
        if isinstance(error, PermissionError):
            words = "the relay at %s does not let us in (%s): check ATHINA_RELAY and ATHINA_RELAY_CREDENTIALS"
        elif isinstance(error, NoAnswerError):
            words = "the relay at %s cannot be used (%s): tried again; check ATHINA_RELAY, its servers and the network"
        else:
            words = "the relay at %s cannot be used (%s): run `athina-trace relay --setup`; tried again"
        _guard.log_throttled(logging.WARNING, f"relay {type(error).__name__}", words, self._address, error)

    async def _open(self) -> None:
        """Connect, learn the partitions, and ask for the first logs."""
        self._client = client = await connect(
            self._address, name=f"athina-trace relay {self.name}", on_closed=self._lost.set
        )
        await self._learn(client)
        self._inbox = client.new_inbox()
        self._subscription = await client.subscribe(
            f"{self._inbox}.*", cb=self._on_message, pending_msgs_limit=0, pending_bytes_limit=0
        )
        await client.subscribe(self._names.workers_subject, cb=self._on_question)
        for partition in self._partitions:
            # What Athina has, but the connection that was lost may not have acknowledged.
            if partition.acknowledge is not None:
                await client.publish(partition.acknowledge, b"+ACK")
            partition.pulled_until = 0.0

    async def _learn(self, client: NatsClient) -> None:
        """Learn which partitions there are. Raises `ApiError` where something of the stream would lose logs."""
        self._learned = self._clock.monotonic()
        config = (await api(client, f"STREAM.INFO.{self._names.stream}"))["config"]
        there = await consumers(client, self._names)
        faults = stream_faults(config) + partition_faults(self._names, len(config["subjects"]), there)
        for consumer in there.known.values():
            self._ack_wait = consumer["config"]["ack_wait"] / SECOND
        if faults:
            raise ApiError(412, 0, "; ".join(faults[:3]))
        had, wanted = len(self._partitions), len(config["subjects"])
        # Their number changes only while the stream is empty: nothing is held of those that go.
        self._partitions = self._partitions[:wanted] + [Partition(number) for number in range(had, wanted)]

    async def _take(self) -> None:
        """Look after everything until the connection is lost, or we are to stop."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            while not (self._stopping.is_set() or self._lost.is_set()):
                await self._tick()
                await asyncio.wait((stopping, lost), timeout=_TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            lost.cancel()
        if self._lost.is_set() and not self._stopping.is_set():
            raise NoAnswerError("the connection was lost")

    async def _tick(self) -> None:
        """Renew claims, ask again for what was not answered, and look after the senders."""
        now = self._clock.monotonic()
        self._senders.tend()
        for partition in self._partitions:
            held = partition.held
            if held is not None and now > held.claimed_until:
                self.counters.lost_claims += 1
                self._claims.release(partition, held)
            elif held is not None and held.claimed_until - now < self._ack_wait * 2 / 3:
                self._spawn(self._renew(held))
        if self._client is not None and now - self._learned > _LEARN_SECONDS:
            # While servers elect a leader none may answer, and what was learned still holds.
            with suppress(NoAnswerError):
                await self._learn(self._client)
        gate = self._senders.controller.gate
        ATHINA.warn(paused=gate.paused, outage=gate.outage)
        if gate.is_shut:
            self._probes_left = len(self._partitions)
            await self._probe(now)
            return
        for partition in self._partitions:
            if partition.held is None and now > partition.pulled_until:
                await self._pull(partition, now)

    async def _probe(self, now: float) -> None:
        """While nothing is delivered: now and then ask for one log, of another partition each time."""
        is_asking = any(each.held is not None or now <= each.pulled_until for each in self._partitions)
        if is_asking or not self._probes_left or self._senders.controller.gate.wait(now):
            return
        self._probes_left -= 1
        partition = self._partitions[self._next_probe % len(self._partitions)]
        self._next_probe += 1
        await self._pull(partition, now, is_probe=True)

    async def _renew(self, held: Held) -> None:
        """Say that we are still at it, and believe it once the server has answered."""
        asked = self._clock.monotonic()
        client = self._client
        if client is None:
            return
        with suppress(NoAnswerError):
            await ask(client, held.reply, b"+WPI")
            held.claimed_until = max(held.claimed_until, asked + self._ack_wait)

    async def _pull(self, partition: Partition, now: float, *, is_probe: bool = False) -> None:
        """Ask for the next log of a partition."""
        if self._client is None:
            return
        partition.pulled_until = now + (_GRACE_SECONDS if is_probe else PULL_SECONDS + _GRACE_SECONDS)
        await self._client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._names.stream}.{self._names.consumer(partition.number)}",
            b'{"batch":1,"no_wait":true}' if is_probe else _NEXT,
            reply=f"{self._inbox}.{partition.number}",
        )

    async def _on_message(self, message: Msg) -> None:
        """Take a log, or the end of a request for one."""
        number = int(message.subject.rpartition(".")[2])
        if number >= len(self._partitions):
            return  # the end of a request for a log of a partition that is no more
        partition = self._partitions[number]
        partition.acknowledge = None
        now = self._clock.monotonic()
        status = (message.headers or {}).get("Status")
        if status is not None and not message.reply:
            # No log within the time is usual; anything else is better not asked again at once.
            partition.pulled_until = 0.0 if status in _NO_LOG else now + 1.0
            if status not in _NO_LOG:
                words = (message.headers or {}).get("Description", "no server leads it now")
                shown = f"{self._names.consumer(partition.number)}: {words}"
                is_passing = status == _NO_LEADER or words in _CHANGES
                self._warn(NoAnswerError(shown) if is_passing else ApiError(int(status), 0, shown))
            elif self._senders.controller.gate.is_shut:
                await self._probe(now)
            elif not self._stopping.is_set():
                await self._pull(partition, now)
            return
        partition.pulled_until = 0.0
        tokens = message.reply.split(".")
        deliveries, sequence = int(tokens[-5]), int(tokens[-4])
        if self._stopping.is_set():
            await message._client.publish(message.reply, b"-NAK")  # noqa: SLF001
            return
        if sequence == partition.taken:  # its acknowledgement was lost
            await self._acknowledge(partition, message.reply)
            return
        self._hold(partition, message, deliveries, sequence, now)

    def _hold(self, partition: Partition, message: Msg, deliveries: int, sequence: int, now: float) -> None:
        """Claim a log and have it sent."""
        read_message = read(message.headers, message.data)
        kind: Kind = read_message.kind or "log"
        entry = Stored(sequence, kind, read_message.reference, message.data)
        lease = Lease(str(partition.number), deliveries - 1, [entry])
        held = Held(
            lease, read_message, message.headers or {}, message.reply, sequence, deliveries, now + self._ack_wait
        )
        self._claims.take(partition, held)
        if read_message.kind is None:
            words = "a message of an unknown kind, which was not sent"
            attempt = Attempt(entry, Outcome(None, message=words), Verdict.REFUSED)
            self._hand_over(Result(lease, attempt, ended=True))
            return
        self._senders.submit(lease)

    def _hand_over(self, result: Result) -> None:
        """Take a result from any thread into the loop."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: what was held is given to another in time
                self._loop.call_soon_threadsafe(self._on_result, result)

    def _on_result(self, result: Result) -> None:
        partition = self._partitions[int(result.lease.ordering_key)]
        held = partition.held
        if held is None or held.lease is not result.lease:
            return  # done with, or another's by now
        if result.attempt is None:
            if result.ended:
                self._claims.release(partition, held)
                self._spawn(self._send(held.reply, b"-NAK"))  # nothing may be sent now: others may try
            return
        attempt, wait = self._retry_policy.decide(result.attempt, held.deliveries, self._clock.time())
        self._claims.release(partition, held)
        if attempt.verdict is Verdict.DELIVERED:
            self.counters.delivered += 1
            partition.taken = held.sequence
            self._spawn(self._acknowledge(partition, held.reply))
        elif attempt.verdict is Verdict.REFUSED:
            self._spawn(self._refuse(partition, held, attempt.outcome))
        else:
            self.counters.failed += 1
            self._spawn(self._send(held.reply, b'-NAK {"delay":%d}' % int(wait * SECOND)))

    async def _acknowledge(self, partition: Partition, reply: str) -> None:
        """Acknowledge a log, and ask for the next one of its partition, in one message."""
        partition.acknowledge = reply
        client = self._client
        if client is None or client.is_closed:
            return  # once there is a connection again
        if self._stopping.is_set() or self._senders.controller.gate.is_shut:
            await client.publish(reply, b"+ACK")
            return
        partition.pulled_until = self._clock.monotonic() + PULL_SECONDS + _GRACE_SECONDS
        await client.publish(reply, b"+NXT " + _NEXT, reply=f"{self._inbox}.{partition.number}")

    async def _send(self, reply: str, answer: bytes) -> None:
        """Answer the server, if it is there: else it gives the log to another once our claim has ended."""
        client = self._client
        if client is not None and not client.is_closed:
            await client.publish(reply, answer)

    async def _refuse(self, partition: Partition, held: Held, outcome: Outcome) -> None:
        """Keep a log that Athina refused in the stream of those, and only then acknowledge it."""
        headers = {
            **held.headers,
            MESSAGE_ID: f"{held.headers.get(MESSAGE_ID, '')}:{held.sequence}",
            STATUS: str(outcome.status or ""),
            REASON: outcome.message.encode("ascii", "backslashreplace").decode(),
        }
        client = self._client
        if client is None:
            return  # another worker is given it, and refuses it
        try:
            await store(client, self._names.refused_subject, held.message.body, headers)
        except (ApiError, NoAnswerError) as error:
            self._warn(error)
            await self._send(held.reply, b'-NAK {"delay":%d}' % SECOND)
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
        """Answer how we are."""
        if message.reply and self._client is not None:
            await self._client.publish(message.reply, json.dumps(self.report()).encode())

    def report(self) -> dict[str, Any]:
        """Give the worker's state, as JSON can carry it."""
        gate = self._senders.controller.gate
        return {
            "name": self.name,
            "delivered": self.counters.delivered,
            "refused": self.counters.refused,
            "failed": self.counters.failed,
            "held": sum(each.held is not None for each in self._partitions),
            "limit": self._senders.controller.limit,
            "paused": gate.paused or gate.outage,
            "last_error": self._retry_policy.last_error,
            "began": self.counters.began,
        }

    @property
    def obstacle(self) -> str | None:
        """Why nothing is taken from the stream; None where it is, or would be once Athina is back."""
        if self._stopping.is_set():
            return "this worker ends"
        if self._client is None or self._client.is_closed or not self._partitions:
            return "there is no connection to the relay"
        return "Athina refuses the API key" if self._senders.controller.gate.paused else None

    def traffic(self) -> Traffic:
        """What this worker's requests do now, and took."""
        controller = self._senders.controller
        return Traffic(controller.in_flight, controller.latency)

    async def backlog(self) -> tuple[int, float | None] | None:
        """How many logs are in the stream, and since when the oldest waits; None where no server says so in time."""
        if self._client is None or self._client.is_closed:
            return None
        asking = api(self._client, f"STREAM.INFO.{self._names.stream}")
        try:
            state = (await asyncio.wait_for(asking, _BACKLOG_SECONDS))["state"]
        except (ApiError, NoAnswerError, asyncio.TimeoutError):
            return None
        return state["messages"], moment(state["first_ts"]) if state["messages"] else None

    async def _give_back(self) -> None:
        """Let present requests end within the exit timeout, and give everything else to other workers at once."""
        if self._subscription is not None and self._client is not None and not self._client.is_closed:
            with suppress(Exception):
                await self._subscription.drain()  # type: ignore[no-untyped-call]  # so that the server gives us nothing more
        await asyncio.to_thread(self._senders.close, self._exit_timeout)
        await asyncio.sleep(0)  # what they reported is taken into the loop
        for partition in self._partitions:
            held = partition.held
            if held is not None:
                self._claims.release(partition, held)
                await self._send(held.reply, b"-NAK")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        if self._client is not None and not self._client.is_closed:
            with suppress(Exception):
                await self._client.flush(1)


_NEXT = json.dumps({"batch": 1, "expires": int(PULL_SECONDS * SECOND)}).encode()
