"""Whether anything is sent at all: one gate for the whole process, shut by an outage or a wrong key.

A shut gate lets one ordering key through now and then, as a probe. Time and chance are passed in.
"""

from __future__ import annotations

from athina_trace._delivery.response import Outcome

TRIP = 3
"""Failures in a row that shut the gate: one broken connection is no outage."""
LONGEST_PROBE_SECONDS = 60.0
PAUSE_SECONDS = 300.0
"""How long a wrong key keeps the engine from trying again."""


class Circuit:
    """The gate. `paused` tells why the key was refused, `outage` why nothing gets through; None where all is well."""

    def __init__(self) -> None:
        self._since = self._until = 0.0
        self.answered()

    @property
    def is_shut(self) -> bool:
        """Whether nothing is sent but a probe."""
        return self.paused is not None or self.outage is not None

    def room(self, now: float, most: int) -> int:
        """How many ordering keys may be on lease at `now`: `most` of them, one as a probe, or none."""
        if not self.is_shut:
            return most
        return 0 if self.wait(now) else 1

    def wait(self, now: float) -> float:
        """Seconds until a probe may be sent; a clock that was set back makes it due."""
        return self._until - now if self.is_shut and self._since <= now < self._until else 0.0

    def probe(self) -> None:
        """Let the next probe through at once: somebody is waiting for it."""
        if self.paused is None:
            self._until = 0.0

    def answered(self) -> None:
        """Athina took or refused an entry: all is well."""
        self.paused: str | None = None
        self.outage: str | None = None
        self._failures = 0
        self._failing_key: str | None = None

    def failed(self, ordering_key: str, outcome: Outcome, now: float, chance: float) -> None:
        """An entry of `ordering_key` has to be tried again. `chance`: 0 to 1."""
        # An answer that only ever meets one key says something about its entry, not about Athina.
        if outcome.status is None or ordering_key != self._failing_key:
            self._failures += 1
            self._failing_key = ordering_key
        if self._failures >= TRIP:
            self.outage = f"Athina cannot be reached: {outcome.status or 'no answer'}, {outcome.message}"
            wait = min(2.0 ** min(self._failures - TRIP, 6), LONGEST_PROBE_SECONDS)
            # A quarter of chance, so that processes which lost Athina together do not come back together.
            self._shut(now, max(wait, outcome.retry_after or 0.0) * (1 + chance / 4))

    def refused_key(self, outcome: Outcome, now: float) -> None:
        """Athina, or a proxy on the way, refused to know us."""
        self.paused = f"status {outcome.status}: {outcome.message}"
        self._shut(now, PAUSE_SECONDS)

    def _shut(self, now: float, seconds: float) -> None:
        self._since, self._until = now, now + seconds
