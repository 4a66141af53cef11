"""Logging by hand, changes of logs, and user feedback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from athina_trace import _guard
from athina_trace._capture import changes
from athina_trace._capture.draft import LogDraft
from athina_trace._capture.emission import emit
from athina_trace._pipeline.redaction import of_named
from athina_trace._serialization import plain
from athina_trace._wrapping.calls import run_now
from athina_trace.context import current_scope
from athina_trace.schema import check_names

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from athina_trace.schema import ChangedFields, LogFields

_FEEDBACK = (1, 0, -1)
_NO_LOG = (None, "")


def log_inference(**fields: Unpack[LogFields]) -> str:
    """Log one inference by hand; return its `external_reference_id`, the caller's own or a new UUIDv7.

    Session, customer and the settings' defaults are filled in as for a decorated call, and the log is on disk before
    this returns. Raises `TypeError` for a field that Athina does not know, naming the nearest one.

    >>> reference = log_inference(user_query="Where is it?", response="On its way.", language_model_id="gpt-4o")
    >>> recent_logs()[-1]["response"]
    'On its way.'
    """
    check_names("log_inference", fields)
    named: dict[str, Any] = {"response_time": None, **fields}
    draft = LogDraft(named, {}, {})
    with _guard.shield("log_inference()"):
        draft.enter()
        try:
            run_now(emit(draft))
        finally:
            draft.leave()
    return str(draft.external_reference_id)


def update_log(
    *, external_reference_id: str | None = None, prompt_run_id: str | None = None, **fields: Unpack[ChangedFields]
) -> None:
    """Change fields of an earlier log, made here or in another process.

    Name the log by its `external_reference_id`, from `current_log()` or `log_inference`, or by Athina's own
    `prompt_run_id`, from `on_delivered`. The change is on disk before this returns, and is delivered after the log
    itself. Raises `TypeError` if no log, both ids, no field, or an unknown field is given.

    >>> update_log(external_reference_id=log_inference(response="On its way."), expected_response="It is there.")
    """
    if external_reference_id is not None and prompt_run_id is not None:
        raise TypeError(
            f"update_log() takes either external_reference_id or prompt_run_id, got both: {external_reference_id!r} "
            f"and {prompt_run_id!r}"
        )
    if external_reference_id in _NO_LOG and prompt_run_id in _NO_LOG:
        raise TypeError(
            "update_log() takes the external_reference_id or the prompt_run_id of a log, got neither; "
            "outside a decorated call, those of current_log() are None"
        )
    if not fields:
        raise TypeError("update_log() takes the fields to change, such as expected_response='…'")
    check_names("update_log", fields)
    kind: Literal["update", "update_by_id"] = "update" if prompt_run_id is None else "update_by_id"
    target = str(external_reference_id if prompt_run_id is None else prompt_run_id)
    with _guard.shield("update_log()"):
        changes.send(kind, target, changes.data_of(fields), of_named(current_scope().redaction))


def log_feedback(external_reference_id: str, feedback: Literal[1, 0, -1], comment: str | None = None) -> None:
    """Log a user's opinion of an answer: 1 for good, -1 for bad, 0 to take it back; `comment` in their words.

    It is on disk before this returns, and is delivered after the log itself. Raises `ValueError` for any other
    feedback, `TypeError` if no log is named.

    >>> log_feedback(log_inference(response="On its way."), 1, "quick and right")
    """
    if isinstance(feedback, bool) or feedback not in _FEEDBACK:
        raise ValueError(f"log_feedback() takes 1, 0 or -1, got {feedback!r}")
    if external_reference_id in _NO_LOG:
        raise TypeError(
            f"log_feedback() takes the external_reference_id of a log, got {external_reference_id!r}; "
            "outside a decorated call, that of current_log() is None"
        )
    reference = str(external_reference_id)
    with _guard.shield("log_feedback()"):
        fields: dict[str, Any] = {"external_reference_id": reference, "user_feedback": int(feedback)}
        if comment is not None:
            fields["user_feedback_comment"] = plain(comment)
        changes.send("feedback", reference, fields, of_named(current_scope().redaction))
