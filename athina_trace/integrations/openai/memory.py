"""What earlier requests told that a later one leaves out, for a bounded number of threads and conversations.

A response that goes on from an earlier one, or from a conversation, may bring nothing but the outputs of tools: what
the user asked, and where the chain began, were told before. A run finds its question among the messages that were
posted to its thread before.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from athina_trace.integrations.openai.readings import Key, Message

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["NOTHING", "Bounded", "Chain", "Memory"]

_MOST_CHAINS = 4096
_MOST_THREADS = 1024
_MOST_MESSAGES = 8
_LONGEST = 20_000
"""Characters of a question that is remembered; longer ones would add up."""

V = TypeVar("V")


class Bounded(Generic[V]):
    """The newest `most` values by key. Not for several threads at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[object, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def get(self, key: object) -> V | None:
        """The value of `key`, if it is still there."""
        return self._values.get(key)

    def put(self, key: object, value: V) -> V | None:
        """Keep a value as the newest; gives the oldest one back where it had to go."""
        self._values[key] = value
        self._values.move_to_end(key)
        return self._values.popitem(last=False)[1] if len(self._values) > self._most else None

    def pop(self, key: object) -> V | None:
        """Take a value out."""
        return self._values.pop(key, None)

    def values(self) -> list[V]:
        """All values, the oldest first."""
        return list(self._values.values())


class Chain(NamedTuple):
    """Where a response stands: the session it belongs to, and what the user asked last."""

    session: str | None = None
    query: str | None = None


@dataclass(frozen=True)
class _Thread:
    messages: tuple[Message, ...] = ()
    answered: bool = False


NOTHING = Chain()


class Memory:
    """The newest chains and threads."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin with nothing; a forked child may find the lock held by a thread that it does not have."""
        self._lock = threading.Lock()
        self._chains: Bounded[Chain] = Bounded(_MOST_CHAINS)
        # What was told since the last question: most programs never ask, and the call that tells should not pay.
        self._news: deque[tuple[str | None, str | None, str | None, bool]] = deque(maxlen=_MOST_CHAINS)
        self._threads: Bounded[_Thread] = Bounded(_MOST_THREADS)

    def before(self, *keys: str | None) -> Chain:
        """What is known of the first of these responses and conversations that is known."""
        with self._lock:
            self._take_news()
            known = (self._chains.get(key) for key in keys if key is not None)
            return next((chain for chain in known if chain is not None), NOTHING)

    def has(self, key: Key) -> bool:
        """Whether this answer is a response that came, and was logged, before."""
        kind, own = key
        return kind == "response" and self.before(own) is not NOTHING

    def _take_news(self) -> None:
        with suppress(IndexError):
            while True:
                own, session, query, chained = self._news.popleft()
                if own is not None:
                    self._chains.put(own, Chain(session or own, query))
                if session is not None and not chained:
                    self._chains.put(session, Chain(session, query))

    def responded(self, own: str | None, session: str | None, query: str | None, *, chained: bool) -> None:
        """A response came: its id, its session, what the user asked, and whether it goes on from another response."""
        if query is not None and len(query) > _LONGEST:
            query = None
        self._news.append((own, session, query, chained))

    def said(self, conversation: str, query: str) -> None:
        """The user said something in a conversation, without a response being asked for."""
        self._news.append((None, conversation, query[:_LONGEST], False))

    def posted(self, messages: Iterable[Message]) -> None:
        """Messages of the user were put on threads."""
        for message in messages:
            if message.thread is not None and message.role == "user" and len(message.text or "") <= _LONGEST:
                self._post(message.thread, message)

    def _post(self, thread: str, message: Message) -> None:
        with self._lock:
            known = self._threads.get(thread) or _Thread()
            earlier = () if known.answered else known.messages[1 - _MOST_MESSAGES :]
            self._threads.put(thread, _Thread((*earlier, message)))

    def asked(self, thread: str | None) -> tuple[Message, ...]:
        """What the user said last on a thread, as far as it was posted from here."""
        with self._lock:
            known = self._threads.get(thread)
        return () if known is None else known.messages

    def answered(self, thread: str | None) -> None:
        """A run has answered: what the user says next begins anew."""
        with self._lock:
            known = self._threads.get(thread)
            if known is not None:
                self._threads.put(thread, replace(known, answered=True))
