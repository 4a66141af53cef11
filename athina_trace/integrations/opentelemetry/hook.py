"""The completion hook of `opentelemetry-util-genai`: receives content as objects, even if spans do not contain it.

    OTEL_INSTRUMENTATION_GENAI_COMPLETION_HOOK=athina

The official instrumentations call it before a span ends, whatever they capture on spans.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan

from athina_trace import _guard, _runtime
from athina_trace._answers.records import Key
from athina_trace._capture.answer_logs import Origin
from athina_trace._capture.nesting import add_surrounding, follow_nesting, subject_of
from athina_trace._serialization import plain
from athina_trace.integrations.opentelemetry.processor import OpenSpan, record_of
from athina_trace.integrations.opentelemetry.reader import name_of
from athina_trace.integrations.opentelemetry.span_logs import log_span
from athina_trace.integrations.opentelemetry.spans import SpanRecord

if TYPE_CHECKING:
    from opentelemetry.trace import Span

__all__ = ["AthinaCompletionHook"]


class AthinaCompletionHook:
    """Adds the content of answers to the logs of their spans; makes the log if no processor sees the span."""

    def __init__(self) -> None:
        follow_nesting()
        add_surrounding(_dropped_span)

    def on_completion(
        self,
        *,
        inputs: Sequence[object] = (),
        outputs: Sequence[object] = (),
        system_instruction: Sequence[object] = (),
        tool_definitions: Sequence[object] | None = None,
        span: Span | None = None,
        log_record: object = None,  # noqa: ARG002 - has nothing that the others lack
        **_: object,
    ) -> None:
        """Receive the content of a request and its answer.

        Args:
            inputs: the messages of the request, with roles and parts.
            outputs: the messages of the answer.
            system_instruction: parts of the instructions.
            tool_definitions: the tools that were offered.
            span: the span, which has not ended yet.
            log_record: the event of this completion.
        """
        if not _runtime.may_trace():
            return
        with _guard.shield("taking the content of a span"):
            given = {
                "gen_ai.input.messages": inputs,
                "gen_ai.output.messages": outputs,
                "gen_ai.system_instructions": system_instruction,
                "gen_ai.tool.definitions": tool_definitions,
            }
            content = {name: [_data(each) for each in value] for name, value in given.items() if value}
            if span is None:
                return
            span_id = f"{span.get_span_context().span_id:016x}"
            opened = subject_of(name_of(span_id))
            if isinstance(opened, OpenSpan):
                opened.content = content
            elif isinstance(span, ReadableSpan):
                log_span(record_of(span, span_id, content), Origin.here())
            elif outputs:
                # The sampler dropped the span, so there is only the content.
                attributes = {"gen_ai.operation.name": "chat", **content}
                log_span(SpanRecord(name="chat", span_id=span_id, attributes=attributes), Origin.here())


def _dropped_span() -> Key | None:
    """Return the name of the current span if its sampler dropped it."""
    span = trace.get_current_span()
    context = span.get_span_context()
    return name_of(f"{context.span_id:016x}") if context.is_valid and not span.is_recording() else None


def _data(value: object) -> Any:
    """Return a message, whose parts and calls are dataclasses, as data."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: _data(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [_data(each) for each in value]
    return plain(value)
