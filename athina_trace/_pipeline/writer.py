"""Logs, changes and feedback as entries of an outbox: what every place that takes entries has in common."""

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
    """The ordering keys of the newest logs: of at least `_REMEMBERED` of them, of at most twice as many."""

    def __init__(self) -> None:
        self._new: dict[str, str | None] = {}
        self._old: dict[str, str | None] = {}

    def __setitem__(self, reference: str, key: str | None) -> None:
        # Two generations instead of an order: no step here can meet another thread's half-way.
        if len(self._new) >= _REMEMBERED:
            self._old, self._new = self._new, {}
        self._new[reference] = key

    def get(self, reference: str, default: str | None) -> str | None:
        """Return the key of the log `reference`; None where the log was dropped; `default` where it is not known."""
        return self._new.get(reference, self._old.get(reference, default))


class Writer(ABC):
    """Turns the fields of logs into entries and puts them somewhere: see `put`."""

    put: Callable[[Entry], None]
    """Commits an entry, and never raises: what a full outbox cannot take is counted and warned of.

    Set by each kind of writer: a runtime puts into its `Delivery`, a recorder into a list.
    """

    put_or_raise: Callable[[Entry], None]
    """Commits an entry where it survives this process, or raises `OutboxError`: for what can be sent to us again."""

    def __init__(self, settings: Settings) -> None:
        self.ordering_keys = OrderingKeys()
        self._may_collect = False
        self.use(settings)

    def use(self, settings: Settings) -> None:
        """Write under `settings` from now on."""
        self.settings = settings
        self.pipeline = Pipeline(settings)
        self.is_plain = self.pipeline.is_empty and not settings.flush_each_call
        """Whether the settings leave every log as it is: the short way for most programs."""
        constants = {"environment": settings.environment, "language_model_id": settings.language_model_id}
        self.defaults: dict[str, Any] = {
            **{name: value for name, value in constants.items() if value is not None},
            "custom_attributes": attributes_of(settings.custom_attributes),
        }

    @contextmanager
    def collecting(self, entries: list[Entry]) -> Iterator[None]:
        """Collect what is written in this context in a list, for a caller that has to know whether it can be kept."""
        token = _collected.set(entries)
        if not self._may_collect:
            put, self._may_collect = self.put, True

            def put_or_collect(entry: Entry) -> None:
                collected = _collected.get()
                if collected is None:
                    put(entry)
                else:
                    collected.append(entry)

            # From now on: most programs never come here, and none of their calls has to ask.
            self.put = put_or_collect
        try:
            yield
        finally:
            _collected.reset(token)

    @abstractmethod
    def wake(self) -> None:
        """Wake the engine's thread, where there is one."""

    def commit(self, fields: dict[str, Any]) -> None:
        """Commit one log as it is. `fields`: its data; see `wire`."""
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
        """Commit one log as the settings want it, or give the work that does, where that takes long.

        Args:
            fields: the log's, as data; see `wire`.
            rate: the share of conversations that the decorator or the session asks for; None for the setting's.
            is_in_sample: decides by the rate and the log's session.
            failed: whether the call raised an exception.
            outermost: whether the call was made in no other one.
            on_written: called when the log is committed, or dropped: changes of it may follow.
        """
        if not self._samples(fields, rate=rate, is_in_sample=is_in_sample, failed=failed):
            on_written()
            return None
        flushes = self.settings.flush_each_call and outermost
        # What needs no rewriting is on disk before anything is awaited: a cancelled call has its log.
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
        """Deliver what the outermost call logged before it ends. Never raises."""
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
        """Commit one log of another program as the settings want it, as `write` does; `wire` makes the JSON object.

        Raises:
            OutboxError: it cannot be kept where it survives this process. What the settings drop raises nothing.
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
        """Return whether a log is in the sample; what that means for its changes is noted."""
        samples = self.pipeline.samples(fields, rate=rate, is_in_sample=is_in_sample, failed=failed)
        if not samples:
            self._drop(fields["external_reference_id"])
        return samples

    def _rewrite(self, fields: dict[str, Any]) -> dict[str, Any] | None:
        """Return the log after `before_emit` and the masks; None, and noted, where the former drops it."""
        rewritten = self.pipeline.rewrite(fields)
        if rewritten is None:
            self._drop(fields["external_reference_id"])
        return rewritten

    def _drop(self, reference: str) -> None:
        """Note that there is no log under this reference: its changes have nowhere to go."""
        self.ordering_keys[reference] = None

    def change(self, kind: Change, target: str, fields: dict[str, Any]) -> None:
        """Commit a change of a log, or feedback on it, to travel behind the log itself."""
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
        """Return the entry of a change, which `wire` made the JSON object of; None where its log was dropped."""
        if kind != "update_by_id":  # Athina's own ids were never masked
            # Every process can see this alone, so it decides, also where the call failed later and was logged.
            if says_left_out(target):
                return None
            target = self.pipeline.reference(target)
        # The log of another process is not known here: its reference as a key keeps at least its changes in order.
        key = self.ordering_keys.get(target, target)
        if key is None:
            return None
        return new_entry(key, kind, target, clock.time(), wire(self.pipeline.rewrite_change(fields)))

    @abstractmethod
    def flush(self, timeout: float) -> FlushReport:
        """Wait until everything was delivered, for at most `timeout` seconds."""

    @abstractmethod
    def status(self) -> Status:
        """Return the outbox's counts, and why nothing is sent where that is so."""

    @abstractmethod
    def recent_logs(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest logs, oldest first."""
