"""The log being written: open while the user's call runs, the last word on each field until the call ends."""

from __future__ import annotations

import contextvars
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from athina_trace import _guard
from athina_trace._clock import clock
from athina_trace._values import plain
from athina_trace.context import Scope, current_scope
from athina_trace.openai.ledger import Ledger
from athina_trace.records import ALIASES, FIELDS, attributes, nearest

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .records import LogFields

_MAX_CHUNK_CHARACTERS = 1_000_000
"""Of a stream's text this much is kept; the rest is counted."""


class LogDraft:
    """The log of the call that is running. `current_log()` gives it, and so does `with athina_trace(...) as log`."""

    __slots__ = (
        "_reference",
        "_token",
        "attributes",
        "chunk_count",
        "chunks",
        "first_chunk_ns",
        "inputs",
        "kept_characters",
        "ledger",
        "named",
        "parent",
        "scope",
        "started_ns",
    )

    def __init__(self, named: Mapping[str, Any], inputs: dict[str, Any], attributes: dict[str, Any]) -> None:
        self.named: dict[str, Any] = {}
        self.inputs = inputs
        self.attributes = attributes
        self.chunks: list[object] | None = None
        self.chunk_count = 0
        self.kept_characters = 0
        self.first_chunk_ns = 0
        self.ledger: Ledger | None = None
        self.started_ns = 0
        self._reference: str | None = None
        if named:
            self.name(named)

    def __bool__(self) -> bool:
        return True

    @property
    def external_reference_id(self) -> str:
        """The reference under which Athina knows this log: the user's own, or a UUIDv7 made when first needed."""
        if self._reference is None:
            self._reference = clock.reference()
        return str(self.named.get("external_reference_id", self._reference))

    def update(self, **fields: Unpack[LogFields]) -> None:
        """Name fields of this log; they win over everything captured, and later calls over earlier ones.

        `custom_attributes` are merged. A field that Athina does not know is kept among them and warned of, since a
        typing error must not fail the call that is being logged.
        """
        try:
            self.name(fields)
        except Exception:  # noqa: BLE001 - the guard decides
            _guard.fault("current_log().update()")

    def record(self, *objects: object) -> None:
        """Read OpenAI objects (runs, messages, steps, responses, completions; also as dicts) into this log.

        Any order, any number of times: usage counts once for each id. An object of an unknown shape is left alone.
        """
        try:
            if self.ledger is None:
                self.ledger = Ledger()
            for each in objects:
                self.ledger.add(each)
        except Exception:  # noqa: BLE001 - the guard decides
            _guard.fault("current_log().record()")

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

    def open(self) -> None:
        """Start the clock and become the current log of this context."""
        self.started_ns = clock.perf_ns()
        self.scope: Scope = current_scope()
        self.parent: LogDraft | None = _current.get()
        self._token = _current.set(self)

    def close(self) -> None:
        """Make current again the log of the call around this one."""
        try:
            _current.reset(self._token)
        except ValueError:
            # Closed in another context than it was opened in (a generator ended elsewhere): nothing to restore there.
            return

    def chunk(self, value: object) -> None:
        """Take note of what a stream yielded."""
        if self.chunks is None:
            self.chunks = []
            self.first_chunk_ns = clock.perf_ns()
        self.chunk_count += 1
        if self.kept_characters < _MAX_CHUNK_CHARACTERS:
            self.kept_characters += len(value) if isinstance(value, str) else 1
            self.chunks.append(value)


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
_current: contextvars.ContextVar[LogDraft | None] = contextvars.ContextVar("athina_trace_log", default=None)


def current_log() -> LogDraft | _NoLog:
    """The log of the innermost decorated call that is running; outside of any, a falsy stand-in that does nothing."""
    return _current.get() or _NO_LOG


def current_draft() -> LogDraft | None:
    """The draft of the innermost call in this context, or None."""
    return _current.get()


def _warn_unknown(name: str) -> None:
    _guard.say(
        30,
        f"unknown field {name}",
        "%r is no field of an Athina log: kept in custom_attributes%s",
        name,
        nearest(name),
    )
