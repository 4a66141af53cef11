"""The engine: `step(now)` advances all deliveries by one step; the thread in `worker` calls it.

In one transaction, a step commits the senders' results (`_Acknowledger`), collects new entries (the outbox), and leases
ordering keys to the senders (`_Leases`). `_Upkeep` does periodic maintenance.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from athina_trace import _guard
from athina_trace._delivery.concurrency import Concurrency
from athina_trace._delivery.destination import Destination
from athina_trace._delivery.entry import Lease, Stored
from athina_trace._delivery.flush import Flushes
from athina_trace._delivery.outbox import Outbox
from athina_trace._delivery.quota import KEEP_REFUSED_SECONDS
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.results import Attempt, Result, Results
from athina_trace._delivery.retry import LONGEST_BACKOFF, LONGEST_WAIT, Verdict
from athina_trace._delivery.retry_policy import RetryPolicy
from athina_trace._delivery.sqlite import sqlite3

LINGER = 0.02
"""Seconds between a put and the step that collects it, so that a burst takes few steps."""
WINDOW = 128
"""The maximum of ordering keys leased at once, or twice the limit of requests in flight, if that is more."""
BATCH = 16
"""The maximum of entries of one ordering key leased at once."""
WINDOW_BYTES = 2 * 1024 * 1024
"""About how many bytes may be leased at once, which bounds the memory that a backlog takes."""
FLUSH_SECONDS = 0.25
"""How often an engine reclaims what dead processes left behind while a caller waits for a flush."""
RECLAIM_SECONDS = 5.0
"""The same while no caller waits."""
COMPACT_SECONDS = 2.0
"""How often a busy engine frees space."""

STEADY_SECONDS = 3600.0
"""How long the clock must have run without a jump before refused logs are dropped because of their age."""
_STEADY_WITHIN = 60.0

OnResult = Callable[[str, Stored, Outcome, bool], None]
"""Called with the ordering key, the entry, the outcome, and whether Athina accepted or refused the entry."""


class Pool(Protocol):
    """Sends leases, and puts the results into the `Results` that it was made with. For the engine's thread alone.

    `senders.Senders` sends to Athina, a relay's publisher to its stream, and `senders.NoSenders` nowhere.

    Attributes:
        unsent: why nothing is ever sent; None normally.
        alive: how many sender threads there are.
    """

    controller: Concurrency

    @property
    def destination(self) -> Destination: ...

    @property
    def unsent(self) -> str | None: ...

    @property
    def alive(self) -> int: ...

    def submit(self, lease: Lease) -> None: ...

    def start(self) -> None: ...

    def supervise(self) -> float: ...

    def close(self, seconds: float) -> None: ...


class Engine:
    """Delivers the entries of an outbox."""

    def __init__(
        self,
        outbox: Outbox,
        make_pool: Callable[[Results], Pool],
        *,
        clock: Any,
        max_attempts: int = 500,
        keep: float = 0.0,
        on_result: OnResult | None = None,
    ) -> None:
        """Start no threads: `senders.start` or the first step does.

        Args:
            outbox: holds the entries to deliver.
            make_pool: makes the pool of senders.
            clock: has `time`, `monotonic` (seconds) and `uniform` (0 to 1).
            max_attempts: an entry that fails so often while others are accepted is refused.
            keep: how long delivered entries stay in the outbox for inspection, seconds.
            on_result: called by the engine's thread for each entry that Athina accepted or refused.
        """
        self.outbox = outbox
        self.flushes = Flushes()
        self.results = Results(outbox.acknowledge)
        self.senders = make_pool(self.results)
        self.waiting: int | None = None
        """The number of waiting entries at the end of the last step; None before the first."""
        self._clock = clock
        self._upkeep = _Upkeep(outbox, keep)
        self._leases = _Leases(outbox, self.results, self.senders)
        retry_policy = RetryPolicy(clock, self.senders.destination, max_attempts=max_attempts)
        self._acknowledger = _Acknowledger(outbox, self.senders, retry_policy, keep=keep > 0, on_result=on_result)
        self._noted: str | None = ""  # so that the first step overwrites the note of a dead process

    @property
    def paused(self) -> str | None:
        """Why nothing is sent now: a wrong key or an outage; None otherwise."""
        gate = self.senders.controller.gate
        return gate.paused or gate.outage

    @property
    def last_error(self) -> str | None:
        """The outcome of the last failed request; None if none has failed."""
        return self._acknowledger.retry_policy.last_error

    @property
    def refused(self) -> int:
        """How many of this engine's entries Athina refused."""
        return self._acknowledger.refused

    def step(self, now: float) -> float:
        """Do what is due at `now` (seconds since the epoch); return in how many seconds to step again.

        If the store raises, the error is passed on, and the step has had no effect.
        """
        results = self.results.uncommitted()
        with self._leases.restored_on_failure(), self.outbox.transaction():
            announced, collected, due = self._transact(results, now)
        self.results.discard(len(results))
        self.results.interpreter.spent()  # before senders measure the share
        self._leases.submit()
        gate = self.senders.controller.gate
        self.senders.destination.warn(paused=gate.paused, outage=gate.outage)
        self._upkeep.is_due |= bool(collected or results)
        self.outbox.acknowledgements_committed(
            result.attempt.entry for result in self.results.uncommitted() if result.attempt
        )
        self._acknowledger.announce(announced)
        self.flushes.serve(self.outbox, idle=self.senders.unsent is not None or gate.paused is not None)
        self.waiting = self.outbox.counts().waiting
        waits = [self._patience(), self._upkeep.compact(now, is_busy=bool(self._leases.held)), self.senders.supervise()]
        if collected:
            waits.append(0.0)
        if due is not None and self._leases.may_grow():
            waits.append(max(due - now, gate.wait(self._clock.monotonic()), 0.0))
        return min(waits)

    def _transact(self, results: list[Result], now: float) -> tuple[list[tuple[str, Attempt]], int, float | None]:
        """Do a step's work in the store; return the final results, the number collected, and when the next is due."""
        monotonic = self._clock.monotonic()
        clock_set_back = self._upkeep.clean_up(now, monotonic, self._patience())
        is_flush_new = self.flushes.begin(self.outbox)
        if is_flush_new or clock_set_back:
            self.senders.controller.gate.probe()
        self._note_pause(now)
        announced = self._acknowledger.commit(results, self._leases, now)
        collected = self.outbox.collect()
        self._leases.take(now, monotonic, is_awaited=bool(self.flushes))
        return announced, collected, self.outbox.store.next_due()

    def _note_pause(self, now: float) -> None:
        """Note in the store, for other readers, why nothing is sent; once sending resumes, make failed keys due."""
        paused = self.paused
        if paused != self._noted:
            self.outbox.store.note("paused", paused, now)
            if self._noted and paused is None:
                self.outbox.store.make_due(now, within=LONGEST_BACKOFF)
            self.outbox.store.on_commit(lambda: setattr(self, "_noted", paused))

    def _patience(self) -> float:
        """Return how often to check for dead processes: more often while a caller waits."""
        return FLUSH_SECONDS if self.flushes else RECLAIM_SECONDS

    def store_replaced(self) -> None:
        """Forget all leases and the note on why nothing is sent: both belonged to a store that is gone."""
        self._leases.forget()
        self._noted = ""

    def finish(self, seconds: float) -> None:
        """Stop the senders within `seconds`, commit their last results, and close the outbox."""
        self.senders.close(seconds)
        try:
            with self.outbox.transaction():
                announced = self._acknowledger.commit(self.results.uncommitted(), self._leases, self._clock.time())
            self._acknowledger.announce(announced)
        finally:
            self.outbox.close()


