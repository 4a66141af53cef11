"""Masks: replace e-mail addresses, phone numbers, card numbers and keys before a log reaches disk or network.

A mask sees strings with their path, such as `prompt[0].content`, `response` or `custom_attributes.input.order.email`;
structured results are masked before they become text. Keys of dictionaries are masked by the built-in maskers and by
patterns without a path. Each built-in pattern takes time linear in the text.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from typing import Any, Final, TypeAlias

from athina_trace import _guard
from athina_trace._clock import clock
from athina_trace._serialization import MASKED
from athina_trace.settings import Masker, PathPattern

Mask: TypeAlias = Callable[[str, str], str]
"""(path, text) → the masked text; an example of a path is "messages[0].content"."""
FAILED: Final = "[mask failed]"
"""Logged in place of a text whose mask raised, or did not return a string."""

_EMAIL: Final = re.compile(r"(?<![\w.+%-])[\w.+%-]+@[\w-]+(?:\.[\w-]+)+")
_PHONE: Final = re.compile(
    r"(?<![\w+.-])(?:"
    r"(?:\+|00)[1-9](?:[ ()./\-]{0,3}\d){6,13}"  # international
    r"|\(?0[1-9](?:[ ()/\-]{0,2}\d){6,11}"  # national, with a trunk zero
    r"|(?:1[ .-]?)?\(?[2-9]\d\d\)?[ .-]{1,2}\d{3}[ .-]\d{4}"  # North American
    r")(?![\w])"
)
_CARD: Final = re.compile(r"(?<!\d)[2-6](?:[ -]?\d){12,30}(?!\d)")
_GROUP: Final = re.compile(r"\d+")
_KEY: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?<![A-Za-z0-9])(?:"
    r"[sr]k[-_][A-Za-z0-9_-]{16,}"  # OpenAI, Anthropic, Stripe
    r"|gh[opusr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|xox[a-z]-[\w-]{10,}"
    r"|A[KS]IA[A-Z0-9]{16}|AIza[\w-]{30,}|ya29\.[\w-]{16,}"
    r"|hf_[A-Za-z0-9]{20,}|npm_[A-Za-z0-9]{20,}|pypi-[\w-]{16,}|SG\.[\w-]{16,}\.[\w-]{16,}"
    r")"
    r"|(?<=://)[^\s/:@]+:[^\s/@]+(?=@)"  # the password of an address
)
_DOTTED: Final = re.compile(r"(?<![\w-])[\w-]+(?:\.[\w-]+){2,}")
_ENCODED_JSON: Final = re.compile(r"(?<![A-Za-z0-9])eyJ[\w-]{5,}")
_BEARER: Final = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{16,}")

_IDENTIFIERS: Final = frozenset({"session_id", "customer_id", "customer_user_id"})
_REFERENCES: Final = frozenset({"external_reference_id", "custom_attributes.parent_reference"})
_CUT: Final = re.compile(r"… \[\d+ of \d+ characters\]\Z")
_HALF_SECRET: Final = 200
"""Characters that are dropped before a truncation mark: a secret may have been cut in two there."""


def build_mask(mask: Mask | None, patterns: Iterable[PathPattern], maskers: Iterable[Masker]) -> Mask | None:
    """Combine the user's function, the patterns and the built-in maskers, in this order; None if there are none."""
    steps = [
        *([mask] if mask else []),
        *(_by_pattern(path, pattern) for path, pattern in patterns),
        *(_built_in(name) for name in sorted(maskers, key=list(_BUILT_IN).index)),
    ]
    if not steps:
        return None

    def masked(path: str, text: str) -> str:
        cut = _CUT.search(text)
        seen = text[: max(0, cut.start() - _HALF_SECRET)] if cut else text
        try:
            for step in steps:
                seen = str.__str__(step(path, seen))
        except Exception as error:  # noqa: BLE001 - the mask is the program's, and its text must not pass unmasked
            _guard.raise_if_the_programs(error)
            # Without the error's message and traceback, which may contain the text.
            warning = "the mask raised %s at %s: the value is replaced by %r"
            _guard.log_throttled(logging.WARNING, "mask", warning, type(error).__name__, path, FAILED)
            return FAILED
        return seen + cut[0] if cut else seen

    return masked


def _by_pattern(path: str, pattern: re.Pattern[str]) -> Mask:
    where = re.compile(".*".join(re.escape(part) for part in path.split("*")), re.DOTALL)

    def masked(at: str, text: str) -> str:
        return pattern.sub(MASKED, text) if path == "*" or where.fullmatch(at) else text

    return masked


def _built_in(name: Masker) -> Mask:
    replaced = _BUILT_IN[name]

    def masked(path: str, text: str) -> str:
        # A reference that contains a digest would no longer match, and changes would not find the log.
        if path in _REFERENCES:
            return text
        return replaced(text, _pseudonym if path in _IDENTIFIERS else _notice)

    return masked


