"""Numbers of an outbox: counts of entries, the report of a flush, the status of deliveries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class Counts:
    """Counts of entries, of all processes since the outbox was created: `made` is the sum of the next four.

    `possible_duplicates` counts attempts whose answer was lost, so that Athina may get the entry twice; `damaged`
    counts unreadable records of the journal.
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
        """Return the counts from a store's counters: entries that are neither delivered, refused nor dropped wait."""
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
    """The result of a flush. It is true if everything was delivered.

    Attributes:
        delivered: entries that were delivered during the flush.
        waiting: entries still in the outbox, to be delivered later, by this process or the next one; 0 if all entries
            that were put before the flush have been acknowledged.
        refused: all entries that Athina has ever refused; they are kept.
        paused: why nothing is sent at all, such as a wrong key; None otherwise.
        elapsed: the time that the flush took, in seconds.
        undelivered: entries that Athina refused or that could not be kept, since the previous flush.

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
    """The status of this process's outbox, for all processes that share it, since it was created.

    Attributes:
        made: logs, updates and feedback; always the sum of the next four.
        delivered, waiting, refused: how many of them were delivered, wait for delivery, or were refused by Athina.
        dropped: how many could not be kept, since the outbox was full.
        possible_duplicates: attempts whose answer was lost, so that Athina may have received the log twice, with the
            same `external_reference_id`.
        paused: why nothing is sent, such as a wrong key or an outage; None otherwise.
        waiting_since: when the oldest waiting log was made, seconds since the epoch; None if none waits.
        bytes: the size of the outbox's file, without free space in it.
        outbox: the outbox's file; ":memory:" if there is none, or while it cannot be written to.
        faults: errors in athina_trace's own code, which were kept from the program.
        damaged: records of the journal that had a wrong checksum or were truncated, so that their content is lost; they
            count nowhere else.
        senders: the number of sender threads in this process.
        last_error: the outcome of this process's last failed request, such as "503: overloaded"; None if none has
            failed.
        memory_only: why new logs are kept only in memory, such as a full disk; None if they are on disk.

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
