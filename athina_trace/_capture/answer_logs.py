"""Puts each answer that sources see into one log, once, whichever sources see it and in whatever order.

Inside a decorated call, everything that sources report goes into that call's log. Outside, the first source to see an
answer logs it at once; what a later source adds changes that log. A tool's output goes to the log whose answer called
the tool, and retrieved documents go to the next answer in the same span or run.

Sources also report the spans and runs around a request (see `nesting`): a model's span or run and the request inside it
are one answer, even if no id says so.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from athina_trace import _fork
from athina_trace._answers.ledger import Ledger, Place
from athina_trace._answers.memory import Newest
from athina_trace._answers.merge import merge
from athina_trace._answers.records import AS_FUNCTION, RUN, Answer, Documents, Key, Record, ToolCall, ToolOutput
from athina_trace._capture import emission, nesting
from athina_trace._capture.active_span import span_attributes
from athina_trace._capture.draft import LogDraft, current_draft
from athina_trace._clock import clock
from athina_trace._wrapping.calls import run_now
from athina_trace.context import Scope, current_scope

__all__ = [
    "Origin",
    "expect",
    "is_logged",
    "log_answer",
    "log_documents",
    "log_tool_output",
    "reset",
]

_MOST_KNOWN: Final = 4096
"""How many answers are recognised when another source sees them, and how many tool calls when their output comes."""
_MOST_CHANGEABLE: Final = 1024
_MOST_LATEST: Final = 16
"""How many answers seen only by clients are kept: a source that is switched on later may still see their end."""
_MOST_CHARACTERS: Final = 8_000_000
"""Limit for the prompts and texts of answers whose logs can be changed."""
_MOST_ALIKE: Final = 32
"""How many calls of one tool wait for outputs that do not name their call."""


@dataclass(slots=True)
class Origin:
    """Where and when a request was made; a standalone log inherits it."""

    started_ns: int
    scope: Scope
    draft: LogDraft | None = None
    """The decorated call around the request, open or ended."""
    within: tuple[Key, ...] = ()
    """The spans and runs around it, innermost first."""
    span: Mapping[str, str] | None = None
    """The OpenTelemetry span around it, as in `LogDraft`."""
    is_awaited: bool = False
    """Whether the answer belongs to that call even if the source reports it after the call has ended."""
    attributes: Mapping[str, Any] | None = None
    """Custom attributes of a standalone log."""
    response_time: int | None = None
    """Milliseconds, if the source measured them."""
    reference: str | None = None
    """The reference of a standalone log, if it must be the same each time that this is seen."""
    conversation: str | None = None
    """The session that the program passed to the framework that makes the request."""

    @classmethod
    def here(cls, around: tuple[Key, ...] | None = None) -> Origin:
        """Return an origin for the running code; `around`: the spans and runs around it, if known."""
        around = nesting.within() if around is None else around
        return cls(clock.perf_ns(), current_scope(), current_draft(), around, span_attributes())

    @classmethod
    def of_run(cls, name: Key, parent: Key | None = None, *, conversation: str | None = None) -> Origin:
        """Begin a framework's run here (see `nesting.begin`), and return it as an origin."""
        around = nesting.begin(name, parent, conversation=conversation)
        here = cls.here((name, *around))
        here.within, here.conversation = around, here.named_conversation()
        return here

    @property
    def session(self) -> str | None:
        """The session that the program's own scope names: the same for all sources that see a request."""
        return self.scope.fields.get("session_id")

    def named_conversation(self) -> str | None:
        """Return the session that a surrounding framework names, unless a scope entered inside it names another."""
        if self.conversation is not None:
            return self.conversation
        return nesting.conversation_in(self.within, self.session)

    @property
    def open_draft(self) -> LogDraft | None:
        """The log of the decorated call around the request; None once that has ended, unless it awaits the answer."""
        return None if self.draft is None or (self.draft.ended and not self.is_awaited) else self.draft

    def own_draft(self, conversation: str | None) -> LogDraft:
        """Return the draft of a standalone log, which the program never sees; `conversation`: its named one."""
        draft = LogDraft({}, {}, dict(self.attributes) if self.attributes else {})
        draft.scope, draft.parent, draft.started_ns, draft.span = self.scope, self.draft, self.started_ns, self.span
        if self.response_time is not None:
            draft.named["response_time"] = self.response_time
        if self.reference is not None:
            draft.named["external_reference_id"] = self.reference
        if conversation is not None:
            draft.named["session_id"] = conversation
        return draft


