"""The one context variable of this package: the current scope and the open log.

Both are in one variable because a stream sets and restores them around each step, and setting a context variable is the
most expensive part of that.
"""

from __future__ import annotations

import contextvars
from typing import Any

State = tuple[Any, Any]
"""The `Scope` and the draft of the open log; None if there is none."""

current: contextvars.ContextVar[State] = contextvars.ContextVar("athina_trace", default=(None, None))
