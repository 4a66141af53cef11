"""Readers for objects of known types: they use what is stored and, where possible, do not run their author's code.

`read(value)` returns something simpler: a built-in value, a `Placeholder`, `Pairs` or `Items`. It may raise, and its
result may contain anything: the caller guards and bounds it. No library is imported to recognise its objects.
"""

import array
import codecs
import datetime as dt
import decimal
import enum
import json
import pathlib
import types
import uuid
from collections import OrderedDict, UserString, deque
from collections.abc import Callable, Iterable, Mapping, MappingView, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from athina_trace import _guard
from athina_trace._serialization.introspection import (
    ABSENT,
    LONGEST_NAME,
    Placeholder,
    instance_dict,
    mro_of,
    qualname_of,
    slot,
    static,
    stored_pairs,
    type_name,
    type_placeholder,
)
from athina_trace._serialization.scalars import (
    buffer,
    builtin_name,
    class_name,
    duration,
    enum_value,
    exception,
    finished,
    function_name,
    masked,
    method_function,
    module_name,
    nothing,
    numpy_scalar,
)


class Pairs(NamedTuple):
    """Keys and values; `size` is None if only iterating, which runs the user's code, would show it."""

    source: Iterable[tuple[object, object]]
    size: int | None


class Items(NamedTuple):
    """A sequence of values; `size` as for `Pairs`; `ordered` is false for sets."""

    source: Iterable[object]
    size: int | None
    ordered: bool = True


Reader: TypeAlias = Callable[[Any], object]

_LARGEST_BODY: Final = 1_000_000  # bytes; the rest of a larger one is left out
_SMALL_ARRAY: Final = 32  # elements; a larger array is logged as type and shape

# Weak, so that dynamically created classes can be collected.
_readers: WeakKeyDictionary[type, Reader] = WeakKeyDictionary()


def read(value: object) -> object:
    """Return the data in `value` as something simpler, or its type's name if it has no data."""
    cls = type(value)
    reader = _readers.get(cls)
    if reader is None:
        reader = _readers[cls] = _reader(cls)
    return reader(value)


# ---- choosing a reader for each class, once


def _reader(cls: type) -> Reader:
    names = {type_name(base) for base in mro_of(cls)}
    if not _MASKED_CLASSES.isdisjoint(names):
        return masked
    if static(cls, "_sa_class_manager") is not ABSENT:  # an SQLAlchemy row; reading one may query
        return type_placeholder
    body = next((_BODIES[name] for name in map(type_name, mro_of(cls)) if name in _BODIES), None)
    if body is not None:
        return lambda value: read_body(value, body)
    found = (
        _BY_NAME.get(type_name(cls))
        or _by_class(cls, _BEFORE_FIELDS)
        or _fields_reader(cls)
        or _by_class(cls, _AFTER_FIELDS)
    )
    if found is not None:
        return found
    if "numpy.generic" in names:
        return numpy_scalar
    # Arrays, tensors, series and frames of every library have these attributes.
    shaped = static(cls, "shape") is not ABSENT and static(cls, "dtype", "dtypes") is not ABSENT
    return read_array if shaped else type_placeholder


def _by_class(cls: type, rules: Iterable[tuple[type, Reader]]) -> Reader | None:
    return next((reader for base, reader in rules if issubclass(cls, base)), None)


def _fields_reader(cls: type) -> Reader | None:
    """Recognise classes that name their fields: pydantic, named tuples, dataclasses, attrs and msgspec."""
    names = static(cls, "__pydantic_fields__", "model_fields", "__fields__")
    if isinstance(names, dict) and static(cls, "__pydantic_core_schema__", "__validators__") is not ABSENT:
        if static(cls, "__pydantic_root_model__") is True or "__root__" in names:
            return read_root_model
        return _stored(tuple(names), static(cls, "__pydantic_extra__"))
    names = static(cls, "_fields")
    if issubclass(cls, tuple) and isinstance(names, tuple):
        return lambda value: Pairs(
            zip(names, tuple.__iter__(value), strict=False), min(len(names), tuple.__len__(value))
        )
    names = static(cls, "__dataclass_fields__", "__struct_fields__")
    if isinstance(names, (dict, tuple)):
        return _stored(tuple(names))
    attrs = static(cls, "__attrs_attrs__")
    return _stored(tuple(attribute.name for attribute in attrs)) if isinstance(attrs, tuple) else None


def _stored(names: tuple[str, ...], extra: object = None) -> Reader:
    """Read fields from where the instance stores them: `model_dump` or a property would run its author's code."""

    def read_fields(value: object) -> Pairs:
        pairs = stored_pairs(value, names)
        more = slot(extra, value)
        if type(more) is dict:
            pairs += more.items()
        return Pairs(pairs, len(pairs))

    return read_fields


# ---- readers


def read_root_model(value: object) -> object:
    stored = instance_dict(value)
    return stored["root"] if "root" in stored else stored.get("__root__")


def read_mapping(value: Mapping[object, object]) -> Pairs:
    def entry(key: object) -> object:
        try:
            return value[key]
        except Exception as error:  # noqa: BLE001  a mapping of the user's may raise anything
            _guard.raise_if_the_programs(error)
            return Placeholder(f"<unreadable: {type_name(type(error))}>")

    return Pairs(((key, entry(key)) for key in value), None)


def read_sequence(value: Iterable[object]) -> Items:
    return Items(value, None)


