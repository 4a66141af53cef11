"""The log being written: open while the user's call runs, the last word on each field until the call ends."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from athina_trace import _guard
from athina_trace._capture import messages, streams
from athina_trace._clock import clock
from athina_trace._pipeline.wire import attributes
from athina_trace._serialization import plain, text
from athina_trace._serialization.serialize import encode
from athina_trace._wrapping.state import current
from athina_trace.context import EMPTY, Scope
from athina_trace.schema import ALIASES, FIELDS, nearest

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from athina_trace.integrations.openai.ledger import Ledger
    from athina_trace.integrations.openai.readings import Reading
    from athina_trace.schema import LogFields

_NOT_OBJECTS = (str, type(None), int, float, bool, bytes)
_MAX_CHUNK_CHARACTERS = 1_000_000
"""Of a stream's text this much is kept; the rest is counted."""


class LogDraft:
    """The log of the call that is running. `current_log()` gives it, and so does `with athina_trace(...) as log`.

    >>> with athina_trace(user_query="Where is it?") as log:
    ...     log.update(response="On its way.", total_tokens=9)
    >>> recent_logs()[-1]["total_tokens"]
    9
    """

    __slots__ = (
        "_found",
        "_last_object",
        "_reference",
        "_token",
        "answers",
        "attributes",
        "chunk_count",
        "chunks",
        "ended",
        "first_chunk_ns",
        "hides",
        "inputs",
        "kept_characters",
        "ledger",
        "named",
        "origins",
        "parent",
        "scope",
        "started_ns",
    )

    def __init__(self, named: Mapping[str, Any], inputs: dict[str, Any], attributes: dict[str, Any]) -> None:
        self.named: dict[str, Any] = {}
        self.inputs = inputs
        self.attributes = attributes
        self.hides = 0
        self.origins: dict[str, Any] | None = None
        self.chunks: list[object] | None = None
        self.chunk_count = 0
        self.kept_characters = 0
        self.first_chunk_ns = 0
        self.ledger: Ledger | None = None
        self.answers: list[dict[str, Any]] | None = None
        self.started_ns = 0
        self._reference = (-1, "")  # how many forks led to the process that made it, and the reference
        self.ended = False
        if named:
            self.name(named)

    def __bool__(self) -> bool:
        return True

    @property
    def external_reference_id(self) -> str:
        """The reference under which Athina knows this log: the user's own, or a UUIDv7 made when first needed."""
        named = self.named.get("external_reference_id")
        if named is not None:
            return str(named)
        if self._reference[0] != clock.forks:  # a forked child ends the same call, with a log of its own
            self._reference = (clock.forks, clock.reference())
        return self._reference[1]

    def update(self, **fields: Unpack[LogFields]) -> None:
        """Name fields of this log; they win over everything captured, and later calls over earlier ones.

        `custom_attributes` are merged. A field that Athina does not know is kept among them and warned of, since a
        typing error must not fail the call that is being logged.
        """
        try:
            self.name(fields)
        except Exception:  # noqa: BLE001 - the guard decides
            _guard.swallow("current_log().update()")

    def record(self, *objects: object) -> None:
        """Read OpenAI objects (runs, messages, steps, responses, completions; also as dicts) into this log.

        Any order, any number of times: usage counts once for each id. An object of an unknown shape is left alone.
        """
        try:
            ledger = self.own_ledger()
            for each in objects:
                ledger.add(each)
        except Exception:  # noqa: BLE001 - the guard decides
            _guard.swallow("current_log().record()")

    def take(self, readings: Iterable[Reading]) -> None:
        """Take what an instrumented client read."""
        self.own_ledger().take(readings)

    def own_ledger(self) -> Ledger:
        """This log's ledger, made when first needed."""
        from athina_trace.integrations.openai.ledger import Ledger  # noqa: PLC0415 - loaded with the first log

        with _making:
            self.ledger = self.ledger or Ledger()
            return self.ledger

    def recognises(self, value: object) -> bool:
        """Read `value` into the ledger, if it is one of OpenAI's objects."""
        if isinstance(value, _NOT_OBJECTS):
            return False
        from athina_trace.integrations.openai.ledger import Ledger  # noqa: PLC0415 - loaded with the first log

        if not Ledger.may_know(value):
            return False
        ledger = self.ledger or Ledger()
        if not ledger.add(value):
            return False
        self.ledger = ledger
        return True

    def name(self, fields: Mapping[str, Any]) -> None:
        """What `update` does, without its guard."""
        for given, value in fields.items():
            field = ALIASES.get(given, given)
            if field == "custom_attributes" and isinstance(value, Mapping):
                self.attributes.update(attributes(value))
            elif field in FIELDS:
                self.named[field] = plain(value)
            else:
                self.attributes.update(attributes({given: value}))
                _warn_unknown(given)

    def session_id(self) -> Any:
        """The session as known now: of this call, else of the call around it."""
        own = self.named.get("session_id") or self.scope.fields.get("session_id") or self.inputs.get("session_id")
        if own is None and self.ledger is not None:
            own = self.ledger.fields().get("session_id")
        return own if own is not None or self.parent is None else self.parent.session_id()

    def read(self, value: object) -> str:
        """`value` as text; where a mask will want to know, of what data the text was made."""
        if self.origins is None or type(value) is str or value is None:
            return text(value)
        return self.written(plain(value))

    def written(self, data: Any) -> str:
        """What `plain` gave as text."""
        shown = data if type(data) is str else encode(data)
        if self.origins is not None:
            self.origins[shown] = data
        return shown

    def root(self) -> LogDraft:
        """The outermost call around this one."""
        return self if self.parent is None else self.parent.root()

    def open(self) -> None:
        """Start the clock and become the current log of this context."""
        # Entered again before the steps of a stream that was returned: the call began before.
        self.started_ns = self.started_ns or clock.perf_ns()
        scope, self.parent = current.get()
        self.scope: Scope = EMPTY if scope is None else scope
        self._found = scope
        self._token = current.set((scope, self))

    def close(self) -> None:
        """Make current again the log of the call around this one."""
        scope, log = current.get()
        try:
            current.reset(self._token)
        except ValueError:
            # Another context than it was opened in: the step of a stream that is read elsewhere, where the log is still
            # current, or the end of a generator that is closed anywhere, where there is nothing to restore.
            if log is not self:
                return
            current.set((scope, self.parent))
        else:
            if scope is not self._found:  # the customer was named inside, for the rest of the scope around the call
                current.set((scope, self.parent))

    def take_chunks(self, values: list[Any], *, unread: bool) -> None:
        """Read what a stream yielded, now: the program may change it. `unread` keeps the objects as they are."""
        if self.chunks is None:
            self.chunks = []
            self._last_object: object = None
            self.first_chunk_ns = clock.perf_ns()
        self.chunk_count += len(values)
        if self.kept_characters >= _MAX_CHUNK_CHARACTERS:
            if not streams.accumulates(self.chunks):
                return
            # Each chunk is the whole answer so far: the last one is enough.
            del self.chunks[:-1]
            self.kept_characters = 0
        texts = values if type(values[-1]) is str else values[:-1]
        self.chunks += texts
        self.kept_characters += sum(map(len, texts))
        if len(texts) < len(values):
            self._take_object(values[-1], unread=unread)

    def _take_object(self, value: Any, *, unread: bool) -> None:
        chunks = self.chunks if self.chunks is not None else []
        if unread or isinstance(value, bytes | bytearray | memoryview):
            chunks.append(value if unread or type(value) is bytes else bytes(value))
            self.kept_characters += len(value) if isinstance(value, bytes | bytearray) else 1
            return
        data = None if self.recognises(value) else plain(value)
        answer = messages.answer_of(data)
        if answer is not None:
            self.answers = self.answers or []
            self.answers.append({name: part for name, part in answer.items() if name != "response"})
            data = answer.get("response")
        chunk = streams.RECORDED if data is None else data
        if chunks and value is self._last_object and streams.replaces(chunk, chunks[-1]):
            chunks[-1] = chunk
            return
        self._last_object = value
        chunks.append(chunk)
        self.kept_characters += len(text(chunk)) if chunk is not streams.RECORDED else 1


