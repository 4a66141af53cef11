"""Logs the answers in OpenTelemetry's spans: `instrument_opentelemetry()`, or `AthinaSpanProcessor()` for a provider.

`spans`, `values`, `messages`, `reader` and `span_logs` read spans from any source and do not need OpenTelemetry.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from athina_trace.integrations.opentelemetry.hook import AthinaCompletionHook
    from athina_trace.integrations.opentelemetry.instrument import (
        instrument_opentelemetry,
        uninstrument_opentelemetry,
    )
    from athina_trace.integrations.opentelemetry.processor import AthinaSpanProcessor

__all__ = [
    "AthinaCompletionHook",
    "AthinaSpanProcessor",
    "instrument_opentelemetry",
    "uninstrument_opentelemetry",
]

_ELSEWHERE = {
    "AthinaCompletionHook": "hook",
    "AthinaSpanProcessor": "processor",
    "instrument_opentelemetry": "instrument",
    "uninstrument_opentelemetry": "instrument",
}


def __getattr__(name: str) -> _Any:
    if name in _ELSEWHERE:
        return getattr(_import_module(f"{__name__}.{_ELSEWHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
