"""Format times, durations, counts and sizes for people and for machines."""

from __future__ import annotations

import re
from datetime import datetime, timezone

NO_VALUE = "\N{EN DASH}"
"""Shown where there is no value."""
_MARKDOWN = re.compile(r"(\*{1,3}|`)(?=\S)(.+?)(?<=\S)\1|\[([^\]\[]+)\]\(\S+?\)")


def time_ago(when: float | None, *, now: float) -> str:
    """Format how long ago a time was, as a number and a unit."""
    if when is None:
        return NO_VALUE
    seconds = max(0.0, now - when)
    for width, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= width:
            return f"{seconds / width:.0f} {unit} ago"
    return "just now" if seconds < 10 else f"{seconds:.0f} s ago"  # noqa: PLR2004 - such precision helps no reader


def iso_time(when: float | None) -> str:
    """Format a time in UTC, to the second, for machines."""
    return "" if when is None else datetime.fromtimestamp(when, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def exact_time(when: float) -> str:
    """Format a time in UTC, to the millisecond, for an address."""
    return datetime.fromtimestamp(when, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def readable_time(when: float | None) -> str:
    """Format a time in UTC, to the second, for people."""
    return "" if when is None else datetime.fromtimestamp(when, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def integer(value: float | None) -> str:
    """Format a number with separated thousands."""
    return NO_VALUE if value is None else f"{value:,.0f}".replace(",", "\u202f")


def duration(milliseconds: float | None) -> str:
    """Format milliseconds in the unit that reads best."""
    if milliseconds is None:
        return NO_VALUE
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"  # noqa: PLR2004


def percent(value: float | None) -> str:
    """Format a share of 1 in per cent."""
    return NO_VALUE if value is None else f"{value:.1%}" if 0 < value < 0.1 else f"{value:.0%}"  # noqa: PLR2004


def money(value: float | None) -> str:
    """Format dollars; below one dollar with four decimal places, since single calls cost fractions of a cent."""
    return NO_VALUE if value is None else f"${value:.4f}" if value < 1 else f"${value:,.2f}"


def price(value: float | None, *, estimate: object = False, partial: object = False) -> str:
    """Format a cost, marked if it is an estimate or a sum with missing parts; no value if all are missing."""
    if value is None or (partial and not value):
        return NO_VALUE
    return f"{'≈ ' if estimate else ''}{money(value)}{' +' if partial else ''}"


def feedback(value: int | None) -> str:
    """Format a user's feedback; empty if there is none."""
    return "" if value is None else "liked" if value > 0 else "disliked" if value < 0 else "neutral"


def byte_size(value: float) -> str:
    """Format bytes in the unit that reads best."""
    for unit in ("bytes", "KB", "MB"):
        if value < 1000:  # noqa: PLR2004
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def unmarked(line: str) -> str:
    """Remove Markdown's signs for bold text, code and links from a line that is shown as plain text."""
    return _MARKDOWN.sub(lambda found: found[2] or found[3], line)
