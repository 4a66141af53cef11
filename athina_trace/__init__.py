"""Log the conversations of AI assistants to Athina: on disk before the call returns, delivered in the background."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from athina_trace._after import log_feedback, log_inference, update_log
from athina_trace._carry import ContextThreadPoolExecutor, extract, inject, wrap
from athina_trace._decorator import athina_trace
from athina_trace._delivery.counts import FlushReport
from athina_trace._draft import LogDraft, current_log
from athina_trace._hooks import Delivered, Refused
from athina_trace._private import athina_private
from athina_trace._runtime import aflush, configure, flush, recent_logs, shutdown, status
from athina_trace._writer import Status
from athina_trace.context import athina_session, set_customer
from athina_trace.errors import AthinaTraceError, OutboxError, OutboxFullError, SettingsError
from athina_trace.records import InferenceLog
from athina_trace.settings import Settings

if _TYPE_CHECKING:
    from athina_trace.openai.instrument import instrument_openai, uninstrument_openai

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
    "instrument_openai",
    "log_feedback",
    "log_inference",
    "recent_logs",
    "set_customer",
    "shutdown",
    "status",
    "uninstrument_openai",
    "update_log",
    "wrap",
]


def __getattr__(name: str) -> _Any:
    """Load what reads OpenAI's objects when it is first asked for: it is a quarter of this package."""
    if name in ("instrument_openai", "uninstrument_openai"):
        return getattr(_import_module("athina_trace.openai.instrument"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
