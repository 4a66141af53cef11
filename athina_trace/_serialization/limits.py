"""JSON-safe data, and how much of a value is read into it."""

from dataclasses import dataclass
from typing import Final, TypeAlias

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"
"""What `json` reads and writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of an object is read. Each bound holds before anything is walked."""

    nodes: int = 10_000
    """Values in all, containers and what they hold."""
    depth: int = 12
    """Containers within containers."""
    string: int = 200_000
    """Characters of one string."""
    strings: int = 1_000_000
    """Characters of all strings."""
    patience: float = 0.25
    """Seconds given in all to iterating over mappings and sequences that are code of the user's."""


DEFAULT_LIMITS: Final = Limits()


class Walk:
    """What is left of the limits on the way through one value."""

    __slots__ = ("active", "chars", "limits", "nodes", "patience")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.nodes = limits.nodes
        self.chars = limits.strings
        self.active: set[int] = set()  # the containers around this value, by id
        self.patience = limits.patience
