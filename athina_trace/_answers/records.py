"""What is known of one answer of a model, as small records that are the same for every source and client version.

    Answer         one answer of a model, as one snapshot shows it
    ToolCall       one call of a tool, by whichever answer made it
    ToolOutput     what a tool gave back for a call
    ThreadMessage  a message of a thread in which answers are given as messages
    SessionSeen    a thread or conversation that was made or fetched

Times are Unix seconds by the server's clock, tokens are counts, None means "this snapshot does not say".
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "FINISHED",
    "RUN",
    "Answer",
    "Key",
    "Record",
    "SessionSeen",
    "ThreadMessage",
    "ToolCall",
    "ToolOutput",
    "merge_calls",
    "merge_snapshots",
]

Key = tuple[str, str]
"""The kind of an answer ("run", "response", "chat" …) and the id that its server gave it."""

RUN = "run"
"""The kind of answers whose text is in the messages of their thread."""

FINISHED = 4
"""The progress of an answer of which nothing more will come."""


@dataclass(slots=True, kw_only=True)
class Answer:
    """One snapshot of an answer, with what its request asked where that is known."""

    key: Key
    request: int | None = None
    """The request that asked for it, which gives one answer whatever its id; None for a later look at an answer."""
    order: int | None = None
    """When the request began, by a clock that is good for nothing but comparing."""
    created: float | None = None
    status: str | None = None
    """As the server names it; of a chat completion, the finish reason."""
    progress: int = FINISHED
    """How far the answer had come: of two snapshots the one further on is the later, whichever arrived first."""
    session: str | None = None
    previous: str | None = None
    """The id of the answer before this one, in a chain of answers."""
    model: str | None = None
    text: str | None = None
    choices: tuple[str, ...] = ()
    """Texts of the further answers to the same question."""
    system: tuple[str, ...] = ()
    prompt: tuple[Mapping[str, str], ...] = ()
    """The messages of the request: role and content, in order."""
    query: str | None = None
    usage: Mapping[str, int] = field(default_factory=dict)
    """`prompt_tokens`, `completion_tokens`, `total_tokens`, and details such as `cached_tokens`."""
    tools: tuple[object, ...] = ()
    functions: tuple[object, ...] = ()
    """What came before tools in chat completions."""
    options: Mapping[str, object] = field(default_factory=dict)
    error: str | None = None
    status_code: int | None = None
    citations: tuple[str, ...] = ()
    """Pages and files that its text refers to."""
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.progress == FINISHED


@dataclass(slots=True, kw_only=True)
class ThreadMessage:
    """One snapshot of a thread's message."""

    id: str
    thread: str | None = None
    run: str | None = None
    role: str | None = None
    created: float | None = None
    text: str | None = None
    files: tuple[str, ...] = ()
    citations: tuple[str, ...] = ()
    quotes: tuple[str, ...] = ()
    backwards: bool = False
    """It came in a list that runs from the newest to the oldest."""
    progress: int = 1
    """0 while the message is being written."""


@dataclass(slots=True, kw_only=True)
class ToolCall:
    """One call of a tool; `body` has the shape of chat completions: id, type and what that calls for."""

    key: str
    owner: Key
    body: Mapping[str, object]
    output: object = None
    context: tuple[str, ...] = ()
    """Chunks of documents that the tool found."""
    created: float | None = None
    session: str | None = None
    progress: int = 1
    """0 while the call is being written or carried out."""


@dataclass(slots=True, kw_only=True)
class ToolOutput:
    """What a tool gave back."""

    call: str
    value: object


@dataclass(slots=True, kw_only=True)
class SessionSeen:
    """A thread or conversation."""

    session: str


Record = Answer | ThreadMessage | ToolCall | ToolOutput | SessionSeen


def merge_snapshots(known: Answer, new: Answer) -> Answer:
    """Put two snapshots of one answer together.

    The one further on wins, of two equally far the new one; what it does not say is taken from the other.
    """
    first, second = (known, new) if new.progress >= known.progress else (new, known)
    values = {name: _later(getattr(first, name), getattr(second, name)) for name in _ANSWER_FIELDS}
    # Instructions that a request added are in no later snapshot.
    values["system"] = max(second.system, first.system, key=len)
    if second.ended:  # a stream that broke off is no error of an answer that was given after all
        values["error"], values["status_code"] = second.error, second.status_code
    values["order"] = min((each.order for each in (known, new) if each.order is not None), default=None)
    return Answer(**values)


_ANSWER_FIELDS = tuple(each.name for each in fields(Answer))


def _later(first: Any, second: Any) -> Any:
    if isinstance(first, dict) and isinstance(second, dict):
        return {**first, **second}
    return first if second is None or second == () else second


def merge_calls(known: ToolCall, new: ToolCall) -> ToolCall:
    """Put two snapshots of one call together, by the rule of `merge_snapshots`."""
    first, second = (known, new) if new.progress >= known.progress else (new, known)
    return replace(
        second,
        body={**first.body, **second.body},
        output=first.output if second.output is None else second.output,
        context=second.context or first.context,
        created=first.created if second.created is None else second.created,
        session=second.session or first.session,
    )
