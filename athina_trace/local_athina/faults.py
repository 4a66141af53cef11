"""Faults on demand: what a program under test is to bear."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field


@dataclass
class Faults:
    """How requests fare. May be changed while the server runs.

    Attributes:
        share: of all requests, how many fail, 0 to 1.
        status: what those are answered, a number from 200 to 599.
        delay: seconds that every answer takes longer.
        retry_after: seconds that a failing answer asks to wait; None: it does not say.
        seed: repeats a run's choice of failing requests.
    """

    share: float = 0.0
    status: int = 503
    delay: float = 0.0
    retry_after: float | None = None
    seed: int = 0
    _next: deque[int] = field(default_factory=deque, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check, and begin the sequence of choices."""
        if not (0 <= self.share <= 1 and self.delay >= 0):
            raise ValueError(f"share={self.share} must be from 0 to 1, delay={self.delay} at least 0")
        self._random = random.Random(self.seed)  # noqa: S311 - which requests fail is no secret

    def fail_next(self, *statuses: int) -> None:
        """Answer the next requests so, one each; 200 lets one through."""
        self._next.extend(statuses)

    def draw(self) -> int | None:
        """How to answer the request that has just come; None: as it deserves."""
        if self._next:
            status = self._next.popleft()
            return None if status == 200 else status  # noqa: PLR2004
        return self.status if self._random.random() < self.share else None
