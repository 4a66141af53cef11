"""Reads the OpenTelemetry span around a call, so that the log can be found from the trace, and the other way round."""

from __future__ import annotations

import sys
from typing import Any

from athina_trace import _guard


def span_attributes() -> dict[str, str] | None:
    """Return the active span's `trace_id` and `span_id`, in hexadecimal as OpenTelemetry prints them; None without one.

    Nothing is imported: a program that has not loaded OpenTelemetry's API has no span.
    """
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    try:
        # Empty if nothing is active: this check saves most calls four function calls.
        if not sys.modules["opentelemetry.context"].get_current():
            return None
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
    except Exception as error:  # noqa: BLE001 - another tool's span, or a module that is still being loaded
        _guard.raise_if_the_programs(error)
    return None
