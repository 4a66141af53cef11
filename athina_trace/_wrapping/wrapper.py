"""Wraps functions of any kind: plain ones, coroutines, generators, async generators, and those that return them.

A `Call` defines what happens around a call. How each kind of function is called is defined here, once, for everything
in this package that decorates. `generators` drives generators and coroutines, and `results` decides how a call ends.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from athina_trace import _guard
from athina_trace._wrapping import callables, generators, proxies, results
from athina_trace._wrapping.calls import Call, attempt, run_now

Open = Callable[[Callable[..., Any], object, "tuple[Any, ...]", "dict[str, Any]"], "Call | None"]
"""(function, instance, args, kwargs) → the call, or None to call the function as if undecorated."""


def surround(
    function: Any,
    opened: Open,
    *,
    enabled: Callable[[], bool] | None = None,
    decorator: Callable[[Any], Any] | None = None,
) -> Any:
    """Wrap `function` so that each call runs inside the `Call` that `opened` returns for it.

    A plain function, even inside a class or static method object, is replaced by a function, which is bound, pickled
    and compared like any other; everything else is replaced by a proxy.

    Args:
        function: a function of any kind, a method, a class or static method object, a partial or a callable instance;
            the wrapper keeps its signature, kind, attributes and pickling.
        opened: returns the call.
        enabled: called before each call; if it returns False, next to nothing is done. Must not raise.
        decorator: decorates `function` in the same way; instances and partials are pickled with it.

    Raises `TypeError` if `function` is not callable.
    """
    target = callables.without_binding(function)
    if not callable(target):
        kind = type(function).__name__
        remedy = f": put the decorator below @{kind}" if hasattr(type(function), "__get__") else ""
        raise TypeError(f"expected a function or another callable to decorate, got {kind}{remedy}")
    if callables.is_coroutine_function(target):
        run = _coroutine_wrapper(opened)
    elif callables.is_kind(target, inspect.isgeneratorfunction) or callables.is_kind(
        target, inspect.isasyncgenfunction
    ):
        run = _stream_wrapper(opened)
    elif type(target) is types.FunctionType and type(function) in _FUNCTIONS:
        made = _plain_function(target, opened, enabled)
        if function is target:
            return made
        method = type(function)(made)
        vars(method).update({name: value for name, value in vars(function).items() if name not in vars(method)})
        return method
    else:
        run = _plain_wrapper(opened)
    return proxies.proxy(function, run, enabled=enabled, decorator=decorator)


_FUNCTIONS = (types.FunctionType, classmethod, staticmethod)


def _plain_function(function: types.FunctionType, opened: Open, enabled: Callable[[], bool] | None) -> Any:
    """Return a function to replace `function`, which Python binds, copies, compares and pickles like any other.

    A proxy would also cost one more level of recursion for each call before Python 3.12.
    """
    # It declares the parameters of `function`, since `inspect.getfullargspec`, and libraries that read code objects,
    # ignore `__wrapped__`. Everything that it uses is in its closure. Its globals are those of `function`: FastAPI
    # looks up annotations there, and doctest takes its module from them. attrs recreates a class to give it slots, and
    # puts the new class into the cell that `super()` reads, if a method has one.
    own_cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    plain = _compiled(*_parameters(function.__code__), "__class__" if "__class__" in own_cells else "")(
        function, opened, enabled, _guard.swallow, _fail, _finish, BaseException, Exception, RecursionError
    )
    cells = zip(plain.__code__.co_freevars, plain.__closure__ or (), strict=True)
    closure = tuple(own_cells[name] if name == "__class__" else cell for name, cell in cells)
    made = types.FunctionType(plain.__code__, function.__globals__, plain.__name__, function.__defaults__, closure)
    made.__kwdefaults__ = function.__kwdefaults__ and {**function.__kwdefaults__}
    functools.update_wrapper(made, function)
    return made


def _parameters(code: types.CodeType) -> tuple[str, str, str, str, str]:
    """Return source code: the parameters of `code`, the arguments of a call with them, the positional and named ones.

    The last item is a prefix with which a name cannot be one of theirs.
    """
    names = iter(code.co_varnames)
    by_position = [*islice(names, code.co_argcount)]
    by_name = [*islice(names, code.co_kwonlyargcount)]
    star = [f"*{next(names)}"] if code.co_flags & inspect.CO_VARARGS else []
    stars = [f"**{next(names)}"] if code.co_flags & inspect.CO_VARKEYWORDS else []
    only_by_position = code.co_posonlyargcount
    slash = ["/"] if only_by_position else []
    declared = [*by_position[:only_by_position], *slash, *by_position[only_by_position:]]
    declared += [*(star or ["*"] if by_name else star), *by_name, *stars]
    passed = [*by_position, *star, *(f"{name}={name}" for name in by_name), *stars]
    args = "".join(f"{each}, " for each in [*by_position, *star])
    kwargs = ", ".join([*(f"{name!r}: {name}" for name in by_name), *stars])
    longest = max(map(len, [*by_position, *by_name, *star, *stars]), default=0)
    return ", ".join(declared), ", ".join(passed), args, kwargs, "_" * (longest + 1)


@functools.lru_cache(maxsize=256)
def _compiled(
    declared: str, passed: str, args: str, kwargs: str, prefix: str, owner: str
) -> Callable[..., types.FunctionType]:
    """Return a factory of functions with these parameters."""
    source = _PLAIN.replace("$", prefix)
    source = source.format(declared=declared, passed=passed, args=args, kwargs=kwargs, owner=owner)
    made: dict[str, Any] = {}
    # At its line numbers below, so that tracebacks show the source.
    exec(compile("\n" * _PLAIN_AT + source, __file__, "exec"), made)  # noqa: S102 - made of names of parameters
    make: Callable[..., types.FunctionType] = made["make"]
    return make


_PLAIN_AT: Final = sys._getframe().f_lineno  # noqa: SLF001 - documented
_PLAIN: Final = """
def make($function, $opened, $enabled, $swallow, $fail, $finish, $anything, $fault, $too_deep, __class__=None):
    def plain({declared}):
        if $enabled is not None and not $enabled():
            return $function({passed})
        try:  # what `attempt` does, without the time that it takes
            $call = $opened($function, None, ({args}), {{{kwargs}}})
            if $call is not None:
                $call.enter()
        except $too_deep:
            $call = None
        except $fault:
            $swallow("opening a call")
            $call = None
        if $call is None:
            return $function({passed})
        try:
            $result = $function({passed})
        except $anything as $error:
            $fail($call, $error)
            raise
        finally:
            try:
                $call.leave()
            except $fault:
                $swallow("leaving a call")
        return $finish($result, $call)
        {owner}
    return plain