class _NoLog:
    """Outside of every call: falsy, and takes everything without doing anything."""

    external_reference_id: None = None

    def __bool__(self) -> bool:
        return False

    def update(self, **fields: Unpack[LogFields]) -> None:
        """Do nothing: there is no log to update."""

    def record(self, *objects: object) -> None:
        """Do nothing: there is no log to record into."""


_NO_LOG = _NoLog()
_making = threading.Lock()


def _renew_lock() -> None:
    """A forked child may find the lock held by a thread that it does not have."""
    global _making  # noqa: PLW0603 - one for the process
    _making = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def current_log() -> LogDraft | _NoLog:
    """The log of the innermost decorated call that is running; outside of any, a falsy stand-in that does nothing.

    >>> @athina_trace
    ... def answer(question: str) -> str:
    ...     current_log().update(language_model_id="gpt-4o")
    ...     return "On its way."
    >>> answer("Where is it?"), recent_logs()[-1]["language_model_id"]
    ('On its way.', 'gpt-4o')
    >>> bool(current_log())
    False
    """
    return current.get()[1] or _NO_LOG


def current_draft() -> LogDraft | None:
    """The draft of the innermost call in this context, or None."""
    draft: LogDraft | None = current.get()[1]
    return draft


def _warn_unknown(name: str) -> None:
    _guard.log_throttled(
        30,
        f"unknown field {name}",
        "%r is no field of an Athina log: kept in custom_attributes%s",
        name,
        nearest(name),
    )
