"""Log the conversations of AI assistants to Athina: on disk before the call returns, delivered in the background."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from athina_trace._capture.decorator import athina_trace
from athina_trace._capture.draft import LogDraft, current_log
from athina_trace._capture.manual import log_feedback, log_inference, update_log
from athina_trace._capture.private import athina_private
from athina_trace._runtime import aflush, configure, flush, metrics, recent_logs, shutdown, status
from athina_trace.context import athina_session, set_customer, set_session
from athina_trace.errors import AthinaTraceError, OutboxError, OutboxFullError, SettingsError
from athina_trace.propagation import ContextThreadPoolExecutor, extract, inject, wrap

if _TYPE_CHECKING:
    from athina_trace._delivery.stats import FlushReport, Status
    from athina_trace._pipeline.hooks import Delivered, Refused
    from athina_trace.inference_log import InferenceLog
    from athina_trace.integrations.everything import instrument, uninstrument
    from athina_trace.integrations.openai.instrument import instrument_openai, uninstrument_openai
    from athina_trace.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "AthinaTraceError",
    "ContextThreadPoolExecutor",
    "Delivered",
    "FlushReport",
    "InferenceLog",
    "LogDraft",
    "OutboxError",
    "OutboxFullError",
    "Refused",
    "Settings",
    "SettingsError",
    "Status",
    "aflush",
    "athina_private",
    "athina_session",
    "athina_trace",
    "configure",
    "current_log",
    "extract",
    "flush",
    "inject",
    "instrument",
    "instrument_openai",
    "log_feedback",
    "log_inference",
    "metrics",
    "recent_logs",
    "set_customer",
    "set_session",
    "shutdown",
    "status",
    "uninstrument",
    "uninstrument_openai",
    "update_log",
    "wrap",
]


_ELSEWHERE = {
    "Delivered": "athina_trace._pipeline.hooks",
    "FlushReport": "athina_trace._delivery.stats",
    "InferenceLog": "athina_trace.inference_log",
    "Refused": "athina_trace._pipeline.hooks",
    "Settings": "athina_trace.settings",
    "Status": "athina_trace._delivery.stats",
    "instrument": "athina_trace.integrations.everything",
    "instrument_openai": "athina_trace.integrations.openai.instrument",
    "uninstrument": "athina_trace.integrations.everything",
    "uninstrument_openai": "athina_trace.integrations.openai.instrument",
}
"""Names that are imported on first access: a program that only decorates functions needs neither them nor pydantic."""


def __getattr__(name: str) -> _Any:
    if name in _ELSEWHERE:
        return getattr(_import_module(_ELSEWHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
