"""Strings: cut to the limits, without base64 and credentials, and valid UTF-8."""

import re
from typing import Final

from athina_trace._serialization.binary import may_hold_base64, without_base64
from athina_trace._serialization.introspection import Placeholder
from athina_trace._serialization.limits import Walk
from athina_trace._serialization.secrets import (
    SHORTEST,
    may_hold_credentials,
    may_hold_named,
    may_hold_unnamed,
    without_credentials,
)

SHORT: Final = 64  # characters that need no look for base64
LONG: Final = 1024  # characters from which on base64 is looked for without its data URL
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that could move a terminal's cursor, change its title, or reverse its text. Not tab and newline."""
_MARGIN: Final = 200  # characters that are looked at beyond the cut, lest half a credential is left in front of it


def is_clean(value: str, longest: int = LONG) -> bool:
    """Return whether a string of at most `longest` characters needs no change: no blob, credential or surrogate."""
    # All of these contain one of a few characters, so most strings need no further check. Inlined, since a call of
    # `may_hold_credentials` would take longer than its work.
    if not value.isascii() or "=" in value:
        return False
    size = len(value)
    if size >= SHORTEST:
        if size >= LONG and (size > longest or may_hold_base64(value)):
            return False
        if (
            "-" in value or "_" in value or ">" in value or "J" in value or "K" in value or "z" in value
            or "'" in value
        ) and may_hold_unnamed(value):  # fmt: skip
            return False
    return ":" not in value or not (";" in value or may_hold_named(value))


def read_text(walk: Walk, value: str, _depth: int) -> str:
    size = len(value)
    if size > walk.chars or size > walk.limits.string or may_hold_credentials(value):
        return _long_text(walk, value)
    if size > SHORT and (";" in value or (size >= LONG and may_hold_base64(value))):
        return _long_text(walk, value)
    walk.chars -= size
    return value if value.isascii() else encodable(value)


def _long_text(walk: Walk, value: str) -> str:
    size = len(value)
    room = max(0, min(walk.limits.string, walk.chars))
    margin = _MARGIN if size > room and may_hold_credentials(value) else 0
    seen, unseen = without_base64(value[: room + margin], max(0, size - room - margin))
    seen = encodable(without_credentials(seen))
    kept = seen[: max(0, min(room, len(seen) - (margin if unseen else 0)))]
    walk.chars -= len(kept)
    return f"{kept}… [{len(kept)} of {size} characters]" if unseen or len(kept) < len(seen) else kept


def encodable(value: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot encode, with U+FFFD."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value


def storable(value: str) -> str:
    """Replace lone surrogates, and NUL, which PostgreSQL cannot store as text or jsonb, with U+FFFD."""
    if "\0" in value:
        value = value.replace("\0", "\ufffd")
    return value if value.isascii() else encodable(value)


def printable(value: str, *, escaped: bool = False) -> str:
    """Replace control characters of terminals with U+FFFD or, inside JSON, with an escape sequence."""
    return _CONTROL.sub((lambda found: f"\\u{ord(found[0]):04x}") if escaped else "\N{REPLACEMENT CHARACTER}", value)


def read_placeholder(walk: Walk, value: Placeholder, _depth: int) -> str:
    walk.chars -= len(value)
    return encodable(str.__str__(value))