@dataclass(slots=True, eq=False)
class _Kept:
    """The log that contains an answer."""

    draft: LogDraft | None
    """None if the log can no longer be changed, for example because newer answers have displaced it."""
    characters: int = 0
    is_own: bool = True
    """Whether it is the answer's own log, rather than a decorated call's."""
    lock: Any = field(default_factory=threading.RLock)
    """Held while the log is written, so that no change gets ahead of it."""


class _State:
    """Everything that is remembered. The lock guards it, and is never held while a log is written."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a finalizer of an abandoned stream may report its answer meanwhile
        self.ledger: Ledger[_Kept] = Ledger(_MOST_KNOWN)
        self.callers: Newest[_Kept] = Newest(_MOST_KNOWN)
        """Logs by session and call id."""
        self.unanswered: Newest[deque[tuple[_Kept, ToolCall]]] = Newest(_MOST_KNOWN)
        """Calls by the span, run or session around them and the tool's name, for outputs that name no call."""
        self.latest: deque[Answer] = deque(maxlen=_MOST_LATEST)
        """The last answers seen only by clients, which `find` recognises once there is another source. Also keeping
        their logs changeable would take three times as long."""
        self.changeable: deque[_Kept] = deque()
        self.characters = 0

    def find(self, answer: Answer, origin: Origin, now: float = 0.0) -> Place[_Kept] | None:
        """Return the place of an answer that a source has already seen."""
        while nesting.is_followed and self.latest:
            self.ledger.put(self.latest.popleft(), _Kept(None))
        return self.ledger.find(answer, within=origin.within, session=origin.session, now=now)

    def keep(self, draft: LogDraft, answer: Answer, *, is_own: bool) -> _Kept:
        """Keep an answer's log changeable, and release the oldest ones if they are too many or too large."""
        characters = len(answer.text or "")
        for message in answer.prompt:
            characters += len(message["content"])
        kept = _Kept(draft, characters, is_own)
        self.changeable.append(kept)
        self.characters += characters
        while len(self.changeable) > _MOST_CHANGEABLE or self.characters > _MOST_CHARACTERS:
            oldest = self.changeable.popleft()
            self.characters -= oldest.characters
            oldest.draft = None
        return kept


_state = _State()


def reset() -> None:
    """Forget everything: a forked child has its own logs and runs."""
    global _state  # noqa: PLW0603 - one for the process
    _state = _State()
    nesting.reset()


_fork.register("answers", after_in_child=reset)


def log_answer(records: Sequence[Record], origin: Origin, *, error: BaseException | None = None) -> None:
    """Log an answer that a source saw; if it is in a log already, add what this source knows beyond it to that log.

    Args:
        records: everything that the source reports; the first `Answer` is the one that it saw. Renamed in place.
        origin: where the request was made.
        error: what ended the answer early without being a failure: a closed stream or a cancelled task.
    """
    for answer in records:
        if isinstance(answer, Answer):
            break
    else:
        return
    if nesting.is_followed or len(records) > 1 or answer.request is None:
        _log_once(answer, records, origin, error)
        return
    # No other source can see this answer, and it has no tool calls that await outputs. Remembering it, and freeing it
    # a thousand answers later when it is in no CPU cache, would be a fifth of the cost of an instrumented call.
    if (open_draft := origin.open_draft) is not None:
        open_draft.take(records, scope=origin.scope)
        return
    _state.latest.append(answer)
    draft = origin.own_draft(origin.named_conversation())
    draft.only_answer = answer, merge([answer])
    run_now(emission.emit(draft, error=error))


