"""A worker's connection to the stream: each method sends one message of JetStream's protocol.

Source: the pull consumers and acknowledgements of NATS JetStream (ADR-13, ADR-15).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress

from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from athina_trace.relay.connection import Address, ApiError, NoAnswerError, api, ask, close, connect
from athina_trace.relay.names import Names
from athina_trace.relay.setup import SECOND
from athina_trace.relay.status import moment

PULL_SECONDS = 10.0
"""How long a request for the next log waits at the server: a suspended worker gets no log after that time."""
_BACKLOG_SECONDS = 1.0
"""How long metrics wait for those of the stream: a server that hangs must not block all other figures."""
_NEXT = json.dumps({"batch": 1, "expires": int(PULL_SECONDS * SECOND)}).encode()
_NEXT_AT_ONCE = b'{"batch":1,"no_wait":true}'

OnMessage = Callable[[Msg], Awaitable[None]]


class Link:
    """One connection, from `open` until it is lost or closed. `reply` is a log's subject for acknowledgements."""

    def __init__(self, client: NatsClient, names: Names, lost: asyncio.Event) -> None:
        self.client = client
        self.lost = lost
        """Set once the connection is lost."""
        self._names = names
        self._inbox = client.new_inbox()
        self._subscription: Subscription | None = None

    @classmethod
    async def open(cls, address: Address, *, name: str) -> Link:
        """Connect. Raises `NoAnswerError` or `PermissionError`."""
        lost = asyncio.Event()
        return cls(await connect(address, name=name, on_closed=lost.set), address.names, lost)

    async def listen(self, on_message: OnMessage, on_question: OnMessage) -> None:
        """Call `on_message` with requested logs, and `on_question` when the worker's status is requested."""
        self._subscription = await self.client.subscribe(
            f"{self._inbox}.*", cb=on_message, pending_msgs_limit=0, pending_bytes_limit=0
        )
        await self.client.subscribe(self._names.workers_subject, cb=on_question)

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return not self.client.is_closed

    async def ask_for_next(self, partition: int, *, at_once: bool = False) -> None:
        """Request the next log of a partition: it comes within `PULL_SECONDS`, or `at_once` if there is one."""
        await self.client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._names.stream}.{self._names.consumer(partition)}",
            _NEXT_AT_ONCE if at_once else _NEXT,
            reply=f"{self._inbox}.{partition}",
        )

    async def acknowledge(self, reply: str) -> None:
        """Acknowledge a log."""
        await self.client.publish(reply, b"+ACK")

    async def acknowledge_and_ask_for_next(self, reply: str, partition: int) -> None:
        """Acknowledge a log, and request the next one of its partition, in one message."""
        await self.client.publish(reply, b"+NXT " + _NEXT, reply=f"{self._inbox}.{partition}")

    async def return_log(self, reply: str, *, seconds: float = 0.0) -> None:
        """Return a log, which the server gives to any worker after that many seconds."""
        await self.client.publish(reply, b'-NAK {"delay":%d}' % int(seconds * SECOND) if seconds else b"-NAK")

    async def renew(self, reply: str) -> None:
        """Claim a log for another `ack_wait` seconds. Raises `NoAnswerError`."""
        await ask(self.client, reply, b"+WPI")

    async def backlog(self) -> tuple[int, float | None] | None:
        """Return how many logs are in the stream, and since when the oldest waits; None if no server answers."""
        asking = api(self.client, f"STREAM.INFO.{self._names.stream}")
        try:
            state = (await asyncio.wait_for(asking, _BACKLOG_SECONDS))["state"]
        except (ApiError, NoAnswerError, asyncio.TimeoutError):
            return None
        return state["messages"], moment(state["first_ts"]) if state["messages"] else None

    async def stop_listening(self) -> None:
        """Stop receiving logs from the servers."""
        if self._subscription is not None and self.is_open:
            with suppress(Exception):
                await self._subscription.drain()  # type: ignore[no-untyped-call]

    async def flush(self) -> None:
        """Wait, for at most a second, until all messages have left."""
        if self.is_open:
            with suppress(Exception):
                await self.client.flush(1)

    async def close(self) -> None:
        """Close the connection."""
        await close(self.client)
