"""Remembers what earlier requests contained and later ones leave out, for a bounded number of conversations.

A request for a response that continues an earlier one, or a conversation, may contain only tool outputs: the user's
question and the start of the chain came before. A run's question is among the messages posted to its thread before.
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
"""Characters of a remembered question; longer ones would use too much memory in total."""

V = TypeVar("V")


class Newest(Generic[V]):
    """The newest `most` values by key.

    Without a lock, which could be held in a forked child: each step is a single operation of a dictionary. For several
    steps that belong together, such as looking first and then putting, the caller needs a lock.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[object, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def get(self, key: object) -> V | None:
        """Return the value of `key`, or None if it is not (or no longer) there."""
        return self._values.get(key)

    def put(self, key: object, value: V) -> V | None:
        """Keep a value as the newest; return the oldest value if that had to make room."""
        self._values[key] = value  # in one step, so that other threads find the old value or the new one
        try:
            self._values.move_to_end(key)
        except KeyError:  # it was the oldest, and another thread has made room by it meanwhile
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
    """A position in a chain of responses: its session, and the user's last question."""

    session: str | None = None
    query: str | None = None


UNCHAINED = Chain()


@dataclass(frozen=True)
class _Thread:
    messages: tuple[ThreadMessage, ...] = ()
    answered: bool = False


class ConversationMemory:
    """The newest chains of responses, and threads of the Assistants API. Thread-safe."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything; in a forked child, a thread that exists only in the parent may hold the lock."""
        self._lock = threading.RLock()  # a finalizer or a signal handler may ask for an answer meanwhile
        self._chains: Newest[Chain] = Newest(_MOST_CHAINS)
        self._threads: Newest[_Thread] = Newest(_MOST_THREADS)

    def chain_of(self, *keys: str | None) -> Chain:
        """Return the chain of the first of these responses and conversations that is known."""
        for key in keys:
            if key is not None and (chain := self._chains.get(key)) is not None:
                return chain
        return UNCHAINED

    def remember_response(self, own: str | None, session: str | None, query: str | None, *, chained: bool) -> None:
        """Remember a response: its id, session and question, and whether it continues another response."""
        # Dropped rather than cut: a part of it would be logged as the question.
        if query is not None and len(query) > _LONGEST:
            query = None
        if own is not None:
            self._chains.put(own, Chain(session or own, query))
        if session is not None and not chained:
            self._chains.put(session, Chain(session, query))

    def remember_question(self, conversation: str, query: str) -> None:
        """Remember what the user added to a conversation without requesting a response."""
        self.remember_response(None, conversation, query[:_LONGEST], chained=False)

    def remember_posted(self, messages: Iterable[ThreadMessage]) -> None:
        """Remember the user's messages that were posted to threads."""
        for message in messages:
            if message.thread is None or message.role != "user" or len(message.text or "") > _LONGEST:
                continue
            with self._lock:
                known = self._threads.get(message.thread) or _Thread()
                # Messages before the last answer belong to an earlier question.
                earlier = () if known.answered else known.messages[1 - _MOST_MESSAGES :]
                self._threads.put(message.thread, _Thread((*earlier, message)))

    def posted_to(self, thread: str | None) -> tuple[ThreadMessage, ...]:
        """Return the user's last messages in a thread, as far as this process posted them."""
        known = self._threads.get(thread)
        return () if known is None else known.messages

    def answered(self, thread: str | None) -> None:
        """Note that a run has answered: the user's next message begins a new question."""
        with self._lock:
            known = self._threads.get(thread)
            if known is not None:
                self._threads.put(thread, replace(known, answered=True))
