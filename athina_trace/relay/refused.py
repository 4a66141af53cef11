"""Logs that Athina refused: copies them into an outbox for inspection, or publishes them again."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Collection
from typing import Any, NamedTuple

from nats.aio.client import Client as NatsClient

from athina_trace._delivery.entry import Entry
from athina_trace._delivery.sqlite_outbox import SqliteOutbox
from athina_trace.relay.connection import ApiError, api, store
from athina_trace.relay.names import MESSAGE_ID, REASON, STATUS, Names, RelayMessage, partition_of, read
from athina_trace.relay.status import moment

_NO_MESSAGE = 10037
_NOT_FOUND = 404


class RefusedLog(NamedTuple):
    """A log in the stream of refused logs; `sequence` is its number there, `at` the time when it was refused."""

    sequence: int
    at: float
    headers: dict[str, str]
    message: RelayMessage

    @property
    def status(self) -> int | None:
        """The status of Athina's answer; None if nothing was sent."""
        text = self.headers.get(STATUS, "")
        return int(text) if text.isdigit() else None


async def refused_logs(client: NatsClient, names: Names) -> AsyncIterator[RefusedLog]:
    """Yield all refused logs, oldest first. Raises `ApiError` and `NoAnswerError`."""
    sequence = 1
    while True:
        try:
            request = {"seq": sequence, "next_by_subj": names.refused_subject}
            found = (await api(client, f"STREAM.MSG.GET.{names.refused_stream}", request))["message"]
        except ApiError as error:
            if error.err_code == _NO_MESSAGE or error.code == _NOT_FOUND:
                return
            raise
        headers = _headers(base64.b64decode(found.get("hdrs", "")))
        body = base64.b64decode(found.get("data", ""))
        yield RefusedLog(found["seq"], moment(found["time"]), headers, read(headers, body))
        sequence = found["seq"] + 1


def _headers(data: bytes) -> dict[str, str]:
    lines = data.decode("utf-8", "replace").split("\r\n")[1:]
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines) if value}


async def copy(client: NatsClient, names: Names, path: str) -> int:
    """Copy all refused logs into a new outbox at `path`, in the same state; return how many."""
    logs = [log async for log in refused_logs(client, names)]
    outbox = SqliteOutbox(path)
    try:
        with outbox.transaction():
            found = {f"refused-{log.sequence}": log for log in logs}
            outbox.store.add(
                [
                    Entry(key, log.message.kind or "log", log.message.reference, log.at, log.message.body)
                    for key, log in found.items()
                ]
            )
            for lease in outbox.lease(float("inf"), keys=len(logs), batch=1):
                log = found[lease.ordering_key]
                outbox.refused(lease.entries[0], log.at, status=log.status, reason=log.headers.get(REASON, ""))
                outbox.release(lease.ordering_key)
    finally:
        outbox.close()
    return len(logs)


async def retry(client: NatsClient, names: Names, references: Collection[str] | None) -> int:
    """Publish the refused logs with these references, or all, again; return how many. Each leaves this stream."""
    config: dict[str, Any] = (await api(client, f"STREAM.INFO.{names.stream}"))["config"]
    done = 0
    async for log in refused_logs(client, names):
        if references is not None and log.message.reference not in references:
            continue
        headers = {name: value for name, value in log.headers.items() if name not in (STATUS, REASON)}
        # The stream may still know its first id, and would take this for a copy.
        headers[MESSAGE_ID] = f"{headers.get(MESSAGE_ID, '')}:again:{log.sequence}"
        subject = names.subject(partition_of(log.message.ordering_key, len(config["subjects"])))
        await store(client, subject, log.message.body, headers)
        await api(client, f"STREAM.MSG.DELETE.{names.refused_stream}", {"seq": log.sequence})
        done += 1
    return done
