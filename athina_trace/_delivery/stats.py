"""Figures of an outbox: how many entries there are, the report of a flush, the state of deliveries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class Counts:
    """Numbers of entries, over all processes of an outbox since it was made: `made` is the sum of the next four.

    `possible_duplicates` counts attempts whose answer was lost, so that Athina may have been given the entry twice;
    `damaged` counts records of the journal that could not be read.
    """

    made: int = 0
    delivered: int = 0
    waiting: int = 0
    refused: int = 0
    dropped: int = 0
    possible_duplicates: int = 0
    damaged: int = 0

    @classmethod
    def of(cls, values: Mapping[str, int]) -> Counts:
        """Return the counts that a store keeps by name: what is neither delivered, refused nor dropped waits."""
        made, delivered, refused, dropped, possible_duplicates, damaged = (
            values.get(name, 0)
            for name in ("made", "delivered", "refused", "dropped", "possible_duplicates", "damaged")
        )
        waiting = made - delivered - refused - dropped
        return cls(made, delivered, waiting, refused, dropped, possible_duplicates, damaged)

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class FlushReport:
    """The result of a flush. True where everything was delivered.

    Attributes:
        delivered: entries that reached Athina while flushing.
        waiting: entries still in the outbox, to be delivered later, by this process or the next one; what was put
            while a flush was under way does not count where all that was put before has been acknowledged.
        refused: entries that Athina refused, ever; they are kept.
        paused: why nothing is sent at all, such as a wrong key; None where it is.
        elapsed: seconds.
        undelivered: entries that Athina refused or that could not be kept, since the flush before.

    >>> report = flush(timeout=5)
    >>> bool(report), report.waiting
    (True, 0)
    """

    delivered: int
    waiting: int
    refused: int
    paused: str | None
    elapsed: float
    undelivered: int = 0

    def __bool__(self) -> bool:
        return self.waiting == 0 and self.undelivered == 0


@dataclass(frozen=True)
class Status:
    """The state of this process's outbox, over all processes that share it, since it was made.

    Attributes:
        made: logs, updates and feedback; always the sum of the next four.
        delivered, waiting, refused: what became of them.
        dropped: what could not be kept, since the outbox was full.
        possible_duplicates: tries whose answer was lost, so that Athina may have got the log from them and again
            from the next try, under the same `external_reference_id`.
        paused: why nothing is sent, such as a wrong key or an outage; None where it is.
        waiting_since: when the oldest log that waits was made, seconds since the epoch; None where none waits.
        bytes: what the outbox's file takes, without space that is free in it.
        outbox: the outbox's file, or ":memory:", also for as long as that file cannot be written to.
        faults: errors of athina_trace's own code that it kept from the program.
        damaged: records of the journal that failed their checksum or were cut, so that what they held is lost; they
            count nowhere else.
        senders: threads of this process that send now.
        last_error: the outcome of the last request of this process that failed, such as "503: overloaded"; None where
            none has.
        memory_only: why new logs are kept in memory alone, such as a full disk; None where they are on disk.

    >>> reference = log_inference(response="Hello")
    >>> now = status()
    >>> now.made, now.made == now.delivered + now.waiting + now.refused + now.dropped
    (1, True)
    """

    made: int = 0
    delivered: int = 0
    waiting: int = 0
    refused: int = 0
    dropped: int = 0
    possible_duplicates: int = 0
    paused: str | None = None
    waiting_since: float | None = None
    bytes: int = 0
    outbox: str = ""
    faults: int = 0
    damaged: int = 0
    senders: int = 0
    last_error: str | None = None
    memory_only: str | None = None
