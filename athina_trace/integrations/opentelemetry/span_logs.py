"""Logs ended spans; the caller, the SDK's processor or the gateway, knows where they started."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from athina_trace import _runtime
from athina_trace._answers.records import Answer, ToolOutput
from athina_trace._capture.answer_logs import Origin, log_answer, log_documents, log_tool_output
from athina_trace.integrations.frameworks import follow_chain
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
    """Log a model's answer, and return it; add tool outputs and documents to the log of their answer.

    Args:
        span: the ended span. Spans of other kinds, for example of agents, are ignored.
        origin: where it started; `within` names the enclosing spans. Gets the span's time.
        around: the attributes of the enclosing spans, innermost first, which may name session and user.
    """
    kind = kind_of(span.name, span.attributes)
    if kind is Kind.MODEL:
        records = read_model(span)
        if records and isinstance(answer := records[0], Answer):
            answer.order = origin.started_ns
            _identify(answer, around)
            named, own = answer.names[-1]
            if answer.previous is not None or (named == "id" and own.startswith("resp_")):
                is_continuing = answer.previous is not None or any(isinstance(each, ToolOutput) for each in records)
                follow_chain(answer, own if named == "id" else None, is_continuing=is_continuing)
            origin.response_time = max(0, span.end_ns - span.start_ns) // 1_000_000
            error = GeneratorExit() if was_given_up(span) else None
            log_answer(records, origin, error=error)
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
    """Take session and user from the enclosing spans if the answer's own span does not name them."""
    for attributes in around:
        named = identity_of(attributes)
        answer.session = answer.session or named.get("session_id")
        if "customer_user_id" in named:
            answer.further = {**named, **answer.further}
    if not answer.further:
        return
    # The program's settings are more specific than the resource, which describes the service to all tools.
    runtime = _runtime.active()
    is_configured = runtime is not None and runtime.settings.environment is not None
    left_out = ("session_id", "environment") if is_configured else ("session_id",)
    answer.further = {name: value for name, value in answer.further.items() if name not in left_out}
