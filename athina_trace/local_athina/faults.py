"""Simulated faults, to see how a program handles them."""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass, field


@dataclass
class Faults:
    """How requests are answered. May be changed while the server runs.

    Attributes:
        share: the share of requests that fail, 0 to 1.
        status: the status of failures, 200 to 599.
        delay: delay of every answer in seconds.
        retry_after: the value of the header `Retry-After` of failures, in seconds; None: no such header.
        seed: makes the choice of failing requests repeatable.
        requests: the number of requests so far.
        failed: status → number of requests that failed with it on demand.
    """

    share: float = 0.0
    status: int = 503
    delay: float = 0.0
    retry_after: float | None = None
    seed: int = 0
    requests: int = field(default=0, init=False)
    failed: Counter[int] = field(default_factory=Counter, init=False)
    _next: deque[int] = field(default_factory=deque, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the values. Raises ValueError."""
        if not (0 <= self.share <= 1 and self.delay >= 0):
            raise ValueError(f"share={self.share} must be from 0 to 1, delay={self.delay} at least 0")
        # A separate generator, so that a test that seeds the global one is not affected.
        self._random = random.Random(self.seed)  # noqa: S311 - which requests fail is no secret

    def fail_next(self, *statuses: int) -> None:
        """Answer the next requests with these statuses, one each; 200 lets one through."""
        self._next.extend(statuses)

    def draw(self) -> int | None:
        """Return the status with which the current request fails; None: answer it normally."""
        self.requests += 1
        if self._next:
            status = self._next.popleft()
            failure = None if status == 200 else status  # noqa: PLR2004
        else:
            failure = self.status if self._random.random() < self.share else None
        if failure is not None:
            self.failed[failure] += 1
        return failure
