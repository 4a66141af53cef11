"""A connection to the stream: publishes logs, and returns an `Outcome` for each once it is acknowledged."""

from __future__ import annotations

import asyncio
import json

import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from athina_trace._delivery.entry import Stored
from athina_trace._delivery.response import Outcome
from athina_trace.relay.connection import Address, ApiError, NoAnswerError, api, close, connect, outcome_of, raise_error
from athina_trace.relay.names import headers_of, partition_of

_LOOK_SECONDS = 0.5
"""How often to look for overdue acknowledgements."""
_COUNT_SECONDS = 30.0
"""How often to count the partitions again, since some may have been added."""
_LOST = "the connection to the relay was lost before it answered"
_NO_SERVER = "no server accepts logs for this partition: it has no leader at the moment, or was removed"
_PERMISSION = "permissions violation"


class Stream:
    """Publishes over one connection, any number of logs at once. Once it `is_closed`, open another one."""

    def __init__(self, address: Address, *, patience: float) -> None:
        """`patience`: seconds to wait for an acknowledgement."""
        self.is_closed = False
        self._names = address.names
        self._address = address
        self._patience = patience
        self._partitions = 0
        self._number = 0
        self._pending: dict[str, tuple[asyncio.Future[Outcome], float]] = {}
        self._client: NatsClient = NatsClient()
        self._inbox = ""
        self._watch: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect, and count the partitions. Raises what `connect` and `api` do."""
        self._client = client = await connect(
            self._address, name="athina-trace", on_error=self._on_error, on_closed=self._on_closed
        )
        try:
            self._partitions = await self._count()
            self._inbox = client.new_inbox()
            subscription = await client.subscribe(
                f"{self._inbox}.*", cb=self._on_answer, pending_msgs_limit=0, pending_bytes_limit=0
            )
            del subscription  # it lives as long as the connection
        except BaseException:
            await close(client)
            raise
        self._watch = asyncio.get_running_loop().create_task(self._look_after())

    async def _count(self) -> int:
        try:
            info = await api(self._client, f"STREAM.INFO.{self._names.stream}")
        except ApiError as error:
            if error.code != 404:  # noqa: PLR2004 - as in HTTP
                raise
            missing = f"there is no stream {self._names.stream} at {self._address}"
            raise NoAnswerError(f"{missing}: run `athina-trace relay --setup`") from error
        return len(info["config"]["subjects"])

    async def publish(self, ordering_key: str, entry: Stored, body: bytes) -> Outcome:
        """Publish `entry` as `body`, and return the outcome: whether the stream has stored it."""
        self._number += 1
        token = str(self._number)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Outcome] = loop.create_future()
        self._pending[token] = answer, loop.time() + self._patience
        try:
            await self._client.publish(
                self._names.subject(partition_of(ordering_key, self._partitions)),
                body,
                reply=f"{self._inbox}.{token}",
                headers=headers_of(ordering_key, entry),
            )
            return await answer
        except nats.errors.MaxPayloadError:
            return Outcome(413, message=f"the relay accepts at most {self._client.max_payload} bytes")
        except nats.errors.Error as error:
            return Outcome(None, message=f"{type(error).__name__}: {error}")
        finally:
            self._pending.pop(token, None)

    async def _on_answer(self, message: Msg) -> None:
        pending = self._pending.get(message.subject.rpartition(".")[2])
        if pending is None or pending[0].done():
            return
        # The usual answer is `{"stream":"athina","seq":1}`: no need to take it apart.
        if b'"error"' not in message.data and message.data:
            pending[0].set_result(_TAKEN)
        elif not message.data:
            # No server listens to that subject: the next log opens another connection, which finds out why.
            self.is_closed = True
            pending[0].set_result(Outcome(503, message=_NO_SERVER))
        else:
            try:
                raise_error(json.loads(message.data))
            except ApiError as error:
                pending[0].set_result(outcome_of(error, self._names))

    def _on_error(self, error: Exception) -> None:
        if _PERMISSION in str(error).lower():
            self._answer_all(Outcome(401, message=str(error)))

    def _on_closed(self) -> None:
        self.is_closed = True
        self._answer_all(Outcome(None, message=_LOST, possible_duplicate=True))

    def _answer_all(self, outcome: Outcome) -> None:
        for answer, _ in list(self._pending.values()):
            if not answer.done():
                answer.set_result(outcome)

    async def _look_after(self) -> None:
        loop = asyncio.get_running_loop()
        counted = loop.time()
        # A closed connection may still owe answers, which otherwise only another log would abandon.
        while not self.is_closed or self._pending:
            await asyncio.sleep(_LOOK_SECONDS)
            now = loop.time()
            for answer, due in list(self._pending.values()):
                if due < now and not answer.done():
                    words = f"the relay did not acknowledge a log within {self._patience:g} seconds"
                    answer.set_result(Outcome(None, message=words, possible_duplicate=True))
            if now - counted > _COUNT_SECONDS and not self.is_closed:
                counted = now
                try:
                    self._partitions = await self._count()
                except (ApiError, NoAnswerError):
                    self.is_closed = True

    def abort(self) -> None:
        """Stop waiting for acknowledgements."""
        self._on_closed()

    async def close(self) -> None:
        """Close the connection. Logs that are not acknowledged may or may not be in the stream."""
        if self._watch is not None:
            self._watch.cancel()
        await close(self._client)


_TAKEN = Outcome(200)
