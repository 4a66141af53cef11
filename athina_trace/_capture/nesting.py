"""The spans and runs around requests, as sources report them: where they begin, where they end, what they contain.

A framework's run contains the run of a model, which contains the request that an instrumented client makes. What is
noted of a running one applies to everything inside: the conversation that the program passed to the framework, and the
documents that were retrieved for the next answer.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from athina_trace._answers.memory import Newest
from athina_trace._answers.records import Key
from athina_trace.context import current_scope

__all__ = [
    "add_documents",
    "add_surrounding",
    "begin",
    "continue_in",
    "conversation_in",
    "end",
    "follow_nesting",
    "reset",
    "subject_of",
    "take_documents",
    "within",
]

_MOST_RUNNING: Final = 4096
_MOST_AROUND: Final = 8
_MOST_CHARACTERS: Final = 8_000_000
"""Limit for the documents that wait for an answer."""

is_followed = False
"""Whether a source other than instrumented clients was switched on."""


@dataclass(slots=True)
class _Running:
    """A span or run that has begun."""

    parent: Key | None
    subject: Any
    """Data that its source keeps with it."""
    conversation: str | None = None
    session: str | None = None
    """The scope's session when the conversation was named: if another is found, a scope was entered inside."""
    documents: list[str] = field(default_factory=list)
    """Texts retrieved inside, for the next answer inside."""


class _State:
    """Everything that is running, guarded by the lock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a finalizer of an abandoned stream may report its end meanwhile
        self.running: Newest[_Running] = Newest(_MOST_RUNNING)
        self.characters = 0
        """In documents that no answer has used yet."""

    def forget_documents(self, running: _Running) -> None:
        """Drop the documents that were retrieved in a span or run."""
        self.characters -= sum(map(len, running.documents))
        running.documents = []

    def ancestors(self, name: Key | None) -> tuple[Key, ...]:
        """Return a span or run and those around it, up to the first that is no longer running."""
        found: list[Key] = []
        while name is not None and len(found) < _MOST_AROUND and (running := self.running.get(name)) is not None:
            found.append(name)
            name = running.parent
        return tuple(found)


_around: contextvars.ContextVar[tuple[Key, ...]] = contextvars.ContextVar("athina_trace_within", default=())
_surrounding: list[Callable[[], Key | None]] = []
_state = _State()


def reset() -> None:
    """Forget everything that is running."""
    global _state  # noqa: PLW0603 - one for the process
    _state = _State()


def follow_nesting() -> None:
    """Make instrumented clients note the spans and runs around and inside their requests.

    Every other source calls this when it is switched on: an answer that it sees may also be such a request's.
    """
    global is_followed  # noqa: PLW0603 - one for the process
    is_followed = True


def begin(
    name: Key, parent: Key | None = None, subject: Any = None, *, conversation: str | None = None
) -> tuple[Key, ...]:
    """Note that a span or run begins here: requests made in this context from now on are within it.

    It may end in another context, so the context is never restored: those that have ended are skipped.

    Args:
        name: the kind and id of the span or run.
        parent: the span or run that it is in, if the source knows this better than the context does.
        subject: data that `end` returns to its source.
        conversation: the session that the program passed to the framework whose run this is. It also applies to
            everything inside, unless a scope entered inside names another.

    Returns:
        The spans and runs around it, innermost first, without itself.
    """
    with _state.lock:
        around = within()
        if parent is not None and parent not in around:
            around = _state.ancestors(parent) or around
        begun = _Running(around[0] if around else None, subject)
        # Without a parent, a run is in no other run of its framework, even if one was left open in this context.
        others = around if parent is not None else [each for each in around if each[0] != name[0]]
        outer = _state.running.get(others[0]) if others else None
        # Frameworks pass what the outermost run was given down to each run inside.
        if outer is not None and conversation in (None, outer.conversation):
            begun.conversation, begun.session = outer.conversation, outer.session
        elif conversation is not None:
            begun.conversation, begun.session = conversation, current_scope().fields.get("session_id")
        if (known := _state.running.pop(name)) is not None:  # begun before, since something inside was seen first
            begun.documents = known.documents
        if (oldest := _state.running.put(name, begun)) is not None:
            _state.forget_documents(oldest)
    _around.set((name, *around[: _MOST_AROUND - 1]))
    return around


def end(name: Key) -> Any:
    """Note that a span or run has ended; return its subject, or None if it is not known (any more).

    Documents that were retrieved inside and not used yet pass to the span or run around it.
    """
    with _state.lock:
        ended = _state.running.pop(name)
        if ended is None:
            return None
        if ended.documents:
            around = _state.running.get(ended.parent)
            if around is not None:
                around.documents += ended.documents
            else:
                _state.forget_documents(ended)
        return ended.subject


def continue_in(around: tuple[Key, ...]) -> None:
    """Set the spans and runs that the running code is in, innermost first."""
    _around.set(around)


def subject_of(name: Key) -> Any:
    """Return the data that a source keeps with a running span or run."""
    running = _state.running.get(name)
    return None if running is None else running.subject


def within() -> tuple[Key, ...]:
    """Return the spans and runs around the running code, innermost first."""
    if not is_followed:
        return ()
    around = _around.get()
    if around:
        around = tuple([name for name in around if name in _state.running])
    for name_here in _surrounding:
        name = name_here()
        if name is not None and name not in around:
            around = (name, *around)
    return around


def add_surrounding(name_here: Callable[[], Key | None]) -> None:
    """Register `name_here`, which returns a span or run around the running code whose beginning no source reports."""
    if name_here not in _surrounding:
        _surrounding.append(name_here)


def conversation_in(around: tuple[Key, ...], session: str | None) -> str | None:
    """Return the conversation that the innermost running one of `around` is in, if the program named one.

    Args:
        around: spans and runs, innermost first.
        session: the session of the program's own scope; if it was entered inside, it is the conversation.
    """
    for name in around:
        running = _state.running.get(name)
        if running is not None:
            return running.conversation if running.session == session else None
    return None


def add_documents(name: Key, texts: Iterable[str]) -> None:
    """Keep texts that were retrieved in a span or run for the next answer in it, if it is running."""
    given = tuple(texts)
    characters = sum(map(len, given))
    with _state.lock:
        running = _state.running.get(name)
        if running is not None and _state.characters + characters <= _MOST_CHARACTERS:
            running.documents += given
            _state.characters += characters


def take_documents(name: Key) -> tuple[str, ...]:
    """Take the documents retrieved in a span or run that no answer has used yet."""
    running = _state.running.get(name)
    if running is None or not running.documents:  # as for most answers, which need no lock
        return ()
    with _state.lock:
        running = _state.running.get(name)  # another thread may have ended it meanwhile, and passed its documents on
        if running is None:
            return ()
        texts = tuple(running.documents)
        _state.forget_documents(running)
    return texts
