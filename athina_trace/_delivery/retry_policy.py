"""What a log that was not taken waits for: when it is tried again, and when it is given up."""

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
"""Longest wait after the first failure of a log; it doubles with each. Outages and rate limits are the controller's."""
_UNANSWERED_BACKOFF_SECONDS = 2.0
"""Longest wait where nothing is answered, nor was another log taken of late: no log is to blame for that."""
_RECENT_SECONDS = 120.0
"""Another log was taken so recently: what fails now fails for a reason of its own."""
_MANY = 9
"""Failures of a log that the program is warned of, where no log was taken of late."""


class RetryPolicy:
    """Decides on attempts, one after the other, and remembers when the last log was taken."""

    def __init__(self, clock: Any, destination: Destination, *, max_attempts: int) -> None:
        """`clock` has `uniform` (0 to 1). After `max_attempts` a log is refused that fails while others are taken."""
        self.last_error: str | None = None
        """The outcome of the last attempt that failed; None where none has."""
        self._clock = clock
        self._destination = destination
        self._max_attempts = max_attempts
        self._taken_at = float("-inf")

    def decide(self, attempt: Attempt, attempts: int, now: float, *, tries: float = 1.0) -> tuple[Attempt, float]:
        """Decide what becomes of an attempt, the one of number `attempts` for its log, at `now` (seconds).

        `tries`: how many requests a log takes at present. Where most fail at random, no log is to blame for it.

        Returns:
            The attempt, refused where it failed too often, and in how many seconds its ordering key is due again.
        """
        entry, outcome, verdict = attempt
        if verdict not in (Verdict.RETRY, Verdict.PAUSED):
            self._taken_at = now
            return attempt, 0.0
        self.last_error = f"{outcome.status or 'no answer'}: {outcome.message}"
        # A clock that was set back, from a future that was wrong, must not make an outage look like one log's failure.
        is_any_taken = abs(now - self._taken_at) < _RECENT_SECONDS
        is_alone = outcome.status != THROTTLED and is_any_taken
        if verdict is Verdict.PAUSED:
            return attempt, 0.0  # after all others: the next probe asks with another log
        failures = math.ceil(attempts / max(1.0, tries))
        if failures >= self._max_attempts and is_alone:
            words = f"{outcome.message} (it failed {attempts} times, while other logs were taken)"
            return Attempt(entry, replace(outcome, message=words), Verdict.REFUSED), 0.0
        self._warn(attempt, attempts, is_any_taken=is_any_taken)
        return attempt, backoff(
            failures,
            random=self._clock.uniform(),
            retry_after=outcome.retry_after,
            base=FIRST_BACKOFF_SECONDS,
            cap=LONGEST_BACKOFF if is_alone or outcome.status else _UNANSWERED_BACKOFF_SECONDS,
        )

    def _warn(self, attempt: Attempt, attempts: int, *, is_any_taken: bool) -> None:
        """Warn the program early where nothing was ever reached: the address may be wrong."""
        outcome = attempt.outcome
        is_unreachable = outcome.status is None and not outcome.possible_duplicate
        if is_unreachable and attempts > 1 and self._taken_at == float("-inf"):
            _guard.log_throttled(
                logging.WARNING,
                "unreachable",
                "%s cannot be reached (%s): logs are kept and tried again; check %s and the network",
                self._destination.name,
                outcome.message,
                self._destination.address_setting,
            )
        else:
            # What the logs of one session alone meet, if that is all there are, is not known to be an outage.
            is_silent = attempts < _MANY or is_any_taken
            _guard.log_throttled(
                logging.INFO if is_silent else logging.WARNING,
                "deferred" if is_silent else "deferred for long",
                "%s did not take a log (%s: %s): it is kept and tried again",
                self._destination.name,
                outcome.status or "no answer",
                outcome.message,
            )