class _Leases:
    """The leases of this engine, which the senders have or are about to get."""

    def __init__(self, outbox: Outbox, results: Results, senders: Pool) -> None:
        self.held: dict[str, Lease] = {}
        """By ordering key."""
        self._outbox = outbox
        self._results = results
        self._senders = senders
        self._unsubmitted: list[Lease] = []
        self._is_full = False
        """Whether leases take up `WINDOW_BYTES`: then results trigger the next step, not due times."""

    @contextmanager
    def restored_on_failure(self) -> Iterator[None]:
        """Restore the leases if the block fails."""
        before = dict(self.held), list(self._unsubmitted)
        try:
            yield
        except BaseException:
            self.held, self._unsubmitted = before
            raise

    def take(self, now: float, monotonic: float, *, is_awaited: bool) -> None:
        """Lease keys that are due, as far as there is room beside those already leased.

        Args:
            now: seconds since the epoch.
            monotonic: monotonic seconds.
            is_awaited: whether a caller waits for a flush.
        """
        controller, held = self._senders.controller, self.held.values()
        keys = 0 if controller.gate.wait(monotonic) else controller.window(WINDOW) - len(held)
        room = WINDOW_BYTES - sum(len(entry.body) for lease in held for entry in lease.entries)
        self._is_full = room <= 0
        if keys <= 0 or self._is_full:
            return
        # If all logs are rejected, newer ones may be fine, and must not wait behind all the others.
        leases = self._outbox.lease(now, keys=keys, batch=BATCH, room=room, newest=controller.gate.rejects_all_logs)
        self._is_full = sum(len(entry.body) for lease in leases for entry in lease.entries) >= room
        is_cut = any(len(lease.entries) == BATCH for lease in (*held, *leases))
        self._results.is_urgent = is_cut or len(leases) == keys or self._is_full or is_awaited
        # Before the commit, so that a failure after it finds the leases recorded.
        self.held.update((lease.ordering_key, lease) for lease in leases)
        self._unsubmitted += leases

    def submit(self) -> None:
        """Give the senders the leases that they do not have yet."""
        while self._unsubmitted:
            self._senders.submit(self._unsubmitted[0])
            del self._unsubmitted[0]

    def may_grow(self) -> bool:
        """Return whether more may be leased, once it is due and the gate lets it through."""
        return len(self.held) < self._senders.controller.window(WINDOW) and not self._is_full

    def forget(self) -> None:
        """Forget all leases."""
        self.held, self._unsubmitted = {}, []


