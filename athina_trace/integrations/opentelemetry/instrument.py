"""`instrument_opentelemetry`: logs the answers in spans of the global tracer provider, set before or afterwards."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import wrapt
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from athina_trace import _guard
from athina_trace.integrations.opentelemetry.processor import AthinaSpanProcessor, report_sampler

__all__ = ["instrument_opentelemetry", "uninstrument_opentelemetry"]

_SETTER = "_set_tracer_provider"
"""Called by `set_tracer_provider`, however a program has imported that."""
_processor = AthinaSpanProcessor()
_processor.enabled = False
_providers: weakref.WeakSet[Any] = weakref.WeakSet()
_lock = threading.Lock()


def instrument_opentelemetry() -> None:
    """Log the answers in spans of the global tracer provider, whether it is already set or will be.

    May be called again; `uninstrument_opentelemetry` undoes it. For a provider of your own, add an
    `AthinaSpanProcessor()` to it instead.

    >>> instrument_opentelemetry()
    """
    with _lock:
        _processor.enabled = True
        if not isinstance(getattr(trace, _SETTER, None), wrapt.ObjectProxy):
            wrapt.wrap_function_wrapper(trace, _SETTER, _after_setting)
        _add_to_current()


def uninstrument_opentelemetry() -> None:
    """Undo `instrument_opentelemetry`. Providers cannot remove a processor: it remains, and does nothing.

    >>> uninstrument_opentelemetry()
    """
    _processor.enabled = False


def _after_setting(wrapped: Any, _instance: object, args: Any, kwargs: Any) -> Any:
    result = wrapped(*args, **kwargs)
    with _guard.shield("adding a span processor"), _lock:
        if _processor.enabled:
            _add_to_current()
    return result


def _add_to_current() -> None:
    provider: Any = trace.get_tracer_provider()
    # Until a program sets a provider, this is a proxy without such a method.
    if hasattr(provider, "add_span_processor") and provider not in _providers:
        if isinstance(provider, TracerProvider):
            # Not the provider's own method, which may do more: that of Arize Phoenix removes its exporter with the
            # first call.
            TracerProvider.add_span_processor(provider, _processor)
        else:
            provider.add_span_processor(_processor)
        _providers.add(provider)
        report_sampler(provider)
