"""Inspects callables without calling them: what they wrap, their parameters, name and kind.

Only wrappers of known types are unwrapped, up to a limit, and attributes are read where they are stored. An object
whose class customises attribute access (a mock, a proxy, a remote object) may have any attribute, raise, or ask a
server: none of its attributes is read.
"""

from __future__ import annotations

import functools
import inspect
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

import wrapt

from athina_trace._serialization.introspection import (
    ABSENT,
    attribute_or_none,
    instance_dict,
    mro_of,
    qualname_of,
    static,
    type_name,
    vars_of,
)

_F = TypeVar("_F")

_MOST_LAYERS: Final = 100
_HOLD_A_FUNCTION: Final = (types.MethodType, classmethod, staticmethod)
POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_DATA: Final = frozenset({str, type(None), dict, list, tuple, int, float, bool, bytes})
OWNER_NAMES: Final = frozenset({"self", "cls", "mcs", "mcls", "metacls"})
"""Names of parameters for the instance or the class."""


def layers(function: Any) -> Iterator[Any]:
    """Yield `function`, what it wraps, what that wraps, and so on, through known wrappers; at most 100."""
    for _ in range(_MOST_LAYERS):
        yield function
        function = _inside(function)
        if function is ABSENT:
            return


def _inside(function: Any) -> Any:
    """Return what a partial, a method, a wrapt proxy, or a function decorated with `functools.wraps` wraps."""
    kind = type(function)
    if issubclass(kind, functools.partial):
        return function.func
    if issubclass(kind, _HOLD_A_FUNCTION):
        return function.__func__
    if issubclass(kind, wrapt.BaseObjectProxy):
        return function.__wrapped__
    return instance_dict(function).get("__wrapped__", ABSENT)


def is_opaque(function: Any) -> bool:
    """Return whether reading its attributes runs its author's code: a mock, a proxy, a remote object."""
    kind = type(_innermost(function))
    if issubclass(kind, type):
        return False
    reads = static(kind, "__getattribute__")
    return (
        kind in weakref.ProxyTypes
        or static(kind, "__getattr__") is not ABSENT
        or type(reads) is not types.WrapperDescriptorType
    )


def _innermost(function: Any) -> Any:
    """Return the callable inside partials and wrapt proxies, which have no code themselves."""
    for layer in layers(function):
        function = layer
        if not issubclass(type(layer), functools.partial | wrapt.BaseObjectProxy):
            break
    return function


def wraps(function: Any) -> Callable[[_F], _F]:
    """Do what `functools.wraps` does, but copy nothing from opaque objects."""
    copied = ((), ()) if is_opaque(function) else (functools.WRAPPER_ASSIGNMENTS, functools.WRAPPER_UPDATES)
    decorator: Callable[[_F], _F] = cast("Any", functools.wraps(function, *copied))
    return decorator


def is_static_method(function: Any) -> bool:
    """Return whether this is a static method object, or wraps one."""
    return any(issubclass(type(layer), staticmethod) for layer in layers(function))


def without_binding(function: Any) -> Any:
    """Return the function in a method, class method or static method, even inside wrapt proxies."""
    for layer in layers(function):
        if issubclass(type(layer), _HOLD_A_FUNCTION):
            return layer.__func__
        if not issubclass(type(layer), wrapt.BaseObjectProxy):
            break
    return function


def parameters(target: Any) -> list[inspect.Parameter]:
    """Return the parameters of `target`; none if they are unknown."""
    try:
        return list(_signature(target).parameters.values())
    except Exception:  # noqa: BLE001 - some builtins have none, and a foreign `__signature__` may raise anything
        return []


def _signature(target: Any) -> inspect.Signature:
    chain = [*layers(target)]
    if len(chain) < _MOST_LAYERS and not any(map(is_opaque, chain)):
        return inspect.signature(target)
    for layer in chain:
        stored = instance_dict(layer).get("__signature__", static(type(layer), "__signature__"))
        if isinstance(stored, inspect.Signature):
            return stored
        if issubclass(type(layer), functools.partial):
            break  # which of the parameters are left?
    innermost = chain[-1]
    if not is_opaque(innermost):
        return inspect.signature(innermost, follow_wrapped=False)
    call = inspect.signature(static(type(innermost), "__call__"))
    return call.replace(parameters=[*call.parameters.values()][1:])


