"""A span that has ended → the log that it belongs to, with what only the SDK or a gateway knows: where it was made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from athina_trace import _runtime
from athina_trace._answers.records import Answer
from athina_trace._capture.answered import Origin, log_answer, log_documents, log_tool_output
from athina_trace.integrations.opentelemetry.reader import (
    Kind,
    identity_of,
    kind_of,
    name_of,
    read_documents,
    read_model,
    read_tool,
    was_given_up,
)
from athina_trace.integrations.opentelemetry.spans import SpanRecord

__all__ = ["log_span"]


def log_span(span: SpanRecord, origin: Origin, around: Iterable[Mapping[str, Any]] = ()) -> Answer | None:
    """Log the answer of a model, and return it; give outputs and documents to the log that called for them.

    Args:
        span: what has ended. Spans of anything else, of agents for one, are passed over.
        origin: where it began; `within` names the spans around it.
        around: the attributes of the spans around it, the innermost first, which may name session and user.
    """
    kind = kind_of(span.name, span.attributes)
    if kind is Kind.MODEL:
        records = read_model(span)
        if records and isinstance(answer := records[0], Answer):
            answer.order = origin.started_ns
            _identify(answer, around)
            milliseconds = max(0, span.end_ns - span.start_ns) // 1_000_000
            error = GeneratorExit() if was_given_up(span) else None
            log_answer(records, origin._replace(response_time=milliseconds), error=error)
            return answer
    elif kind is Kind.TOOL:
        run = read_tool(span)
        if run.output is not None:
            log_tool_output(
                run.output,
                origin,
                call=run.call,
                tool=run.tool,
                arguments=run.arguments,
                name=name_of(span.span_id),
            )
    elif kind is Kind.RETRIEVAL:
        log_documents(read_documents(span), origin)
    return None


def _identify(answer: Answer, around: Iterable[Mapping[str, Any]]) -> None:
    """Name session and user as the spans around an answer do, where its own does not."""
    for attributes in around:
        named = identity_of(attributes)
        answer.session = answer.session or named.get("session_id")
        if "customer_user_id" in named:
            answer.further = {**named, **answer.further}
    if not answer.further:
        return
    # What the program configured says more than what describes the service to every tool.
    runtime = _runtime.active()
    is_configured = runtime is not None and runtime.settings.environment is not None
    left_out = ("session_id", "environment") if is_configured else ("session_id",)
    answer.further = {name: value for name, value in answer.further.items() if name not in left_out}
