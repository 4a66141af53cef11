"""Which answers were seen already: one answer has one place, whichever sources see it, and in whatever order.

A source knows an answer by names: the id that its server gave it, the span or the run that it is. Where the server gave
none, or repeats one, it is known by what surrounds it: the request that an instrumented client makes inside the span of
a model is the answer of that span.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from athina_trace._answers.records import Answer, Key

__all__ = ["Ledger", "Place"]

_MOST_ALIKE = 32
"""Answers of one name that are distinguished; some servers give all of theirs one id."""
_BY_ID, _BY_ENCLOSURE, _BY_NAME = 2, 3, 6
"""How much speaks for two sources having seen one answer: either is enough, both are better, an own name is certain."""

V = TypeVar("V")


@dataclass(slots=True, eq=False)
class Place(Generic[V]):
    """One answer, and where it is kept."""

    key: Key
    """What it is called in the records of its log."""
    value: V
    session: object
    names: set[Key] = field(default_factory=set)
    within: set[Key] = field(default_factory=set)
    """The spans and runs around it, as far as they have ended in no answer of their own."""
    requests: dict[str, int | str] = field(default_factory=dict)
    """Of each source the request or span by which it saw the answer."""
    failed: bool = False


class Ledger(Generic[V]):
    """The newest `most` answers. Not for several threads at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._places: OrderedDict[int, Place[V]] = OrderedDict()
        self._named: dict[Key, list[Place[V]]] = {}
        self._enclosed: dict[Key, list[Place[V]]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def find(self, answer: Answer, *, within: tuple[Key, ...] = (), session: object = None) -> Place[V] | None:
        """Return the place of an answer that another source has seen, or this one, with the same request.

        Args:
            answer: what this source says of it.
            within: the spans and runs that this source saw it in.
            session: what the program's own scope names the session; an id alone makes no answer of two sessions one.
        """
        votes: dict[int, int] = {}
        found: dict[int, Place[V]] = {}
        for place, weight in self._candidates(answer, within):
            found[id(place)] = place
            votes[id(place)] = votes.get(id(place), 0) + weight
        best, most = None, 0
        for key, place in found.items():
            if self._contradicts(place, answer, votes[key], session):
                continue
            # Of several attempts within one span, it is the one that ended alike; of those the last.
            vote = 2 * votes[key] + (place.failed == (answer.error is not None))
            if vote >= most:
                best, most = place, vote
        return best

    def _candidates(self, answer: Answer, within: tuple[Key, ...]) -> Iterator[tuple[Place[V], int]]:
        for name in dict.fromkeys((answer.key, *answer.names)):
            by_id = name[0] == "id"
            for place in self._named.get(name, ()):
                yield place, _BY_ID if by_id else _BY_NAME
            for place in self._enclosed.get(name, ()):
                yield place, _BY_ENCLOSURE
        for name in within:
            for place in self._named.get(name, ()):
                yield place, _BY_ENCLOSURE

    def _contradicts(self, place: Place[V], answer: Answer, votes: int, session: object) -> bool:
        """Whether two requests of one source, or an id that servers repeat, only look like one answer."""
        known = place.requests.get(answer.source)
        if known is not None and answer.request is not None:
            return known != answer.request
        differs = session is not None and place.session is not None and session != place.session
        return votes <= _BY_ID and differs

    def put(self, answer: Answer, value: V, *, within: tuple[Key, ...] = (), session: object = None) -> Place[V]:
        """Give an answer a place of its own."""
        place = Place(answer.key, value, session)
        self._places[id(place)] = place
        self.note(place, answer, within=within)
        if len(self._places) > self._most:
            self._drop(self._places.popitem(last=False)[1])
        return place

    def note(self, place: Place[V], answer: Answer, *, within: tuple[Key, ...] = ()) -> None:
        """Note what a further source calls an answer."""
        _add(self._named, place, place.names, (answer.key, *answer.names))
        _add(self._enclosed, place, place.within, within)
        if answer.request is not None:
            place.requests.setdefault(answer.source, answer.request)
        place.failed = place.failed or answer.error is not None

    def _drop(self, place: Place[V]) -> None:
        for index, names in ((self._named, place.names), (self._enclosed, place.within)):
            for name in names:
                alike = index.get(name)
                if alike is not None and place in alike:
                    alike.remove(place)
                    if not alike:
                        del index[name]


def _add(index: dict[Key, list[Place[V]]], place: Place[V], own: set[Key], names: tuple[Key, ...]) -> None:
    for name in names:
        if name not in own:
            own.add(name)
            alike = index.setdefault(name, [])
            alike.append(place)
            if len(alike) > _MOST_ALIKE:
                alike.pop(0)
