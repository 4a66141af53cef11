"""The proxies that take the place of decorated functions: transparent, except that a call runs something else."""

from __future__ import annotations

import importlib
import operator
from collections.abc import Callable
from typing import Any

import wrapt

from athina_trace._serialization.introspection import ABSENT, static
from athina_trace._wrapping import callables

Run = Callable[[Any, object, Any, Any], Any]
"""(function, instance, args, kwargs) → the result of the call."""


def proxy(function: Any, run: Run, *, enabled: Callable[[], bool] | None = None) -> Any:
    """A proxy of `function` whose calls are `run(function, instance, args, kwargs)`."""
    # What is no descriptor is never bound, and needs none of what FunctionWrapper reads in each call.
    forwards = callables.is_opaque(function) and static(type(function), "__get__") is ABSENT
    try:
        return ForwardingWrapper(function, run, enabled) if forwards else Wrapper(function, run, enabled=enabled)
    except Exception:  # noqa: BLE001 - a foreign object may raise from any attribute, and both read some

        def call(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return ForwardingWrapper(call, run, enabled)


def _find(module: str, qualname: str) -> Any:
    return operator.attrgetter(qualname)(importlib.import_module(module))


class _BoundWrapper(wrapt.BoundFunctionWrapper[Any, Any]):
    """A bound method of a decorated function; pickles as undecorated ones do, by instance and name."""

    def __reduce_ex__(self, _protocol: object) -> Any:
        if self._self_instance is None:  # a static method
            return _find, (self.__wrapped__.__module__, self.__wrapped__.__qualname__)
        return getattr, (self._self_instance, self.__wrapped__.__name__)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self


class Wrapper(wrapt.FunctionWrapper[Any, Any]):
    """A decorated function; pickles by reference and copies as itself, as functions do (wrapt's own refuse)."""

    __bound_function_wrapper__ = _BoundWrapper

    def __reduce_ex__(self, _protocol: object) -> str:
        return str(self.__wrapped__.__qualname__)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self


class ForwardingWrapper(wrapt.BaseObjectProxy[Any]):
    """A decorated mock, proxy or remote object, asked for no attribute that the caller does not ask for.

    wrapt's `FunctionWrapper` reads `__self__` of what it wraps in each call, which a proxy may answer with anything.
    """

    def __init__(self, target: Any, run: Run, enabled: Callable[[], bool] | None) -> None:
        super().__init__(target)
        self._self_run, self._self_enabled = run, enabled

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._self_enabled is not None and not self._self_enabled():
            return self.__wrapped__(*args, **kwargs)
        return self._self_run(self.__wrapped__, None, args, kwargs)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self
