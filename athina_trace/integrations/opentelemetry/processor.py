"""`AthinaSpanProcessor`: logs the answers in OpenTelemetry's spans.

A processor rather than an exporter: `on_start` runs where the request is made, in the program's own context, which has
session and customer, and `on_end` runs before the call returns.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from athina_trace import _guard, _runtime
from athina_trace._capture.answer_logs import Origin
from athina_trace._capture.nesting import begin, end, follow_nesting, subject_of
from athina_trace.integrations.opentelemetry.reader import name_of
from athina_trace.integrations.opentelemetry.span_logs import log_span
from athina_trace.integrations.opentelemetry.spans import Event, SpanRecord
from athina_trace.integrations.opentelemetry.values import exact

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanContext

__all__ = ["AthinaSpanProcessor", "OpenSpan", "record_of", "report_sampler"]

_MOST_AROUND = 8
"""Number of enclosing spans that are searched for session and user."""


class OpenSpan:
    """A span that has started."""

    __slots__ = ("around", "content", "origin", "span")

    origin: Origin

    def __init__(self, span: Span) -> None:
        self.span = span
        self.around: tuple[Span, ...] = ()
        """The enclosing spans, innermost first. The span of a function that returns a stream ends before this one."""
        self.content: Mapping[str, Any] = {}
        """Attributes that the completion hook received and the span does not have."""


class AthinaSpanProcessor(SpanProcessor):
    """Logs the answers in spans, each once, before the call that ends its span returns.

    It reads the current and older GenAI conventions, and those of OpenInference and the AI SDK. Session and customer
    are those of `athina_session` where the span starts, else those of the span, or of an enclosing span.

    >>> from opentelemetry.sdk.trace import TracerProvider
    >>> provider = TracerProvider()
    >>> provider.add_span_processor(AthinaSpanProcessor())
    """

    def __init__(self) -> None:
        follow_nesting()
        self.enabled = True
        self._has_reported = False

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the SDK's signature
        """Note where the span starts."""
        if not (self.enabled and _runtime.may_trace()):
            return
        try:
            if not self._has_reported:
                self._has_reported = True
                report_sampler(trace.get_tracer_provider())
            opened = OpenSpan(span)
            parent = name_of(_id(span.parent)) if span.parent is not None else None
            within = begin(name_of(_id(span.context)), parent, opened)
            opened.origin = Origin.here(within)
            for outer_name in within:
                outer = subject_of(outer_name)
                if type(outer) is OpenSpan:
                    opened.around = (outer.span, *outer.around[: _MOST_AROUND - 1])
                    break
        except Exception:  # noqa: BLE001 - the guard decides
            _guard.swallow("noting the start of a span")

    def on_end(self, span: ReadableSpan) -> None:
        """Log the answer in the span."""
        if not (self.enabled and _runtime.may_trace()):
            return
        try:
            span_id = _id(span.context)
            name = name_of(span_id)
            try:
                opened = subject_of(name)
                origin = Origin.here() if opened is None else opened.origin
                record = record_of(span, span_id, opened.content if opened is not None else {})
                log_span(record, origin, _attributes_of(opened.around) if opened is not None else ())
            finally:
                end(name)
        except Exception:  # noqa: BLE001 - the guard decides
            _guard.swallow("logging a span")

    def shutdown(self) -> None:
        """Do nothing: logs are already on disk."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Deliver all logs; return whether they were delivered in time."""
        return bool(_runtime.flush(timeout_millis / 1000))


def report_sampler(provider: Any) -> None:
    """Warn once that processors never see spans that a provider's sampler drops."""
    sampler = getattr(provider, "sampler", None)
    described = sampler.get_description() if sampler is not None else "AlwaysOnSampler"
    if not described.startswith(("AlwaysOnSampler", "ParentBased{root:AlwaysOnSampler")):
        _guard.log_throttled(
            logging.WARNING,
            "sampler",
            "OpenTelemetry's sampler %s drops spans: model answers in those spans are not captured; sample with "
            "ATHINA_SAMPLE_RATE instead, or instrument the client or framework itself",
            described,
        )


def record_of(span: ReadableSpan, span_id: str, content: Mapping[str, Any]) -> SpanRecord:
    """Return a span as plain data.

    Args:
        span: the SDK's.
        span_id: its id, in hexadecimal.
        content: attributes that are not on the span.
    """
    attributes = exact(_attributes(span))
    scope, status = span.instrumentation_scope, span.status
    # The SDK's list of events copies itself twice, under a lock.
    events = span.events if getattr(span, "_events", True) else ()
    return SpanRecord(
        name=span.name,
        scope=scope.name if scope is not None else "",
        span_id=span_id,
        start_ns=span.start_time or 0,
        end_ns=span.end_time or span.start_time or 0,
        attributes={**content, **attributes} if content else attributes,
        events=[Event(name=each.name, attributes=exact(each.attributes or {})) for each in events] if events else (),
        resource=_attributes(span.resource),
        failed=not status.is_ok,
        description=status.description,
    )


def _attributes(holder: Any) -> Mapping[str, Any]:
    """Return the attributes of a span or a resource as a dictionary, since lookups in the SDK's mapping are slow."""
    held = getattr(getattr(holder, "_attributes", None), "_dict", None)
    return held if isinstance(held, dict) else dict(holder.attributes or {})


def _id(context: SpanContext | None) -> str:
    return "" if context is None else f"{context.span_id:016x}"


def _attributes_of(spans: Iterable[Span]) -> Iterator[Mapping[str, Any]]:
    for span in spans:
        yield exact(_attributes(span))
