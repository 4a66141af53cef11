"""How values look on a page: times, durations, amounts, sizes."""

from __future__ import annotations

from datetime import datetime, timezone

NONE = "\N{EN DASH}"
"""What stands where there is no value."""
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def ago(when: float | None, *, now: float) -> str:
    """How long ago, in one word and a unit."""
    if when is None:
        return NONE
    seconds = max(0.0, now - when)
    for width, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= width:
            return f"{seconds / width:.0f} {unit} ago"
    return "just now" if seconds < 10 else f"{seconds:.0f} s ago"  # noqa: PLR2004 - nobody counts those


def iso(when: float | None) -> str:
    """A time in UTC, to the second, as machines read it."""
    return "" if when is None else datetime.fromtimestamp(when, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def day(when: float | None) -> str:
    """A time in UTC, as people read it."""
    return "" if when is None else datetime.fromtimestamp(when, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def amount(value: float | None) -> str:
    """A number with its thousands apart."""
    return NONE if value is None else f"{value:,.0f}".replace(",", "\u202f")


def duration(milliseconds: float | None) -> str:
    """Milliseconds, in the unit that reads best."""
    if milliseconds is None:
        return NONE
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"  # noqa: PLR2004


def money(value: float | None) -> str:
    """Dollars, small ones with four places."""
    return NONE if value is None else f"${value:.4f}" if value < 1 else f"${value:,.2f}"


def bytes_of(value: float) -> str:
    """Bytes, in the unit that reads best."""
    for unit in ("bytes", "KB", "MB"):
        if value < 1000:  # noqa: PLR2004
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