class _Acknowledger:
    """Records the results of entries, and announces them once they are committed."""

    def __init__(
        self, outbox: Outbox, senders: Pool, retry_policy: RetryPolicy, *, keep: bool, on_result: OnResult | None
    ) -> None:
        self.retry_policy = retry_policy
        self.refused = 0
        self._outbox = outbox
        self._gate = senders.controller.gate
        self._destination = senders.destination
        self._keep = keep
        self._on_result = on_result

    def commit(self, results: Sequence[Result], leases: _Leases, now: float) -> list[tuple[str, Attempt]]:
        """Record the senders' results, and release the leases that ended; return the entries accepted or refused."""
        announced: list[tuple[str, Attempt]] = []
        delivered: list[Attempt] = []
        released: list[str] = []
        for lease, reported, ended in results:
            key = lease.ordering_key
            if leases.held.get(key) is not lease:
                continue  # a lease of a store that is gone
            due, attempts = 0.0, 0
            if reported is not None:
                attempt, due, attempts = self._commit_one(lease, reported, now)
                if attempt.verdict in (Verdict.DELIVERED, Verdict.REFUSED):
                    announced.append((key, attempt))
                if attempt.verdict is Verdict.DELIVERED:
                    delivered.append(attempt)
            if ended:
                if attempts:
                    self._outbox.release(key, due=due, attempts=attempts)
                else:
                    released.append(key)
                del leases.held[key]
        self._commit_delivered(delivered, now)
        self._outbox.release(*released)
        return announced

    def _commit_one(self, lease: Lease, attempt: Attempt, now: float) -> tuple[Attempt, float, int]:
        """Record one attempt, unless Athina accepted its entry: see `_commit_delivered`.

        Returns:
            The attempt, refused if it failed too often; when its ordering key is due again; its number of failures.
        """
        if attempt.outcome.possible_duplicate:
            self._outbox.count_possible_duplicate()
        attempts = lease.attempts + 1 if attempt.entry is lease.entries[0] else 1
        attempt, wait = self.retry_policy.decide(
            attempt, attempts, now, tries=self._gate.tries, is_outage=self._gate.outage is not None
        )
        if attempt.verdict in (Verdict.RETRY, Verdict.PAUSED):
            return attempt, now + wait, attempts
        entry, outcome, verdict = attempt
        if verdict is Verdict.REFUSED:
            try:
                self._outbox.refused(entry, now, status=outcome.status, reason=outcome.message)
            except Exception as error:  # noqa: BLE001 - see there
                _swallow_unless_of_the_store(error)
                self._outbox.refused(entry, now, status=None, reason=f"its answer cannot be stored: {error!a}")
        return attempt, 0.0, 0

    def _commit_delivered(self, attempts: Sequence[Attempt], now: float) -> None:
        """Record that Athina accepted the entries of `attempts`."""
        entries = [(entry, outcome.prompt_run_id) for entry, outcome, _ in attempts]
        try:
            self._outbox.all_delivered(entries, now, keep=self._keep)
        except Exception as error:  # noqa: BLE001 - see there
            _swallow_unless_of_the_store(error)
            self._outbox.all_delivered([(entry, None) for entry, _ in entries], now, keep=self._keep)

    def announce(self, announced: Iterable[tuple[str, Attempt]]) -> None:
        """Report committed results, each with its ordering key."""
        for key, (entry, outcome, verdict) in announced:
            if verdict is Verdict.REFUSED:
                self.refused += 1
                _guard.log_throttled(
                    logging.WARNING,
                    f"refused {outcome.status}",
                    "%s refused log %s with status %s (%s); it is kept, see `athina-trace logs --state refused`",
                    self._destination.name,
                    entry.reference,
                    outcome.status,
                    outcome.message,
                )
            elif outcome.message:
                _guard.log_throttled(
                    logging.WARNING,
                    f"not {self._destination.name}",
                    "%s answered log %s with status %s and %s: it counts as delivered, but another service may have "
                    "it; check %s",
                    self._destination.name,
                    entry.reference,
                    outcome.status,
                    outcome.message,
                    self._destination.address_setting,
                )
            if self._on_result is not None:
                try:
                    self._on_result(key, entry, outcome, verdict is Verdict.DELIVERED)
                except Exception:  # noqa: BLE001 - the guard decides
                    _guard.swallow("reporting the result of a log")


