"""What comes after a log, as data on its way to the writer: changes of it, and a user's feedback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from athina_trace import _guard, _runtime
from athina_trace._pipeline.redaction import Redaction, redacted
from athina_trace._serialization import plain
from athina_trace.schema import ALIASES, attributes_of

Kind = Literal["update", "update_by_id", "feedback"]


def data_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that a program gave, as data under the spelling used inside."""
    inner = {ALIASES.get(name, name): value for name, value in fields.items()}
    return {
        name: attributes_of(value) if name == "custom_attributes" and isinstance(value, Mapping) else plain(value)
        for name, value in inner.items()
    }


def send(
    kind: Kind, target: str, fields: Mapping[str, Any], redaction: Redaction, *, is_captured: bool = False
) -> None:
    """Commit a change, without what is kept out of logs. Never raises.

    Args:
        kind: what the change is.
        target: the reference or id of the log.
        fields: data.
        redaction: what is kept out.
        is_captured: whether no code of the program named the fields. A `before_emit` is given whole logs only: of what
            it has not seen, only counts are sent.
    """
    with _guard.shield("writing a change of a log"):
        _write(kind, target, redacted(redaction, fields) if redaction else dict(fields), is_captured=is_captured)


def _write(kind: Kind, target: str, fields: dict[str, Any], *, is_captured: bool) -> None:
    runtime = _runtime.active()
    if runtime is None:
        _runtime.afterwards(lambda: _write(kind, target, fields, is_captured=is_captured))
        return
    if is_captured and runtime.pipeline.has_hook:
        fields = {name: value for name, value in fields.items() if type(value) in (int, float)}
    # Redaction may have left nothing to change.
    if fields:
        runtime.change(kind, target, fields)
