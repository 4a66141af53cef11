"""Passes what follows a log to the writer, as data: changes of the log, and user feedback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from athina_trace import _fork, _guard, _runtime
from athina_trace._pipeline.redaction import Redaction, redacted
from athina_trace._serialization import plain
from athina_trace.schema import ALIASES, attributes_of

if TYPE_CHECKING:
    from athina_trace._pipeline.writer import Change

_NO_ATTRIBUTES: Mapping[str, Any] = MappingProxyType({})

lock = threading.RLock()
"""Held briefly by threads that record into one log at the same time; a finalizer may record meanwhile."""


def _renew_lock() -> None:
    global lock  # noqa: PLW0603 - one for the process
    # In a forked child, it may be held by a thread that exists only in the parent.
    lock = threading.RLock()


_fork.register("capture", after_in_child=_renew_lock)


class LateChanges:
    """Changes of a log whose call has ended: they are written after the log, in order."""

    __slots__ = ("_waiting", "attributes", "redaction")

    def __init__(self, redaction: Redaction) -> None:
        self.redaction = redaction
        """What the decorator and the settings keep out of later records."""
        self.attributes: Mapping[str, Any] = _NO_ATTRIBUTES
        """Custom attributes of the log as it was written: a change of them replaces them all."""
        self._waiting: Sequence[Callable[[], None]] | None = ()
        """Changes that came before the log was written; None once it is."""

    def send(
        self, reference: str, fields: Mapping[str, Any], redaction: Redaction, *, is_captured: bool = False
    ) -> None:
        """Write a change after the log, which another thread may still be masking or passing to a hook."""
        change = partial(send, "update", reference, fields, redaction, is_captured=is_captured)
        with lock:
            if self._waiting is not None:
                self._waiting = (*self._waiting, change)
                return
        change()

    def log_written(self) -> None:
        """Write the changes that came while the log was written; later ones are written at once."""
        while True:
            with lock:
                waiting = self._waiting
                self._waiting = () if waiting else None
            if not waiting:
                return
            # Without the lock, since the program's masks run; then check again, so that changes stay in order.
            for change in waiting:
                change()


def data_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields that a program gave, as data under their internal names."""
    inner = {ALIASES.get(name, name): value for name, value in fields.items()}
    return {
        name: attributes_of(value) if name == "custom_attributes" and isinstance(value, Mapping) else plain(value)
        for name, value in inner.items()
    }


def send(
    kind: Change, target: str, fields: Mapping[str, Any], redaction: Redaction, *, is_captured: bool = False
) -> None:
    """Commit a change, redacted. Never raises.

    Args:
        kind: the kind of change.
        target: the reference or id of the log.
        fields: data.
        redaction: what is kept out.
        is_captured: whether the fields were captured, rather than given by the program. `before_emit` sees whole logs
            only: of fields that it has not seen, only counts are sent.
    """
    with _guard.shield("writing a change of a log"):
        _write(kind, target, redacted(redaction, fields) if redaction else dict(fields), is_captured=is_captured)


def _write(kind: Change, target: str, fields: dict[str, Any], *, is_captured: bool) -> None:
    runtime = _runtime.active()
    if runtime is None:
        _runtime.afterwards(lambda: _write(kind, target, fields, is_captured=is_captured))
        return
    if is_captured and runtime.pipeline.has_hook:
        fields = {name: value for name, value in fields.items() if type(value) in (int, float)}
    # Redaction may have removed all fields.
    if fields:
        runtime.change(kind, target, fields)
