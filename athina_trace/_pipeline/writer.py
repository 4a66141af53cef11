"""Logs, changes and feedback as entries of an outbox: what every place that takes entries has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

from athina_trace._clock import clock
from athina_trace._delivery.entry import Entry, log_entry, new_entry
from athina_trace._delivery.stats import FlushReport, Status
from athina_trace._pipeline.pipeline import Policy
from athina_trace._pipeline.wire import attributes
from athina_trace.settings import Settings

_REMEMBERED = 4096

Change = Literal["update", "update_by_id", "feedback"]


class Memory:
    """What was said of the newest references: at least `_REMEMBERED` of them, at most twice as many."""

    def __init__(self) -> None:
        self._new: dict[str, str | None] = {}
        self._old: dict[str, str | None] = {}

    def __setitem__(self, reference: str, lane: str | None) -> None:
        # Two generations rather than an order: no step here can meet another thread's half-way.
        if len(self._new) >= _REMEMBERED:
            self._old, self._new = self._new, {}
        self._new[reference] = lane

    def get(self, reference: str, default: str) -> str | None:
        """The lane of the log `reference`; None where it was left out; `default` where nothing is known of it."""
        return self._new.get(reference, self._old.get(reference, default))


class Writer(ABC):
    """Turns logs into entries and puts them somewhere: see `put`."""

    put: Callable[[Entry], None]
    """Commits an entry, and never raises: what a full outbox cannot take is counted and warned of."""

    def __init__(self, settings: Settings) -> None:
        self.lanes = Memory()
        self.adopt(settings)

    def adopt(self, settings: Settings) -> None:
        """Write under `settings` from now on."""
        self.settings = settings
        self.policy = policy = Policy(settings)
        self.is_plain = not (policy.rewrites or policy.hides or policy.sample_rate < 1 or settings.flush_each_call)
        """Whether the settings leave every log as it is: the short way for most programs."""
        self.defaults = {
            "environment": settings.environment,
            "language_model_id": settings.language_model_id,
            "custom_attributes": attributes(settings.custom_attributes),
        }

    @abstractmethod
    def wake(self) -> None:
        """Have what was left for later looked at, where there is a thread for that."""

    def emit(self, fields: dict[str, Any], origins: dict[str, Any] | None = None) -> None:
        """Commit one log (a JSON object to send). `origins`: see `_masking.mask_fields`."""
        if not self.is_plain and self.policy.rewrites:
            kept = self.policy.rewritten(fields, origins)
            if kept is None:
                self.leave_out(fields["external_reference_id"])
                return
            fields = kept
        self.put(log_entry(fields, clock.time()))

    def leave_out(self, reference: str) -> None:
        """This log is not in the sample, or a hook dropped it: changes of it will have nowhere to go."""
        self.lanes[reference] = None

    def change(self, kind: Change, target: str, fields: dict[str, Any]) -> None:
        """Commit a change of a log, or feedback on it, to travel behind the log itself."""
        if kind != "update_by_id":
            target = self.policy.reference(target)
        lane = self.lanes.get(target, target)
        if lane is not None:
            self.put(new_entry(lane, kind, target, clock.time(), self.policy.masked(fields)))

    @abstractmethod
    def flush(self, timeout: float) -> FlushReport:
        """Wait until everything was delivered, for at most `timeout` seconds."""

    @abstractmethod
    def status(self) -> Status:
        """How things stand now."""

    @abstractmethod
    def recent_logs(self, limit: int) -> list[dict[str, Any]]:
        """The newest logs, oldest first."""

    def flush_call(self) -> None:
        """Flush at the end of an outermost call."""
        self.flush(self.settings.flush_timeout)
