"""An answer that a source saw → the log that it belongs to: each once, whichever sources see it, in whatever order.

Inside a decorated call all that sources say goes into that call's log. Outside, the first source to see an answer logs
it at once; what a later one knows besides changes that log. What a tool gave back goes to the log that called for it,
and documents that were retrieved go to the next answer beside them.

Sources say what runs around a request (`begin`, `end`): a span or run of a model and the request inside it are one
answer, also where no id says so.
"""

from __future__ import annotations

import contextvars
import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from athina_trace import _fork
from athina_trace._answers.accumulator import AnswerAccumulator
from athina_trace._answers.ledger import Ledger
from athina_trace._answers.memory import Newest
from athina_trace._answers.merge import merge
from athina_trace._answers.records import RUN, Answer, Documents, Key, Record, ToolCall, ToolOutput
from athina_trace._capture import emission
from athina_trace._capture.active_span import span_attributes
from athina_trace._capture.arguments import Options
from athina_trace._capture.draft import LogDraft, current_draft
from athina_trace._clock import clock
from athina_trace._wrapping.calls import run_now
from athina_trace.context import Scope, current_scope

__all__ = [
    "Origin",
    "add_surrounding",
    "begin",
    "continue_in",
    "end",
    "expect",
    "follow_nesting",
    "is_logged",
    "log_answer",
    "log_documents",
    "log_tool_output",
    "reset",
    "subject_of",
    "within",
]

_MOST_KNOWN: Final = 4096
"""Answers that are recognised when another source sees them, and calls of tools whose outputs may come."""
_MOST_CHANGEABLE: Final = 1024
_MOST_LATEST: Final = 16
"""Answers that clients alone have seen, and that a source which is switched on next may still see the end of."""
_MOST_CHARACTERS: Final = 8_000_000
"""Of the prompts and texts of answers whose logs can still be changed, and of documents that wait for an answer."""
_MOST_RUNNING: Final = 4096
_MOST_AROUND: Final = 8
_MOST_ALIKE: Final = 32
"""Calls of one tool that wait for outputs which do not name them."""
_NO_OPTIONS: Final = Options()


class Origin(NamedTuple):
    """Where and when a request was made: what a log of its own takes over."""

    started_ns: int
    scope: Scope
    draft: LogDraft | None = None
    """The decorated call that the request was made in, open or ended."""
    within: tuple[Key, ...] = ()
    """The spans and runs around it, the innermost first."""
    span: Mapping[str, str] | None = None
    """OpenTelemetry's span around it, as in `LogDraft`."""
    is_awaited: bool = False
    """Whether its answer is that call's also where the source says so only after the call."""
    attributes: Mapping[str, Any] | None = None
    """Custom attributes of a log of its own."""
    response_time: int | None = None
    """Milliseconds, where the source measured them."""
    reference: str | None = None
    """The reference of a log of its own, where that is to be the same whenever this is seen."""
    conversation: str | None = None
    """The session that the program named to the framework which makes the request."""

    @classmethod
    def here(cls, around: tuple[Key, ...] | None = None) -> Origin:
        """Return the code that is running now as an origin; `around`: the spans and runs around it, where known."""
        around = within() if around is None else around
        return cls(clock.perf_ns(), current_scope(), current_draft(), around, span_attributes())

    @classmethod
    def of_run(cls, name: Key, parent: Key | None = None, *, conversation: str | None = None) -> Origin:
        """Begin a framework's run here, see `begin`, and return it as an origin."""
        around = begin(name, parent, conversation=conversation)
        here = cls.here((name, *around))
        return here._replace(within=around, conversation=here.named_conversation())

    @property
    def session(self) -> str | None:
        """What the program's own scope names the session: the same for all sources that see a request."""
        return self.scope.fields.get("session_id")

    def named_conversation(self) -> str | None:
        """Return what a framework around calls the conversation, unless a scope that was entered inside names one."""
        if self.conversation is not None:
            return self.conversation
        for name in self.within:
            running = _state.running.get(name)
            if running is not None:
                return running.conversation if running.session == self.session else None
        return None

    @property
    def open_draft(self) -> LogDraft | None:
        """The log of the decorated call around the request, unless that call has ended and awaits no answer."""
        return None if self.draft is None or (self.draft.ended and not self.is_awaited) else self.draft

    def own_draft(self, answers: Mapping[str, Any] | None = None) -> LogDraft:
        """Return a draft that no code of the program sees.

        Args:
            answers: the fields of its answers, where no source will say more of them.
        """
        draft = LogDraft({}, {}, dict(self.attributes or {}))
        draft.scope, draft.parent, draft.started_ns, draft.span = self.scope, self.draft, self.started_ns, self.span
        if answers is None:
            draft.accumulator = AnswerAccumulator()
        draft.merged_answers = answers
        if self.response_time is not None:
            draft.named["response_time"] = self.response_time
        if self.reference is not None:
            draft.named["external_reference_id"] = self.reference
        if (conversation := self.named_conversation()) is not None:
            draft.named["session_id"] = conversation
        return draft


