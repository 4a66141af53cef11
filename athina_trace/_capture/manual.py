"""Logging by hand, and what comes after a log: changes of it, and a user's feedback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from athina_trace import _guard, _runtime
from athina_trace._capture.arguments import Options
from athina_trace._capture.draft import LogDraft
from athina_trace._capture.emission import emit
from athina_trace._pipeline.redaction import Redaction, redacted
from athina_trace._serialization import plain
from athina_trace._wrapping.calls import complete
from athina_trace.context import current_scope
from athina_trace.schema import ALIASES, FIELDS, attributes_of, nearest

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from athina_trace.schema import ChangedFields, LogFields

_FEEDBACK = (1, 0, -1)


def log_inference(**fields: Unpack[LogFields]) -> str:
    """Log one inference by hand; gives its `external_reference_id`, the caller's own or a new UUIDv7.

    Session, customer and the settings' defaults are filled in as for a decorated call, and the log is committed to
    disk before this returns. Raises `TypeError` for a field that Athina does not know, naming the nearest one.

    >>> reference = log_inference(user_query="Where is it?", response="On its way.", language_model_id="gpt-4o")
    >>> recent_logs()[-1]["response"]
    'On its way.'
    """
    _check("log_inference", fields)
    named: dict[str, Any] = {"response_time": None, **fields}
    draft = LogDraft(named, {}, {})
    with _guard.shield("log_inference()"):
        draft.open()
        try:
            complete(emit(draft, Options()))
        finally:
            draft.close()
    return str(draft.external_reference_id)


def update_log(
    *, external_reference_id: str | None = None, prompt_run_id: str | None = None, **fields: Unpack[ChangedFields]
) -> None:
    """Change fields of a log that was made before, here or in another process.

    Name the log by its `external_reference_id`, as `current_log()` and `log_inference` give it, or by Athina's own
    `prompt_run_id`, as `on_delivered` gives it. The change is committed to disk before this returns, and arrives
    behind the log itself. Raises `TypeError` where no log, both ids, no field, or an unknown field is given.

    >>> update_log(external_reference_id=log_inference(response="On its way."), expected_response="It is there.")
    """
    if (external_reference_id is None) == (prompt_run_id is None):
        raise TypeError("update_log() takes either external_reference_id or prompt_run_id")
    if not fields:
        raise TypeError("update_log() takes the fields to change, such as expected_response='…'")
    _check("update_log", fields)
    kind: Literal["update", "update_by_id"] = "update" if prompt_run_id is None else "update_by_id"
    _send(kind, str(external_reference_id if prompt_run_id is None else prompt_run_id), fields)


def log_feedback(external_reference_id: str, feedback: Literal[1, 0, -1], comment: str | None = None) -> None:
    """Log what a user thought of an answer: 1 for good, -1 for bad, 0 to take it back; `comment` in their words.

    Committed to disk before this returns; arrives behind the log itself. Raises `ValueError` for any other feedback.

    >>> log_feedback(log_inference(response="On its way."), 1, "quick and right")
    """
    if isinstance(feedback, bool) or feedback not in _FEEDBACK:
        raise ValueError(f"log_feedback() takes 1, 0 or -1, got {feedback!r}")
    body: dict[str, Any] = {"external_reference_id": str(external_reference_id), "user_feedback": int(feedback)}
    if comment is not None:
        body["user_feedback_comment"] = plain(comment)
    _send("feedback", str(external_reference_id), body)


def _check(verb: str, fields: Any) -> None:
    for name in fields:
        if ALIASES.get(name, name) not in FIELDS:
            raise TypeError(f"{verb}() got {name!r}, which is no field of an Athina log{nearest(name)}")


def _data_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    inner = {ALIASES.get(name, name): value for name, value in fields.items()}
    return {
        name: attributes_of(value) if name == "custom_attributes" and isinstance(value, Mapping) else plain(value)
        for name, value in inner.items()
    }


def _send(kind: Literal["update", "update_by_id", "feedback"], target: str, given: Mapping[str, Any]) -> None:
    with _guard.shield("writing a change of a log"):
        scope = current_scope()
        fields = dict(given) if kind == "feedback" else _data_of(given)
        kept = redacted(scope.redaction, fields) if scope.redaction & Redaction.NAMED else fields
        _change(kind, target, kept)


def _change(kind: Literal["update", "update_by_id", "feedback"], target: str, fields: dict[str, Any]) -> None:
    runtime = _runtime.active()
    if runtime is None:
        _runtime.afterwards(lambda: _change(kind, target, fields))
    else:
        runtime.change(kind, target, fields)
