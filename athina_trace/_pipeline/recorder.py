"""A writer that keeps logs in memory, for tests: no disk, no network, no thread."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from athina_trace import _guard
from athina_trace._delivery.entry import Entry
from athina_trace._delivery.metrics import Traffic
from athina_trace._delivery.stats import FlushReport, Status
from athina_trace._pipeline.writer import Writer
from athina_trace.settings import Settings


class Recorder(Writer):
    """A writer that keeps its entries."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.entries: list[Entry] = []
        # As the bytes that would be sent, so that tests see what Athina would see.
        self.put = self.put_or_raise = self.entries.append

    def wake(self) -> None:
        """Do nothing: there is no thread to wake."""

    def flush(self, timeout: float) -> FlushReport:  # noqa: ARG002 - nothing is waited for
        """Return an empty report: nothing waits, since nothing is sent."""
        return FlushReport(0, 0, 0, None, 0.0)

    def status(self) -> Status:
        """Return counts in which all recorded entries are waiting."""
        made = len(self.entries)
        return Status(made=made, waiting=made, outbox=":memory:", faults=_guard.faults)

    def traffic(self) -> Traffic:
        """Return no traffic: nothing is sent."""
        return Traffic()

    def recent_logs(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest logs, oldest first."""
        bodies = [entry.body for entry in self.entries if entry.kind == "log"]
        return [from_json(body) for body in bodies[-limit:]] if limit > 0 else []