def _log_once(answer: Answer, records: Sequence[Record], origin: Origin, error: BaseException | None) -> None:
    """Log an answer, and remember its log: another source may see the answer, or already has."""
    own, elsewhere = list(records), {}
    session, conversation = origin.session, _with_conversation(answer, origin)
    alike = _likeness(answer, records, session)
    # If there is an id, it is the last name.
    has_id = bool(answer.names) and answer.names[-1][0] == "id"
    answer.names += () if has_id else alike
    now = clock.monotonic()
    with _state.lock:
        place = _state.find(answer, origin, now)
        if has_id:  # after the lookup by id; a source without ids may see it, too
            answer.names += alike
        if is_new := place is None:
            open_draft = origin.open_draft
            draft = open_draft or origin.own_draft(conversation)
            # Also in `draft`, since newer answers may displace it from `kept` before it is written.
            kept = _state.keep(draft, answer, is_own=open_draft is None)
            place = _state.ledger.put(answer, kept, within=origin.within, session=session, now=now)
        else:
            kept, draft = place.value, None
            # Around the known request, rather than looked up later.
            if answer.request is not None and place.requests.get(answer.source, answer.request) != answer.request:
                _distinguish(records, answer)
            _state.ledger.note(place, answer, within=origin.within, now=now)
        if origin.within:
            own += [Documents(texts=texts) for name in origin.within if (texts := nesting.take_documents(name))]
        if len(records) > 1:
            elsewhere = _outputs_of_others(own, kept, conversation or session)
            _note_calls(records, kept, origin)
    if place.key != answer.key:
        _rename(own, answer.key, place.key)
    # First, since the tool outputs in a request are older than its answer.
    for caller, outputs in elsewhere.items():
        _add(caller, outputs, origin)
    with kept.lock:
        draft = draft or kept.draft
        if draft is not None and is_new and kept.is_own:
            _take_first(draft, answer, own)
            run_now(emission.emit(draft, error=error))
        elif draft is not None:
            # A new draft has its conversation from `own_draft`; in a known one, a later source may name it first.
            draft.take(own, scope=origin.scope, session=conversation if kept.is_own else None)


def _take_first(draft: LogDraft, answer: Answer, records: Sequence[Record]) -> None:
    """Put an answer into its own, new log. Most are all that there is to know, and need no accumulator."""
    if len(records) == 1 and draft.accumulator is None:
        draft.only_answer = answer, merge([answer])
    else:
        draft.take(records)


def _likeness(answer: Answer, records: Sequence[Record], session: str | None) -> tuple[Key, ...]:
    """Return a name for an answer made from its content (its text or tool calls, and its error), if there is any."""
    # Calls without ids have numbers instead.
    content = answer.text or tuple(
        each.key for each in records if isinstance(each, ToolCall) and not each.key.startswith("#")
    )
    if answer.request is None or not (content or answer.error):
        return ()
    return (("like", str(hash((session, answer.query, content, answer.error)))),)


def _with_conversation(answer: Answer, origin: Origin) -> str | None:
    """Set an answer's session to the one that a surrounding framework names, if any, and return that."""
    conversation = origin.named_conversation()
    if conversation is not None and answer.key[0] != RUN:  # a run's messages are found by its thread
        answer.session = conversation
    return conversation


def expect(answer: Answer, draft: LogDraft, origin: Origin) -> None:
    """Collect what other sources report of an answer in `draft`, which is logged when the answer is complete."""
    with _state.lock:
        kept = _Kept(draft, is_own=draft is not origin.draft)
        _state.ledger.put(answer, kept, within=origin.within, session=origin.session)


def is_logged(answer: Answer, origin: Origin) -> bool:
    """Return whether a source has already seen this answer."""
    with _state.lock:
        return _state.find(answer, origin) is not None


