"""The retry policy of a log that was not accepted: when it is retried, and when it is given up."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import Any

from athina_trace import _guard
from athina_trace._delivery.destination import Destination
from athina_trace._delivery.results import Attempt
from athina_trace._delivery.retry import LONGEST_BACKOFF, THROTTLED, Verdict, backoff

FIRST_BACKOFF_SECONDS = 0.05
"""The longest backoff after a log's first failure; it doubles each time. The controller handles outages and limits."""
_UNANSWERED_BACKOFF_SECONDS = 2.0
"""The longest backoff if nothing is answered and no other log was accepted lately: then no log is at fault."""
_RECENT_SECONDS = 120.0
"""If another log was accepted this recently, a log that fails has its own reason."""
_MANY = 9
"""After so many failures of a log, while no other was accepted lately, a warning is logged."""


class RetryPolicy:
    """Decides on attempts, one after the other, and remembers when the last log was accepted."""

    def __init__(self, clock: Any, destination: Destination, *, max_attempts: int) -> None:
        """`clock` has `uniform` (0 to 1). A log that fails `max_attempts` times while others succeed is refused."""
        self.last_error: str | None = None
        """The outcome of the last failed attempt; None if none has failed."""
        self._clock = clock
        self._destination = destination
        self._max_attempts = max_attempts
        self._taken_at = float("-inf")

    def decide(
        self, attempt: Attempt, attempts: int, now: float, *, tries: float = 1.0, is_outage: bool = False
    ) -> tuple[Attempt, float]:
        """Decide on an attempt, number `attempts` for its log, at `now` (seconds).

        `tries`: the recent number of requests per success. If most fail at random, that is not the log's fault.
        `is_outage`: the controller has found an outage, which is logged as one: its failures are no further warnings.

        Returns:
            The attempt, refused if it failed too often, and in how many seconds its ordering key is due again.
        """
        entry, outcome, verdict = attempt
        if verdict not in (Verdict.RETRY, Verdict.PAUSED):
            self._taken_at = now
            return attempt, 0.0
        self.last_error = f"{outcome.status or 'no answer'}: {outcome.message}"
        # `abs`: after the clock was wrong and set back, an outage must not look like the failure of one log.
        is_any_taken = abs(now - self._taken_at) < _RECENT_SECONDS
        is_alone = outcome.status != THROTTLED and is_any_taken
        if verdict is Verdict.PAUSED:
            return attempt, 0.0  # queued behind all others: the next probe tries another log
        failures = math.ceil(attempts / max(1.0, tries))
        if failures >= self._max_attempts and is_alone:
            words = f"{outcome.message} (it failed {attempts} times, while other logs were accepted)"
            return Attempt(entry, replace(outcome, message=words), Verdict.REFUSED), 0.0
        self._warn(attempt, attempts, is_explained=is_any_taken or is_outage)
        return attempt, backoff(
            failures,
            random=self._clock.uniform(),
            retry_after=outcome.retry_after,
            base=FIRST_BACKOFF_SECONDS,
            cap=LONGEST_BACKOFF if is_alone or outcome.status else _UNANSWERED_BACKOFF_SECONDS,
        )

    def _warn(self, attempt: Attempt, attempts: int, *, is_explained: bool) -> None:
        """Log a failure; warn early if nothing was ever reached, since the address may be wrong."""
        outcome = attempt.outcome
        is_unreachable = outcome.status is None and not outcome.possible_duplicate
        if is_unreachable and attempts > 1 and self._taken_at == float("-inf"):
            self._destination.warn(
                paused=None, outage=f"{self._destination.name} cannot be reached: no answer, {outcome.message}"
            )
        else:
            # If there are logs of only one session, the controller cannot tell their failures from an outage.
            is_silent = attempts < _MANY or is_explained
            _guard.log_throttled(
                logging.INFO if is_silent else logging.WARNING,
                "deferred" if is_silent else "deferred for long",
                "%s did not accept a log (%s: %s): it is kept and tried again",
                self._destination.name,
                outcome.status or "no answer",
                outcome.message,
            )
