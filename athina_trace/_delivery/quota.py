"""Limits the size of an outbox, and the shares of refused and delivered entries: beyond, the oldest are dropped.

Waiting entries are never dropped: if they fill an outbox, the journal accepts nothing new, see `Journal.allow`.
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
"""The share of `max_bytes` for refused logs, which must never keep new logs out."""
_DELIVERED_SHARE = 0.1
"""The share of `max_bytes` for delivered logs that are kept for inspection."""
_DELIVERED_MARGIN = 1_000_000
"""After so many bytes of delivered logs, it is checked whether the oldest must be dropped."""
KEEP_REFUSED_SECONDS = 30 * 86_400.0
"""How long refused logs are kept for inspection and retries."""
_FULL_SHARE = 0.75
"""The share of `max_bytes` above which delivered logs are dropped to make room."""
_MEASURES = 16
"""The room is measured at least so many times while an outbox fills up."""


class Quota:
    """The limits of one outbox. For the engine's thread, which reports what it collects and keeps."""

    def __init__(
        self,
        path: str,
        journal: Journal,
        store: Callable[[], Store | MemoryStore],
        *,
        max_bytes: float,
        max_delivered_bytes: float,
    ) -> None:
        """Limit the outbox at `path`.

        Args:
            path: the outbox's path, for warnings.
            journal: the journal, which accepts nothing new once the outbox is full.
            store: returns the store, and opens it if necessary.
            max_bytes: for everything in the outbox.
            max_delivered_bytes: for delivered entries, if their share of `max_bytes` is more.
        """
        self._path = path
        self._journal = journal
        self._store = store
        self._max_bytes = max_bytes
        self._max_delivered_bytes = min(_DELIVERED_SHARE * max_bytes, max_delivered_bytes)
        self._newly_delivered = 0
        """Bytes of delivered entries kept since the last check."""
        self._unmeasured = 0.0
        """Bytes collected since the last `measure`."""

    @property
    def is_to_be_measured(self) -> bool:
        """Whether `measure` is due, after what was collected since the last one."""
        return self._unmeasured > self._max_bytes / _MEASURES

    def count_collected(self, size: int) -> None:
        """Count collected bytes."""
        self._unmeasured += size

    def count_kept(self, size: int) -> None:
        """Count the bytes of delivered entries that are kept; drop the oldest from time to time."""
        self._newly_delivered += size
        is_much = self._newly_delivered > min(_DELIVERED_MARGIN, self._max_delivered_bytes)
        if is_much and self.drop_delivered(before=float("-inf")):
            self._newly_delivered = 0

    def measure(self) -> None:
        """Measure how much room is left. Delivered entries that are kept for inspection make room first."""
        store = self._store()
        with store.transaction():
            self._unmeasured = 0.0
            if store.size() - store.empty_bytes > _FULL_SHARE * self._max_bytes:
                # If there are more to drop, the next `collect` measures again.
                self._unmeasured = 0.0 if self.drop_delivered(before=float("inf")) else self._max_bytes
            self.drop_refused(before=float("-inf"))
            self._journal.allow(max(0, store.size() - store.empty_bytes), store.offsets())

    def drop_refused(self, *, before: float) -> None:
        """Drop the oldest refused entries: those refused before a time, and those beyond their share."""
        store = self._store()
        with store.transaction():
            dropped = store.drop_resolved("refused", before=before, over=_REFUSED_SHARE * self._max_bytes)
        if dropped:
            _guard.log_throttled(
                logging.WARNING,
                "refused dropped",
                "the %d oldest logs that Athina refused were dropped from the outbox %s: refused logs are kept for "
                "%d days, within a quarter of max_outbox_bytes; see `athina-trace logs --state refused`",
                dropped,
                self._path,
                KEEP_REFUSED_SECONDS // 86_400,
            )

    def drop_delivered(self, *, before: float) -> bool:
        """Drop the oldest delivered entries: those delivered before a time, and those beyond their share.

        Drops a limited number at once, so that the file is not locked for long; returns whether there were none.
        """
        store = self._store()
        with store.transaction():
            return not store.drop_resolved("delivered", before=before, over=self._max_delivered_bytes)
