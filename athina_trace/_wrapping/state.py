"""The one context variable of this package: who is talking, and which log is open.

Both are in one variable because a stream sets and restores them around each of its steps, and to set a context
variable is the dearest part of that.
"""

from __future__ import annotations

import contextvars
from typing import Any

State = tuple[Any, Any]
"""The `Scope`, and the draft of the log that is open; None for each that is not there."""

current: contextvars.ContextVar[State] = contextvars.ContextVar("athina_trace", default=(None, None))
