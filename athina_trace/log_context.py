"""Session, customer and reference in the program's own log records: for `logging`, structlog and others.

They lead from a line of a program's own log to the log in Athina, and to the rest of its conversation.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any, Final

from athina_trace import _guard
from athina_trace._capture.draft import LogDraft, current_draft
from athina_trace.context import current_scope

__all__ = ["LogContextFilter", "add_log_context", "log_context"]

_FIELDS: Final = ("session_id", "customer_id", "customer_user_id")
_NAMES: Final = (*_FIELDS, "external_reference_id")


def log_context() -> dict[str, str]:
    """Return the current session, customer and log, as far as they are known.

    The keys are `session_id`, `customer_id` and `customer_user_id`, with the values that the log has, and
    `external_reference_id`, of the innermost running call.

    >>> with athina_session("thread_1", customer_id="disney"):
    ...     log_context()
    {'session_id': 'thread_1', 'customer_id': 'disney'}
    """
    draft = current_draft()
    known = {name: _field(name, draft) for name in _FIELDS}
    if draft is not None:
        known["external_reference_id"] = draft.external_reference_id
    return {name: str(value) for name, value in known.items() if value is not None}


def _field(name: str, draft: LogDraft | None) -> Any:
    # Not from recorded answers: they are behind a lock, and its holder may write a log record.
    while draft is not None:
        for source in (draft.named, draft.scope.fields, draft.inputs):
            if source.get(name) is not None:
                return source[name]
        # A log inherits only the session from its enclosing call.
        draft = draft.parent if name == "session_id" else None
    return current_scope().fields.get(name)


class LogContextFilter(logging.Filter):
    """Adds `log_context()` to the records of `logging`: attributes for format strings and for JSON formatters.

    Add it to a handler, so that it sees the records of all loggers. Attributes that a record already has, for example
    from `extra=`, are kept. It lets every record through.

    Args:
        missing: the value of unknown attributes.

    >>> handler = logging.StreamHandler()
    >>> handler.setFormatter(logging.Formatter("%(session_id)s %(external_reference_id)s %(message)s"))
    >>> handler.addFilter(LogContextFilter())
    """

    def __init__(self, *, missing: str | None = "-") -> None:
        super().__init__()
        self._missing = missing

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes to a record; return True."""
        with _guard.shield("adding to a log record"):
            known = log_context()
            for name in _NAMES:
                if not hasattr(record, name):
                    setattr(record, name, known.get(name, self._missing))
        return True


def add_log_context(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add `log_context()` to a structlog event, as one of its processors; existing keys are kept.

    >>> with athina_session("thread_1"):
    ...     add_log_context(None, "info", {"event": "asked"})
    {'event': 'asked', 'session_id': 'thread_1'}
    """
    with _guard.shield("adding to an event of structlog"):
        for name, value in log_context().items():
            event.setdefault(name, value)
    return event
