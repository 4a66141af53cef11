"""What may come of a value, and how much of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"
"""What `json` reads and writes."""

Mask: TypeAlias = Callable[[str, str], str]
"""A user's `(path, text) -> text`, given every string value with its path, such as "messages[0].content"."""


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

    __slots__ = ("active", "chars", "limits", "mask", "nodes", "patience")

    def __init__(self, limits: Limits, mask: Mask | None) -> None:
        self.limits = limits
        self.mask = mask
        self.nodes = limits.nodes
        self.chars = limits.strings
        self.active: set[int] = set()  # the containers around this value, by id
        self.patience = limits.patience
