"""Remembers answers: each has one place, whichever sources see it, and in whatever order.

A source knows an answer by names: its server's id for it, its span or its run. If the server sends no id, or repeats
one, the answer is recognised by what surrounds it: the answer to a request that an instrumented client makes inside a
model's span is that span's answer. Some instrumentations create a span only when the request is over, so that it
surrounds nothing: without an id, such an answer is recognised by its content, for as long as these take to report it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from athina_trace._answers.records import Answer, Key

__all__ = ["Ledger", "Place"]

_MOST_ALIKE = 32
"""How many answers with one name are distinguished; some servers give all answers the same id."""
_MOST_LIKE = 4
"""The same for names made from the content: benchmarks ask the same question again and again."""
_LIKE_SECONDS = 10.0
"""For how many seconds the same content from another source means the same answer: it usually follows at once."""
_BY_LIKENESS, _BY_ID, _BY_ENCLOSURE, _BY_NAME = 1, 2, 3, 6
"""How strongly a match shows that two sources saw one answer: any is enough, several are better, a name is certain."""
_VOTES = {"like": _BY_LIKENESS, "id": _BY_ID}

V = TypeVar("V")


@dataclass(slots=True, eq=False)
class Place(Generic[V]):
    """One answer, and where it is kept."""

    key: Key
    """Its key in the records of its log."""
    value: V
    session: object
    seen: float = 0.0
    """When a source last saw it."""
    names: tuple[Key, ...] = ()
    within: tuple[Key, ...] = ()
    """The spans and runs around it."""
    requests: dict[str, int | str] = field(default_factory=dict)
    """By source, the request or span with which it saw the answer."""
    failed: bool = False
    query: int = 0
    """The hash of its question; the question itself may be long."""


class Ledger(Generic[V]):
    """The newest `most` answers. Not thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._places: deque[Place[V]] = deque()
        # Tuples, since nearly all have one item, and thousands are kept and freed.
        self._named: dict[Key, tuple[Place[V], ...]] = {}
        self._enclosed: dict[Key, tuple[Place[V], ...]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def find(
        self, answer: Answer, *, within: tuple[Key, ...] = (), session: object = None, now: float = 0.0
    ) -> Place[V] | None:
        """Return the place of an answer that another source has seen, or this source, with the same request.

        Or with a request inside: a framework may mark the classes and functions around a request as models, too.

        Args:
            answer: this source's snapshot. Among its names, `("like", …)` is for answers without an id.
            within: the spans and runs in which this source saw it.
            session: the session of the program's own scope; an id alone does not identify answers across sessions.
            now: a monotonic reading, in seconds.
        """
        names = _names(answer)
        # Most answers are new.
        if not within and self._named.keys().isdisjoint(names) and self._enclosed.keys().isdisjoint(names):
            return None
        best, most = None, 0
        for place, vote in self._votes(names, within).items():
            known = place.requests.get(answer.source)
            if known is not None and answer.request is not None:
                # Different requests of one source are different answers, even if the server repeats their id.
                if known != answer.request and not _is_around(answer, names, place):
                    continue
            elif vote == _BY_ID and session is not None is not place.session != session:
                continue
            if vote == _BY_LIKENESS and now > place.seen + _LIKE_SECONDS:
                continue
            if _are_others(names, place.names):
                continue
            # Of several attempts in one span, take one that also failed or also succeeded; of those, the last.
            score = 2 * vote + (place.failed == (answer.error is not None))
            if score >= most:
                best, most = place, score
        return best

    def _votes(self, names: tuple[Key, ...], within: tuple[Key, ...]) -> dict[Place[V], int]:
        """Return how well each place matches the names of this answer."""
        votes: dict[Place[V], int] = {}
        for name in names:
            for place in self._named.get(name, ()):
                votes[place] = votes.get(place, 0) + _VOTES.get(name[0], _BY_NAME)
            for place in self._enclosed.get(name, ()):
                votes[place] = votes.get(place, 0) + _BY_ENCLOSURE
        for name in within:
            for place in self._named.get(name, ()):
                votes[place] = votes.get(place, 0) + _BY_ENCLOSURE
        return votes

    def put(
        self, answer: Answer, value: V, *, within: tuple[Key, ...] = (), session: object = None, now: float = 0.0
    ) -> Place[V]:
        """Give an answer a new place."""
        place = Place(answer.key, value, session, query=hash(answer.query))
        self._places.append(place)
        self.note(place, answer, within=within, now=now)
        if len(self._places) > self._most:
            oldest = self._places.popleft()
            _remove(self._named, oldest.names, oldest)
            _remove(self._enclosed, oldest.within, oldest)
        return place

    def note(self, place: Place[V], answer: Answer, *, within: tuple[Key, ...] = (), now: float = 0.0) -> None:
        """Note the names that a further source has for an answer."""
        place.seen = now
        place.names = _add(self._named, place.names, _names(answer), place)
        if within:
            place.within = _add(self._enclosed, place.within, within, place)
        if answer.request is not None:
            place.requests.setdefault(answer.source, answer.request)
        if answer.error is not None:
            place.failed = True


def _is_around(answer: Answer, names: tuple[Key, ...], place: Place[V]) -> bool:
    """Return whether an answer only repeats one inside it: to the same question, without tokens or an id of its own."""
    if answer.usage or answer.key not in place.within or place.query != hash(answer.query):
        return False
    if answer.query is None and answer.text:
        return False  # nothing shows that its text is a repetition
    return not any(name[0] == "id" for name in names)


def _are_others(names: tuple[Key, ...], known: tuple[Key, ...]) -> bool:
    """Return whether two answers have ids but no common name: while a stream is read, another model may be asked."""
    if not any(name[0] == "id" for name in names) or not any(name[0] == "id" for name in known):
        return False
    return not any(name in known for name in names if name[0] != "like")


def _names(answer: Answer) -> tuple[Key, ...]:
    return answer.names if answer.key in answer.names else (answer.key, *answer.names)


def _add(
    index: dict[Key, tuple[Place[V], ...]], own: tuple[Key, ...], names: tuple[Key, ...], place: Place[V]
) -> tuple[Key, ...]:
    """Index a place under further names; return all of its names."""
    alone = (place,)
    new = tuple([name for name in names if name not in own]) if own else names
    for name in new:
        alike = index.setdefault(name, alone)
        if alike is not alone:
            index[name] = (*alike, place)[-(_MOST_LIKE if name[0] == "like" else _MOST_ALIKE) :]
    return own + new


def _remove(index: dict[Key, tuple[Place[V], ...]], names: tuple[Key, ...], place: Place[V]) -> None:
    for name in names:
        alike = index.pop(name, ())
        if alike != (place,) and (others := tuple(each for each in alike if each is not place)):
            index[name] = others
