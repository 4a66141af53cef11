"""The draft of a log: open until its call ends; whatever is set later changes the log."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from athina_trace import _guard, _runtime
from athina_trace._answers import libraries
from athina_trace._answers.sources import may_be_known
from athina_trace._capture import changes
from athina_trace._capture.active_span import span_attributes
from athina_trace._capture.options import NO_OPTIONS
from athina_trace._clock import clock
from athina_trace._pipeline.redaction import NOTHING, Redaction, of_named
from athina_trace._pipeline.sampling import keeps, left_out, sampled_by, says_left_out
from athina_trace._serialization import plain
from athina_trace._wrapping.state import current
from athina_trace.context import EMPTY, Scope
from athina_trace.schema import ALIASES, FIELDS, attributes_of, nearest

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from athina_trace._answers.accumulator import AnswerAccumulator
    from athina_trace._answers.records import Answer, Record
    from athina_trace._capture.changes import LateChanges
    from athina_trace._capture.streams import Streamed
    from athina_trace.schema import LogFields

_NOT_OBJECTS = (str, type(None), int, float, bool, bytes)
"""Types that no object of a library has."""


class LogDraft:
    """The log of the running call, from `current_log()` or `with athina_trace(...) as log`.

    >>> with athina_trace(user_query="Where is it?") as log:
    ...     log.update(response="On its way.", total_tokens=9)
    >>> recent_logs()[-1]["total_tokens"]
    9
    """

    __slots__ = (
        "_found",
        "_reference",
        "_token",
        "accumulator",
        "attributes",
        "inputs",
        "late",
        "named",
        "only_answer",
        "options",
        "outcome",
        "own_fields",
        "parent",
        "redaction",
        "scope",
        "span",
        "started_ns",
        "streamed",
    )

    def __init__(
        self,
        named: Mapping[str, Any],
        inputs: dict[str, Any],
        attributes: dict[str, Any],
    ) -> None:
        self.named: dict[str, Any] = {}
        self.inputs = inputs
        self.attributes = attributes
        self.redaction: Redaction = NOTHING
        self.scope: Scope = EMPTY
        self.streamed: Streamed | None = None
        # Fields from the call itself, its response and its failure, which win over what a model answered.
        self.own_fields: tuple[str, ...] = ()
        self.accumulator: AnswerAccumulator | None = None
        # Without an accumulator: the log's only answer, and its fields.
        self.only_answer: tuple[Answer, Mapping[str, Any]] | None = None
        self.started_ns = 0
        # Set if the call raised an exception that is not a failure: see `failures.outcome`.
        self.outcome: str | None = None
        # The ids of the OpenTelemetry span around the call, if any.
        self.span: Mapping[str, str] | None = None
        # Created when the call ends.
        self.late: LateChanges | None = None
        # How many forks led to this process (a forked child ends the same call with its own log); the reference,
        # generated when first needed; and whether it says if the log is left out of a sample.
        self._reference: tuple[int, str, bool] = (-1, "", False)
        self.options = NO_OPTIONS
        self.parent: LogDraft | None = None
        if named:
            self.name(named)

    def __bool__(self) -> bool:
        return True

    @property
    def external_reference_id(self) -> str:
        """The reference under which Athina knows this log: the program's own, or a UUIDv7 made when first needed."""
        given = self.named.get("external_reference_id") or self.inputs.get("external_reference_id")
        if given is not None:
            return str(given)
        if self._reference[0] != clock.forks:
            # If everything is logged, these checks are all that sampling costs.
            if _runtime.may_leave_out or self.options.sample_rate is not None or self.scope.sample_rate is not None:
                self._reference = (clock.forks, *self._sampled_reference())
            else:
                self._reference = (clock.forks, clock.reference(), False)
        return self._reference[1]

    def keep(self) -> None:
        """Log the call regardless of sampling: the reference must not say otherwise, unless it was already read."""
        if self._reference[0] != clock.forks:
            self._reference = (clock.forks, clock.reference(), False)

    def _sampled_reference(self) -> tuple[str, bool]:
        """Return a UUIDv7, and whether it says if the log is left out, in which case feedback on it is dropped."""
        reference, runtime = clock.reference(), _runtime.active()
        if runtime is None:
            return reference, False
        rate = self.scope.sample_rate if self.options.sample_rate is None else self.options.sample_rate
        rate = runtime.settings.sample_rate if rate is None else rate
        if rate >= 1:
            return reference, False
        whole = self.session_id() or (sampled_by(reference) if self.parent is None else self.parent.conversation())
        return reference if keeps(str(whole), rate) else left_out(reference), True

    def is_in_sample(self, rate: float, session: str | None) -> bool:
        """Return whether the log is in a sample of a share `rate` of all conversations.

        If its reference already says so, that counts: the program may have read it before the session was known.
        """
        reference = self.external_reference_id
        _, own, is_decided = self._reference
        if is_decided and reference == own:
            return not says_left_out(reference)
        return keeps(session or self.conversation(), rate)

    @property
    def ended(self) -> bool:
        """Whether the call has ended: later updates are changes of its log."""
        return self.late is not None

    def update(self, **fields: Unpack[LogFields]) -> None:
        """Set fields of this log; they win over everything captured, and later calls over earlier ones.

        `custom_attributes` are merged. A field that Athina does not know is kept among them, with a warning, since a
        typing error must not fail the call that is being logged. If the call has ended, as in a task that it started,
        this changes its log like `update_log`.
        """
        # Without the guard's context manager, which most calls would pay for.
        try:
            if self.late is None:
                self.name(fields)
                return
            later = LogDraft(fields, {}, {})
            named = {name: value for name, value in later.named.items() if name != "external_reference_id"}
            if later.attributes:
                named["custom_attributes"] = later.attributes
            redaction = of_named(self.redaction | self.scope.redaction)
            self.late.send(self.external_reference_id, named, redaction)
        except Exception:  # noqa: BLE001 - the guard decides
            _guard.swallow("current_log().update()")

    def record(self, *objects: object) -> None:
        """Read answers of models into this log, as objects or dicts, whole or chunk by chunk.

        Takes objects of OpenAI's client (runs, messages, steps, responses, completions) and of other libraries
        (LangChain, Anthropic, Google …), in any order and any number of times: usage is counted once for each id.
        Objects of unknown shape are ignored. If the call has ended, what they add changes its log.
        """
        with _guard.shield("current_log().record()"):
            accumulator = self.own_accumulator()
            logged = {} if self.late is None else self.answer_fields()
            for each in objects:
                if not accumulator.add(each):
                    data = plain(each)
                    accumulator.take_pieces(libraries.read(data) or libraries.read({"messages": data}) or ())
            if self.late is not None:
                self._send_later(self.late, logged)

    def take(self, records: Iterable[Record], scope: Scope = EMPTY, session: str | None = None) -> None:
        """Take what a source reports of an answer; if the call has ended, what this adds changes its log.

        Args:
            records: the source's records.
            scope: the scope in which it saw that; a change also adds its fields where this log's scope has none.
            session: a session that wins over a scope's, unless this log already has such a one.
        """
        accumulator = self.own_accumulator()
        is_named = self.named.get("session_id") is not None
        if session is not None and not is_named:
            self.named["session_id"] = session
        if self.late is None:
            accumulator.take(records)
            return
        logged = self.answer_fields()
        accumulator.take(records)
        added = {name: value for name, value in scope.fields.items() if self.scope.fields.get(name) is None}
        if is_named:
            added.pop("session_id", None)
        elif session is not None and session != self.scope.fields.get("session_id"):
            added["session_id"] = session
        self.scope = Scope({**self.scope.fields, **added}, redaction=self.scope.redaction | scope.redaction)
        self._send_later(self.late, logged, added, is_captured=True)

    def _send_later(
        self,
        late: LateChanges,
        logged: Mapping[str, Any],
        added: Mapping[str, Any] = EMPTY.fields,
        *,
        is_captured: bool = False,
    ) -> None:
        """Change the written log by what has become known since.

        Args:
            late: sends the change.
            logged: the fields of its answers before.
            added: the fields that a scope adds.
            is_captured: whether they were captured, rather than given by the program.
        """
        stronger = {**self.inputs, **self.scope.fields, **self.named}
        stronger.update(dict.fromkeys(self.own_fields, True))
        known = self.answer_fields().items()
        changed = {name: value for name, value in known if logged.get(name) != value and stronger.get(name) is None}
        if "custom_attributes" in changed:
            known_now = {**late.attributes, **changed["custom_attributes"]}
            changed["custom_attributes"] = {**known_now, **self.scope.attributes, **self.attributes}
        changed.update({name: value for name, value in added.items() if value is not None})
        redaction = self.redaction | self.scope.redaction | late.redaction
        late.send(self.external_reference_id, changed, redaction, is_captured=is_captured)

    def own_accumulator(self) -> AnswerAccumulator:
        """Return the accumulator of this log's answers, created when first needed."""
        accumulator = self.accumulator
        if accumulator is None:
            from athina_trace._answers.accumulator import AnswerAccumulator  # noqa: PLC0415 - loaded with the first log

            # Several threads may record into the log of one call.
            with changes.lock:
                accumulator = self.accumulator
                if accumulator is None:
                    accumulator = AnswerAccumulator()
                    if self.only_answer is not None:
                        accumulator.take([self.only_answer[0]])
                    # A finalizer may have made one meanwhile; in one statement, so that none comes in between.
                    self.accumulator = accumulator = self.accumulator or accumulator
        return accumulator

    def answer_fields(self) -> Mapping[str, Any]:
        """Return the fields of this log's answers, as far as they are known."""
        if self.accumulator is not None:
            return self.accumulator.fields()
        return EMPTY.fields if self.only_answer is None else self.only_answer[1]

    def recognises(self, value: object) -> bool:
        """Record `value` if it is an object that an integration understands; return whether it is."""
        if issubclass(type(value), _NOT_OBJECTS):  # `isinstance` would ask the object
            return False
        return may_be_known(value) and self.own_accumulator().add(value)

    def name(self, fields: Mapping[str, Any]) -> None:
        """Do what `update` does, without its guard."""
        for given, value in fields.items():
            if given == "custom_attributes" and isinstance(value, Mapping):
                self.attributes.update(attributes_of(value))
            elif given in FIELDS:
                self.named[given] = plain(value)
            elif given in ALIASES:
                self.named[ALIASES[given]] = plain(value)
            else:
                self.attributes.update(attributes_of({given: value}))
                warning = "unknown field %r: kept in custom_attributes%s"
                _guard.log_throttled(logging.WARNING, f"unknown field {given}", warning, given, nearest(given))

    def session_id(self) -> Any:
        """Return the session as known now: this call's, else that of the call around it."""
        own = self.named.get("session_id") or self.scope.fields.get("session_id") or self.inputs.get("session_id")
        if own is None:
            own = self.answer_fields().get("session_id")
        return own if own is not None or self.parent is None else self.parent.session_id()

    def conversation(self) -> str:
        """Return the key by which calls without a session are sampled: it comes from the outermost call's reference."""
        if self.parent is not None:
            return self.parent.conversation()
        reference = self.external_reference_id
        return sampled_by(reference) if reference == self._reference[1] else reference

    def enter(self) -> None:
        """Start the clock, and make this the current log of the context."""
        # It is entered again for each step of a returned stream, whose call began earlier.
        if not self.started_ns:
            self.started_ns = clock.perf_ns()
            self.span = span_attributes()
        scope, self.parent = current.get()
        self.scope = EMPTY if scope is None else scope.replaced_by or scope
        self._found = scope
        self._token = current.set((scope, self))

    def leave(self) -> None:
        """Make the log of the call around this one current again."""
        scope, log = current.get()
        try:
            current.reset(self._token)
        except ValueError:
            # Not in the context that entered: either a step of a stream that is read elsewhere, where this log is still
            # current, or the end of a generator that is closed elsewhere, where there is nothing to restore.
            if log is not self:
                return
            current.set((scope, self.parent))
        else:
            if scope is not self._found:  # the customer was set inside, for the rest of the scope around the call
                current.set((scope, self.parent))


class _NoLog:
    """The log outside of every call: falsy, and ignores everything."""

    external_reference_id: None = None

    def __bool__(self) -> bool:
        return False

    def update(self, **fields: Unpack[LogFields]) -> None:
        """Do nothing: there is no log to update."""

    def record(self, *objects: object) -> None:
        """Do nothing: there is no log to record into."""


_NO_LOG = _NoLog()


def current_log() -> LogDraft | _NoLog:
    """Return the log of the innermost decorated call that is running; outside of any, a falsy object that does nothing.

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
    """Return the draft of the innermost call in this context, or None."""
    draft: LogDraft | None = current.get()[1]
    return draft