def log_tool_output(
    value: object,
    origin: Origin,
    *,
    call: str | None,
    tool: str | None = None,
    arguments: object = None,
    name: Key | None = None,
) -> None:
    """Add a tool's output to the log whose answer called the tool, else to the decorated call around the tool.

    Args:
        value: the output, as data.
        origin: where the tool ran.
        call: the id of the call; without one, it is a call of this `tool` that was made around it.
        tool: its name.
        arguments: the tool's arguments, as data or JSON, which distinguish several calls of one tool.
        name: the span or run of the tool, which has not ended yet: documents retrieved in it go to the same log.
    """
    with _state.lock:
        kept = _state.callers.get((origin.named_conversation() or origin.session, call))
        if kept is None and call is None and tool is not None:
            kept, call = _unanswered(tool, arguments, origin)
        texts = nesting.take_documents(name) if name is not None else ()
    given: list[Record] = [Documents(texts=texts)] if texts else []
    if call is not None:
        given.append(ToolOutput(call=call, value=value))
    if kept is not None:
        _add(kept, given, origin)
    elif origin.open_draft is not None:
        origin.open_draft.take(given)


def log_documents(texts: Iterable[str], origin: Origin) -> None:
    """Add retrieved documents to the decorated call around, else to the next answer in the same span or run."""
    if origin.open_draft is not None:
        origin.open_draft.take([Documents(texts=tuple(texts))])
    elif origin.within:
        nesting.add_documents(origin.within[0], texts)


def _add(kept: _Kept, records: list[Record], origin: Origin) -> None:
    with kept.lock:
        if kept.draft is not None:
            kept.draft.take(records, scope=origin.scope)


def _outputs_of_others(records: list[Record], kept: _Kept, session: object) -> dict[_Kept, list[Record]]:
    """Take out the outputs of calls that are in other logs, and return them by log. The caller holds the lock."""
    found: dict[_Kept, list[Record]] = {}
    for record in tuple(records):
        if isinstance(record, ToolOutput):
            caller = _state.callers.get((session, record.call))
            if caller is not None and caller is not kept:
                found.setdefault(caller, []).append(record)
                records.remove(record)
    return found


def _rename(records: Iterable[Record], answer: Key, key: Key) -> None:
    """Give an answer and its calls the key that it has in other sources' records."""
    for record in records:
        if isinstance(record, Answer) and record.key == answer:
            record.key = key
        elif isinstance(record, ToolCall) and record.owner == answer:
            record.owner = key


def _distinguish(records: Iterable[Record], answer: Answer) -> None:
    """Give an answer and its calls a source of their own: they are one source's second report of a known answer."""
    answer.source, answer.fidelity = f"{answer.source} around {answer.request}", AS_FUNCTION
    for record in records:
        if isinstance(record, ToolCall) and record.owner == answer.key:
            record.source = answer.source


def _note_calls(records: Iterable[Record], kept: _Kept, origin: Origin) -> None:
    """Remember which log contains each tool call. The caller holds the lock."""
    session = origin.named_conversation() or origin.session
    for record in records:
        if not isinstance(record, ToolCall):
            continue
        if not record.key.startswith("#"):  # a number in place of an id
            _state.callers.put((session, record.key), kept)
        for place in origin.within or (session,):
            waiting = _state.unanswered.get((place, record.tool))
            if waiting is None:
                waiting = deque(maxlen=_MOST_ALIKE)
                _state.unanswered.put((place, record.tool), waiting)
            # Another source may report the same call under another id; calls from one source are all distinct.
            others = (call for log, call in waiting if log is kept and call.source != record.source)
            if not any(call.arguments == record.arguments for call in others):
                waiting.append((kept, record))


def _unanswered(tool: str, arguments: object, origin: Origin) -> tuple[_Kept | None, str | None]:
    """Take the waiting call that a tool's run belongs to: of several, the one with these arguments, else the oldest."""
    given = _decoded(arguments)
    places = (*origin.within, origin.named_conversation() or origin.session)
    for place in places:
        waiting = _state.unanswered.get((place, tool))
        if waiting:
            found = next((each for each in waiting if _decoded(each[1].arguments) == given), waiting[0])
            for other in places:
                alike = _state.unanswered.get((other, tool))
                if alike and found in alike:
                    alike.remove(found)
            return found[0], found[1].key
    return None, None


def _decoded(arguments: object) -> object:
    if isinstance(arguments, str):
        with suppress(ValueError):
            return json.loads(arguments)
    return arguments