@dataclass(slots=True)
class _Running:
    """A span or run that has begun."""

    parent: Key | None
    subject: Any
    """What its source keeps of it."""
    conversation: str | None = None
    session: str | None = None
    """What the scope named the session where the conversation was named: another one was entered inside."""
    documents: list[str] = field(default_factory=list)
    """What was retrieved inside, for the next answer inside."""


@dataclass(slots=True, eq=False)
class _Kept:
    """The log that an answer is in."""

    draft: LogDraft | None
    """None where too much came since for it to be changed."""
    characters: int = 0
    is_own: bool = True
    """Whether it is this answer's alone, and no decorated call's."""
    lock: Any = field(default_factory=threading.RLock)
    """Held while the log is written, so that no change of it comes before it."""


_around: contextvars.ContextVar[tuple[Key, ...]] = contextvars.ContextVar("athina_trace_within", default=())


class _State:
    """What is remembered. Its lock is held while that is looked at, and never while a log is written."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ledger: Ledger[_Kept] = Ledger(_MOST_KNOWN)
        self.running: Newest[_Running] = Newest(_MOST_RUNNING)
        self.callers: Newest[_Kept] = Newest(_MOST_KNOWN)
        """By session and id of a call."""
        self.unanswered: Newest[deque[tuple[_Kept, ToolCall]]] = Newest(_MOST_KNOWN)
        """Calls by what they were made in and the tool's name, for outputs that name no call."""
        self.latest: deque[Answer] = deque(maxlen=_MOST_LATEST)
        """What clients alone saw last; to keep the logs, too, for changes of them, takes three times as long."""
        self.changeable: deque[_Kept] = deque()
        self.characters = 0
        self.document_characters = 0
        """Of what was retrieved and not used yet."""

    def keep(self, draft: LogDraft, answer: Answer, *, is_own: bool) -> _Kept:
        """Keep the log of an answer changeable, and let go of the oldest ones where that takes too much."""
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

    def forget_documents(self, running: _Running | None) -> None:
        """Let go of what was retrieved in a span or run."""
        if running is not None:
            self.document_characters -= sum(map(len, running.documents))
            running.documents = []

    def ancestors(self, name: Key | None) -> tuple[Key, ...]:
        """Return a span or run and those around it, as far as they are still running."""
        found: list[Key] = []
        while name is not None and len(found) < _MOST_AROUND and (running := self.running.get(name)) is not None:
            found.append(name)
            name = running.parent
        return tuple(found)


_state = _State()


def reset() -> None:
    """Forget everything: a forked child has logs of its own."""
    global _state  # noqa: PLW0603 - one for the process
    _state = _State()


_fork.register("answers", after_in_child=reset)


# What runs around requests -------------------------------------------------------------------------------------------

is_nesting_followed = False
"""Whether a source besides instrumented clients was switched on."""


