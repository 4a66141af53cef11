"""Logs with their later updates applied, as Athina finally shows them."""

from __future__ import annotations

from typing import Any

from athina_trace.testing import CapturedLogs


def as_changed(logs: CapturedLogs) -> list[dict[str, Any]]:
    """Return the logs in the order in which they were made, each with the newest value of every field."""
    made = {log["external_reference_id"]: dict(log) for log in logs.wire}
    for change in logs.updates:
        # An update of a log that was not written before would be refused.
        made[change["external_reference_id"]].update(change)
    return list(made.values())