KeyMask = Callable[[str], str]

Notice = Callable[[str, str], str]
"""(kind, found) → the replacement."""


def _notice(kind: str, _found: str) -> str:
    return f"[{kind}]"


def _pseudonym(kind: str, found: str) -> str:
    # A digest keeps an identifier usable: a customer's logs can still be grouped.
    return f"[{kind} {hashlib.sha256(found.encode('utf-8', 'replace')).hexdigest()[:12]}]"


def _emails(text: str, notice: Notice) -> str:
    # Most texts have no address: searching for the "@" first is a hundred times as fast.
    return _EMAIL.sub(lambda found: notice("email", found[0]), text) if "@" in text else text


def _keys(text: str, notice: Notice) -> str:
    seen = _KEY.sub(lambda found: notice("key", found[0]), text)
    # A pattern for whole tokens would start again at each `eyJ` in a long run without dots: quadratic time.
    if "eyJ" in seen:
        seen = _DOTTED.sub(lambda found: _web_tokens(found[0].split("."), notice), seen)
    return _BEARER.sub(lambda found: f"{found[1]} {notice('key', found[0])}", seen)


def _web_tokens(parts: list[str], notice: Notice) -> str:
    """Join `parts` with dots, and mask JSON Web Tokens: two parts of JSON in base64, and a signature."""
    out: list[str] = []
    place = 0
    while place < len(parts):
        token = parts[place : place + 3]
        header = _ENCODED_JSON.search(token[0])
        if header is not None and len(token) == 3 and _ENCODED_JSON.match(token[1]):  # noqa: PLR2004 - see above
            found = ".".join((token[0][header.start() :], *token[1:]))
            out.append(token[0][: header.start()] + notice("key", found))
            place += 3
        else:
            out.append(token[0])
            place += 1
    return ".".join(out)


def _cards(text: str, notice: Notice) -> str:
    return _CARD.sub(lambda found: _card(found[0], notice), text)


def _card(text: str, notice: Notice) -> str:
    """Mask the card numbers in a run of digits, which may have other groups on either side: a date, a count."""
    groups = list(_GROUP.finditer(text))
    for place, first in enumerate(groups):
        for last in reversed(groups[place:]):
            number = text[first.start() : last.end()]
            if luhn(re.sub(r"\D", "", number)):
                return text[: first.start()] + notice("card", number) + _card(text[last.end() :], notice)
    return text


def luhn(digits: str) -> bool:
    """Return whether `digits` may be a card number: 13 to 19, the last a check digit (ISO/IEC 7812-1, annex B)."""
    if not 13 <= len(digits) <= 19:  # noqa: PLR2004
        return False
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(number - 9 if number > 9 else number for number in doubled) % 10 == 0  # noqa: PLR2004 - a digit's most


_BUILT_IN: Final[Mapping[Masker, Callable[[str, Notice], str]]] = {
    "key": _keys,
    "email": _emails,
    "card": _cards,
    "phone": lambda text, notice: _PHONE.sub(lambda found: notice("phone", found[0]), text),
}


def build_key_mask(patterns: Iterable[PathPattern], maskers: Iterable[Masker]) -> KeyMask | None:
    """Build the mask for keys of dictionaries, from the built-in maskers and patterns without a path; None if none."""
    mask = build_mask(None, (each for each in patterns if each[0] == "*"), maskers)
    # Most keys occur again and again.
    return None if mask is None else lru_cache(maxsize=4096)(partial(mask, ""))


def mask_value(value: Any, mask: Mask, path: str, key_mask: KeyMask | None = None) -> Any:
    """Return JSON-safe `value` with `mask` applied to each string, and `key_mask` to each key."""
    # Exact types: JSON-safe data has no others, and a subclass might run the program's code.
    kind = type(value)
    if kind is str:
        return mask(path, value)
    if kind is dict:
        out: dict[str, Any] = {}
        for key, each in value.items():
            shown = key if key_mask is None else key_mask(key)
            while shown in out:  # two addresses are two keys
                shown += "'"
            out[shown] = mask_value(each, mask, f"{path}.{key}", key_mask)
        return out
    if kind is list:
        return [mask_value(each, mask, f"{path}[{place}]", key_mask) for place, each in enumerate(value)]
    return value


def mask_fields(fields: Mapping[str, Any], mask: Mask, key_mask: KeyMask | None = None) -> dict[str, Any]:
    """Return the fields of a log, masked."""
    out = {name: mask_value(value, mask, name, key_mask) for name, value in fields.items()}
    # Masks must not give two logs the same reference.
    if out.get("external_reference_id") == FAILED:
        out["external_reference_id"] = clock.reference()
    return out
