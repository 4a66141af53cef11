"""Small records of models' answers, which are the same for every source and client version.

    Answer         one snapshot of a model's answer
    ToolCall       one tool call, made by an answer
    ToolOutput     a tool's output for a call
    ThreadMessage  a message of a thread, in which answers are given as messages
    Documents      texts retrieved for answers
    SessionSeen    a thread or conversation that was created or fetched

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
"""The kind of an answer ("run", "response", "chat" …) and its server's id for it."""

RUN = "run"
"""The kind of answers whose text is in messages of their thread."""

FINISHED = 4
"""The progress of an answer that is finished."""

AS_FUNCTION, AS_SPAN, AS_TYPED, AS_OBJECT = range(4)
"""How much of an answer a source gets to see.

A function's arguments and result, a span's attributes, a framework's messages, or what the server sent.
"""


@dataclass(slots=True)
class Answer:
    """One snapshot of an answer, with the parameters of its request if they are known.

    Sources with many fields set them one by one: passing as many arguments takes three times as long.
    """

    key: Key
    names: tuple[Key, ...] = ()
    """Keys by which other sources know it: its span or run, and last `("id", …)` for its server's id."""
    source: str = ""
    """The source that saw it; empty for an object of the model's own client."""
    fidelity: int = AS_OBJECT
    """If sources differ, the one with the highest fidelity wins."""
    request: int | str | None = None
    """Its source's number for the request, which has one answer whatever its id; None if it was only looked up."""
    order: int | None = None
    """When the request began, by a clock that is only good for comparing."""
    created: float | None = None
    status: str | None = None
    """The server's status; for a chat completion, the finish reason."""
    progress: int = FINISHED
    """How far the answer had come: the snapshot with more progress is the later one, whichever arrived first."""
    session: str | None = None
    previous: str | None = None
    """The id of the answer before this one in a chain of answers."""
    model: str | None = None
    text: str | None = None
    choices: tuple[str, ...] = ()
    """Texts of further answers to the same question."""
    system: tuple[str, ...] = ()
    prompt: tuple[Mapping[str, str], ...] = ()
    """The messages of the request: role and content, in order."""
    query: str | None = None
    usage: Mapping[str, int] = field(default_factory=dict)
    """`prompt_tokens`, `completion_tokens`, `total_tokens`, and details such as `cached_tokens`."""
    tools: tuple[object, ...] = ()
    functions: tuple[object, ...] = ()
    """The legacy form of tools in chat completions."""
    options: Mapping[str, object] = field(default_factory=dict)
    error: str | None = None
    status_code: int | None = None
    citations: tuple[str, ...] = ()
    """Pages and files to which its text refers."""
    details: Mapping[str, str] = field(default_factory=dict)
    cost: float | None = None
    """As the source states it, in US dollars."""
    further: Mapping[str, object] = field(default_factory=dict)
    """Other fields of an Athina log, such as `customer_user_id` and `prompt_slug`."""

    @property
    def ended(self) -> bool:
        """Whether it is finished."""
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
    """Whether it was in a list from the newest message to the oldest."""
    progress: int = 1
    """0 while the message is being written."""


@dataclass(slots=True, kw_only=True)
class ToolCall:
    """One tool call; `body` has the form of chat completions: an id, a type, and fields that depend on the type."""

    key: str
    owner: Key
    body: Mapping[str, object]
    output: object = None
    context: tuple[str, ...] = ()
    """Chunks of documents that the tool found."""
    created: float | None = None
    session: str | None = None
    source: str = ""
    """The source of the answer that made the call."""
    progress: int = 1
    """0 while the call is being written or executed."""

    @property
    def tool(self) -> object:
        """The tool's name; for a tool that the server runs, its type."""
        return self._function.get("name") or self.body.get("type")

    @property
    def arguments(self) -> object:
        """The tool's arguments, usually JSON."""
        return self._function.get("arguments")

    @property
    def _function(self) -> Mapping[str, object]:
        function = self.body.get("function")
        return function if isinstance(function, dict) else {}


@dataclass(slots=True, kw_only=True)
class ToolOutput:
    """A tool's output."""

    call: str
    value: object


@dataclass(slots=True, kw_only=True)
class Documents:
    """Texts retrieved for the answers of a log."""

    texts: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class SessionSeen:
    """A thread or conversation."""

    session: str


Record = Answer | ThreadMessage | ToolCall | ToolOutput | Documents | SessionSeen


def merge_snapshots(known: Answer, new: Answer) -> Answer:
    """Merge two snapshots of one answer.

    The one with more progress wins, or the new one if they are equal; what it lacks is taken from the other.
    """
    first, second = (known, new) if new.progress >= known.progress else (new, known)
    values = {name: _later(getattr(first, name), getattr(second, name)) for name in _ANSWER_FIELDS}
    # Later snapshots lack the instructions that a request added.
    values["system"] = max(second.system, first.system, key=len)
    if second.ended:  # an interrupted stream is not an error of an answer that was completed after all
        values["error"], values["status_code"] = second.error, second.status_code
    values["order"] = min((each.order for each in (known, new) if each.order is not None), default=None)
    return Answer(**values)


def merge_sources(snapshots: Iterable[Answer]) -> Answer:
    """Merge several sources' snapshots of one answer, regardless of the order in which they came.

    The most advanced snapshot wins, then the source that sees most, then the longest text and prompt; what it lacks is
    taken from the others.
    """
    ranked = sorted(snapshots, key=_rank)
    merged = ranked[0]
    for better in ranked[1:]:
        # Some sources have the instructions in the prompt: both are taken from the same source.
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
    """Merge two snapshots of one call, by the rule of `merge_snapshots`."""
    first, second = (known, new) if new.progress >= known.progress else (new, known)
    return replace(
        second,
        body={**first.body, **second.body},
        output=first.output if second.output is None else second.output,
        context=second.context or first.context,
        created=first.created if second.created is None else second.created,
        session=second.session or first.session,
    )
