"""The engine: `step(now)` takes everything one step further; `worker` is the thread that calls it.

A step commits the results of senders (`_Acknowledger`), collects what was put (the outbox), and leases ordering keys to
the senders (`_Leases`), in one transaction. `_Upkeep` does what is due now and then.
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
"""Seconds between a put and the step that serves it, so that a burst is served by few steps."""
WINDOW = 128
"""Ordering keys on lease at once, or twice as many as requests may be in flight, if that is more."""
BATCH = 16
"""Entries of one ordering key on lease at once."""
WINDOW_BYTES = 2 * 1024 * 1024
"""About how much may be on lease at once, which bounds the memory that a backlog takes."""
FLUSH_SECONDS = 0.25
"""How often an engine looks what other processes left behind while a caller waits for a flush."""
RECLAIM_SECONDS = 5.0
"""The same while none does."""
COMPACT_SECONDS = 2.0
"""How often a busy engine gives back space."""

STEADY_SECONDS = 3600.0
"""How long the clock must have run without a jump before refused logs leave by their age."""
_STEADY_WITHIN = 60.0

OnResult = Callable[[str, Stored, Outcome, bool], None]
"""Called with the ordering key, the entry, the outcome, and whether Athina took the entry rather than refuse it."""


class Pool(Protocol):
    """What sends leases, and puts what came of them into the `Results` that it was made with.

    `senders.Senders` to Athina, a relay's publisher to its stream, and `senders.NoSenders` to nowhere. All of it is for
    the engine's thread.

    Attributes:
        unsent: why nothing is ever sent; None where it is.
        alive: how many threads send.
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
    """Delivers what an outbox holds."""

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
        """Start nothing: that is for `senders.start` or the first step.

        Args:
            outbox: what is delivered.
            make_pool: makes what sends.
            clock: has `time`, `monotonic` (seconds) and `uniform` (0 to 1).
            max_attempts: how often an entry is tried that fails while others are taken, before it is refused.
            keep: seconds for which delivered entries stay in the outbox, to be looked at.
            on_result: called by the engine's thread for each entry that Athina took or refused.
        """
        self.outbox = outbox
        self.flushes = Flushes()
        self.results = Results(outbox.acknowledge)
        self.senders = make_pool(self.results)
        self.waiting: int | None = None
        """How many entries waited at the end of the last step; None before the first."""
        self._clock = clock
        self._upkeep = _Upkeep(outbox, keep)
        self._leases = _Leases(outbox, self.results, self.senders)
        retry_policy = RetryPolicy(clock, self.senders.destination, max_attempts=max_attempts)
        self._acknowledger = _Acknowledger(outbox, self.senders, retry_policy, keep=keep > 0, on_result=on_result)
        self._noted: str | None = ""  # so that the first step takes back what a dead process may have noted

    @property
    def paused(self) -> str | None:
        """Why nothing is sent now: a wrong key or an outage; None where it is."""
        gate = self.senders.controller.gate
        return gate.paused or gate.outage

    @property
    def last_error(self) -> str | None:
        """The outcome of the last request that failed; None where none has."""
        return self._acknowledger.retry_policy.last_error

    @property
    def refused(self) -> int:
        """How many entries Athina refused to this engine."""
        return self._acknowledger.refused

    def step(self, now: float) -> float:
        """Do what can be done at `now` (seconds since the epoch); return in how many seconds to step again.

        Raises what the store raises, and has done nothing then.
        """
        results = self.results.uncommitted()
        with self._leases.restored_on_failure(), self.outbox.transaction():
            announced, collected, due = self._transact(results, now)
        self.results.discard(len(results))
        self.results.interpreter.spent()  # before senders look what that was
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
        """Do a step's work in the store; return what was taken or refused, how much was collected, what is due next."""
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
        """Note in the store, for those who look at it, why nothing is sent; once it is, what failed is due again."""
        paused = self.paused
        if paused != self._noted:
            self.outbox.store.note("paused", paused, now)
            if self._noted and paused is None:
                self.outbox.store.make_due(now, within=LONGEST_BACKOFF)
            self.outbox.store.on_commit(lambda: setattr(self, "_noted", paused))

    def _patience(self) -> float:
        """Return how long to leave alone what other processes hold: they may have died, and a caller may be waiting."""
        return FLUSH_SECONDS if self.flushes else RECLAIM_SECONDS

    def store_replaced(self) -> None:
        """Forget what is under way, and that it was noted why nothing is sent: both were of a store that is gone."""
        self._leases.forget()
        self._noted = ""

    def finish(self, seconds: float) -> None:
        """Stop the senders within `seconds`, commit their last results, and let go of the outbox."""
        self.senders.close(seconds)
        try:
            with self.outbox.transaction():
                announced = self._acknowledger.commit(self.results.uncommitted(), self._leases, self._clock.time())
            self._acknowledger.announce(announced)
        finally:
            self.outbox.close()