"""


def _fail(call: Call, error: BaseException) -> None:
    run_now(attempt(call.failed, error))


def _plain_wrapper(opened: Open) -> Callable[..., Any]:
    def plain(wrapped: Any, instance: object, args: Any, kwargs: Any) -> Any:
        call = attempt(opened, wrapped, instance, args, kwargs)
        if call is None:
            return wrapped(*args, **kwargs)
        attempt(call.enter)
        try:
            result = wrapped(*args, **kwargs)
        except BaseException as error:
            _fail(call, error)
            raise
        finally:
            attempt(call.leave)
        return _finish(result, call)

    return plain


def _coroutine_wrapper(opened: Open) -> Callable[..., Any]:
    def coroutine(wrapped: Any, instance: object, args: Any, kwargs: Any) -> Any:
        # Called at once, since wrong arguments must fail before anything is awaited.
        made = generators.Made(wrapped(*args, **kwargs))

        def begin() -> tuple[Call | None, Any]:
            return attempt(opened, wrapped, instance, args, kwargs), made.awaitable

        return generators.named(generators.awaiting(begin, results.follow), wrapped)

    return coroutine


def _stream_wrapper(opened: Open) -> Callable[..., Any]:
    def stream(wrapped: Any, instance: object, args: Any, kwargs: Any) -> Any:
        call = attempt(opened, wrapped, instance, args, kwargs)
        result = wrapped(*args, **kwargs)
        if call is None:
            return result
        # Followed at once: such a function nearly always returns a stream.
        followed = attempt(results.follow, result, call)
        return _finish(result, call) if followed is None else followed

    return stream


def _finish(result: Any, call: Call) -> Any:
    """End `call` with `result`, now or when the result ends; return what the program gets."""
    try:
        continues = type(result) not in results.RETURNED
    except TypeError:  # even a class can refuse to be looked up
        continues = False
    if continues and (followed := attempt(results.follow, result, call)) is not None:
        return followed
    try:  # as in `_PLAIN`
        if (work := call.done(result)) is not None:
            run_now(work)
    except RecursionError:
        return result
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.swallow("ending a call")
    return result
