"""Entries: each is one request to Athina, kept as the bytes that will be sent."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from pydantic_core import to_json

from athina_trace import _guard
from athina_trace._delivery.routes import Kind
from athina_trace._serialization import plain, storable

MAX_KEY_LENGTH = 256
"""In characters."""
_NUL = rb"\u0000"
_NULS = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
"""NUL in JSON; after an odd number of backslashes the same characters are plain text."""


class Entry(NamedTuple):
    """One request to be made, as it is put into an outbox.

    Attributes:
        ordering_key: the conversation it belongs to; the entries of a key are sent strictly in order.
        kind: `routes` says where each kind is sent.
        reference: the log it is about: its `external_reference_id` (for "update_by_id" its `prompt_run_id`).
        made: when it was made, seconds since the epoch.
        body: the JSON to send.
    """

    ordering_key: str
    kind: Kind
    reference: str
    made: float
    body: bytes


def log_entry(fields: dict[str, Any], made: float) -> Entry:
    """Return the entry of a finished log, a JSON object to send."""
    reference = fields["external_reference_id"]
    # A log outside any session is its own conversation, and waits for no other.
    return new_entry(fields.get("session_id") or reference, "log", reference, made, fields)


def new_entry(ordering_key: str, kind: Kind, reference: str, made: float, fields: dict[str, Any]) -> Entry:
    """Return an entry; its texts may be any, and are made `storable`. For the body see `without_nul`."""
    try:
        body = to_json(fields)
    except Exception as error:  # noqa: BLE001 - values that no rule foresaw: a simplified log is better than none
        _guard.raise_if_the_programs(error)
        body = to_json(plain(fields), fallback=str, inf_nan_mode="strings", serialize_unknown=True)
    return Entry(storable(ordering_key)[:MAX_KEY_LENGTH], kind, storable(reference), made, body)


def without_nul(body: bytes) -> bytes:
    """Replace NUL in JSON, which Athina cannot store, with U+FFFD. Too slow to be done within a call."""
    return _NULS.sub(rb"\1\\ufffd", body) if _NUL in body else body


class Stored(NamedTuple):
    """An entry in the store; ids are in the order in which the entries were put."""

    id: int
    kind: Kind
    reference: str
    body: bytes


class Lease(NamedTuple):
    """The exclusive right to send the oldest entries of an ordering key, until it is released or its owner dies."""

    ordering_key: str
    attempts: int
    entries: list[Stored]