class _Leases:
    """What is on lease to this engine: it is with the senders, or about to be."""

    def __init__(self, outbox: Outbox, results: Results, senders: Pool) -> None:
        self.held: dict[str, Lease] = {}
        """By ordering key."""
        self._outbox = outbox
        self._results = results
        self._senders = senders
        self._unsubmitted: list[Lease] = []
        self._is_full = False
        """Whether they take `WINDOW_BYTES`: what comes back makes the next step, not what is due."""

    @contextmanager
    def restored_on_failure(self) -> Iterator[None]:
        """Have the same on lease as before where what is inside fails."""
        before = dict(self.held), list(self._unsubmitted)
        try:
            yield
        except BaseException:
            self.held, self._unsubmitted = before
            raise

    def take(self, now: float, monotonic: float, *, is_awaited: bool) -> None:
        """Lease what is due and has room beside what is held.

        Args:
            now: seconds since the epoch.
            monotonic: seconds that no change of the clock moves.
            is_awaited: whether a caller waits for what is sent.
        """
        controller, held = self._senders.controller, self.held.values()
        keys = 0 if controller.gate.wait(monotonic) else controller.window(WINDOW) - len(held)
        room = WINDOW_BYTES - sum(len(entry.body) for lease in held for entry in lease.entries)
        self._is_full = room <= 0
        if keys <= 0 or self._is_full:
            return
        # Where many were refused, those made since may be better, and must not wait behind all of them.
        leases = self._outbox.lease(now, keys=keys, batch=BATCH, room=room, newest=controller.gate.is_astray)
        self._is_full = sum(len(entry.body) for lease in leases for entry in lease.entries) >= room
        is_cut = any(len(lease.entries) == BATCH for lease in (*held, *leases))
        self._results.is_urgent = is_cut or len(leases) == keys or self._is_full or is_awaited
        # Before the commit: whatever fails after it finds what is leased in its place.
        self.held.update((lease.ordering_key, lease) for lease in leases)
        self._unsubmitted += leases

    def submit(self) -> None:
        """Give the senders what they do not have yet."""
        while self._unsubmitted:
            self._senders.submit(self._unsubmitted[0])
            del self._unsubmitted[0]

    def may_grow(self) -> bool:
        """Return whether more may be on lease, once it is due and the gate lets it through."""
        return len(self.held) < self._senders.controller.window(WINDOW) and not self._is_full

    def forget(self) -> None:
        """Hold nothing."""
        self.held, self._unsubmitted = {}, []


