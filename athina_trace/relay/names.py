"""Names in the broker (streams, subjects, consumers), and the content of messages: pure functions of the prefix."""

from __future__ import annotations

from typing import Final, NamedTuple, cast
from urllib.parse import quote, unquote
from zlib import crc32

from athina_trace._delivery.entry import Stored
from athina_trace._delivery.routes import KINDS, Kind

DEFAULT_PARTITIONS: Final = 64

MESSAGE_ID: Final = "Nats-Msg-Id"
KIND: Final = "Athina-Kind"
REFERENCE: Final = "Athina-Reference"
ORDERING_KEY: Final = "Athina-Key"
STATUS: Final = "Athina-Status"
REASON: Final = "Athina-Reason"


class Names(NamedTuple):
    """The names of one relay, which begin with its prefix."""

    prefix: str

    @property
    def stream(self) -> str:
        """The stream of waiting logs. A stream's name must not contain dots."""
        return self.prefix.replace(".", "-")

    @property
    def refused_stream(self) -> str:
        """The stream of logs that Athina refused."""
        return f"{self.stream}-refused"

    @property
    def refused_subject(self) -> str:
        """The subject for logs that Athina refused."""
        return f"{self.prefix}.refused"

    @property
    def workers_subject(self) -> str:
        """The subject on which all workers answer with their status."""
        return f"{self.prefix}.workers"

    def subjects(self, partitions: int) -> list[str]:
        """Return the subjects of all partitions, which the stream lists, so that anyone can count them."""
        return [self.subject(number) for number in range(partitions)]

    def subject(self, partition: int) -> str:
        """Return the subject for the logs of a partition."""
        return f"{self.prefix}.{partition}"

    def consumer(self, partition: int) -> str:
        """Return the name of a partition's consumer, which all workers share."""
        return f"partition-{partition}"


def partition_of(ordering_key: str, partitions: int) -> int:
    """Return the partition of an ordering key: the same in every process, version and language."""
    return crc32(ordering_key.encode(errors="replace")) % partitions


def headers_of(ordering_key: str, entry: Stored) -> dict[str, str]:
    """Return the headers of a message: ASCII without line breaks, in which any text can be encoded."""
    reference = quote(entry.reference, safe="")
    message_id = f"{reference}:{entry.kind}"
    if entry.kind != "log":
        # Several changes may have the same reference without being copies; a second attempt of one is a copy.
        message_id += f":{entry.id}:{crc32(entry.body):08x}"
    return {
        MESSAGE_ID: message_id,
        KIND: entry.kind,
        REFERENCE: reference,
        ORDERING_KEY: quote(ordering_key, safe=""),
    }


class RelayMessage(NamedTuple):
    """The content of a message; `kind` is None if this version does not know its kind."""

    ordering_key: str
    kind: Kind | None
    reference: str
    body: bytes


def read(headers: dict[str, str] | None, body: bytes) -> RelayMessage:
    """Read a message of any origin."""
    given = headers or {}
    kind = cast("Kind", given[KIND]) if given.get(KIND) in KINDS else None
    reference = unquote(given.get(REFERENCE, ""))
    return RelayMessage(unquote(given.get(ORDERING_KEY, "")) or reference, kind, reference, body)
