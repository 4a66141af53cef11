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


def send(kind: Kind, target: str, fields: Mapping[str, Any], redaction: Redaction) -> None:
    """Commit a change, without what is kept out of logs. `fields`: data. Never raises."""
    with _guard.shield("writing a change of a log"):
        kept = redacted(redaction, fields) if redaction else dict(fields)
        _write(kind, target, kept)


def _write(kind: Kind, target: str, fields: dict[str, Any]) -> None:
    runtime = _runtime.active()
    if runtime is None:
        _runtime.afterwards(lambda: _write(kind, target, fields))
    # Redaction may have left nothing to change.
    elif fields:
        runtime.change(kind, target, fields)
