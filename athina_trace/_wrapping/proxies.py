"""Proxies that replace decorated functions: transparent, except that calling them runs something else."""

from __future__ import annotations

import copy
import functools
import importlib
import operator
import re
import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import wrapt

from athina_trace._serialization.introspection import ABSENT, mro_of, static
from athina_trace._wrapping import callables

if TYPE_CHECKING:
    from typing_extensions import Self

Run = Callable[[Any, object, Any, Any], Any]
"""(function, instance, args, kwargs) → the result of the call."""


def proxy(
    function: Any,
    run: Run,
    *,
    enabled: Callable[[], bool] | None = None,
    decorator: Callable[[Any], Any] | None = None,
) -> Any:
    """Return a proxy of `function` whose calls are `run(function, instance, args, kwargs)`.

    Functions and classes are pickled by reference; instances and partials with their `decorator`, or without a proxy.
    """
    # Objects that are not descriptors are never bound, and do not need what FunctionWrapper reads in each call.
    forwards = callables.is_opaque(function) and static(type(function), "__get__") is ABSENT
    made: Any
    try:
        made = ForwardingWrapper(function, run, enabled) if forwards else Wrapper(function, run, enabled=enabled)
    except Exception:  # noqa: BLE001 - a foreign object may raise from any attribute, and both read some

        def call(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        made = ForwardingWrapper(call, run, enabled)
    if decorator is not None:
        made._self_decorator = decorator  # noqa: SLF001 - how wrapt keeps what is not the wrapped one's
    return made


def _find(module: str, qualname: str) -> Any:
    return operator.attrgetter(qualname)(importlib.import_module(module))


class _MadeOfTwo(type(wrapt.BoundFunctionWrapper)):  # type: ignore[misc]  # in wrapt without its extension, not `type`
    """Lets a class be called with a function and an instance, like `types.MethodType`.

    `weakref.WeakMethod` and the signals of blinker and Django recreate a bound method with
    `type(method)(method.__func__, instance)`.
    """

    def __call__(cls, function: Any, instance: Any) -> Any:
        # Not by isinstance: the class of a decorated function is `function`.
        decorated = type(function) is Wrapper
        return function.__get__(instance, type(instance)) if decorated else types.MethodType(function, instance)


class _BoundWrapper(wrapt.BoundFunctionWrapper[Any, Any], metaclass=_MadeOfTwo):
    """A bound method of a decorated function, which is copied, pickled, compared and rebound like Python's own."""

    @property
    def __func__(self) -> Any:
        # For a static method's function, or an unbound one, this raises AttributeError: see `__getattr__`.
        wrapped: Any = self.__wrapped__
        function, parent = wrapped.__func__, self._self_parent
        if self._self_binding != "classmethod":
            return parent
        # The decorated class method keeps it, so that weak references to it do not die at once.
        kept = getattr(parent, "_self_function", None)
        if kept is None:
            kept = Wrapper(function, self._self_wrapper, enabled=self._self_enabled)
            parent._self_function = kept  # noqa: SLF001 - as in `proxy`
        return kept

    def __getattr__(self, name: str) -> Any:
        if name == "__func__":  # which the decorated static method object has, and wrapt would give
            raise AttributeError(name)
        return super().__getattr__(name)

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __reduce__(self) -> Any:
        if not isinstance(self.__wrapped__, types.MethodType):  # a static method
            return _find, (self.__wrapped__.__module__, self.__wrapped__.__qualname__)
        return getattr, (self.__wrapped__.__self__, self.__wrapped__.__name__)

    def __reduce_ex__(self, _protocol: object) -> Any:
        return self.__reduce__()

    def __copy__(self) -> Any:
        if not isinstance(self.__wrapped__, types.MethodType):
            return self
        return _BoundWrapper(self.__func__, self.__wrapped__.__self__)  # type: ignore[call-arg]  # the metaclass's

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if not isinstance(self.__wrapped__, types.MethodType):
            return self
        instance = copy.deepcopy(self.__wrapped__.__self__, memo)
        return _BoundWrapper(self.__func__, instance)  # type: ignore[call-arg]  # as above


def _takes_by_value(pickling: types.FrameType) -> bool:
    """Return whether it is cloudpickle that asks, or dill, which send functions of scripts along: Ray, Dask and Spark.

    They recognise functions by their type, and a reduction is not told who asks for it.
    """
    modules = (base.__module__ for base in mro_of(type(pickling.f_locals.get("self"))))
    return any(type(module) is str and _BY_VALUE.search(module) is not None for module in modules)


_BY_VALUE: Final = re.compile(r"(?:^|\.)cloudpickle\b|^dill\b")


class _CopiedAsFunctions:
    """Is pickled by reference and copied as itself, like a function; wrapt's own proxies refuse both."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        decorated: Any = self
        wrapped = decorated.__wrapped__
        qualname = getattr(wrapped, "__qualname__", None)
        # An inner function has no reference; dill pickles such functions by value.
        has_reference = type(qualname) is str and "<locals>" not in qualname and not callables.is_opaque(wrapped)
        # In another process, one of a script or a notebook has none either.
        is_sent_along = getattr(wrapped, "__module__", None) == "__main__" and _takes_by_value(sys._getframe(1))  # noqa: SLF001 - documented
        if has_reference and not is_sent_along:
            return qualname
        decorator = getattr(self, "_self_decorator", None)
        # The result of `wrap` is bound to a context, which no other process has.
        return wrapped.__reduce_ex__(protocol) if decorator is None else (decorator, (wrapped,))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class Wrapper(_CopiedAsFunctions, wrapt.FunctionWrapper[Any, Any]):
    """A decorated function, or any other descriptor."""

    # Bypasses the metaclass, since every access to a method does this.
    __bound_function_wrapper__ = staticmethod(functools.partial(type.__call__, _BoundWrapper))  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return repr(self.__wrapped__)


class ForwardingWrapper(_CopiedAsFunctions, wrapt.BaseObjectProxy[Any]):
    """A decorated mock, proxy or remote object, of which we read no attribute by ourselves.

    wrapt's `FunctionWrapper` reads `__self__` of the wrapped object in each call, and a proxy may return anything.
    """

    def __init__(self, target: Any, run: Run, enabled: Callable[[], bool] | None) -> None:
        super().__init__(target)
        self._self_run, self._self_enabled = run, enabled

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._self_enabled is not None and not self._self_enabled():
            return self.__wrapped__(*args, **kwargs)
        return self._self_run(self.__wrapped__, None, args, kwargs)


# Before Python 3.14, reading `__annotations__` of such a class, as some libraries do, stores an empty dictionary on it,
# which would then be found instead of the annotations of every decorated function.
if (_annotations := vars(wrapt.BaseObjectProxy).get("__annotations__")) is not None:
    for _proxy in (_BoundWrapper, Wrapper, ForwardingWrapper):
        _proxy.__annotations__ = _annotations