def follow_nesting() -> None:
    """Let instrumented clients note what runs around their requests and in them, too.

    Every other source calls this when it is switched on: the answer that it sees may be that of such a request.
    """
    global is_nesting_followed  # noqa: PLW0603 - one for the process
    is_nesting_followed = True
    _remember_latest()


def _remember_latest() -> None:
    """Know again, by their ids, the answers that clients alone have seen; their logs can be changed no more."""
    with _state.lock:
        while _state.latest:
            _state.ledger.put(_state.latest.popleft(), _Kept(None))


def begin(
    name: Key, parent: Key | None = None, subject: Any = None, *, conversation: str | None = None
) -> tuple[Key, ...]:
    """Note that a span or run begins here: requests made in this context from now on are within it.

    It need not end in this context, so that none is restored: what has ended is passed over.

    Args:
        name: the kind of span or run, and its id.
        parent: what it is in, where that is known better than by what runs around the code that is running now.
        subject: what its source wants back from `end`.
        conversation: the session that the program named to the framework whose run this is. It holds for what is
            inside, too, except where a scope entered inside names another.

    Returns:
        What is around it, the innermost first, without itself.
    """
    with _state.lock:
        around = within()
        if parent is not None and parent not in around:
            around = _state.ancestors(parent) or around
        begun = _Running(around[0] if around else None, subject)
        # A run that its framework has in no other is in none, also where one was left open here before.
        outer = _state.running.get(next((each for each in around if parent is not None or each[0] != name[0]), None))
        # Frameworks hand down to each run what the outermost one was given.
        if outer is not None and conversation in (None, outer.conversation):
            begun.conversation, begun.session = outer.conversation, outer.session
        elif conversation is not None:
            begun.conversation, begun.session = conversation, current_scope().fields.get("session_id")
        if (known := _state.running.pop(name)) is not None:  # it was begun for what is inside, which was seen first
            begun.documents = known.documents
        _state.forget_documents(_state.running.put(name, begun))
    _around.set((name, *around[: _MOST_AROUND - 1]))
    return around


def end(name: Key) -> Any:
    """Note that a span or run has ended; returns its subject, None where it is not known (any more).

    What was retrieved inside and not used yet is for what is around it.
    """
    with _state.lock:
        ended = _state.running.pop(name)
        if ended is None:
            return None
        around = _state.running.get(ended.parent) if ended.documents else None
        if around is not None:
            around.documents += ended.documents
        else:
            _state.forget_documents(ended)
        return ended.subject


def continue_in(around: tuple[Key, ...]) -> None:
    """Let the code that is running now be in these spans and runs, the innermost first, and in no others."""
    _around.set(around)


def subject_of(name: Key) -> Any:
    """Return what the source of a span or run that is running keeps of it."""
    running = _state.running.get(name)
    return None if running is None else running.subject


def within() -> tuple[Key, ...]:
    """Return the spans and runs around the code that is running now, the innermost first."""
    if not is_nesting_followed:
        return ()
    around = _around.get()
    if around:
        around = tuple(name for name in around if name in _state.running)
    for name_here in _unseen:
        name = name_here()
        if name is not None and name not in around:
            around = (name, *around)
    return around


def add_surrounding(name_here: Callable[[], Key | None]) -> None:
    """Register `name_here`, which names what else is around the running code, whose beginning nothing could see."""
    if name_here not in _unseen:
        _unseen.append(name_here)


_unseen: list[Callable[[], Key | None]] = []


# What sources see ----------------------------------------------------------------------------------------------------


