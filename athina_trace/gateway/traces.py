"""Spans of other programs → logs, whatever order they arrive in.

A span arrives when it has ended, so that those inside come before those around them, which may name session and user,
in batches of some seconds. A log is not kept back for that: it is committed at once, and changed when a span around it
brings what it lacks. What is remembered for that is bounded in number and in time.
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
from athina_trace._capture.answered import Origin, begin, end, follow_nesting, is_logged, log_answer
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
"""Spans whose identity is remembered for those inside that arrive later."""
_MOST_PARENTS: Final = 4_096
"""Spans that logs wait for, in all traces."""
_MOST_LOGS: Final = 64
"""Logs that wait for one of them."""
_SECONDS: Final = 600.0
"""How long a log waits for the spans around it."""
_MOST_AROUND: Final = 64
"""Spans around a span that are looked at."""
_FIELDS: Final = {"session_id": "session.id", "customer_user_id": "user.id"}
"""What a span around an answer may name: fields of a log, and an attribute for each."""


class _Known(NamedTuple):
    """What is remembered of a span."""

    parent: str | None
    identity: Mapping[str, str]


class _Lacking(NamedTuple):
    """A log whose session or user a span around it may bring."""

    span: str
    scope: str
    origin: Origin
    fields: frozenset[str]
    """What it lacks."""
    since: float
    """Monotonic seconds."""


class SpanLogs:
    """Logs what spans say. `monotonic` is a clock, seconds."""

    def __init__(self, commits: Commits, monotonic: Callable[[], float] = time.monotonic) -> None:
        follow_nesting()
        self._commits = commits
        self._monotonic = monotonic
        # What is remembered is one state: two requests at a time would see halves of it.
        self._lock = asyncio.Lock()
        self._known: Newest[_Known] = Newest(_MOST_SPANS)
        self._lacking: Newest[list[_Lacking]] = Newest(_MOST_PARENTS)
        """By the span that is waited for."""
        self._unkept: list[Entry] = []
        """What a request wrote that was then asked to come again, since not all could be kept. When it comes, its
        answers are known, and it writes nothing: so these are kept before anything else is."""

    async def take(self, spans: Sequence[SpanRecord]) -> None:
        """Log what spans say, durably. Raises `RefusedRequest` where that cannot be kept."""
        began = self._monotonic()
        async with self._lock:
            # An exporter gives up after ten seconds and sends the same again: all that is done for it then is lost.
            if self._monotonic() - began > TURN_SECONDS:
                raise too_busy("other exports wait, too; send this one again")
            # A context of its own, since it is a stranger's program that these spans were around.
            context = contextvars.Context()
            await self._commits.commit(lambda: context.run(self._log, spans), takes_long=True)

    def _log(self, spans: Sequence[SpanRecord]) -> None:
        writer = forward.runtime()
        self._keep(writer)
        records = {span.span_id: span for span in spans}
        within = {name: around for span in spans for name, around in self._begin(span, records)}
        with writer.collecting(self._unkept):
            # As they happened: what was retrieved and called for came before what was made of it. Of two that ended
            # at once, the shorter one is inside.
            for span in sorted(records.values(), key=lambda each: (each.end_ns, -each.start_ns)):
                # A retry after a lost answer repeats the reference, also to another gateway.
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
        """Begin a span, and before it those around it, each once; yields what is around each."""
        chain: list[SpanRecord] = []
        each: SpanRecord | None = span
        # Up first, by a loop: a chain may be as long as a request, and a circle.
        while each is not None and each.span_id not in self._known:
            chain.append(each)
            self._known.put(each.span_id, _Known(each.parent_id, _identity_of(each)))
            each = records.get(each.parent_id or "")
        for each in reversed(chain):
            parent = name_of(each.parent_id) if each.parent_id is not None else None
            if parent is not None and each.parent_id not in self._known:
                # It has not ended yet: what it is around belongs together nevertheless.
                contextvars.Context().run(begin, parent)
            # Each in a context of its own, where nothing is around it but what it names.
            yield each.span_id, contextvars.Context().run(begin, name_of(each.span_id), parent)

    def _around(self, name: str | None) -> Iterator[tuple[str, _Known]]:
        """Yield the spans around, the innermost first, as far as they are known."""
        for _ in range(_MOST_AROUND):
            known = self._known.get(name) if name is not None else None
            if name is None or known is None:
                return
            yield name, known
            name = known.parent

    def _complete(
        self, span: SpanRecord, answer: Answer | None, origin: Origin, around: list[tuple[str, _Known]]
    ) -> None:
        """Give logs that waited for this span what it names, and have what still lacks something wait for the next."""
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
        # The next span upwards that has not arrived; a root has none, and its logs lack what no span names.
        top = around[-1][1].parent if around else span.parent_id
        if top is not None and still:
            self._lacking.put(top, [*(self._lacking.get(top) or ()), *still][-_MOST_LOGS:])


def _clean(span: SpanRecord) -> None:
    """Mask credentials, as in a log that comes by Athina's API."""
    span.attributes = forward.cleaned(span.attributes)
    span.events = [Event(name=event.name, attributes=forward.cleaned(event.attributes)) for event in span.events]
    span.description = forward.cleaned({"error": span.description})["error"]


def _identity_of(span: SpanRecord) -> dict[str, str]:
    """Session and user that a span names; a longer text is not an id, and would add up here."""
    return {field: value for field, value in identity_of(span.attributes).items() if len(value) <= MAX_KEY_LENGTH}


def _identified(log: _Lacking, identity: Mapping[str, str]) -> _Lacking:
    """Add to a log what it lacks, as far as that is known; return it with what it still lacks."""
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
        # Of a log that is forgotten, this would make another.
        if is_logged(answer, log.origin):
            log_answer([answer], log.origin)
    return log._replace(fields=log.fields.difference(identity))
