"""The two verbs: `plain` for data, `text` for what is read as a text."""

from typing import Any, TypeGuard

from athina_trace._serialization.limits import DEFAULT_LIMITS, JSON, Limits, Mask
from athina_trace._serialization.secrets import MASKED, looks_secret
from athina_trace._serialization.strings import is_clean
from athina_trace._serialization.walk import EXACT_INT, encode, take


def plain(value: object, *, limits: Limits = DEFAULT_LIMITS, mask: Mask | None = None, name: str = "") -> JSON:
    """Take a snapshot of any object as JSON-safe data. Never raises, never runs a user's `repr`.

    Args:
        value: what to read; it is neither changed nor consumed, and the answer shares no container with it.
        limits: the bounds.
        mask: sees every string value, never keys; where it raises, "[mask failed]" stands.
        name: the parameter's name. One that looks like a secret's masks the whole value; paths begin with it.
    """
    if name and value is not None and looks_secret(name):
        return MASKED
    if mask is None and limits is DEFAULT_LIMITS and _is_plain(value):
        return value
    return take(value, limits, mask, name)


def text(value: object, *, limits: Limits = DEFAULT_LIMITS, mask: Mask | None = None, name: str = "") -> str:
    """Read a question or an answer: a string as it is, None as "", anything else as compact JSON of `plain`.

    What `plain` makes a string of (a date, a path, a type's name) is given without quotation marks.
    """
    if value is None:
        return ""
    if type(value) is str and mask is None and not name and limits is DEFAULT_LIMITS and is_clean(value):
        return value
    data = plain(value, limits=limits, mask=mask, name=name)
    return data if type(data) is str else encode(data)


def _is_plain(value: Any) -> TypeGuard[str | int | None]:
    """Tell the commonest arguments, which need no walk."""
    kind = type(value)
    if kind is str:
        return is_clean(value)
    return value is None or kind is bool or (kind is int and -EXACT_INT < value < EXACT_INT)
