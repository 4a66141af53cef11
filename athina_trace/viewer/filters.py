"""What to show: filters as they stand in a page's address and in the command line's options, and as SQL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlencode

STATES = ("waiting", "refused", "delivered", "received")
_LONGEST = 300
"""Characters of one filter that are looked at."""
_PERIOD = re.compile(r"(\d{1,6})\s*([mhdw])")
_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_EQUAL = ("customer", "environment", "slug", "model", "session")
_HITS = 5000
"""The newest matches of a search that are looked through for those which the other filters let pass."""


@dataclass(frozen=True)
class Filters:
    """What a log must be like; what is empty lets everything pass. Times: see `moment`."""

    q: str = ""
    session: str = ""
    customer: str = ""
    environment: str = ""
    slug: str = ""
    model: str = ""
    state: str = ""
    errors: str = ""
    since: str = ""
    until: str = ""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Filters:
        """The filters among `values`, such as an address's query; whatever else is there is left alone."""
        names = cls.__dataclass_fields__
        given = {name: str(values[name]).strip()[:_LONGEST] for name in names if values.get(name)}
        return cls(**given)

    def but(self, **changes: str) -> Filters:
        """The same with some of them changed."""
        return replace(self, **changes)

    def given(self) -> dict[str, str]:
        """Those that are not empty."""
        return {name: value for name, value in asdict(self).items() if value}

    def query(self, **more: object) -> str:
        """The query of an address that stands for these filters, and whatever `more` it is to say."""
        return urlencode({**self.given(), **{name: value for name, value in more.items() if value not in (None, "")}})

    def sql(self, *, now: datetime | None = None) -> tuple[str, list[Any]]:
        """A condition over `log AS l` and `box.entry AS e`, and its parameters."""
        conditions: list[tuple[str, Any]] = [
            (f"l.{name} = ?", value) for name in _EQUAL if (value := getattr(self, name))
        ]
        for name, sign in (("since", ">="), ("until", "<=")):
            if (when := moment(getattr(self, name), now=now)) is not None:
                conditions.append((f"l.made {sign} ?", when))
        if words := match(self.q):
            hits = f"SELECT rowid FROM words WHERE words MATCH ? ORDER BY rowid DESC LIMIT {_HITS}"
            conditions.append((f"l.id IN ({hits})", words))
        parts = [condition for condition, _ in conditions]
        parts += ["l.error IS NOT NULL"] * bool(self.errors) + [_state(self.state)] * bool(self.state)
        return " AND ".join(parts) or "1", [value for _, value in conditions]


def _state(state: str) -> str:
    """In words that the outbox's partial indexes are made for, which parameters do not fit."""
    if state not in STATES:
        return "0"
    return f"e.state = '{state}'" + (" AND e.state != 'waiting'" if state != "waiting" else "")


def match(text: str) -> str:
    """The search's own language for words typed by a person: every word, in any order.

    A word of two letters or more may be only the beginning of the one that is looked for.
    What stands in double quotes is a phrase. No word can become an operator.
    """
    pieces = re.findall(r'"([^"]*)"|([^\s"]+)', text)
    phrases = [f'"{phrase}"' for phrase, _ in pieces if _has_words(phrase)]
    begun = [f'"{word}"' + "*" * (len(word) > 1) for _, word in pieces if _has_words(word)]
    return " ".join(phrases + begun)


def _has_words(text: str) -> bool:
    return any(letter.isalnum() for letter in text)


def moment(text: str, *, now: datetime | None = None) -> float | None:
    """A time as a person writes it, as seconds since the epoch.

    `90m`, `24h`, `7d` are ago; a date may have a time. None where it is empty or none of these.
    """
    if found := _PERIOD.fullmatch(text.strip()):
        return (now or datetime.now(timezone.utc)).timestamp() - int(found[1]) * _UNITS[found[2]]
    try:
        return datetime.fromisoformat(text.strip().replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
