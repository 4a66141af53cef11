"""Converts any object to bounded, JSON-safe data: `plain` for data, `text` for questions and answers.

Exact built-in types, which are the most common, use one table from type to function. Everything else is first read into
something simpler, under a guard.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from time import monotonic
from typing import Any, Final, TypeVar

from athina_trace import _guard
from athina_trace._serialization.introspection import Placeholder, type_name, type_placeholder
from athina_trace._serialization.known_types import Items, Pairs, read
from athina_trace._serialization.limits import DEFAULT_LIMITS, JSON, Limits, Walk
from athina_trace._serialization.scalars import big_int
from athina_trace._serialization.secrets import MASKED, SCHEMA, commands, looks_secret, option, without_credentials
from athina_trace._serialization.strings import LONG, SHORT, encodable, is_clean, read_placeholder, read_text

_T = TypeVar("_T")

_FEW: Final = 16  # texts that are taken without a walk: together they are far below any limit
_PAIR: Final = 2
_EXACT_INT: Final = 2**53  # up to here JSON readers agree on integers: RFC 8259, section 6
_LONGEST_KEY: Final = 200
_CUT_KEY: Final = re.compile(rf"\A.{{1,{_LONGEST_KEY}}}… \[{_LONGEST_KEY} of \d{{3,}} characters\]\Z", re.DOTALL)
"""A key that was cut before, since data is read again after a hook."""
_KNOWN_KEYS: Final = 4096
_WORD: Final = re.compile("[a-z_]+")

# Keys that need no further check: short, encodable, not secret. Emptied when full.
_clean_keys: set[str] = set()

encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def plain(value: object, limits: Limits = DEFAULT_LIMITS, name: str = "") -> JSON:
    """Take a snapshot of any object as JSON-safe data. Never raises, never runs a user's `repr`.

    Args:
        value: the object; it is neither changed nor consumed, and the result shares no container with it.
        limits: the bounds.
        name: the parameter's name. If it looks like that of a secret, the whole value is masked.
    """
    kind = type(value)
    if name and name not in _clean_keys and value is not None and kind is not bool and _is_secret(name):
        return MASKED
    if limits is DEFAULT_LIMITS:  # the most common arguments need no walk
        simple: Any = value
        if (
            (kind is str and is_clean(simple, limits.string))
            or (kind is int and -_EXACT_INT < simple < _EXACT_INT)
            or value is None
            or kind is bool
        ):
            return simple  # type: ignore[no-any-return]
        if kind is list and len(simple) <= _FEW:
            # Such as documents; copied first, since another thread may change the list.
            texts = simple.copy()
            for each in texts:
                if type(each) is not str or each[:1] == "-" or not is_clean(each):
                    break
            else:
                if len(texts) != _PAIR or not _is_secret_pair(texts):  # most lists need no call
                    return texts  # type: ignore[no-any-return]
    try:
        return _EXACT.get(kind, read_other)(Walk(limits), value, 1)
    except Exception as error:  # noqa: BLE001  whatever it is, the user's call continues
        _guard.raise_if_the_programs(error)
        return _unreadable(value)


def text(value: object, limits: Limits = DEFAULT_LIMITS) -> str:
    """Read a question or an answer: a string as it is, None as "", anything else as compact JSON of `plain`.

    Values that `plain` turns into a string (a date, a path, a type's name) have no quotation marks.
    """
    if type(value) is str and limits is DEFAULT_LIMITS and is_clean(value, limits.string):
        return value
    if value is None:
        return ""
    data = plain(value, limits)
    return data if type(data) is str else encode(data)


# ---- numbers


def read_same(_walk: Walk, value: bool | None, _depth: int) -> bool | None:  # noqa: FBT001
    return value


def read_int(walk: Walk, value: int, depth: int) -> JSON:
    if -_EXACT_INT < value < _EXACT_INT:
        return value
    written = big_int(value)
    return _EXACT[type(written)](walk, written, depth)


def read_float(_walk: Walk, value: float, _depth: int) -> float | str:
    if value - value == 0.0:  # neither nan nor infinite; quicker than math.isfinite
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124


# ---- containers: their items count before any of them is walked, so that siblings get their share


def read_list(walk: Walk, value: list[object] | tuple[object, ...], depth: int) -> JSON:
    """Read a list; a pair, such as a header ("authorization", "Bearer …"), is treated like a dict's item."""
    here = id(value)
    if depth > walk.limits.depth or here in walk.active:
        return _closed(walk, value, here)
    taken = value[: walk.nodes]
    if _is_secret_pair(value):
        taken = (value[0], Placeholder(MASKED))
    walk.active.add(here)
    out = _fill_list(walk, taken, depth + 1)
    walk.active.discard(here)
    if len(taken) < len(value):
        out.append(_more(len(value) - len(taken)))
    return out


def _is_secret_pair(value: Sequence[object]) -> bool:
    if len(value) != _PAIR or type(value[0]) is not str or " " in value[0] or not looks_secret(value[0]):
        return False
    # A list of two names, such as of required fields, is no pair.
    second = value[1]
    is_name = type(second) is str and type(value) is list and _WORD.fullmatch(second) is not None
    return not (is_name and _WORD.fullmatch(value[0]))


def read_dict(walk: Walk, value: dict[object, object], depth: int) -> JSON:
    here = id(value)
    if depth > walk.limits.depth or here in walk.active:
        return _closed(walk, value, here)
    # Both copy in one step of the interpreter, so another thread cannot change the size meanwhile.
    taken = value.copy().items() if len(value) <= walk.nodes else list(islice(value.items(), walk.nodes))
    walk.active.add(here)
    out = _fill_dict(walk, taken, depth + 1)
    walk.active.discard(here)
    if len(taken) < len(value):
        _put_note(out, _more(len(value) - len(taken)))
    return out


def _fill_list(walk: Walk, taken: Sequence[object], depth: int) -> list[JSON]:
    walk.nodes -= len(taken)
    quick = walk.limits.string >= LONG
    out: list[JSON] = []
    hides: Callable[[str], object] | None = None
    beside: set[str] | None = None
    for item in taken:
        if hides is not None:  # it follows an option of a command: ["--password", "…"]
            asked, hides = hides, None
            if type(item) is not str or (item[:1] != "-" and asked(item)):
                out.append(MASKED)
                continue
        if type(item) is str and item[:1] == "-":
            if beside is None:  # once for all options, since that reads the whole list
                beside = commands(taken)
            item, hides = option(item, beside)  # noqa: PLW2901 - an option may hold a secret itself
        if quick and type(item) is str and walk.chars >= LONG and is_clean(item):
            walk.chars -= len(item)
            out.append(item)
            continue
        try:
            out.append(_EXACT.get(type(item), read_other)(walk, item, depth))
        except Exception as error:  # noqa: BLE001  even a class can refuse to be looked up
            _guard.raise_if_the_programs(error)
            out.append(_unreadable(item))
    return out


def _fill_dict(walk: Walk, taken: Collection[tuple[object, object]], depth: int) -> dict[str, JSON]:
    walk.nodes -= len(taken)
    quick = walk.limits.string >= LONG
    out: dict[str, JSON] = {}
    for name, item in taken:
        if type(name) is str and name in _clean_keys and name not in out:
            key, hidden = name, False
        else:
            key, hidden = _key(walk, name, out)
        if hidden and item is not None and not _is_shown(key, item, taken):
            out[key] = MASKED
            continue
        if quick and type(item) is str and walk.chars >= LONG and is_clean(item):
            walk.chars -= len(item)
            out[key] = item
            continue
        try:
            out[key] = _EXACT.get(type(item), read_other)(walk, item, depth)
        except Exception as error:  # noqa: BLE001  even a class can refuse to be looked up
            _guard.raise_if_the_programs(error)
            out[key] = _unreadable(item)
    if "value" in out or "Value" in out:
        _mask_named_value(out)
    return out


def _is_shown(key: str, item: object, beside: Collection[tuple[object, object]]) -> bool:
    """Return whether an entry is no secret, though its name looks so.

    That is a yes or no, what JSON's schemas say of a value, and a model's token, which has its logarithm beside it.
    """
    if type(item) is dict:
        return bool(item) and item.keys() <= SCHEMA
    return type(item) is bool or (key == "token" and any(name == "logprob" for name, _ in beside))


def _mask_named_value(out: dict[str, JSON]) -> None:
    """Mask a secret value next to its name, as in lists of headers and variables: {"name": "API_KEY", "value": "…"}."""
    for name, key, header, value in (("name", "key", "header", "value"), ("Name", "Key", "Header", "Value")):
        named = out.get(name, out.get(key, out.get(header)))
        if type(named) is str and " " not in named and looks_secret(named) and out.get(value) is not None:
            out[value] = MASKED


def _key(walk: Walk, name: object, out: dict[str, JSON]) -> tuple[str, bool]:
    """Convert any object to a key; return it, and whether its value is a secret."""
    key = name if type(name) is str else _key_text(walk, name)
    if len(key) > _LONGEST_KEY and not _CUT_KEY.search(key):
        key = f"{key[:_LONGEST_KEY]}… [{_LONGEST_KEY} of {len(key)} characters]"
    key = without_credentials(encodable(key))
    walk.chars -= len(key)
    hidden = looks_secret(key)
    if key is name and not hidden and len(key) <= SHORT:
        _remember(key)
    return _unused(key, out), hidden


def _is_secret(name: str) -> bool:
    if looks_secret(name):
        return True
    if len(name) <= SHORT and name.isascii() and name.isidentifier() and without_credentials(name) is name:
        _remember(name)
    return False


def _remember(key: str) -> None:
    if len(_clean_keys) >= _KNOWN_KEYS:
        _clean_keys.clear()
    _clean_keys.add(key)


def _key_text(walk: Walk, name: object) -> str:
    if type(name) is bytes and len(name) <= _LONGEST_KEY:  # the header names of ASGI, for one
        return name.decode(errors="replace")
    try:
        data = _EXACT.get(type(name), read_other)(walk, name, walk.limits.depth)
    except Exception as error:  # noqa: BLE001  whatever it is, the user's call continues
        _guard.raise_if_the_programs(error)
        return _unreadable(name)
    return data if type(data) is str else encode(data)


def _unused(key: str, out: dict[str, JSON]) -> str:
    """Distinguish keys that became the same text: "1", "1 (2)"; the number is the item's position."""
    place, free = len(out) + 1, key
    while free in out:
        free, place = f"{key} ({place})", place + 1
    return free


def _put_note(out: dict[str, JSON], note: str) -> None:
    out[_unused("…", out)] = note


def _more(count: int | None) -> str:
    return "… more items" if count is None else f"… {count} more items"


def _closed(walk: Walk, value: Sequence[object] | dict[object, object], here: int) -> str:
    name = type_name(type(value))
    if here in walk.active:
        return f"<circular {name}>"
    return f"<{name} of {len(value)} items, nested too deep>"


# ---- everything else


def read_other(walk: Walk, value: object, depth: int) -> JSON:
    here = id(value)
    if here in walk.active:
        return f"<circular {type_placeholder(value)[1:]}"
    walk.active.add(here)
    try:
        simpler = read(value)
        reader = _EXACT.get(type(simpler))
        if reader is None:  # an enum of objects, a method; one level deeper, so that it ends
            depth, reader = depth + 1, read_other
        if depth > walk.limits.depth and reader in _DEEP:
            return f"<{type_name(type(value))}, nested too deep>"
        return reader(walk, simpler, depth)
    except Exception as error:  # noqa: BLE001  whatever it is, the user's call continues
        _guard.raise_if_the_programs(error)
        return _unreadable(value)
    finally:
        walk.active.discard(here)


def read_pairs(walk: Walk, value: Pairs, depth: int) -> JSON:
    taken, note = _gather(walk, value.source, value.size)
    out = _fill_dict(walk, taken, depth + 1)
    if note:
        _put_note(out, note)
    return out


def read_items(walk: Walk, value: Items, depth: int) -> JSON:
    taken, note = _gather(walk, value.source, value.size)
    out = _fill_list(walk, taken, depth + 1)
    if not value.ordered:
        out.sort(key=_order)
    return [*out, note] if note else out


def _gather(walk: Walk, source: Iterable[_T], count: int | None) -> tuple[list[_T], str]:
    """Take as many items as the limits allow; if the length is unknown, the time limit applies as well."""
    taken: list[_T] = []
    deadline = monotonic() + walk.patience
    try:
        for item in source:
            if len(taken) >= walk.nodes or (count is None and monotonic() > deadline):
                return taken, _more(count and count - len(taken))
            taken.append(item)
    except Exception as error:  # noqa: BLE001  what was read until then is kept
        _guard.raise_if_the_programs(error)
        return taken, f"… unreadable: {type_name(type(error))}"
    finally:
        walk.patience = deadline - monotonic()
    return taken, ""


def _order(data: JSON) -> tuple[int, float, str]:
    if isinstance(data, (int, float)):
        return 0, data, ""
    return (1, 0, data) if isinstance(data, str) else (2, 0, encode(data))


def _unreadable(value: object) -> str:
    try:
        return encodable(str(type_placeholder(value)))
    except Exception as error:  # noqa: BLE001  whatever it is, the user's call continues
        _guard.raise_if_the_programs(error)
        return "<unreadable>"


_EXACT: Final[dict[type, Callable[[Walk, Any, int], JSON]]] = {
    str: read_text,
    int: read_int,
    float: read_float,
    bool: read_same,
    type(None): read_same,
    list: read_list,
    tuple: read_list,
    dict: read_dict,
    Placeholder: read_placeholder,
    Pairs: read_pairs,
    Items: read_items,
}
_DEEP: Final = frozenset({read_pairs, read_items, read_other})
