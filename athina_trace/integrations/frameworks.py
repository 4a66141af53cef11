"""Shared by the integrations of frameworks: fields in a call's metadata, and the source of an answer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final
from uuid import UUID

from athina_trace._answers.memory import UNCHAINED
from athina_trace._answers.records import AS_TYPED, Answer, Record, ToolCall
from athina_trace.context import Scope
from athina_trace.integrations.openai.normalise import normalise
from athina_trace.integrations.openai.request_record import memory
from athina_trace.schema import attributes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["MOST_RUNNING", "follow_chain", "identifier", "named_by", "seen_by"]

MOST_RUNNING: Final = 8192
"""Maximum number of remembered runs, since a run may never end, for example with a forgotten stream."""
_IDENTIFIERS: Final = ("customer_id", "customer_user_id", "environment", "prompt_slug")


def named_by(metadata: object, scope: Scope, *, further: Iterable[str] = ()) -> Scope:
    """Return a scope, with fields from the metadata of one call that the scope does not set, except the session.

    The scope takes precedence, so that a log is the same if an instrumented client, which does not know the metadata,
    saw the answer first. A session in the metadata takes precedence, since `Origin.of_run` passes it to such a client.

    Args:
        metadata: any object that the program passed to the framework.
        scope: the scope that the call was made in.
        further: names of further fields, besides identifiers, the expected response and custom attributes.
    """
    if not isinstance(metadata, dict) or not metadata:
        return scope
    # Frameworks put many of their own keys into it, and programs rarely any.
    names = [name for name in (*_IDENTIFIERS, "expected_response", *further) if metadata.get(name) is not None]
    attributes = normalise(metadata["custom_attributes"]) if "custom_attributes" in metadata else None
    if not names and attributes is None:
        return scope
    read = {name: (identifier if name in _IDENTIFIERS else normalise)(metadata[name]) for name in names}
    added = {name: value for name, value in read.items() if value is not None}
    attributes = attributes_of(attributes) if isinstance(attributes, dict) else {}
    return replace(scope, fields={**added, **scope.fields}, attributes={**attributes, **scope.attributes})


def identifier(value: object) -> str | None:
    """Return an id as text; None if it is empty or anything else."""
    return str(value) or None if type(value) in (str, int, UUID) else None


def seen_by(source: str, run: str, records: Sequence[Record]) -> Answer:
    """Mark records as reported by a framework about one of its runs; return the answer, which is the first record.

    Args:
        source: the framework.
        run: the framework's id of the run, which is one request and one answer.
        records: read from objects of a provider's API that the framework passes on.
    """
    answer = next(record for record in records if isinstance(record, Answer))
    answer.key, answer.request = (source, run), run
    answer.source, answer.fidelity = source, AS_TYPED
    if not any(answer.usage.values()):
        answer.usage = {}  # frameworks report a missing count, as in most streams, as zero
    for record in records:
        if isinstance(record, ToolCall):
            record.owner, record.source = answer.key, source
    return answer


def follow_chain(answer: Answer, own: str | None, *, is_continuing: bool = True) -> None:
    """Give a response the session and question of those that it continues, and remember it for those that follow.

    If a request contains only outputs of tools, the question is in an earlier one.

    Args:
        answer: the response, or the failure of its request.
        own: its server's id for it, if it is a response.
        is_continuing: whether it may continue others; responses of one session need not if the program named that.
    """
    if own is None and answer.previous is None and answer.session is None:
        return
    # The previous response first: its chain may have a newer question than the one that began the session.
    known = memory.chain_of(answer.previous, answer.session) if is_continuing else UNCHAINED
    answer.session = answer.session or known.session or answer.previous
    answer.query = answer.query or known.query
    if own is not None and answer.error is None:
        memory.remember_response(own, answer.session, answer.query, chained=answer.previous is not None)