def _swallow_unless_of_the_store(error: Exception) -> None:
    """Raise an error of the store; swallow one of a single result, which must not delay the others."""
    if isinstance(error, (OSError, sqlite3.OperationalError)):
        raise error
    _guard.swallow("storing an answer from Athina")


class _Upkeep:
    """Periodic maintenance of an outbox, however little is put into it."""

    def __init__(self, outbox: Outbox, keep: float) -> None:
        self.is_due = False
        """Whether there may be space to free."""
        self._outbox = outbox
        self._keep = keep
        self._is_keeping_more = False  # whether delivered entries are kept that should be dropped
        self._stepped = self._looked = self._compacted = float("-inf")
        self._began = float("-inf")  # the epoch time at zero of the monotonic clock
        self._steady_since = 0.0

    def clean_up(self, now: float, monotonic: float, patience: float) -> bool:
        """Reclaim what dead processes held, and drop what was kept long enough; return whether the clock was set back.

        Args:
            now: seconds since the epoch.
            monotonic: monotonic seconds.
            patience: how often to do this, seconds.
        """
        clock_set_back = now < self._stepped
        if clock_set_back:
            self._outbox.store.clamp_due_times(now)
            self._looked = self._compacted = float("-inf")
        if now - self._looked >= patience:
            self._looked = now
            self._outbox.reclaim()
            if abs(now - monotonic - self._began) > _STEADY_WITHIN:
                self._began, self._steady_since = now - monotonic, monotonic
            # After a boot, the clock may be wrong, and in the future, until it is synchronised.
            if monotonic - self._steady_since >= STEADY_SECONDS:
                self._outbox.quota.drop_refused(before=now - KEEP_REFUSED_SECONDS)
            self._outbox.store.clamp_due_times(now, longest=2 * LONGEST_WAIT)
            self._is_keeping_more = self._keep > 0
        if self._is_keeping_more:
            self._is_keeping_more = not self._outbox.quota.drop_delivered(before=now - self._keep)
        self._stepped = now
        return clock_set_back

    def compact(self, now: float, *, is_busy: bool) -> float:
        """Free space from time to time; return in how many seconds to do so again."""
        if not self.is_due:
            return RECLAIM_SECONDS
        if now - self._compacted >= COMPACT_SECONDS:
            self._compacted = now
            # Under load, shrinking would free pages that are needed again at once.
            self.is_due = not self._outbox.compact(vacuum=not is_busy) or is_busy
        return COMPACT_SECONDS
