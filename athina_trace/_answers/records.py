"""What is known of one answer of a model, as small records that are the same for every source and client version.

    Answer         one answer of a model, as one snapshot shows it
    ToolCall       one call of a tool, by whichever answer made it
    ToolOutput     what a tool gave back for a call
    ThreadMessage  a message of a thread in which answers are given as messages
    Documents      what was retrieved for answers
    SessionSeen    a thread or conversation that was made or fetched

Times are Unix seconds by the server's clock, tokens are counts, None means "this snapshot does not say".
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "AS_FUNCTION",
    "AS_OBJECT",
    "AS_SPAN",
    "AS_TYPED",
    "FINISHED",
    "RUN",
    "Answer",
    "Documents",
    "Key",
    "Record",
    "SessionSeen",
    "ThreadMessage",
    "ToolCall",
    "ToolOutput",
    "merge_calls",
    "merge_snapshots",
    "merge_sources",
]

Key = tuple[str, str]
"""The kind of an answer ("run", "response", "chat" …) and the id that its server gave it."""

RUN = "run"
"""The kind of answers whose text is in the messages of their thread."""

FINISHED = 4
"""The progress of an answer of which nothing more will come."""

AS_FUNCTION, AS_SPAN, AS_TYPED, AS_OBJECT = range(4)
"""How much of an answer a source is given.

What a function around a request was given and gave back, attributes of a span, a framework's messages, what the server
sent.
"""


@dataclass(slots=True)
class Answer:
    """One snapshot of an answer, with what its request asked where that is known.

    Sources that give many of its fields set them one by one: as many arguments take three times as long.
    """

    key: Key
    names: tuple[Key, ...] = ()
    """What other sources know it by: the span or run that it is, and last `("id", …)` for the id from its server."""
    source: str = ""
    """What saw it; empty where it was an object of the model's own client."""
    fidelity: int = AS_OBJECT
    """Where sources differ, the one with the highest wins."""
    request: int | str | None = None
    """What its source numbers requests by, each of which gives one answer whatever its id; None for a later look."""
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
    cost: float | None = None
    """As the source says it, in US dollars."""
    further: Mapping[str, object] = field(default_factory=dict)
    """Other fields of an Athina log, such as `customer_user_id` and `prompt_slug`."""

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
    source: str = ""
    """That of the answer which made it."""
    progress: int = 1
    """0 while the call is being written or carried out."""

    @property
    def tool(self) -> object:
        """The tool's name; of one that the server runs, its type."""
        return self._function.get("name") or self.body.get("type")

    @property
    def arguments(self) -> object:
        """What the tool is given: JSON, mostly."""
        return self._function.get("arguments")

    @property
    def _function(self) -> Mapping[str, object]:
        function = self.body.get("function")
        return function if isinstance(function, dict) else {}


@dataclass(slots=True, kw_only=True)
class ToolOutput:
    """What a tool gave back."""

    call: str
    value: object


@dataclass(slots=True, kw_only=True)
class Documents:
    """Texts that were retrieved for the answers of a log."""

    texts: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class SessionSeen:
    """A thread or conversation."""

    session: str


Record = Answer | ThreadMessage | ToolCall | ToolOutput | Documents | SessionSeen


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


def merge_sources(snapshots: Iterable[Answer]) -> Answer:
    """Put together what several sources say of one answer; the order in which they came does not count.

    The source that is given most wins, of several such the one with the longest text and prompt; what it does not say
    is taken from the others.
    """
    ranked = sorted(snapshots, key=_rank)
    merged = ranked[0]
    for better in ranked[1:]:
        # Instructions are messages of the prompt for some sources: both are taken from one.
        asked = better if better.prompt else merged
        error, code = better.error or merged.error, better.status_code or merged.status_code
        merged = merge_snapshots(replace(merged, progress=min(merged.progress, better.progress)), better)
        merged.system, merged.prompt, merged.error, merged.status_code = asked.system, asked.prompt, error, code
    return merged


def _rank(answer: Answer) -> tuple[object, ...]:
    size = sum(len(message["content"]) for message in answer.prompt)
    return answer.progress, answer.fidelity, len(answer.text or "") + size, answer.source


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
