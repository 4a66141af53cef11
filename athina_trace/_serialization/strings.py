"""Strings: within the limits, seen by the mask, without base64 or credentials in URLs, and fit for UTF-8."""

import re
from typing import Final

from athina_trace import _guard
from athina_trace._serialization.binary import without_base64
from athina_trace._serialization.introspection import Mark
from athina_trace._serialization.limits import Walk
from athina_trace._serialization.secrets import may_hold_credentials, without_credentials

SHORT: Final = 64  # characters that need no look for base64
LONG: Final = 1024  # characters from which on base64 is looked for without its data URL
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What could move a terminal's cursor, change its title, or reverse its text. Tab and newline are allowed."""
_MARGIN: Final = 200  # characters that a mask sees beyond the cut, lest it meets half a secret


def is_clean(value: str) -> bool:
    """Whether a string can be taken as it is: too short for a blob, fit for UTF-8, no URL and nothing under a name."""
    # All of these have a colon: most strings need no further look. Without the call of `may_hold_credentials`, which
    # would take longer than its answer.
    if len(value) >= LONG or not value.isascii():
        return False
    return ":" not in value or not (
        ";" in value or "://" in value or '":' in value or "':" in value or "earer " in value or "asic " in value
    )


def read_text(walk: Walk, value: str, _depth: int, path: str) -> str:
    size = len(value)
    if (size > SHORT and (size >= LONG or ";" in value)) or may_hold_credentials(value):
        return _long_text(walk, value, path)
    if size > walk.chars or size > walk.limits.string or walk.mask is not None:
        return _long_text(walk, value, path)
    walk.chars -= size
    return value if value.isascii() else encodable(value)


def _long_text(walk: Walk, value: str, path: str) -> str:
    size = len(value)
    room = max(0, min(walk.limits.string, walk.chars))
    margin = 0 if size <= room or (walk.mask is None and not may_hold_credentials(value)) else _MARGIN
    seen, unseen = without_base64(value[: room + margin], max(0, size - room - margin))
    seen = without_credentials(seen)
    if walk.mask is not None:
        try:
            seen = str.__str__(walk.mask(path, seen))
        except Exception as error:  # noqa: BLE001  the mask is the user's; its text must not pass unmasked
            _guard.pass_on(error)
            seen = "[mask failed]"
    seen = encodable(seen)
    kept = seen[: max(0, min(room, len(seen) - (margin if unseen else 0)))]
    walk.chars -= len(kept)
    return f"{kept}… [{len(kept)} of {size} characters]" if unseen or len(kept) < len(seen) else kept


def encodable(value: str) -> str:
    """Put U+FFFD in place of lone surrogates, which no UTF-8 can hold."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value


def storable(value: str) -> str:
    """Put U+FFFD in place of lone surrogates and of NUL, which PostgreSQL holds neither in text nor in jsonb."""
    if "\0" in value:
        value = value.replace("\0", "\ufffd")
    return value if value.isascii() else encodable(value)


def printable(value: str, *, escaped: bool = False) -> str:
    """Replace what a terminal would obey rather than show, by U+FFFD or, inside JSON, by an escape sequence."""
    return _CONTROL.sub((lambda found: f"\\u{ord(found[0]):04x}") if escaped else "\N{REPLACEMENT CHARACTER}", value)


def read_mark(walk: Walk, value: Mark, _depth: int, _path: str) -> str:
    walk.chars -= len(value)
    return encodable(str.__str__(value))
