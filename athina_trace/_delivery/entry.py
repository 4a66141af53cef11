"""What travels: one entry is one request to Athina, kept as the bytes that will be sent."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic_core import to_json

from athina_trace import _guard
from athina_trace._delivery.routes import Kind
from athina_trace._values import plain

LONGEST_LANE = 256
"""Characters."""


class Entry(NamedTuple):
    """One request to be made, as it is put into an outbox.

    Attributes:
        lane: the conversation it belongs to; entries of one lane leave strictly in order.
        kind: what it is; where it is sent stands in `routes`. A log is made of what is "unread", which has neither lane
            nor reference yet: see `Outbox`.
        reference: what it is about: the log's `external_reference_id` (for "update_by_id" its `prompt_run_id`).
        made: seconds since the epoch.
        body: the JSON to send.
    """

    lane: str
    kind: Kind | Literal["unread"]
    reference: str
    made: float
    body: bytes


def encoded(fields: dict[str, Any]) -> bytes:
    """The body of an entry."""
    try:
        return to_json(fields)
    except Exception as error:  # noqa: BLE001 - whatever slipped through: a log in plainer words beats none
        _guard.pass_on(error)
        return to_json(plain(fields), fallback=str, inf_nan_mode="strings", serialize_unknown=True)


def log_entry(fields: dict[str, Any], made: float) -> Entry:
    """The entry of a finished log, a JSON object to send."""
    reference = fields["external_reference_id"]
    lane = (fields.get("session_id") or reference)[:LONGEST_LANE]
    return Entry(lane, "log", reference, made, encoded(fields))


class Stored(NamedTuple):
    """An entry inside the outbox: `id` orders all entries in the order in which they were put."""

    id: int
    kind: Kind
    reference: str
    body: bytes


class Lease(NamedTuple):
    """The right to send a lane's oldest entries, held until they are settled or the owner dies."""

    lane: str
    attempts: int
    entries: list[Stored]
