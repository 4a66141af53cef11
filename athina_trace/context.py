"""Who is talking: session, customer and environment, carried by one context variable.

A `Scope` is immutable; entering a session makes a new one on top of what is there and leaving restores what was found,
so nothing bleeds from one request, task or thread into another.
"""

from __future__ import annotations

import contextvars
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from athina_trace import _functions
from athina_trace.records import attributes

if TYPE_CHECKING:
    from typing_extensions import Self

F = TypeVar("F")


class Unset:
    """The type of `UNSET`: an argument that was not given, where None means "no customer"."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()


@dataclass(frozen=True)
class Scope:
    """What the surrounding code said: fields of the log, and custom attributes. Never mutated."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opened_by: object = None

    def over(self, fields: Mapping[str, Any], attributes: Mapping[str, Any], opened_by: object) -> Scope:
        """This scope with what is given laid over it."""
        return Scope({**self.fields, **fields}, {**self.attributes, **attributes}, opened_by)


_EMPTY = Scope()
_scope: contextvars.ContextVar[Scope] = contextvars.ContextVar("athina_trace_scope", default=_EMPTY)


def current_scope() -> Scope:
    """The scope of the code that is running now; an empty one outside of every session."""
    return _scope.get()


def set_customer(customer_id: object, *, customer_user_id: object = UNSET) -> None:
    """Name the customer for the rest of the current scope: the innermost `athina_session`, request or task.

    `customer_id` and `customer_user_id` become strings; None takes away what an outer scope said.
    """
    given = _named(customer_id=customer_id, customer_user_id=customer_user_id)
    scope = _scope.get()
    _scope.set(scope.over(given, {}, scope.opened_by))


def _named(**fields: object) -> dict[str, str | None]:
    """The fields that were given, as strings."""
    return {name: _identifier(value) for name, value in fields.items() if value is not UNSET}


def _identifier(value: object) -> str | None:
    """Identifiers of any type (integers, UUIDs) travel as strings; Athina's own SDK does the same."""
    return value if value is None or type(value) is str else str(value)


class athina_session:  # noqa: N801 - reads as a verb, like contextlib's
    """One conversation: every log made inside belongs to it.

    Use it as `with`, `async with`, or as a decorator of any kind of function (then each call is a scope of its own).
    Scopes nest: an inner one overrides only what it names.

    Args:
        thread_id: the conversation, for OpenAI's assistants the thread's id; sent as `session_id`.
        customer_id: your customer; None takes away what an outer scope said.
        customer_user_id: the end user.
        environment: such as `production`.
        prompt_slug: such as `customer-support/v1`.
        language_model_id: the model, for logs that name none themselves.
        custom_attributes: further facts for each log of the session, scalars or data.
    """

    def __init__(
        self,
        thread_id: object = None,
        *,
        customer_id: object = UNSET,
        customer_user_id: object = UNSET,
        environment: object = UNSET,
        prompt_slug: object = UNSET,
        language_model_id: object = UNSET,
        **custom_attributes: object,
    ) -> None:
        self._fields = _named(
            session_id=UNSET if thread_id is None else thread_id,
            customer_id=customer_id,
            customer_user_id=customer_user_id,
            environment=environment,
            prompt_slug=prompt_slug,
            language_model_id=language_model_id,
        )
        self._attributes = attributes(custom_attributes)
        self._entered: list[_ScopeCall] = []

    def __enter__(self) -> Self:
        call = _ScopeCall(self._fields, self._attributes)
        call.enter()
        self._entered.append(call)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # One object may be entered by several tasks at once: leave the scope that this context is in.
        here = _scope.get().opened_by
        mine = next((call for call in tuple(self._entered) if call is here), self._entered[-1])
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
        decorated: F = _functions.surround(function, self._open)
        return decorated

    def _open(self, _function: object, _instance: object, _args: object, _kwargs: object) -> _ScopeCall:
        return _ScopeCall(self._fields, self._attributes)


class _ScopeCall:
    """A scope around one call, or around one `with` block."""

    __slots__ = ("_attributes", "_fields", "_token")

    def __init__(self, fields: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
        self._fields, self._attributes = fields, attributes

    def enter(self) -> None:
        self._token = _scope.set(_scope.get().over(self._fields, self._attributes, self))

    def leave(self) -> None:
        try:
            _scope.reset(self._token)
        except ValueError:
            # Left in another context than it was entered in (a generator closed elsewhere): nothing to restore there.
            return

    def chunk(self, value: object) -> None: ...

    def done(self, value: object) -> None: ...

    def failed(self, error: BaseException) -> None: ...
