"""Logs and sessions as JSON, under one spelling.

Fields of a log have Athina's names (`session_id`, `external_reference_id`, …). Times are seconds since the epoch, as in
`status()`; their names end in `_at`.
"""

from __future__ import annotations

from typing import Any

from athina_trace._delivery.sqlite import Row
from athina_trace.viewer.conversation import NO_LIMITS, read_turn
from athina_trace.viewer.queries import StoredLog


def delivery_record(log: StoredLog) -> dict[str, Any]:
    """Return a log's identity and delivery state."""
    row = log.row
    # Not `made`, which is a count in status().
    known = {name: row[name] for name in ("state", "status", "reason", "prompt_run_id") if row[name] is not None}
    return {"id": row["id"], "made_at": row["made"], "external_reference_id": row["reference"], **known}


def log_record(log: StoredLog) -> dict[str, Any]:
    """Return a log with its delivery; `log` holds its fields as they are sent, with later updates applied."""
    return {**delivery_record(log), "log": log.fields}


def dataset_record(log: StoredLog) -> dict[str, Any]:
    """Return a log as a row of an Athina dataset, with its feedback."""
    turn = read_turn(log, NO_LIMITS)
    return {
        "query": turn.question.shown,
        "context": [each.shown for each in turn.context],
        "response": turn.answer.shown,
        "expected_response": turn.expected.shown,
        "user_feedback": log.row["feedback"],
        "user_feedback_comment": turn.comment.shown,
    }


def session_record(row: Row) -> dict[str, Any]:
    """Return the sums of a session, including the estimated part of its cost, and the number of logs without a cost."""
    return {
        "session_id": row["name"],
        "customer_id": row["customer"],
        "customer_user_id": row["user"],
        "environment": row["environment"],
        "user_query": row["question"],
        "turns": row["turns"],
        "steps": row["steps"],
        "total_tokens": row["tokens"],
        "cost": row["cost"],
        "estimated_cost": row["estimated"],
        "unpriced": row["unpriced"],
        "errors": row["errors"],
        "liked": row["liked"],
        "disliked": row["disliked"],
        "began_at": row["began"],
        "last_at": row["last"],
    }
