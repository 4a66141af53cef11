"""What integrations of frameworks have in common: runs that have begun, and what a call's metadata names."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Generic, TypeVar
from uuid import UUID

from athina_trace._answers.records import AS_TYPED, Answer, Record, ToolCall
from athina_trace.context import Scope
from athina_trace.integrations.openai.normalise import normalise
from athina_trace.schema import attributes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Begun", "identifier", "named_by", "seen_by"]

_MOST_BEGUN: Final = 8192
"""Runs that are under way; of a run that never ends, as of a stream that is forgotten, no more is heard."""
_IDENTIFIERS: Final = ("customer_id", "customer_user_id", "environment", "prompt_slug")

V = TypeVar("V")


class Begun(Generic[V]):
    """The newest runs that have begun and not ended, by their ids.

    Without a lock, which a forked child could find held: each step is one operation of a dictionary.
    """

    def __init__(self) -> None:
        self._values: OrderedDict[object, V] = OrderedDict()

    def put(self, run: object, value: V) -> None:
        """Keep what belongs to a run."""
        self._values[run] = value
        if len(self._values) > _MOST_BEGUN:
            with suppress(KeyError):
                self._values.popitem(last=False)

    def get(self, run: object) -> V | None:
        """Return what belongs to a run."""
        return self._values.get(run)

    def values(self) -> list[V]:
        """Return what belongs to all runs that have not ended."""
        return list(self._values.values())

    def pop(self, run: object) -> V | None:
        """Take out what belongs to a run that has ended."""
        return self._values.pop(run, None)


def named_by(metadata: object, scope: Scope, *, further: Iterable[str] = ()) -> Scope:
    """Return a scope, and what the metadata of one call names of what the scope leaves open, but for the session.

    The scope wins, so that a log is the same where an instrumented client, which knows no metadata, saw the answer
    first. A session wins over the scope's: `Origin.of_run` makes it known to such a client.

    Args:
        metadata: what the program gave to the framework, any object.
        scope: the scope that the call was made in.
        further: names of fields beside identifiers, the expected response and custom attributes.
    """
    if not isinstance(metadata, dict) or not metadata:
        return scope
    # Frameworks put much of their own into it, and programs seldom anything.
    names = [name for name in (*_IDENTIFIERS, "expected_response", *further) if metadata.get(name) is not None]
    attributes = normalise(metadata["custom_attributes"]) if "custom_attributes" in metadata else None
    if not names and attributes is None:
        return scope
    read = {name: (identifier if name in _IDENTIFIERS else normalise)(metadata[name]) for name in names}
    added = {name: value for name, value in read.items() if value is not None}
    attributes = attributes_of(attributes) if isinstance(attributes, dict) else {}
    return replace(scope, fields={**added, **scope.fields}, attributes={**attributes, **scope.attributes})


def identifier(value: object) -> str | None:
    """Return an id that a program gave as text; None for what is none, and for an empty one."""
    return str(value) or None if type(value) in (str, int, UUID) else None


def seen_by(source: str, run: str, records: Sequence[Record]) -> Answer:
    """Mark records of an answer, which is the first, as what a framework says of one of its runs; returns the answer.

    Args:
        source: the framework.
        run: its id of the run, which is one request and one answer.
        records: as they were read off the objects of a provider's API that the framework passes on.
    """
    answer = next(record for record in records if isinstance(record, Answer))
    answer.key, answer.request = (source, run), run
    answer.source, answer.fidelity = source, AS_TYPED
    for record in records:
        if isinstance(record, ToolCall):
            record.owner, record.source = answer.key, source
    return answer
