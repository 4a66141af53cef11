"""A span as plain data, from any source: the SDK's processor, OTLP protobuf or OTLP JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Event", "SpanRecord"]


@dataclass(slots=True, kw_only=True)
class Event:
    """An event during a span."""

    name: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class SpanRecord:
    """An ended span.

    Values of attributes are strings, booleans, numbers, and sequences and mappings of them; anything else is passed
    over.
    """

    name: str
    scope: str = ""
    """The name of its instrumentation."""
    span_id: str
    """16 hexadecimal digits, in lower case."""
    parent_id: str | None = None
    """Not known of the SDK's spans, which note what is around them when they start."""
    start_ns: int = 0
    end_ns: int = 0
    """Nanoseconds since the epoch."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[Event] = ()
    resource: Mapping[str, Any] = field(default_factory=dict)
    """Attributes of its resource: the service and its deployment."""
    failed: bool = False
    """Whether its status is an error."""
    description: str | None = None
    """The description in its status."""
