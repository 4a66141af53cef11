"""Readers for single values: each returns something simpler, mostly a built-in value or a `Placeholder`."""

import datetime as dt
import enum
import types
from collections.abc import Callable
from typing import Any, Final

from athina_trace._serialization.binary import describe_bytes
from athina_trace._serialization.introspection import (
    LONGEST_NAME,
    Placeholder,
    instance_dict,
    static,
    type_name,
    type_placeholder,
)
from athina_trace._serialization.secrets import MASKED

_LONGEST_MESSAGE: Final = 100_000  # characters
_DIGITS: Final = 1000  # a longer integer is logged as its size
_MAGIC_BYTES: Final = 16
_args_of: Callable[[BaseException], tuple[object, ...]] = BaseException.__dict__["args"].__get__
_filename_of: Callable[[BaseException], object] = OSError.__dict__["filename"].__get__
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})


def big_int(value: int) -> str | Placeholder:
    """Write an integer that JSON readers might round as text; with more than 1000 digits, only its size."""
    bits = int.bit_length(value)
    return int.__repr__(value) if bits < _DIGITS * 3 else Placeholder(f"<int of {bits} bits>")


def masked(_value: object) -> Placeholder:
    return Placeholder(MASKED)


def nothing(_value: object) -> None:
    return None


def enum_value(value: enum.Enum) -> object:
    return object.__getattribute__(value, "_value_")


def buffer(value: bytes | bytearray | memoryview) -> Placeholder:
    with memoryview(value) as view:
        head = bytes(view.cast("B")[:_MAGIC_BYTES]) if view.contiguous and view.nbytes else b""
        return Placeholder(describe_bytes(head, view.nbytes))


def duration(value: dt.timedelta) -> str:
    """Write ISO 8601 like pydantic: a sign, the days, and the rest in seconds."""
    micro = (value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds
    days, rest = divmod(abs(micro), 86_400_000_000)
    seconds = f"{rest / 1_000_000:.6f}".rstrip("0").rstrip(".")
    return f"{'-' if micro < 0 else ''}P{f'{days}D' if days else ''}{f'T{seconds}S' if rest or not days else ''}"


def exception(error: BaseException) -> str:
    """Return type and message; the message only if that does not run its author's code."""
    args = _args_of(error)
    scalars = [arg for arg in args if type(arg) in _SCALARS]
    quiet = len(scalars) == len(args) and type(static(type(error), "__str__")) is types.WrapperDescriptorType
    # OSError.__str__ calls the repr of its file name, which may be any object.
    quiet = quiet and (not issubclass(type(error), OSError) or type(_filename_of(error)) in _SCALARS)
    if quiet and all(len(arg) < _LONGEST_MESSAGE for arg in scalars if type(arg) is str):
        message = str(error)
    else:
        message = ", ".join(str(arg)[:_LONGEST_MESSAGE] for arg in scalars)
    return f"{type_name(type(error))}: {message}" if message else type_name(type(error))


def finished(future: Any) -> object:
    """Return a future's result without its methods, which would mark it as retrieved: asyncio would not warn."""
    if future._state != "FINISHED":  # noqa: SLF001
        return type_placeholder(future)
    return future._result if future._exception is None else future._exception  # noqa: SLF001


def class_name(value: type) -> Placeholder:
    return Placeholder(f"<class {type_name(value)}>")


def function_name(value: types.FunctionType) -> Placeholder:
    module = value.__module__ if type(value.__module__) is str else "?"
    return Placeholder(f"<function {module}.{value.__qualname__[:LONGEST_NAME]}>")


def method_function(value: types.MethodType) -> object:
    return value.__func__


def builtin_name(value: types.BuiltinFunctionType) -> Placeholder:
    return Placeholder(f"<function {value.__qualname__}>")


def module_name(value: types.ModuleType) -> Placeholder:
    name = instance_dict(value).get("__name__")
    return Placeholder(f"<module {name[:LONGEST_NAME]}>") if type(name) is str else type_placeholder(value)


def numpy_scalar(value: Any) -> object:
    return value.item()