def names(target: Any) -> tuple[str, str]:
    """Return module and qualified name of a function; for any other callable, those of its class."""
    target = _innermost(target)
    if is_opaque(target):
        stored = instance_dict(target)
        module, name = stored.get("__module__"), stored.get("__qualname__")
    else:
        module, name = attribute_or_none(target, "__module__"), attribute_or_none(target, "__qualname__")
    if type(name) is not str:
        module, _, name = type_name(type(target)).rpartition(".")
    return (module if type(module) is str and module else "?"), name


def is_kind(target: Any, check: Callable[[Any], bool]) -> bool:
    """Return whether a predicate of `inspect` is true for `target`; False for opaque objects."""
    try:
        return not is_opaque(target) and check(target)
    except Exception:  # noqa: BLE001 - a foreign property may raise anything
        return False


def is_coroutine_function(target: Any) -> bool:
    """Return whether this is a coroutine function, or an object that is called like one."""
    return is_kind(target, inspect.iscoroutinefunction) or is_kind(
        target, lambda instance: inspect.iscoroutinefunction(static(type(instance), "__call__"))
    )


class Owner:
    """Decides whether the first argument of a call is the instance or class that a method is called on: its owner.

    Python passes it when it binds a method, and so do decorators, properties, caches and `types.MethodType`. The first
    argument is an owner if its parameter is named `self`, `cls`, `mcs`, `mcls` or `metacls`, even in a function outside
    all classes, since inputs do not have these names. Under any other name, it is an owner if the function was written
    in a class and the argument is that class or an instance of it, or if the argument has the function as a method;
    unless the class has a static method there.
    """

    __slots__ = ("_always", "_class", "_decorated", "_first", "_function", "_holders", "_module", "_never")

    def __init__(self, function: Any, declared: Sequence[inspect.Parameter]) -> None:
        """Read the function's declaration.

        Args:
            function: the decorated object, which may be a class method or static method object.
            declared: the parameters of the function inside.
        """
        target, static_method = without_binding(function), is_static_method(function)
        self._module, qualname = names(target)
        outer, _, self._function = qualname.rpartition(".")
        # A class takes no owner, and a partial already has it.
        takes_none = issubclass(type(target), type) or (issubclass(type(target), functools.partial) and target.args)
        self._never = bool(static_method or takes_none)
        self._class = "" if outer.endswith("<locals>") else outer
        first = declared[0] if declared and declared[0].kind in POSITIONAL else None
        self._first = first.name if first is not None else ""
        self._always = not static_method and (self._first in OWNER_NAMES or type(function) is classmethod)
        self._holders: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()
        # Weak, since the function keeps this object: inner functions must be freed without the garbage collector.
        self._decorated: Callable[[], Any] = type(None)

    def note_decorated(self, decorated: Any) -> None:
        """Note the object that replaces the function."""
        with suppress(TypeError):  # class method and static method objects have no owner to find
            self._decorated = weakref.ref(decorated)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the cached classes: cloudpickle pickles functions of scripts and notebooks by value."""
        kept = {name: getattr(self, name) for name in self.__slots__ if name != "_holders"}
        return {**kept, "_decorated": self._decorated()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self._holders, self._decorated = weakref.WeakKeyDictionary(), type(None)
        self.note_decorated(state["_decorated"])

    def is_first(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Return whether the first argument is the owner; it may also be passed by name."""
        if self._always or self._never:
            return self._always
        first: Any = args[0] if args else kwargs.get(self._first)
        kind = type(first)
        try:
            if kind in _DATA:
                return False
        except TypeError:  # even a class can refuse to be looked up
            return False
        if self._class:
            own = mro_of(first) if issubclass(kind, type) else ()
            for each in (*own, *mro_of(kind)):
                if qualname_of(each) == self._class and static(each, "__module__") == self._module:
                    return not is_static_method(static(each, self._function))
        return bool(args) and self._has_method(kind)

    def _has_method(self, kind: type) -> bool:
        """Return whether `kind` has the function as a method, according to its attributes when it was first seen."""
        try:
            known = self._holders.get(kind)
        except TypeError:  # even a class can refuse to be looked up
            return False
        if known is None:
            decorated = self._decorated()
            held = (
                value
                for each in mro_of(kind)
                for value in [*vars_of(each).values()]
                if type(value) is types.FunctionType
            )
            known = self._holders[kind] = any(decorated is layer for value in held for layer in layers(value))
        return known