def log_answer(records: Sequence[Record], origin: Origin, *, error: BaseException | None = None) -> None:
    """Log an answer that a source saw, unless it is in a log: then what this source knows besides is added there.

    Args:
        records: all that the source says; the first `Answer` is the one that it saw. They are renamed in place.
        origin: where the request was made.
        error: what ended the answer early, where that was no failure: a stream that was closed, a cancelled task.
    """
    for answer in records:
        if isinstance(answer, Answer):
            break
    else:
        return
    if is_nesting_followed or len(records) > 1 or answer.request is None:
        _log_once(answer, records, origin, error)
        return
    # No other source knows this answer, nor has it calls whose outputs may come: to remember it, and to let go of it
    # a thousand answers later, when none of it is in a cache any more, is a fifth of what an instrumented call costs.
    if (open_draft := origin.open_draft) is not None:
        open_draft.take(records, scope=origin.scope)
        return
    fields = merge([answer])
    _state.latest.append(answer)
    run_now(emission.emit(origin.own_draft(fields), _NO_OPTIONS, error=error))
    if is_nesting_followed:  # since just now
        _remember_latest()


def _log_once(answer: Answer, records: Sequence[Record], origin: Origin, error: BaseException | None) -> None:
    """Log an answer, and remember where: another source may see it, or has."""
    own, elsewhere = list(records), {}
    session, conversation = origin.session, _with_conversation(answer, origin)
    alike = _likeness(answer, records, session)
    # An id is the last of the names.
    has_id = bool(answer.names) and answer.names[-1][0] == "id"
    if not has_id:
        answer.names += alike
    now = clock.monotonic()
    with _state.lock:
        place = _state.ledger.find(answer, within=origin.within, session=session, now=now)
        if has_id:  # by which it is looked for; a source that is given none may see it, too
            answer.names += alike
        if is_new := place is None:
            open_draft = origin.open_draft
            draft = open_draft or origin.own_draft()
            # Before it is written, others may come whose texts leave no room for it to be changed.
            kept = _state.keep(draft, answer, is_own=open_draft is None)
            place = _state.ledger.put(answer, kept, within=origin.within, session=session, now=now)
        else:
            kept, draft = place.value, None
            _state.ledger.note(place, answer, within=origin.within, now=now)
        if origin.within:
            own += [Documents(texts=texts) for name in origin.within if (texts := _documents_in(name))]
        if len(records) > 1:
            elsewhere = _outputs_of_others(own, kept, conversation or session)
            _note_calls(records, kept, origin)
    if place.key != answer.key:
        _rename(own, answer.key, place.key)
    # First, as they happened: what a request brings came before what it is answered.
    for caller, outputs in elsewhere.items():
        _add(caller, outputs, origin)
    with kept.lock:
        draft = draft or kept.draft
        if draft is not None:
            # A new draft has the conversation from `own_draft`; a later source may name one where the first did not.
            draft.take(own, scope=origin.scope, session=conversation if kept.is_own and not is_new else None)
            if is_new and kept.is_own:
                run_now(emission.emit(draft, _NO_OPTIONS, error=error))


def _likeness(answer: Answer, records: Sequence[Record], session: str | None) -> tuple[Key, ...]:
    """Return the name of an answer by what it says, or by the calls that it makes, if any."""
    # Calls without ids of their own are numbered.
    content = answer.text or tuple(
        each.key for each in records if isinstance(each, ToolCall) and not each.key.startswith("#")
    )
    if answer.request is None or not (content or answer.error):
        return ()
    return (("like", str(hash((session, answer.query, content, answer.error)))),)


def _with_conversation(answer: Answer, origin: Origin) -> str | None:
    """Give an answer the conversation that a framework around it names, if any, and return that."""
    conversation = origin.named_conversation()
    if conversation is not None and answer.key[0] != RUN:  # whose messages are found by its thread
        answer.session = conversation
    return conversation


def expect(answer: Answer, draft: LogDraft, origin: Origin) -> None:
    """Collect what other sources say of an answer in `draft`, which is logged when the answer is whole."""
    with _state.lock:
        kept = _Kept(draft, is_own=draft is not origin.draft)
        _state.ledger.put(answer, kept, within=origin.within, session=origin.session)


def is_logged(answer: Answer, origin: Origin) -> bool:
    """Return whether a source has seen this answer."""
    with _state.lock:
        return _state.ledger.find(answer, within=origin.within, session=origin.session) is not None


