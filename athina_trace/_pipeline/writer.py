"""`Writer`: turns logs, changes and feedback into entries. Its subclasses are `Runtime` and, for tests, `Recorder`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal

from athina_trace import _guard
from athina_trace._clock import clock
from athina_trace._delivery.entry import Entry, log_entry, new_entry
from athina_trace._delivery.stats import FlushReport, Status
from athina_trace._pipeline.pipeline import Pipeline
from athina_trace._pipeline.sampling import says_left_out
from athina_trace._pipeline.wire import to_wire
from athina_trace._wrapping.calls import DeferredWork
from athina_trace.schema import attributes_of
from athina_trace.settings import Settings

_REMEMBERED = 4096

_collected: ContextVar[list[Entry] | None] = ContextVar("athina_trace_collected", default=None)

Change = Literal["update", "update_by_id", "feedback"]


class OrderingKeys:
    """The ordering keys of the newest logs, at least `_REMEMBERED` and at most twice as many."""

    def __init__(self) -> None:
        self._new: dict[str, str | None] = {}
        self._old: dict[str, str | None] = {}

    def __setitem__(self, reference: str, key: str | None) -> None:
        # Two generations instead of a queue, so that threads need no lock here.
        if len(self._new) >= _REMEMBERED:
            self._old, self._new = self._new, {}
        self._new[reference] = key

    def get(self, reference: str, default: str | None) -> str | None:
        """Return the key of the log `reference`; None if the log was dropped; `default` if it is unknown."""
        return self._new.get(reference, self._old.get(reference, default))


class Writer(ABC):
    """Turns the fields of logs into entries, and commits them with `put`."""

    put: Callable[[Entry], None]
    """Commits an entry, and never raises: if the outbox is full, the entry is counted as dropped, with a warning.

    Set by each subclass: a runtime puts entries into its `Delivery`, a recorder into a list.
    """

    put_or_raise: Callable[[Entry], None]
    """Commits an entry durably, or raises `OutboxError`: for clients of a gateway, which can try again."""

    def __init__(self, settings: Settings) -> None:
        self.ordering_keys = OrderingKeys()
        self._may_collect = False
        self.use(settings)

    def use(self, settings: Settings) -> None:
        """Write under `settings` from now on."""
        self.settings = settings
        self.pipeline = Pipeline(settings)
        self.is_plain = self.pipeline.is_empty and not settings.flush_each_call
        """Whether the settings change no log: most programs skip the pipeline."""
        constants = {"environment": settings.environment, "language_model_id": settings.language_model_id}
        self.defaults: dict[str, Any] = {
            **{name: value for name, value in constants.items() if value is not None},
            "custom_attributes": attributes_of(settings.custom_attributes),
        }

    @contextmanager
    def collecting(self, entries: list[Entry]) -> Iterator[None]:
        """Collect the entries of this context in a list, for callers that must know whether they can be kept."""
        token = _collected.set(entries)
        if not self._may_collect:
            put, self._may_collect = self.put, True

            def put_or_collect(entry: Entry) -> None:
                collected = _collected.get()
                if collected is None:
                    put(entry)
                else:
                    collected.append(entry)

            # Replaced on first use, so that the calls of other programs need no check.
            self.put = put_or_collect
        try:
            yield
        finally:
            _collected.reset(token)

    @abstractmethod
    def wake(self) -> None:
        """Wake the engine's thread, if there is one."""

    def commit(self, fields: dict[str, Any]) -> None:
        """Commit one log without the pipeline. `fields`: its data; see `wire`."""
        self.put(log_entry(to_wire(fields), clock.time()))

    def write(
        self,
        fields: dict[str, Any],
        *,
        rate: float | None,
        is_in_sample: Callable[[float, str | None], bool],
        failed: bool,
        outermost: bool,
        on_written: Callable[[], None],
    ) -> DeferredWork:
        """Run one log through the pipeline and commit it; if that takes long, return it as deferred work.

        Args:
            fields: those of the log, as data; see `wire`.
            rate: the share of conversations set by the decorator or the session; None to use the setting.
            is_in_sample: decides by the rate and the log's session.
            failed: whether the call raised an exception.
            outermost: whether the call is not inside another one.
            on_written: called when the log is committed or dropped, so that its changes may follow.
        """
        if not self._samples(fields, rate=rate, is_in_sample=is_in_sample, failed=failed):
            on_written()
            return None
        flushes = self.settings.flush_each_call and outermost
        # If nothing is rewritten, the log is on disk before anything is awaited: a cancelled call has its log.
        if not self.pipeline.rewrites:
            self.commit(fields)
            on_written()
            return self._flush if flushes else None
        finish = partial(self._finish, fields, on_written, flushes=flushes)
        if flushes or self.pipeline.takes_long(fields):
            return finish
        finish()
        return None

    def _finish(self, fields: dict[str, Any], on_written: Callable[[], None], *, flushes: bool) -> None:
        """Rewrite and commit one log. Never raises."""
        with _guard.shield("writing a log"):
            kept = self._rewrite(fields)
            if kept is not None:
                self.commit(kept)
            on_written()
        if flushes:
            self._flush()

    def _flush(self) -> None:
        """Deliver the logs of the outermost call before it ends. Never raises."""
        with _guard.shield("flushing at the end of a call"):
            self.flush(self.settings.flush_timeout)

    def write_or_raise(
        self,
        fields: dict[str, Any],
        *,
        is_in_sample: Callable[[float, str | None], bool],
        failed: bool,
        wire: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> None:
        """Do what `write` does for a log of another program; `wire` makes the JSON object.

        Raises:
            OutboxError: the log cannot be kept durably. A log that the settings drop raises nothing.
        """
        if self._samples(fields, rate=None, is_in_sample=is_in_sample, failed=failed):
            rewritten = self._rewrite(fields) if self.pipeline.rewrites else fields
            if rewritten is not None:
                self.put_or_raise(log_entry(wire(rewritten), clock.time()))

    def _samples(
        self,
        fields: dict[str, Any],
        *,
        rate: float | None,
        is_in_sample: Callable[[float, str | None], bool],
        failed: bool,
    ) -> bool:
        """Return whether a log is in the sample; if not, drop its changes from now on."""
        samples = self.pipeline.samples(fields, rate=rate, is_in_sample=is_in_sample, failed=failed)
        if not samples:
            self._drop(fields["external_reference_id"])
        return samples

    def _rewrite(self, fields: dict[str, Any]) -> dict[str, Any] | None:
        """Return the log after `before_emit` and the masks; if `before_emit` drops it, None, and drop its changes."""
        rewritten = self.pipeline.rewrite(fields)
        if rewritten is None:
            self._drop(fields["external_reference_id"])
        return rewritten

    def _drop(self, reference: str) -> None:
        """Drop changes to this log from now on, since it is not sent."""
        self.ordering_keys[reference] = None

    def change(self, kind: Change, target: str, fields: dict[str, Any]) -> None:
        """Commit a change to a log, or feedback on it, to be delivered after the log itself."""
        entry = self.change_entry(kind, target, fields)
        if entry is not None:
            self.put(entry)

    def change_entry(
        self,
        kind: Change,
        target: str,
        fields: dict[str, Any],
        *,
        wire: Callable[[dict[str, Any]], dict[str, Any]] = to_wire,
    ) -> Entry | None:
        """Return the entry of a change, as the JSON object that `wire` makes; None if its log was dropped."""
        if kind != "update_by_id":  # Athina's own ids were never masked
            # The mark decides even if the call failed later and was logged, since other processes see nothing else.
            if says_left_out(target):
                return None
            target = self.pipeline.reference(target)
        # A log of another process is unknown here: with its reference as key, at least its changes stay in order.
        key = self.ordering_keys.get(target, target)
        if key is None:
            return None
        return new_entry(key, kind, target, clock.time(), wire(self.pipeline.rewrite_change(fields)))

    @abstractmethod
    def flush(self, timeout: float) -> FlushReport:
        """Wait until everything is delivered, for at most `timeout` seconds."""

    @abstractmethod
    def status(self) -> Status:
        """Return the outbox's counts, and why nothing is sent, if so."""

    @abstractmethod
    def recent_logs(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest logs, oldest first."""
