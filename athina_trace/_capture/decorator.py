"""`athina_trace`: one log for each call of a function, or for a block of code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from athina_trace import _guard, _runtime
from athina_trace._capture.arguments import Function, check_inputs
from athina_trace._capture.draft import LogDraft, current_draft
from athina_trace._capture.emission import emit
from athina_trace._capture.options import Options
from athina_trace._capture.streams import Streamed
from athina_trace._serialization import plain
from athina_trace._serialization.introspection import type_placeholder
from athina_trace._wrapping import callables, wrapper
from athina_trace._wrapping.calls import Call, DeferredWork, run_in_thread, run_now

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from athina_trace.schema import ConstantFields

F = TypeVar("F")


class _TracedCall(LogDraft, Call):
    """One call, which `surround` opens and ends. It is also the draft of its log: a second object would cost time."""

    __slots__ = ()

    def begun(self) -> None:
        self.streamed = self.streamed or Streamed()

    def chunks(self, values: list[Any]) -> None:
        if self.streamed is None:
            self.streamed = Streamed()
        self.streamed.add(values, self, self.options.response)

    def done(self, value: object) -> DeferredWork:
        return emit(self, value)

    def failed(self, error: BaseException) -> DeferredWork:
        return emit(self, None, error)

    def collected(self, stream: object) -> None:
        if self.started_ns and not self.ended:
            # A stream that was never begun is an ordinary result.
            run_now(self.done(type_placeholder(stream)) if self.streamed is None else self.failed(GeneratorExit()))


class Trace:
    """What `athina_trace(...)` returns: it decorates functions, and is a context manager for a block of code.

    One object may decorate many functions and be entered by many tasks and threads at once.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._entered: list[_TracedCall] = []

    def __call__(self, function: F) -> F:
        """Decorate `function`, a callable of any kind: each of its calls becomes one log.

        Raises `TypeError` if `function` is not callable, or `inputs` maps a parameter that it does not have.
        """
        options = self._options
        target = callables.without_binding(function)
        declared = callables.parameters(target)
        check_inputs(target, declared, options)
        static_method = callables.is_static_method(function)
        free = Function(target, declared, options, bound=False, static_method=static_method)
        bound = Function(target, declared, options, bound=True, static_method=static_method)
        owner = callables.Owner(function, declared)

        def opened(_function: object, instance: object, args: Any, kwargs: Any) -> _TracedCall | None:
            try:
                # If there is no runtime yet, the log waits for it: see `_runtime.afterwards`.
                if _runtime.active() is None and not _runtime.is_expected():
                    return None
                # A method called through its class, or beneath a decorator that passes `self` as an ordinary argument.
                if instance is None and owner.is_first(args, kwargs):
                    call = bound.draft(_TracedCall, args[1:], kwargs)
                else:
                    call = (free if instance is None else bound).draft(_TracedCall, args, kwargs)
            except Exception:  # noqa: BLE001 - the guard decides
                _guard.swallow("capturing the arguments")
                return None
            return call

        decorated: F = wrapper.surround(function, opened, enabled=_runtime.may_trace, decorator=self)
        owner.note_decorated(decorated)
        return decorated

    def __reduce__(self) -> Any:
        return Trace, (self._options,)

    def __enter__(self) -> LogDraft:
        """Open a log for the block and return its draft; `log.update(response=...)` sets the answer."""
        call = _TracedCall(self._options.named, {}, {})
        call.options = self._options
        self._entered.append(call)
        with _guard.shield("opening a log"):
            call.enter()
        return call

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        run_now(self._end(error))

    def _end(self, error: BaseException | None) -> DeferredWork:
        here = current_draft()
        # One object may be entered by several tasks at once: end the log that this context is in.
        call = next((each for each in tuple(self._entered) if each is here), self._entered[-1])
        self._entered.remove(call)
        with _guard.shield("closing a log"):
            call.leave()
            return call.done(None) if error is None else call.failed(error)
        return None

    async def __aenter__(self) -> LogDraft:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if (work := self._end(error)) is not None:
            await run_in_thread(work, error)


@overload
def athina_trace(function: F, /) -> F: ...


@overload
def athina_trace(
    *,
    inputs: Mapping[str, str] | None = None,
    response: Callable[[Any], Any] | str | None = None,
    capture_inputs: bool | Iterable[str] = True,
    capture_response: bool = True,
    sample_rate: float | None = None,
    **fields: Unpack[ConstantFields],
) -> Trace: ...


def athina_trace(
    function: Any = None,
    /,
    *,
    inputs: Mapping[str, str] | None = None,
    response: Callable[[Any], Any] | str | None = None,
    capture_inputs: bool | Iterable[str] = True,
    capture_response: bool = True,
    sample_rate: float | None = None,
    **fields: Any,
) -> Any:
    """Log each call of a function, or a block of code, to Athina; the log is on disk before the call returns.

    Bare (`@athina_trace`), with arguments (`@athina_trace(prompt_slug="support/v1")`), and as
    `with athina_trace(user_query=q) as log:` or `async with`.

    Args:
        function: what to decorate, when used bare.
        inputs: field → name of the parameter that gives it, as in `{"user_query": "question"}`.
        response: a function that extracts the answer from the result (for a stream, from the list of its chunks), or
            the answer itself.
        capture_inputs: False keeps arguments out of the log, except session ids and mapped parameters; a list of names
            lets only those in.
        capture_response: False keeps the answer out of the log, unless `current_log().update(response=...)` sets it.
        sample_rate: the share of conversations to log, from 0 to 1; see the setting of this name.
        fields: constants for any field of the log.

        Raises `TypeError` when it decorates: for an unknown field, naming the nearest one, or an invalid option.
        The decorated function never raises an exception of ours.

    >>> @athina_trace(prompt_slug="support/v1")
    ... def answer(question: str) -> str:
    ...     return "On its way."
    >>> answer("Where is it?")
    'On its way.'
    >>> log = recent_logs()[-1]
    >>> log["user_query"], log["response"], log["prompt_slug"]
    ('Where is it?', 'On its way.', 'support/v1')
    """
    if isinstance(response, str):
        response, fields["response"] = None, response
    named = {name: plain(value) for name, value in fields.items()}
    options = Options.checked(
        named,
        inputs=inputs,
        response=response,
        capture_inputs=capture_inputs,
        capture_response=capture_response,
        sample_rate=sample_rate,
    )
    trace = Trace(options)
    return trace if function is None else trace(function)
