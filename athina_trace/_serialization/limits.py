"""The type of JSON-safe data, and the limits on how much of a value is read."""

from dataclasses import dataclass
from typing import Final, TypeAlias

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"
"""What `json` can read and write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of an object is read. Each limit is checked before a container is walked."""

    nodes: int = 10_000
    """Total number of values, including containers."""
    depth: int = 12
    """Nesting of containers."""
    string: int = 200_000
    """Characters per string."""
    strings: int = 1_000_000
    """Total characters of all strings."""
    patience: float = 0.25
    """Total seconds for iterating over mappings and sequences that run the user's code."""


DEFAULT_LIMITS: Final = Limits()


class Walk:
    """The remaining limits during the walk through one value."""

    __slots__ = ("active", "chars", "limits", "nodes", "patience")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.nodes = limits.nodes
        self.chars = limits.strings
        self.active: set[int] = set()  # the containers around this value, by id
        self.patience = limits.patience
