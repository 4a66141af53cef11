"""Who is talking: session, customer and environment, carried by one context variable (see `_wrapping.state`).

A `Scope` is immutable; entering a session makes a new one on top of what is there and leaving restores what was found,
so nothing bleeds from one request, task or thread into another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from athina_trace._pipeline.redaction import Redaction
from athina_trace._wrapping import wrapper
from athina_trace._wrapping.calls import Call
from athina_trace._wrapping.state import current
from athina_trace.schema import attributes_of

if TYPE_CHECKING:
    from typing_extensions import Self

F = TypeVar("F")


class Unset:
    """The type of `UNSET`: an argument that was not given, where None means "no customer"."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()


def is_share(value: object) -> bool:
    """Return whether `value` is a number from 0 to 1."""
    return isinstance(value, int | float) and 0 <= value <= 1


@dataclass(frozen=True)
class Scope:
    """What the surrounding code named: fields of the log, and custom attributes. Never mutated."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opened_by: object = None
    redaction: Redaction = Redaction.NOTHING
    sample_rate: float | None = None

    def override(self, overrides: ScopeOverrides, opened_by: object) -> Scope:
        """Return this scope with `overrides` applied. What is kept out stays out."""
        return Scope(
            {**self.fields, **overrides.fields},
            {**self.attributes, **overrides.attributes},
            opened_by,
            # A scope inside cannot take back what one outside keeps out of logs.
            self.redaction | overrides.redaction if overrides.redaction else self.redaction,
            self.sample_rate if overrides.sample_rate is None else overrides.sample_rate,
        )


@dataclass(frozen=True)
class ScopeOverrides:
    """What one scope names, over what is there."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    redaction: Redaction = Redaction.NOTHING
    sample_rate: float | None = None


EMPTY: Final = Scope()


def current_scope() -> Scope:
    """Return the scope of the code that is running now; an empty one outside of every session."""
    scope: Scope | None = current.get()[0]
    return EMPTY if scope is None else scope


def set_session(thread_id: object) -> None:
    """Name the conversation for the rest of the current scope: the innermost `athina_session`, request or task.

    For a web handler that learns it from the body of its request. `thread_id` becomes a string; None takes away what
    an outer scope named.

    >>> with athina_session(customer_id="disney"):
    ...     set_session(7)
    ...     reference = log_inference(response="Hello")
    >>> recent_logs()[-1]["session_id"]
    '7'
    """
    _override_current(_named(session_id=thread_id))


def set_customer(customer_id: object, customer_user_id: object = UNSET) -> None:
    """Name the customer for the rest of the current scope: the innermost `athina_session`, request or task.

    `customer_id` and `customer_user_id` become strings; None takes away what an outer scope named.

    >>> with athina_session("thread_1"):
    ...     set_customer(7)
    ...     reference = log_inference(response="Hello")
    >>> recent_logs()[-1]["customer_id"]
    '7'
    """
    _override_current(_named(customer_id=customer_id, customer_user_id=customer_user_id))


def _override_current(fields: Mapping[str, Any]) -> None:
    """Name fields for the rest of the current scope, which its own end takes back."""
    scope = current_scope()
    current.set((scope.override(ScopeOverrides(fields), scope.opened_by), current.get()[1]))


def _named(**fields: object) -> dict[str, str | None]:
    """Return the given fields as strings: so Athina's own SDK sends identifiers of any type (integers, UUIDs)."""
    return {
        name: value if value is None or type(value) is str else str(value)
        for name, value in fields.items()
        if value is not UNSET
    }


