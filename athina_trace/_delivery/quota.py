"""How much an outbox may hold in all, and of what is resolved: what is over its share leaves, the oldest first.

What waits never leaves: where it fills an outbox, the journal takes nothing new, as `Journal.allow` says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from athina_trace import _guard
from athina_trace._delivery.journal import Journal

if TYPE_CHECKING:
    from athina_trace._delivery.memory_store import MemoryStore
    from athina_trace._delivery.store import Store

_REFUSED_SHARE = 0.25
"""Of `max_bytes`, what refused logs may take: they must never keep new logs out."""
_DELIVERED_SHARE = 0.1
"""Of `max_bytes`, what delivered logs may take that are kept to be looked at."""
_DELIVERED_MARGIN = 1_000_000
"""Bytes of delivered logs after which it is seen whether the oldest must leave."""
KEEP_REFUSED_SECONDS = 30 * 86_400.0
"""How long refused logs are kept, to be looked at and tried again."""
_FULL_SHARE = 0.75
"""Of `max_bytes`, from which on delivered logs leave that are only kept to be looked at."""
_MEASURES = 16
"""How often at least the room is measured while an outbox fills up."""


class Quota:
    """The shares of one outbox. For the engine's thread, which counts here what it collected and kept."""

    def __init__(
        self,
        path: str,
        journal: Journal,
        store: Callable[[], Store | MemoryStore],
        *,
        max_bytes: float,
        max_delivered_bytes: float,
    ) -> None:
        """Bound what is at `path`.

        Args:
            path: the outbox's, to be named in warnings.
            journal: what takes nothing new once the outbox is full.
            store: gives the store, opened now if it was not.
            max_bytes: for all that the outbox holds.
            max_delivered_bytes: for delivered entries, where their share of `max_bytes` is more.
        """
        self._path = path
        self._journal = journal
        self._store = store
        self._max_bytes = max_bytes
        self._max_delivered_bytes = min(_DELIVERED_SHARE * max_bytes, max_delivered_bytes)
        self._newly_delivered = 0
        """Bytes kept since it was seen whether older ones must leave."""
        self._unmeasured = 0.0
        """Bytes collected since the room was measured."""

    @property
    def is_to_be_measured(self) -> bool:
        """Whether so much was collected since `measure` that it is due."""
        return self._unmeasured > self._max_bytes / _MEASURES

    def count_collected(self, size: int) -> None:
        """Count the bytes that the store took in."""
        self._unmeasured += size

    def count_kept(self, size: int) -> None:
        """Count the bytes of delivered entries that are kept; drop the oldest now and then."""
        self._newly_delivered += size
        is_much = self._newly_delivered > min(_DELIVERED_MARGIN, self._max_delivered_bytes)
        if is_much and self.drop_delivered(before=float("-inf")):
            self._newly_delivered = 0

    def measure(self) -> None:
        """See how much may still be put. Delivered entries that are only kept to be looked at make room first."""
        store = self._store()
        with store.transaction():
            self._unmeasured = 0.0
            if store.size() - store.empty_bytes > _FULL_SHARE * self._max_bytes:
                # The next time that entries are collected drops more.
                self._unmeasured = 0.0 if self.drop_delivered(before=float("inf")) else self._max_bytes
            self.drop_refused(before=float("-inf"))
            self._journal.allow(max(0, store.size() - store.empty_bytes), store.offsets())

    def drop_refused(self, *, before: float) -> None:
        """Drop the oldest refused entries: those refused before a time, and those beyond the share of all of them."""
        store = self._store()
        with store.transaction():
            dropped = store.drop_resolved("refused", before=before, over=_REFUSED_SHARE * self._max_bytes)
        if dropped:
            _guard.log_throttled(
                logging.WARNING,
                "refused dropped",
                "the %d oldest logs that Athina refused were dropped from the outbox %s: they are kept for %d days, "
                "and in a quarter of max_outbox_bytes; see `athina-trace logs --state refused`",
                dropped,
                self._path,
                KEEP_REFUSED_SECONDS // 86_400,
            )

    def drop_delivered(self, *, before: float) -> bool:
        """Forget the oldest delivered entries: those delivered before a time, and those beyond their share.

        Few at once, so that the file is not locked for long; True where none were left to forget.
        """
        store = self._store()
        with store.transaction():
            return not store.drop_resolved("delivered", before=before, over=self._max_delivered_bytes)
