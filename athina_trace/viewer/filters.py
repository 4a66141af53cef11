"""Filters on logs: how they are written in a page's address and in the command line's options, and their SQL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlencode

FEEDBACK = {"liked": "l.feedback > 0", "disliked": "l.feedback < 0", "any": "1"}
"""Kind of feedback → condition."""
STATES = ("waiting", "refused", "delivered", "received")
_MAX_LENGTH = 300
"""Characters of one filter that count."""
_PERIOD = re.compile(r"(\d{1,6})\s*([mhdw])")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_EQUALITY = ("customer", "environment", "slug", "model", "session")
_MAX_HITS = 5000
"""The newest matches of a search, among which the other filters choose. Bounds what a common word costs."""


@dataclass(frozen=True)
class Filters:
    """What a log must match; an empty filter matches every log. Times: see `parse_time`."""

    q: str = ""
    session: str = ""
    customer: str = ""
    environment: str = ""
    slug: str = ""
    model: str = ""
    state: str = ""
    errors: str = ""
    feedback: str = ""
    since: str = ""
    until: str = ""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Filters:
        """Take the filters among `values`, such as the query of an address, and ignore the rest."""
        names = cls.__dataclass_fields__
        return cls(**{name: clean(str(values[name])).strip()[:_MAX_LENGTH] for name in names if values.get(name)})

    def active(self) -> dict[str, str]:
        """Return those that are not empty."""
        return {name: value for name, value in asdict(self).items() if value}

    def query(self, **more: object) -> str:
        """Return the query of an address with these filters and `more` parameters."""
        return urlencode({**self.active(), **{name: value for name, value in more.items() if value not in (None, "")}})

    def sql(self, *, now: datetime | None = None) -> tuple[str, list[Any]]:
        """Return a condition over `log AS l` and `box.entry AS e`, and its parameters."""
        parts = [f"l.{name} = ?" for name in _EQUALITY if getattr(self, name)]
        values: list[Any] = [value for name in _EQUALITY if (value := getattr(self, name))]
        for name, sign in (("since", ">="), ("until", "<=")):
            if (when := parse_time(getattr(self, name), now=now)) is not None:
                parts.append(f"l.made {sign} ?")
                values.append(when)
        if words := fts_query(self.q):
            # Two subqueries rather than two conditions: LIMIT bounds each, and logs are looked up by their id.
            hits = "SELECT rowid FROM (SELECT rowid FROM {0} WHERE {0} MATCH ? ORDER BY rowid DESC LIMIT {1})"
            both = " UNION ALL ".join(hits.format(table, _MAX_HITS) for table in ("words", "comments"))
            parts.append(f"l.id IN ({both})")
            values += [words, words]
        if self.errors:
            parts.append("l.error IS NOT NULL")
        if self.feedback:
            parts += ["l.feedback IS NOT NULL", FEEDBACK.get(self.feedback, "0")]
        if self.state in STATES:
            # Literals, and the seemingly idle second condition: only so does SQLite see that a partial index fits.
            parts.append(f"e.state = '{self.state}'" + (" AND e.state != 'waiting'" if self.state != "waiting" else ""))
        elif self.state:
            parts.append("0")
        return " AND ".join(parts) or "1", values


def clean(text: str) -> str:
    """Replace half surrogates, which SQLite cannot take and which arguments and addresses may hold."""
    return text.encode("utf-8", "replace").decode()


def fts_query(text: str) -> str:
    """Translate a search as a person types it into the language of SQLite's FTS5.

    Every word must occur, in any order; a word of two letters or more may be the beginning of a longer one. Double
    quotes make a phrase. Everything is quoted, so that no word of the text becomes an operator.
    """
    terms: list[str] = []
    text = clean(text).replace("\0", " ")  # FTS5 reads its query as a C string: it would end inside a quote
    for phrase, word in re.findall(r'"([^"]*)"|([^\s"]+)', text):
        if any(letter.isalnum() for letter in phrase or word):
            terms.append(f'"{phrase}"' if phrase else f'"{word}"' + "*" * (len(word) > 1))
    return " ".join(terms)


def parse_time(text: str, *, now: datetime | None = None) -> float | None:
    """Parse a time as a person writes it: `90m`, `24h`, `7d`, `2w` ago, or an ISO 8601 date with or without a time.

    Returns:
        Seconds since the epoch; None where `text` is empty or none of these.
    """
    if found := _PERIOD.fullmatch(text.strip()):
        return (now or datetime.now(timezone.utc)).timestamp() - int(found[1]) * _SECONDS[found[2]]
    try:
        return datetime.fromisoformat(text.strip().replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