class Scoped:
    """A scope as `with`, `async with`, or decorator of any kind of function."""

    def __init__(self, overrides: ScopeOverrides) -> None:
        self._overrides = overrides
        self._entered: list[ScopeCall] = []

    def __enter__(self) -> Self:
        call = ScopeCall(self._overrides)
        call.enter()
        self._entered.append(call)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # One object may be entered by several tasks at once: leave the scope that this context is in.
        here = current_scope().opened_by
        mine = next((call for call in tuple(self._entered) if call is here), self._entered[-1])
        # Removed first, so that a fault of ours cannot have it left twice.
        self._entered.remove(mine)
        mine.leave()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, at)

    def __call__(self, function: F) -> F:
        """Decorate `function`: each of its calls is a scope of its own."""
        decorated: F = wrapper.surround(function, self._open, decorator=self)
        return decorated

    def __reduce__(self) -> Any:
        return _unpickle, (type(self), self._overrides)

    def _open(self, _function: object, _instance: object, _args: object, _kwargs: object) -> ScopeCall:
        return ScopeCall(self._overrides)


class athina_session(Scoped):  # noqa: N801 - reads as a verb, like contextlib's
    """One conversation: every log made inside belongs to it.

    Use it as `with`, `async with`, or as a decorator of any kind of function (then each call is a scope of its own).
    Scopes nest: an inner one overrides only what it names.

    Args:
        thread_id: the conversation, for OpenAI's assistants the thread's id; sent as `session_id`.
        customer_id: your customer; None takes away what an outer scope named.
        customer_user_id: the end user.
        environment: such as `production`.
        prompt_slug: such as `customer-support/v1`.
        language_model_id: the model, for logs that name none themselves.
        sample_rate: the share of conversations, 0 to 1, that is logged; see the setting of this name.
        custom_attributes: further facts for each log of the session, scalars or data.

    Raises `ValueError` for a `sample_rate` that is no share.

    >>> with athina_session("thread_1", customer_id="disney", plan="gold"):
    ...     reference = log_inference(response="Hello")
    >>> log = recent_logs()[-1]
    >>> log["session_id"], log["customer_id"], log["custom_attributes"]
    ('thread_1', 'disney', {'plan': 'gold'})
    """

    def __init__(  # noqa: PLR0913 - one for each field of a session
        self,
        thread_id: object = None,
        *,
        customer_id: object = UNSET,
        customer_user_id: object = UNSET,
        environment: object = UNSET,
        prompt_slug: object = UNSET,
        language_model_id: object = UNSET,
        sample_rate: float | None = None,
        **custom_attributes: object,
    ) -> None:
        if sample_rate is not None and not is_share(sample_rate):
            raise ValueError(f"athina_session(sample_rate=...) takes a share from 0 to 1, got {sample_rate!r}")
        fields = _named(
            session_id=UNSET if thread_id is None else thread_id,
            customer_id=customer_id,
            customer_user_id=customer_user_id,
            environment=environment,
            prompt_slug=prompt_slug,
            language_model_id=language_model_id,
        )
        super().__init__(ScopeOverrides(fields, attributes_of(custom_attributes), sample_rate=sample_rate))


def _unpickle(kind: type[Scoped], overrides: ScopeOverrides) -> Scoped:
    """Make a scope that was pickled, as with a decorated instance: entered nowhere, wherever the original was."""
    scoped = kind.__new__(kind)
    Scoped.__init__(scoped, overrides)
    return scoped


class ScopeCall(Call):
    """A scope around one call, or around one `with` block."""

    __slots__ = ("_found", "_overrides", "_token")

    def __init__(self, overrides: ScopeOverrides) -> None:
        self._overrides = overrides

    def enter(self) -> None:
        """Apply the overrides to the scope that is there."""
        self._found, log = current.get()
        scope = EMPTY if self._found is None else self._found
        self._token = current.set((scope.override(self._overrides, self), log))

    def leave(self) -> None:
        """Restore what was found."""
        scope, log = current.get()
        try:
            current.reset(self._token)
        except ValueError:
            # Another context than it was entered in: the step of a stream that is read elsewhere, where the scope is
            # still in force, or the end of a generator that is closed anywhere, where there is nothing to restore.
            if scope is None or scope.opened_by is not self:
                return
            current.set((self._found, log))
        else:
            if current.get()[1] is not log:  # the log is no business of the scope's
                current.set((self._found, log))