def log_tool_output(
    value: object,
    origin: Origin,
    *,
    call: str | None,
    tool: str | None = None,
    arguments: object = None,
    name: Key | None = None,
) -> None:
    """Give what a tool gave back to the log that called for it.

    Args:
        value: the output, as data.
        origin: where the tool ran.
        call: the id of the call; where there is none, it is the call of this `tool` that was made around it.
        tool: its name.
        arguments: what it was given, data or JSON, by which several calls of one tool differ.
        name: the span or run of the tool, which has not ended yet: what was retrieved in it is the call's, too.
    """
    with _state.lock:
        kept = _state.callers.get((origin.named_conversation() or origin.session, call))
        if kept is None and call is None and tool is not None:
            kept, call = _unanswered(tool, arguments, origin)
        texts = _documents_in(name) if name is not None else ()
    given: list[Record] = [Documents(texts=texts)] if texts else []
    if call is not None:
        given.append(ToolOutput(call=call, value=value))
    if kept is not None:
        _add(kept, given, origin)
    elif origin.open_draft is not None:
        origin.open_draft.take(given)


def log_documents(texts: Iterable[str], origin: Origin) -> None:
    """Give documents that were retrieved to the decorated call around, else to the next answer beside them."""
    given = tuple(texts)
    if origin.open_draft is not None:
        origin.open_draft.take([Documents(texts=given)])
        return
    with _state.lock:
        running = _state.running.get(origin.within[0]) if origin.within else None
        characters = sum(map(len, given))
        if running is not None and _state.document_characters + characters <= _MOST_CHARACTERS:
            running.documents += given
            _state.document_characters += characters


def _add(kept: _Kept, records: list[Record], origin: Origin) -> None:
    with kept.lock:
        if kept.draft is not None:
            kept.draft.take(records, scope=origin.scope)


def _documents_in(name: Key) -> tuple[str, ...]:
    """Take what was retrieved in a span or run and not used yet. Under the lock."""
    running = _state.running.get(name)
    if running is None or not running.documents:
        return ()
    texts = tuple(running.documents)
    _state.forget_documents(running)
    return texts


def _outputs_of_others(records: list[Record], kept: _Kept, session: object) -> dict[_Kept, list[Record]]:
    """Take out the outputs of calls that other logs have, by log. Under the lock."""
    found: dict[_Kept, list[Record]] = {}
    for record in tuple(records):
        if isinstance(record, ToolOutput):
            caller = _state.callers.get((session, record.call))
            if caller is not None and caller is not kept:
                found.setdefault(caller, []).append(record)
                records.remove(record)
    return found


def _rename(records: Iterable[Record], answer: Key, key: Key) -> None:
    """Give an answer and its calls the name that other sources' records of it have."""
    for record in records:
        if isinstance(record, Answer) and record.key == answer:
            record.key = key
        elif isinstance(record, ToolCall) and record.owner == answer:
            record.owner = key


def _note_calls(records: Iterable[Record], kept: _Kept, origin: Origin) -> None:
    """Remember which log calls of tools are in. Under the lock."""
    session = origin.named_conversation() or origin.session
    for record in records:
        if not isinstance(record, ToolCall):
            continue
        if not record.key.startswith("#"):  # what has no id of its own is numbered
            _state.callers.put((session, record.key), kept)
        for place in origin.within or (session,):
            waiting = _state.unanswered.get((place, record.tool))
            if waiting is None:
                waiting = deque(maxlen=_MOST_ALIKE)
                _state.unanswered.put((place, record.tool), waiting)
            # Another source may know the call by another id; one source has as many calls as it says.
            others = (call for log, call in waiting if log is kept and call.source != record.source)
            if not any(call.arguments == record.arguments for call in others):
                waiting.append((kept, record))


def _unanswered(tool: str, arguments: object, origin: Origin) -> tuple[_Kept | None, str | None]:
    """Take the call of a tool that was made around its run: of several the one with these arguments, else the first."""
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
