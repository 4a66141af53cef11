"""Turns spans of other programs into logs, in whatever order they arrive.

A span arrives when it has ended, in batches every few seconds, so inner spans come before the enclosing ones, which may
name session and user. A log does not wait for them: it is committed at once, and changed when an enclosing span brings
what it lacks. The memory for this is bounded in number and time.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from athina_trace import _guard
from athina_trace._answers.memory import Newest
from athina_trace._answers.records import AS_SPAN, Answer, Key
from athina_trace._capture.answer_logs import Origin, is_logged, log_answer
from athina_trace._capture.nesting import begin, end, follow_nesting
from athina_trace._delivery.entry import MAX_KEY_LENGTH, Entry
from athina_trace._pipeline.writer import Writer
from athina_trace.context import EMPTY
from athina_trace.gateway import forward
from athina_trace.gateway.bodies import too_busy
from athina_trace.gateway.commits import Commits
from athina_trace.integrations.opentelemetry.reader import Kind, identity_of, kind_of, name_of
from athina_trace.integrations.opentelemetry.span_logs import log_span
from athina_trace.integrations.opentelemetry.spans import Event, SpanRecord

TURN_SECONDS: Final = 5.0
"""How long an export may wait for those before it."""
_MOST_SPANS: Final = 50_000
"""Spans whose identity is remembered for inner spans that arrive later."""
_MOST_PARENTS: Final = 4_096
"""Missing spans that logs wait for, in all traces."""
_MOST_LOGS: Final = 64
"""Logs that wait for the same span."""
_SECONDS: Final = 600.0
"""How long a log waits for its enclosing spans."""
_MOST_AROUND: Final = 64
"""Maximum number of enclosing spans that are checked."""
_FIELDS: Final = {"session_id": "session.id", "customer_user_id": "user.id"}
"""Fields of a log that an enclosing span may name, and an attribute for each."""


class _Known(NamedTuple):
    """The remembered part of a span."""

    parent: str | None
    identity: Mapping[str, str]


class _Lacking(NamedTuple):
    """A log whose session or user an enclosing span may bring."""

    span: str
    scope: str
    origin: Origin
    fields: frozenset[str]
    """The fields that it lacks."""
    since: float
    """Monotonic seconds."""


class SpanLogs:
    """Logs the answers in spans. `monotonic`: a clock, in seconds."""

    def __init__(self, commits: Commits, monotonic: Callable[[], float] = time.monotonic) -> None:
        follow_nesting()
        self._commits = commits
        self._monotonic = monotonic
        # One request at a time, since all of them share this state.
        self._lock = asyncio.Lock()
        self._known: Newest[_Known] = Newest(_MOST_SPANS)
        self._lacking: Newest[list[_Lacking]] = Newest(_MOST_PARENTS)
        """By the missing span."""
        self._unkept: list[Entry] = []
        """What a request wrote that was then asked to come again, since not all could be kept. When it comes, its
        answers are known, and it writes nothing: so these are kept before anything else is."""

    async def take(self, spans: Sequence[SpanRecord]) -> None:
        """Log the answers in spans, durably. Raises `RefusedRequest` if they cannot be kept."""
        began = self._monotonic()
        async with self._lock:
            # An exporter gives up after ten seconds and sends the same again: later work would be wasted.
            if self._monotonic() - began > TURN_SECONDS:
                raise too_busy("too many exports are waiting; send this one again")
            # In a new context, since these spans belong to another program.
            context = contextvars.Context()
            await self._commits.commit(lambda: context.run(self._log, spans), takes_long=True)

    def _log(self, spans: Sequence[SpanRecord]) -> None:
        writer = forward.runtime()
        self._keep(writer)
        records = {span.span_id: span for span in spans}
        within = {name: around for span in spans for name, around in self._begin(span, records)}
        with writer.collecting(self._unkept):
            # In order of time: retrieval and tools come before the answers that used them. If two ended
            # at the same time, the shorter one is inside.
            for span in sorted(records.values(), key=lambda each: (each.end_ns, -each.start_ns)):
                # A retry after a lost answer has the same reference, even through another gateway.
                origin = Origin(span.start_ns, EMPTY, within=within.get(span.span_id, ()), reference=span.span_id)
                around = list(self._around(span.parent_id))
                with _guard.shield("logging a span of another program"):
                    if kind_of(span.name, span.attributes) is not Kind.OTHER:
                        _clean(span)
                    named = [{_FIELDS[field]: value for field, value in known.identity.items()} for _, known in around]
                    answer = log_span(span, origin, named)
                    self._complete(span, answer, origin, around)
                end(name_of(span.span_id))
        self._keep(writer)

    def _keep(self, writer: Writer) -> None:
        while self._unkept:
            writer.put_or_raise(self._unkept[0])
            del self._unkept[0]

    def _begin(self, span: SpanRecord, records: Mapping[str, SpanRecord]) -> Iterator[tuple[str, tuple[Key, ...]]]:
        """Begin a span, after its enclosing spans, each once; yield the enclosing spans of each."""
        chain: list[SpanRecord] = []
        each: SpanRecord | None = span
        # Upwards first, in a loop: a chain may be as long as a request, or a cycle.
        while each is not None and each.span_id not in self._known:
            chain.append(each)
            self._known.put(each.span_id, _Known(each.parent_id, _identity_of(each)))
            each = records.get(each.parent_id or "")
        for each in reversed(chain):
            parent = name_of(each.parent_id) if each.parent_id is not None else None
            if parent is not None and each.parent_id not in self._known:
                # It has not ended yet, but its inner spans belong together.
                contextvars.Context().run(begin, parent)
            # Each in its own context, where only its own parents enclose it.
            yield each.span_id, contextvars.Context().run(begin, name_of(each.span_id), parent)

    def _around(self, name: str | None) -> Iterator[tuple[str, _Known]]:
        """Yield the known enclosing spans, innermost first."""
        for _ in range(_MOST_AROUND):
            known = self._known.get(name) if name is not None else None
            if name is None or known is None:
                return
            yield name, known
            name = known.parent

    def _complete(
        self, span: SpanRecord, answer: Answer | None, origin: Origin, around: list[tuple[str, _Known]]
    ) -> None:
        """Complete the logs that waited for this span; those that still lack a field wait for the next one."""
        now = self._monotonic()
        waiting = [each for each in self._lacking.pop(span.span_id) or () if now - each.since < _SECONDS]
        if answer is not None:
            has = {"session_id": answer.session, **answer.further}
            lacks = frozenset(field for field in _FIELDS if not has.get(field))
            waiting.append(_Lacking(span.span_id, span.scope, origin, lacks, now))
        identity: dict[str, str] = {}
        for known in (_Known(None, _identity_of(span)), *(known for _, known in around)):
            identity = {**known.identity, **identity}
        still = [each for each in (_identified(log, identity) for log in waiting) if each.fields]
        # The next missing span upwards; a root has none, and no span names what its logs lack.
        top = around[-1][1].parent if around else span.parent_id
        if top is not None and still:
            self._lacking.put(top, [*(self._lacking.get(top) or ()), *still][-_MOST_LOGS:])


def _clean(span: SpanRecord) -> None:
    """Mask credentials, as in a log that arrives through Athina's API."""
    span.attributes = forward.cleaned(span.attributes)
    span.events = [Event(name=event.name, attributes=forward.cleaned(event.attributes)) for event in span.events]
    span.description = forward.cleaned({"error": span.description})["error"]


def _identity_of(span: SpanRecord) -> dict[str, str]:
    """Return the session and user of a span; longer texts are not ids, and would use memory."""
    return {field: value for field, value in identity_of(span.attributes).items() if len(value) <= MAX_KEY_LENGTH}


def _identified(log: _Lacking, identity: Mapping[str, str]) -> _Lacking:
    """Add missing fields to a log, as far as they are known; return it with those that are still missing."""
    found = {field: identity[field] for field in log.fields if field in identity}
    if found:
        name = name_of(log.span)
        answer = Answer(
            key=name,
            names=(name,),
            source=f"span {log.scope}",
            fidelity=AS_SPAN,
            request=log.span,
            session=found.pop("session_id", None),
            further=found,
        )
        # If the log has been forgotten, this would make another one.
        if is_logged(answer, log.origin):
            log_answer([answer], log.origin)
    return log._replace(fields=log.fields.difference(identity))
