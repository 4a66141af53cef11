"""Filters for logs, in a page's address and in the command line's options, and their SQL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlencode

from athina_trace.viewer.search_text import match_sql

FEEDBACK = {"liked": "l.feedback > 0", "disliked": "l.feedback < 0", "any": "1"}
"""Kind of feedback → condition."""
STATES = ("waiting", "refused", "delivered", "received")
_MAX_LENGTH = 300
"""Maximum length of a filter."""
_PERIOD = re.compile(r"(\d{1,6})\s*([mhdw])")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*(ms|s|min|m)?")
_MILLISECONDS = {"ms": 1, "s": 1000, "": 1000, "min": 60_000, "m": 60_000}
_DAYS = {"today": 0, "yesterday": 1}
VIEWS = {
    "Disliked": {"feedback": "disliked"},
    "Liked": {"feedback": "liked"},
    "Errors": {"errors": "1"},
    "Failed tools": {"tool_errors": "1"},
    "Over 10 s": {"slower": "10s"},
    "Today": {"since": "today", "until": ""},
    "Yesterday": {"since": "yesterday", "until": "today"},
    "7 days": {"since": "7d", "until": ""},
}
"""Filters that one click sets; each can be combined with the others."""
_EQUALITY = ("session", "user", "customer", "slug", "model", "environment")
"""Columns that must equal a filter, the most selective ones first."""
KINDS = {"turns": "l.root IS NULL", "steps": "l.root IS NOT NULL"}
"""Kind of call → condition: turns of a conversation, and steps, which are calls made inside a call."""
_FLAGS = {"errors": "l.error IS NOT NULL", "tool_errors": "l.failed_tools > 0"}
_MAX_HITS = 5000
"""Number of newest matches of a search to which the other filters apply. Limits the cost of a common word."""


@dataclass(frozen=True)
class Filters:
    """The conditions on a log; an empty filter matches every log.

    Attributes:
        q: the search; see `search_text.terms`.
        user: the customer's user.
        errors: "1": the call failed.
        slower: took longer than this; see `parse_duration`.
        tool: the model called this tool.
        tool_errors: "1": a tool failed.
        attribute: a custom attribute, as `name=value`, or `name` for any value of it.
        kind: one of `KINDS`.
        since: made at that time or later; see `parse_moment`.
        until: made at that time or earlier.
    """

    q: str = ""
    session: str = ""
    customer: str = ""
    user: str = ""
    environment: str = ""
    slug: str = ""
    model: str = ""
    state: str = ""
    errors: str = ""
    feedback: str = ""
    slower: str = ""
    tool: str = ""
    tool_errors: str = ""
    attribute: str = ""
    kind: str = ""
    since: str = ""
    until: str = ""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Filters:
        """Return the filters in `values`, such as the query of an address, and ignore the rest."""
        names = cls.__dataclass_fields__
        return cls(**{name: clean(str(values[name])).strip()[:_MAX_LENGTH] for name in names if values.get(name)})

    def active(self) -> dict[str, str]:
        """Return the filters that are not empty."""
        return {name: value for name, value in asdict(self).items() if value}

    def query(self, **more: object) -> str:
        """Return the query of an address with these filters and `more` parameters; an empty one removes a filter."""
        return urlencode({name: value for name, value in {**self.active(), **more}.items() if value not in (None, "")})

    def holds(self, view: Mapping[str, str]) -> bool:
        """Return whether these filters are set as in `view`."""
        return all(getattr(self, name) == value for name, value in view.items())

    def beyond_views(self) -> dict[str, str]:
        """Return the active filters, except the search, that do not belong to an active view."""
        shown = {"q", *(name for view in VIEWS.values() if self.holds(view) for name in view)}
        return {name: value for name, value in self.active().items() if name not in shown}

    def toggled(self, view: Mapping[str, str], **more: object) -> str:
        """Return the query of an address with a view added or, if it is active, removed."""
        return self.query(**(dict.fromkeys(view, "") if self.holds(view) else view), **more)

    def sql(self) -> tuple[str, list[Any]]:
        """Return a condition over `log AS l` and `box.entry AS e`, and its parameters."""
        equal = [name for name in _EQUALITY if getattr(self, name)]
        parts: list[tuple[str, Sequence[Any]]] = [
            # SQLite does not know which column is more selective. A plus keeps it from using another column's index.
            *((f"{'+' * bool(place)}l.{name} = ?", [getattr(self, name)]) for place, name in enumerate(equal)),
            *self._bounds(),
            *((condition, ()) for name, condition in _FLAGS.items() if getattr(self, name)),
            *self._details(),
        ]
        expression, searched = match_sql(clean(self.q))
        if expression:
            # Two subqueries rather than two conditions: LIMIT bounds each, and logs are looked up by their id.
            hits = "SELECT rowid FROM (SELECT rowid FROM {0} WHERE {0} MATCH {1} ORDER BY rowid DESC LIMIT {2})"
            both = " UNION ALL ".join(hits.format(table, expression, _MAX_HITS) for table in ("words", "comments"))
            parts.append((f"l.id IN ({both})", [*searched, *searched]))
        if self.feedback:
            parts.append((f"l.feedback IS NOT NULL AND {FEEDBACK.get(self.feedback, '0')}", ()))
        if self.kind:
            parts.append((KINDS.get(self.kind, "0"), ()))
        if self.state:
            # Literals, and a seemingly redundant second condition, so that SQLite can use a partial index.
            state = f"e.state = '{self.state}'" + " AND e.state != 'waiting'" * (self.state != "waiting")
            parts.append((state if self.state in STATES else "0", ()))
        return " AND ".join(condition for condition, _ in parts) or "1", [
            value for _, given in parts for value in given
        ]

    def _bounds(self) -> Iterator[tuple[str, Sequence[Any]]]:
        """Yield the conditions on amounts; invalid amounts are ignored."""
        amounts = (
            ("l.made >= ?", parse_moment(self.since)),
            ("l.made <= ?", parse_moment(self.until)),
            ("l.latency > ?", parse_duration(self.slower)),
        )
        return ((condition, [amount]) for condition, amount in amounts if amount is not None)

    def _details(self) -> Iterator[tuple[str, Sequence[Any]]]:
        """Yield the conditions on tools and custom attributes, of which a log may have several."""
        if self.tool:
            failed = " AND failures > 0" * bool(self.tool_errors)
            yield f"l.id IN (SELECT log FROM tool WHERE name = ?{failed})", [self.tool]
        if self.attribute:
            name, separator, value = map(str.strip, self.attribute.partition("="))
            if separator:
                yield "l.id IN (SELECT log FROM attribute WHERE name = ? AND value = ?)", [name, value]
            else:
                yield "l.id IN (SELECT log FROM attribute WHERE name = ?)", [name]


def clean(text: str) -> str:
    """Replace lone surrogates, which arguments and addresses may contain, but SQLite cannot store."""
    return text.encode("utf-8", "replace").decode()


def parse_time(text: str, *, now: datetime | None = None) -> float | None:
    """Parse a time as people write it: `90m`, `24h`, `7d`, `2w` ago, or an ISO 8601 date with or without a time.

    Returns:
        Seconds since the epoch; None if `text` is empty or invalid.
    """
    if found := _PERIOD.fullmatch(text.strip()):
        return (now or datetime.now(timezone.utc)).timestamp() - int(found[1]) * _SECONDS[found[2]]
    try:
        return datetime.fromisoformat(text.strip().replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def parse_moment(text: str, *, now: datetime | None = None) -> float | None:
    """Parse a time as `parse_time` does, or the beginning of `today` or `yesterday` in this machine's time zone."""
    days = _DAYS.get(text.strip().lower())
    if days is None:
        return parse_time(text, now=now)
    day = (now or datetime.now(timezone.utc)).astimezone() - timedelta(days=days)
    return day.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None).timestamp()


def parse_duration(text: str) -> int | None:
    """Parse a duration such as `10s`, `1.5 s`, `800ms` or `2min`, or a number of seconds; None for anything else.

    Returns:
        Milliseconds.
    """
    found = _DURATION.fullmatch(text.strip().lower())
    return round(float(found[1]) * _MILLISECONDS[found[2] or ""]) if found else None
