"""Log the conversations of AI assistants to Athina: on disk before the call returns, delivered in the background."""

from ._decorator import athina_trace
from ._delivery.engine import FlushReport
from ._draft import LogDraft, current_log
from ._runtime import Status, aflush, configure, flush, shutdown, status
from .context import athina_session, set_customer
from .errors import AthinaTraceError, OutboxError, OutboxFullError, SettingsError
from .records import InferenceLog
from .settings import Settings

__version__ = "0.1.0"

__all__ = [
    "AthinaTraceError",
    "FlushReport",
    "InferenceLog",
    "LogDraft",
    "OutboxError",
    "OutboxFullError",
    "Settings",
    "SettingsError",
    "Status",
    "aflush",
    "athina_session",
    "athina_trace",
    "configure",
    "current_log",
    "flush",
    "set_customer",
    "shutdown",
    "status",
]
