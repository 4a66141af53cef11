"""Sessions: conversation, customer and environment, carried by one context variable (see `_wrapping.state`).

A `Scope` is immutable, except that of a web request (see `share_with_threads`). Entering a session derives a new scope
from the current one and leaving restores the old one, so nothing leaks from one request, task or thread into another.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
    """The type of `UNSET`, for arguments that were not given, since None means "no customer"."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()


def is_share(value: object) -> bool:
    """Return whether `value` is a number from 0 to 1."""
    return isinstance(value, int | float) and 0 <= value <= 1


@dataclass(frozen=True)
class Scope:
    """The fields and custom attributes that the surrounding code set for its logs."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opened_by: object = None
    redaction: Redaction = Redaction.NOTHING
    sample_rate: float | None = None
    shared: Scope | None = None
    """The scope that the thread found which set the fields of this one; None if no thread did."""
    replaced_by: Scope | None = field(default=None, compare=False)
    """What applies instead of this scope, since a thread set fields of it; None if none did."""

    def override(self, overrides: ScopeOverrides, opened_by: object) -> Scope:
        """Return this scope with `overrides` applied."""
        return Scope(
            {**self.fields, **overrides.fields},
            {**self.attributes, **overrides.attributes},
            opened_by,
            # An inner scope can add to the redaction of an outer one, but not lift it.
            self.redaction | overrides.redaction if overrides.redaction else self.redaction,
            self.sample_rate if overrides.sample_rate is None else overrides.sample_rate,
        )


@dataclass(frozen=True)
class ScopeOverrides:
    """What a scope changes in the one around it."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    redaction: Redaction = Redaction.NOTHING
    sample_rate: float | None = None


EMPTY: Final = Scope()


def current_scope() -> Scope:
    """Return the current scope; an empty one outside all sessions."""
    scope: Scope | None = current.get()[0]
    return EMPTY if scope is None else scope.replaced_by or scope


def set_session(thread_id: object) -> None:
    """Set the conversation for the rest of the current scope: the innermost `athina_session`, request or task.

    For a web handler that reads it from the body of its request. `thread_id` becomes a string; None removes what an
    outer scope set.

    >>> with athina_session(customer_id="disney"):
    ...     set_session(7)
    ...     reference = log_inference(response="Hello")
    >>> recent_logs()[-1]["session_id"]
    '7'
    """
    _override_current(_named(session_id=thread_id))


def set_customer(customer_id: object, customer_user_id: object = UNSET) -> None:
    """Set the customer for the rest of the current scope: the innermost `athina_session`, request or task.

    `customer_id` and `customer_user_id` become strings; None removes what an outer scope set.

    >>> with athina_session("thread_1"):
    ...     set_customer(7)
    ...     reference = log_inference(response="Hello")
    >>> recent_logs()[-1]["customer_id"]
    '7'
    """
    _override_current(_named(customer_id=customer_id, customer_user_id=customer_user_id))


def _override_current(fields: Mapping[str, Any]) -> None:
    """Set fields for the rest of the current scope, whose end restores them."""
    found, log = current.get()
    scope, overrides = current_scope(), ScopeOverrides(fields)
    changed = scope.override(overrides, scope.opened_by)
    thread = scope.opened_by.thread if isinstance(scope.opened_by, ScopeCall) else None
    if thread not in (None, threading.get_ident()):
        # In the copy as well, since other threads of the request may set other values meanwhile. Scopes themselves do
        # not change: calls that are running have theirs already.
        shared = found.shared or found
        now = shared.replaced_by or shared
        object.__setattr__(shared, "replaced_by", now.override(overrides, now.opened_by))
        changed = replace(changed, shared=shared)
    current.set((changed, log))


def share_with_threads() -> None:
    """Let a thread to which the current scope is copied set its fields.

    Frameworks run plain `def` handlers and dependencies in threads, with a copy of the request's context. What they set
    in the copy is lost with it, and would be missing in the request's streams and background tasks.
    """
    opened_by = current_scope().opened_by
    if isinstance(opened_by, ScopeCall):
        opened_by.thread = threading.get_ident()


def _named(**fields: object) -> dict[str, str | None]:
    """Return the given fields as strings, as Athina's own SDK sends identifiers of any type (integers, UUIDs)."""
    return {
        name: value if value is None or type(value) is str else str(value)
        for name, value in fields.items()
        if value is not UNSET
    }


class Scoped:
    """A scope for use with `with`, with `async with`, or as a decorator of any kind of function."""

    def __init__(self, overrides: ScopeOverrides) -> None:
        self._overrides = overrides
        self._entered: list[ScopeCall] = []

    def __enter__(self) -> Self:
        call = ScopeCall(self._overrides)
        call.enter()
        self._entered.append(call)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # Several tasks may have entered the same object: leave the scope that this context is in.
        here = current_scope().opened_by
        mine = next((call for call in tuple(self._entered) if call is here), self._entered[-1])
        # Removed first, so that an error of ours cannot make it leave twice.
        self._entered.remove(mine)
        mine.leave()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, at)

    def __call__(self, function: F) -> F:
        """Decorate `function`: each call opens a new scope."""
        decorated: F = wrapper.surround(function, self._open, decorator=self)
        return decorated

    def __reduce__(self) -> Any:
        return _unpickle, (type(self), self._overrides)

    def _open(self, _function: object, _instance: object, _args: object, _kwargs: object) -> ScopeCall:
        return ScopeCall(self._overrides)


class athina_session(Scoped):  # noqa: N801 - reads as a verb, like contextlib's
    """A conversation: every log made inside belongs to it.

    Use it with `with` or `async with`, or as a decorator of any kind of function (each call then opens a new scope).
    Scopes nest: an inner one overrides only what it sets.

    Args:
        thread_id: the conversation; for OpenAI's assistants, the thread's id. Sent as `session_id`.
        customer_id: your customer; None removes what an outer scope set.
        customer_user_id: the end user.
        environment: such as `production`.
        prompt_slug: such as `customer-support/v1`.
        language_model_id: the model, for logs that do not name one.
        sample_rate: the share of conversations to log, 0 to 1; see the setting of this name.
        custom_attributes: further attributes for each log of the session, scalars or data.

    Raises `ValueError` for a `sample_rate` that is not between 0 and 1.

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
    """Unpickle a scope, as part of a decorated instance, as one that has not been entered."""
    scoped = kind.__new__(kind)
    Scoped.__init__(scoped, overrides)
    return scoped


class ScopeCall(Call):
    """A scope around one call, or around one `with` block."""

    __slots__ = ("_found", "_overrides", "_token", "thread")

    def __init__(self, overrides: ScopeOverrides) -> None:
        self._overrides = overrides
        self.thread: int | None = None
        """The thread that entered a scope which others may change; None where they may not."""

    def enter(self) -> None:
        """Apply the overrides to the current scope."""
        self._found, log = current.get()
        scope = current_scope()
        self._token = current.set((scope.override(self._overrides, self), log))

    def leave(self) -> None:
        """Restore the previous scope."""
        scope, log = current.get()
        try:
            current.reset(self._token)
        except ValueError:
            # We are in another context than `enter` was: in a stream's step that is read elsewhere, where the scope is
            # still in force, or at the end of a generator that is closed anywhere, where there is nothing to restore.
            if scope is None or scope.opened_by is not self:
                return
            current.set((self._found, log))
        else:
            if current.get()[1] is not log:  # the reset also restored the log, which a scope must not change
                current.set((self._found, log))
