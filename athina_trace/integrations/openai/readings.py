"""What is read off an OpenAI object: small frozen records, the same for every API and client version.

    Answer    a run, a response or a chat completion: one answer of a model, as one snapshot shows it
    Message   a message of an Assistants thread
    ToolCall  one call of a tool, by whichever answer made it
    Output    what a tool gave back for a call
    Scope     a thread or conversation that was made or fetched

Times are Unix seconds by the server's clock, tokens are counts, None means "this snapshot does not say".
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Answer", "Key", "Kind", "Message", "Output", "Reading", "Scope", "ToolCall", "merged"]

Kind = Literal["run", "response", "chat"]
Key = tuple[Kind, str]

_PROGRESS = {None: 0, "queued": 0, "in_progress": 1, "requires_action": 2, "cancelling": 3}
_FINISHED = 4


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One snapshot of a run, response or chat completion, with what its request said where that is known."""

    key: Key
    created: float | None = None
    status: str | None = None
    """As the server names it; of a chat completion, the finish reason."""
    order: int | None = None
    """When an instrumented client began the request, by a clock that says nothing else."""
    session: str | None = None
    previous: str | None = None
    """The response before this one, in a `previous_response_id` chain."""
    model: str | None = None
    text: str | None = None
    system: tuple[str, ...] = ()
    prompt: tuple[Mapping[str, str], ...] = ()
    """What the request asked: role and content, in order."""
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
    def progress(self) -> int:
        """How far the snapshot had come: of two, the one further on is the later, whatever came in first."""
        if self.status is None and self.key[0] == "response":
            return _FINISHED  # of a small server, which tells no states: what it gives is there
        return _PROGRESS.get(self.status, _FINISHED)

    @property
    def ended(self) -> bool:
        """Whether nothing more will come. A completion that came has ended, though it may name no reason."""
        return self.key[0] == "chat" or self.progress == _FINISHED


@dataclass(frozen=True, kw_only=True)
class Message:
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
    """It stood in a list that runs from the newest to the oldest."""
    progress: int = 1
    """0 while the message is being written."""


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """One call of a tool; `body` has OpenAI's shape: id, type and what the type calls for."""

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


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a tool gave back."""

    call: str
    value: object


@dataclass(frozen=True, kw_only=True)
class Scope:
    """A thread or conversation."""

    session: str


Reading = Answer | Message | ToolCall | Output | Scope


def merged(known: Answer, new: Answer) -> Answer:
    """Put two snapshots of one answer together.

    The one further on wins, of two equally far the new one; what it does not say is taken from the other.
    """
    first, second = (known, new) if new.progress >= known.progress else (new, known)
    values = {f.name: _later(getattr(first, f.name), getattr(second, f.name)) for f in fields(Answer)}
    # Instructions that a request added stand in no later snapshot.
    values["system"] = max(second.system, first.system, key=len)
    if second.ended:  # a stream that broke off is no error of an answer that was given after all
        values["error"], values["status_code"] = second.error, second.status_code
    orders = [answer.order for answer in (known, new) if answer.order is not None]
    return replace(second, **{**values, "order": min(orders, default=None)})


def _later(first: Any, second: Any) -> Any:
    if isinstance(first, dict) and isinstance(second, dict):
        return {**first, **second}
    return first if second is None or second == () else second
