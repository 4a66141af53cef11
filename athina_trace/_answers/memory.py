"""What earlier requests brought that a later one leaves out, for a bounded number of threads and conversations.

A response that continues an earlier one, or a conversation, may bring nothing but the outputs of tools: what the user
asked, and where the chain began, came before. A run finds its question among the messages that were posted to its
thread before.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from athina_trace._answers.records import ThreadMessage

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["UNCHAINED", "Chain", "ConversationMemory", "Newest"]

_MOST_CHAINS = 4096
_MOST_THREADS = 1024
_MOST_MESSAGES = 8
_LONGEST = 20_000
"""Characters of a question that is remembered; longer ones would add up."""

V = TypeVar("V")


class Newest(Generic[V]):
    """The newest `most` values by key.

    Without a lock, which a forked child could find held: each step is one operation of a dictionary. What takes several
    steps that must agree, such as to look first and put then, needs the lock of its caller.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[object, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def get(self, key: object) -> V | None:
        """Return the value of `key`, if it is still there."""
        return self._values.get(key)

    def put(self, key: object, value: V) -> V | None:
        """Keep a value as the newest; returns the oldest one where it had to make room."""
        self._values.pop(key, None)  # else it would keep its place
        self._values[key] = value
        if len(self._values) > self._most:
            try:
                return self._values.popitem(last=False)[1]
            except KeyError:  # another thread has made room meanwhile
                pass
        return None

    def pop(self, key: object) -> V | None:
        """Take a value out."""
        return self._values.pop(key, None)

    def values(self) -> list[V]:
        """Return all values, the oldest first."""
        return list(self._values.values())


class Chain(NamedTuple):
    """A place in a chain of responses: the session that it belongs to, and what the user asked last."""

    session: str | None = None
    query: str | None = None


UNCHAINED = Chain()


@dataclass(frozen=True)
class _Thread:
    messages: tuple[ThreadMessage, ...] = ()
    answered: bool = False


class ConversationMemory:
    """The newest chains and threads. For several threads at once."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything; a forked child may find the lock held by a thread that it does not have."""
        self._lock = threading.Lock()
        self._chains: Newest[Chain] = Newest(_MOST_CHAINS)
        self._threads: Newest[_Thread] = Newest(_MOST_THREADS)

    def chain_of(self, *keys: str | None) -> Chain:
        """Return what is known of the first of these responses and conversations that is known."""
        with self._lock:
            known = (self._chains.get(key) for key in keys if key is not None)
            return next((chain for chain in known if chain is not None), UNCHAINED)

    def remember_response(self, own: str | None, session: str | None, query: str | None, *, chained: bool) -> None:
        """Remember a response: its id, its session, what the user asked, and whether it continues another response."""
        # Rather none than a part of it, which would be logged as the question.
        if query is not None and len(query) > _LONGEST:
            query = None
        with self._lock:
            if own is not None:
                self._chains.put(own, Chain(session or own, query))
            if session is not None and not chained:
                self._chains.put(session, Chain(session, query))

    def remember_question(self, conversation: str, query: str) -> None:
        """Remember what the user wrote in a conversation without a response being asked for."""
        self.remember_response(None, conversation, query[:_LONGEST], chained=False)

    def remember_posted(self, messages: Iterable[ThreadMessage]) -> None:
        """Remember messages of the user that were put on threads."""
        for message in messages:
            if message.thread is None or message.role != "user" or len(message.text or "") > _LONGEST:
                continue
            with self._lock:
                known = self._threads.get(message.thread) or _Thread()
                # What came before the last answer was a question of its own.
                earlier = () if known.answered else known.messages[1 - _MOST_MESSAGES :]
                self._threads.put(message.thread, _Thread((*earlier, message)))

    def posted_to(self, thread: str | None) -> tuple[ThreadMessage, ...]:
        """Return what the user posted to a thread last, as far as it was posted from here."""
        with self._lock:
            known = self._threads.get(thread)
        return () if known is None else known.messages

    def answered(self, thread: str | None) -> None:
        """Note that a run has answered: what the user posts next begins a new question."""
        with self._lock:
            known = self._threads.get(thread)
            if known is not None:
                self._threads.put(thread, replace(known, answered=True))