class _Acknowledger:
    """Writes down what became of entries, and announces it once that is committed."""

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
        """Write down what senders report, and give back the leases that ended; return what was taken or refused."""
        announced: list[tuple[str, Attempt]] = []
        delivered: list[Attempt] = []
        released: list[str] = []
        for lease, reported, ended in results:
            key = lease.ordering_key
            if leases.held.get(key) is not lease:
                continue  # of a store that is gone
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
        """Write down one attempt, unless Athina took its entry: see `_commit_delivered`.

        Returns:
            The attempt, refused where it failed too often; when its ordering key is due again; after how many failures.
        """
        if attempt.outcome.possible_duplicate:
            self._outbox.count_possible_duplicate()
        attempts = lease.attempts + 1 if attempt.entry is lease.entries[0] else 1
        attempt, wait = self.retry_policy.decide(attempt, attempts, now, tries=self._gate.tries)
        if attempt.verdict in (Verdict.RETRY, Verdict.PAUSED):
            return attempt, now + wait, attempts
        entry, outcome, verdict = attempt
        if verdict is Verdict.REFUSED:
            try:
                self._outbox.refused(entry, now, status=outcome.status, reason=outcome.message)
            except Exception as error:  # noqa: BLE001 - see there
                _swallow_unless_of_the_store(error)
                self._outbox.refused(entry, now, status=None, reason=f"an answer that cannot be kept: {error!a}")
        return attempt, 0.0, 0

    def _commit_delivered(self, attempts: Sequence[Attempt], now: float) -> None:
        """Write down that Athina took the entries of `attempts`."""
        entries = [(entry, outcome.prompt_run_id) for entry, outcome, _ in attempts]
        try:
            self._outbox.all_delivered(entries, now, keep=self._keep)
        except Exception as error:  # noqa: BLE001 - see there
            _swallow_unless_of_the_store(error)
            self._outbox.all_delivered([(entry, None) for entry, _ in entries], now, keep=self._keep)

    def announce(self, announced: Iterable[tuple[str, Attempt]]) -> None:
        """Report what became of entries, each with its ordering key, once that is committed."""
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
            with _guard.shield("passing on what became of a log"):
                if self._on_result is not None:
                    self._on_result(key, entry, outcome, verdict is Verdict.DELIVERED)


def _swallow_unless_of_the_store(error: Exception) -> None:
    """Swallow the error of one result that no row can hold, which must not delay the others; raise one of the store."""
    if isinstance(error, (OSError, sqlite3.OperationalError)):
        raise error
    _guard.swallow("keeping an answer of Athina's")


class _Upkeep:
    """What an outbox needs now and then, however little is put into it."""

    def __init__(self, outbox: Outbox, keep: float) -> None:
        self.is_due = False
        """Whether there may be space to give back."""
        self._outbox = outbox
        self._keep = keep
        self._is_keeping_more = False  # than it should
        self._stepped = self._looked = self._compacted = float("-inf")
        self._began = float("-inf")  # by `now`, at zero of the monotonic clock
        self._steady_since = 0.0

    def clean_up(self, now: float, monotonic: float, patience: float) -> bool:
        """Reclaim what dead processes held, forget what was kept long enough; return whether the clock was set back.

        Args:
            now: seconds since the epoch.
            monotonic: seconds that no change of the clock moves.
            patience: how often to look, seconds.
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
            # A machine may begin in a future that is wrong, until it has asked for the time.
            if monotonic - self._steady_since >= STEADY_SECONDS:
                self._outbox.quota.drop_refused(before=now - KEEP_REFUSED_SECONDS)
            self._outbox.store.clamp_due_times(now, longest=2 * LONGEST_WAIT)
            self._is_keeping_more = self._keep > 0
        if self._is_keeping_more:
            self._is_keeping_more = not self._outbox.quota.drop_delivered(before=now - self._keep)
        self._stepped = now
        return clock_set_back

    def compact(self, now: float, *, is_busy: bool) -> float:
        """Give back space now and then; return in how many seconds to come back for more."""
        if not self.is_due:
            return RECLAIM_SECONDS
        if now - self._compacted >= COMPACT_SECONDS:
            self._compacted = now
            # Shrinking under load would free pages that are wanted back at once.
            self.is_due = not self._outbox.compact(vacuum=not is_busy) or is_busy
        return COMPACT_SECONDS
