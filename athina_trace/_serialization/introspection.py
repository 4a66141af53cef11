"""Reads what classes and instances store, bypassing metaclasses, properties and `__getattr__`."""

import types
from collections.abc import Callable, Mapping
from typing import Any, Final

from athina_trace import _guard

ABSENT: Final = object()
LONGEST_NAME: Final = 200


class Placeholder(str):
    """Our text in place of a value, so that it is not mistaken for the user's."""

    __slots__ = ()


# Read through `type` itself, since a metaclass may answer anything, or raise.
mro_of: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
vars_of: Callable[[type], Mapping[str, Any]] = type.__dict__["__dict__"].__get__
qualname_of: Callable[[type], str] = type.__dict__["__qualname__"].__get__
_module_of: Callable[[type], object] = type.__dict__["__module__"].__get__


def type_name(cls: type) -> str:
    """Return `module.Class`, without the module for built-ins; at most 200 characters."""
    module = _module_of(cls)
    name = qualname_of(cls)
    full = name if type(module) is not str or module == "builtins" else f"{module}.{name}"
    return full[:LONGEST_NAME].encode(errors="replace").decode()


def type_placeholder(value: object) -> Placeholder:
    """Return `<module.Class>`, which is logged for objects without data."""
    return Placeholder(f"<{type_name(type(value))}>")


def static(cls: type, *names: str) -> Any:
    """Return the first of these class attributes that exists, unbound."""
    found = (vars_of(base).get(name, ABSENT) for name in names for base in mro_of(cls))
    return next((value for value in found if value is not ABSENT), ABSENT)


def slot(member: object, value: object) -> object:
    """Read a slot, but no other kind of attribute of that name, such as a property."""
    if type(member) is not types.MemberDescriptorType:
        return ABSENT
    try:
        return member.__get__(value, type(value))
    except AttributeError:
        return ABSENT


def instance_dict(value: object) -> dict[str, object]:
    """Return the instance's own `__dict__`, not a copy, or an empty one."""
    try:
        stored = object.__getattribute__(value, "__dict__")
    except Exception as error:  # noqa: BLE001 - a class may define it as a property, which may raise anything
        _guard.raise_if_the_programs(error)
        return {}
    return stored if type(stored) is dict else {}


def stored_pairs(value: object, names: tuple[str, ...]) -> list[tuple[str, object]]:
    """Return the named attributes that the instance stores, in its `__dict__` or in slots."""
    stored = instance_dict(value)
    if all(map(stored.__contains__, names)):
        return [(name, stored[name]) for name in names]
    pairs = ((name, stored.get(name, ABSENT)) for name in names)
    slotted = ((name, slot(static(type(value), name), value) if item is ABSENT else item) for name, item in pairs)
    return [(name, item) for name, item in slotted if item is not ABSENT]


def attribute_or_none(value: object, name: str) -> Any:
    """Return an attribute, even if it is a property, which runs its author's code; None if there is none."""
    try:
        return getattr(value, name, None)
    except Exception as error:  # noqa: BLE001 - that code may raise anything
        _guard.raise_if_the_programs(error)
        return None