def read_body(response: object, path: tuple[str, ...]) -> object:
    """Read an HTTP response as the text of its body, or the data of which it is made; a stream as its type."""
    body: Any = response
    for name in path:
        body = getattr(body, name, None)
    if type(body) in (list, tuple) and body and {*map(type, body)} <= {bytes, str}:
        body = b"".join(part if isinstance(part, bytes) else part.encode() for part in body)
    if isinstance(body, bytes) and body:
        try:  # the last character may be cut
            body = codecs.getincrementaldecoder("utf-8")().decode(body[:_LARGEST_BODY])
        except UnicodeDecodeError:
            return body
    if isinstance(body, str) and body[:1] in ("{", "["):
        # As data, so that secrets are masked by their names.
        with suppress(ValueError, RecursionError):
            return json.loads(body)
    return body if body and isinstance(body, (str, dict, list)) else type_placeholder(response)


def read_array(value: Any) -> object:
    """Read small numpy arrays as lists, and everything else of that kind as its type and shape."""
    shape = value.shape
    if not isinstance(shape, tuple):
        return type_placeholder(value)
    if "numpy.ndarray" in {type_name(base) for base in mro_of(type(value))} and value.size <= _SMALL_ARRAY:
        return value.tolist()
    kind = getattr(getattr(value, "dtype", None), "name", None)
    name = f"{qualname_of(type(value))} {kind}" if type(kind) is str else qualname_of(type(value))
    return Placeholder(f"<{name} {tuple(map(int, shape))}>"[:LONGEST_NAME])


# ---- the rules, first match wins

# By name, since importing a library would slow down every program that does not use it.
_MASKED_CLASSES: Final = frozenset(
    f"pydantic.{at}.{name}" for at in ("types", "v1.types") for name in ("SecretStr", "SecretBytes", "_SecretBase")
)
_BY_NAME: Final[Mapping[str, Reader]] = {
    # The `str` of these classes is their data, and not the user's code.
    **dict.fromkeys(
        (
            *(f"ipaddress.IPv{n}{kind}" for n in (4, 6) for kind in ("Address", "Interface", "Network")),
            *(f"pydantic.networks.{kind}Url" for kind in ("Any", "AnyHttp", "Http")),
            "pydantic_core._pydantic_core.Url",
            "fractions.Fraction",
            "zoneinfo.ZoneInfo",
            "bson.objectid.ObjectId",
            "httpx.URL",
            "yarl.URL",
        ),
        str,
    ),
    **dict.fromkeys((f"pandas.{at}" for at in ("_libs.tslibs.nattype.NaTType", "api.typing.NaTType")), nothing),
    **dict.fromkeys((f"pandas.{at}" for at in ("_libs.missing.NAType", "api.typing.NAType")), nothing),
    # A name and a password among their parts look like any other text.
    **dict.fromkeys((f"urllib.parse.{name}" for name in ("SplitResult", "ParseResult")), lambda value: value.geturl()),
    # Their data is not in a declared field.
    "dspy.primitives.example.Example": lambda value: instance_dict(value).get("_store"),
    "dspy.primitives.prediction.Prediction": _stored(("_store", "_lm_usage")),
    **dict.fromkeys(("concurrent.futures._base.Future", "_asyncio.Future", "_asyncio.Task"), finished),
}

_BODIES: Final[Mapping[str, tuple[str, ...]]] = {
    "starlette.responses.Response": ("body",),
    "werkzeug.wrappers.response.Response": ("response",),
    "django.http.response.HttpResponse": ("_container",),
    "quart.wrappers.response.Response": ("response", "data"),
    "litestar.response.base.Response": ("content",),
    "aiohttp.web_response.StreamResponse": ("_body",),
    "sanic.response.types.HTTPResponse": ("body",),
    "bottle.BaseResponse": ("body",),
    "httpx.Response": ("_content",),
    "httpx2.Response": ("_content",),
    "requests.models.Response": ("_content",),
}
"""Classes of HTTP responses → the path of attributes to a complete body."""

_BEFORE_FIELDS: Final[tuple[tuple[type, Reader], ...]] = (
    (enum.Enum, enum_value),
    (str, str.__str__),
    (int, lambda value: int.__add__(value, 0)),
    (float, lambda value: float.__add__(value, 0.0)),
    (complex, complex.__repr__),
    (bytes, buffer),
    (bytearray, buffer),
    (memoryview, buffer),
    (UserString, lambda value: instance_dict(value).get("data")),
    (dt.datetime, dt.datetime.isoformat),
    (dt.date, dt.date.isoformat),
    (dt.time, dt.time.isoformat),
    (dt.timedelta, duration),
    (decimal.Decimal, decimal.Decimal.__str__),
    (uuid.UUID, uuid.UUID.__str__),
    (pathlib.PurePath, pathlib.PurePath.__str__),
    (range, repr),
    (BaseException, exception),
)

_AFTER_FIELDS: Final[tuple[tuple[type, Reader], ...]] = (
    (OrderedDict, lambda value: Pairs(OrderedDict.items(value), OrderedDict.__len__(value))),
    (dict, lambda value: Pairs(dict.items(value), dict.__len__(value))),
    (list, lambda value: Items(list.__iter__(value), list.__len__(value))),
    (tuple, lambda value: Items(tuple.__iter__(value), tuple.__len__(value))),
    (set, lambda value: Items(set.__iter__(value), set.__len__(value), ordered=False)),
    (frozenset, lambda value: Items(frozenset.__iter__(value), frozenset.__len__(value), ordered=False)),
    (deque, lambda value: Items(deque.__iter__(value), deque.__len__(value))),
    (array.array, lambda value: Items(iter(value), len(value))),
    (type, class_name),
    (types.FunctionType, function_name),
    (types.MethodType, method_function),
    (types.BuiltinFunctionType, builtin_name),
    (types.ModuleType, module_name),
    (Mapping, read_mapping),
    (AbstractSet, lambda value: Items(value, None, ordered=False)),
    (Sequence, read_sequence),
    (MappingView, read_sequence),
)
