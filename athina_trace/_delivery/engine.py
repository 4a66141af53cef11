"""The engine: `step(now)` moves everything one step on; `worker` is the thread that calls it.

A step settles what senders reported, collects what was put, and leases ordering keys to the senders, in one
transaction.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from athina_trace import _guard
from athina_trace._delivery.circuit import Circuit
from athina_trace._delivery.entry import Lease, Stored
from athina_trace._delivery.flush import Flush
from athina_trace._delivery.outbox import KEEP_REFUSED_SECONDS, Outbox
from athina_trace._delivery.pace import Pace
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.retry import LONGEST_WAIT, Verdict, backoff
from athina_trace._delivery.senders import Connection, Report, Senders, Try

LINGER = 0.02
"""Seconds between a put and the step that serves it, so that a burst is served by few steps."""
WINDOW = 64
"""Ordering keys on lease at once."""
BATCH = 16
"""Entries of one ordering key on lease at once."""
WINDOW_BYTES = 2 * 1024 * 1024
"""About how much may be on lease at once, which bounds the memory that a backlog takes."""
RECLAIM_SECONDS = 5.0
"""How often an idle engine looks what other processes left behind."""
FLUSH_SECONDS = 0.25
"""The same while somebody waits for a flush."""
COMPACT_SECONDS = 2.0
"""How often a busy engine gives back space."""


class Engine:
    """Delivers what an outbox holds. `connect` makes a connection to Athina; None means that nothing is sent.

    `keep`: seconds for which delivered entries stay in the outbox, to be looked at. `share`: of one processor core, for
    all threads of the engine together. `settled(ordering_key, entry, outcome, taken)` is
    told, by the engine's thread, of each entry that Athina took or refused.
    """

    def __init__(  # noqa: PLR0913 - settings of one thing, all by name
        self,
        outbox: Outbox,
        connect: Callable[[], Connection] | None,
        *,
        clock: Any,
        connections: int = 8,
        max_bytes: int = 1_000_000,
        keep: float = 0.0,
        share: float = 1.0,
        settled: Callable[[str, Stored, Outcome, bool], None] = lambda _key, _entry, _outcome, _taken: None,
    ) -> None:
        self.outbox = outbox
        self._clock = clock
        self._keep = keep
        self._settled = settled
        self._circuit = Circuit()
        self._noted: str | None = ""
        self._stepped = self._looked = self._compacted = float("-inf")
        self._uncompacted = False
        self._reports: deque[Report] = deque()
        self._leased: dict[str, Lease] = {}
        self.pace = Pace(share)
        self._senders = (
            Senders(connect, limit=connections, max_bytes=max_bytes, reported=self.reported, pace=self.pace)
            if connect
            else None
        )
        self.flushes: list[Flush] = []
        """Whoever waits; served by the steps."""
        self.hurry: Callable[[], None] = lambda: None
        """Called, by senders, when a step is wanted at once."""
        self.wake: Callable[[], None] = lambda: None
        """Called when one is wanted soon."""
        self._is_behind = False  # whether more may wait than is on lease

    @property
    def paused(self) -> str | None:
        """Why nothing is sent now: a wrong key or an outage; None where it is."""
        return self._circuit.paused or self._circuit.outage

    def step(self, now: float) -> float:
        """Do what can be done at `now` (seconds since the epoch); when to step again, seconds from now.

        Raises what the store raises, and has done nothing then.
        """
        reports = list(self._reports)
        with self.outbox.transaction():
            self._begin_flushes()
            self._look_around(now)
            held = self._settle(reports, now)
            collected = self.outbox.collect()
            leases = self._lease(now, held)
            due = self.outbox.store.next_due()
            self._note(now)
        # First what must follow the commit: whatever fails below finds reports and leases in their places.
        for _ in reports:
            self._reports.popleft()
        self._leased = {lease.ordering_key: lease for lease in (*held, *leases)}
        if self._senders is not None:
            self._senders.submit(leases)
        self._uncompacted |= bool(collected or reports)
        self.outbox.acknowledgements_committed(report.tried.entry for report in list(self._reports) if report.tried)
        for report in reports:
            self._tell(report)
        self._serve_flushes()
        return min(self._waits(now, collected, due))

    def _note(self, now: float) -> None:
        """Tell other processes why nothing is sent; the first step takes back what a dead one may have told."""
        if self.paused != self._noted:
            self.outbox.store.note("paused", self.paused, now)
            self._noted = self.paused

    def _waits(self, now: float, collected: int, due: float | None) -> list[float]:
        waits = [self._patience(), self._compact(now)]
        if collected:
            waits.append(0.0)
        if self._senders is not None:
            waits.append(self._senders.tend())
            if due is not None and len(self._leased) < WINDOW and not (self._circuit.is_shut and self._leased):
                waits.append(max(due - now, self._circuit.wait(now), 0.0))
        return waits

    def _patience(self) -> float:
        """How long to leave alone what other processes hold: they may have died, and somebody may be waiting."""
        return FLUSH_SECONDS if self.flushes else RECLAIM_SECONDS

    def _look_around(self, now: float) -> None:
        """See now and then what dead processes held, what the clock did, and what was kept for long enough."""
        if now < self._stepped:
            self.outbox.store.clamp_due_times(now)
            self._looked = self._compacted = float("-inf")
        if now - self._looked >= self._patience():
            self._looked = now
            self.outbox.reclaim()
            self.outbox.store.clamp_due_times(now, longest=2 * LONGEST_WAIT)
            self.outbox.drop_refused(before=now - KEEP_REFUSED_SECONDS)
            if self._keep:
                self.outbox.store.expire(now - self._keep)
        self._stepped = now

    def _settle(self, reports: Sequence[Report], now: float) -> list[Lease]:
        """Take over what senders say; the leases that are still under way."""
        held = dict(self._leased)
        for lease, tried, ended in reports:
            if held.get(lease.ordering_key) is not lease:
                continue  # of a store that is gone
            due, attempts = self._settle_one(lease, tried, now) if tried else (0.0, 0)
            if ended:
                self.outbox.release(lease.ordering_key, due=due, attempts=attempts)
                del held[lease.ordering_key]
        return list(held.values())

    def _settle_one(self, lease: Lease, tried: Try, now: float) -> tuple[float, int]:
        """Take over one try; when its key is due again, and after how many tries in vain."""
        if tried.outcome.possible_duplicate:
            self.outbox.count_possible_duplicate()
        if tried.told is Verdict.RETRY:
            return self._defer(lease, tried, now)
        if tried.told is Verdict.PAUSED:
            self._pause(tried, now)
            return 0.0, lease.attempts
        self._circuit.answered()
        try:
            self._write(tried, now)
        except (OSError, sqlite3.OperationalError):
            raise  # the store takes nothing now: the report waits
        except Exception as error:  # noqa: BLE001 - one answer that no row can hold must not keep the others waiting
            _guard.swallow("keeping an answer of Athina's")
            self._write(tried._replace(outcome=Outcome(None, message=f"an answer that cannot be kept: {error!a}")), now)
        return 0.0, 0

    def _write(self, tried: Try, now: float) -> None:
        """Keep what Athina answered to an entry that it took or refused."""
        entry, outcome, told = tried
        if told is Verdict.DELIVERED:
            self.outbox.delivered(entry, now, keep=self._keep > 0, prompt_run_id=outcome.prompt_run_id)
        else:
            self.outbox.refused(entry, now, status=outcome.status, reason=outcome.message)

    def _tell(self, report: Report) -> None:
        """Report what became of an entry, once that is committed."""
        if report.tried is None or report.tried.told not in (Verdict.DELIVERED, Verdict.REFUSED):
            return
        entry, outcome, told = report.tried
        if told is Verdict.REFUSED:
            _guard.log_throttled(
                logging.WARNING,
                f"refused {outcome.status}",
                "Athina refused log %s with status %s (%s); it is kept, see `athina-trace logs --state refused`",
                entry.reference,
                outcome.status,
                outcome.message,
            )
        try:
            self._settled(report.lease.ordering_key, entry, outcome, told is Verdict.DELIVERED)
        except Exception:  # noqa: BLE001 - the guard decides
            _guard.swallow("passing on what became of a log")

    def _pause(self, tried: Try, now: float) -> None:
        self._circuit.refused_key(tried.outcome, now)
        _guard.log_throttled(
            logging.WARNING,
            "paused",
            "Athina, or a proxy before it, refused the API key (%s): nothing is sent and everything is kept; "
            "check ATHINA_API_KEY",
            self._circuit.paused,
        )

    def _defer(self, lease: Lease, tried: Try, now: float) -> tuple[float, int]:
        outcome = tried.outcome
        attempts = lease.attempts + 1 if tried.entry is lease.entries[0] else 1
        self._circuit.failed(lease.ordering_key, outcome, now, self._clock.uniform())
        _guard.log_throttled(
            logging.WARNING if self._circuit.is_shut else logging.INFO,
            "deferred",
            "Athina did not take a log (%s %s): logs are kept and tried again",
            outcome.status or "no answer,",
            outcome.message,
        )
        if self._circuit.is_shut:
            # The circuit does the waiting; the next probe may be another key's.
            return now + (outcome.retry_after or 0.0), attempts
        return now + backoff(attempts, random=self._clock.uniform(), retry_after=outcome.retry_after), attempts

    def _lease(self, now: float, held: Sequence[Lease]) -> list[Lease]:
        keys = self._circuit.room(now, WINDOW) - len(held)
        room = WINDOW_BYTES - sum(len(entry.body) for lease in held for entry in lease.entries)
        if self._senders is None or keys <= 0 or room <= 0:
            return []
        leases = self.outbox.lease(now, keys=keys, batch=BATCH, room=room)
        taken = sum(len(entry.body) for lease in leases for entry in lease.entries)
        is_cut = any(len(lease.entries) == BATCH for lease in (*held, *leases))
        self._is_behind = is_cut or len(leases) == keys or taken >= room
        return leases

    def _compact(self, now: float) -> float:
        """Give back space now and then; in how many seconds to come back for more."""
        if not self._uncompacted:
            return RECLAIM_SECONDS
        if now - self._compacted < COMPACT_SECONDS:
            return COMPACT_SECONDS
        self._compacted = now
        # Shrinking under load would free pages that are wanted back at once.
        self._uncompacted = not self.outbox.compact(vacuum=not self._leased) or bool(self._leased)
        return COMPACT_SECONDS

    def reported(self, report: Report, urgent: bool) -> None:  # noqa: FBT001 - called by senders alone
        """Take a sender's report, to be settled by the next step."""
        self._reports.append(report)
        if report.tried is not None and report.tried.told is Verdict.DELIVERED:
            self.outbox.acknowledge(report.tried.entry)
        if urgent:
            (self.hurry if self._is_behind or self.flushes else self.wake)()

    def tend(self) -> None:
        """Look after the senders only."""
        if self._senders is not None:
            self._senders.tend()

    def forget_leases(self) -> None:
        """The store is another one: what is under way belongs to the old one."""
        self._leased.clear()

    def start_sender(self) -> None:
        """Start the first sender. Raises RuntimeError where no thread can be started."""
        if self._senders is not None:
            self._senders.start()

    def finish(self, seconds: float) -> None:
        """Stop the senders within `seconds`, settle their last reports, and let go of the outbox."""
        if self._senders is not None:
            self._senders.close(seconds)
        reports = list(self._reports)
        try:
            with self.outbox.transaction():
                self._settle(reports, self._clock.time())
            for report in reports:
                self._tell(report)
        finally:
            self.outbox.close()

    def _begin_flushes(self) -> None:
        if [flush for flush in list(self.flushes) if flush.begin(self.outbox)]:
            self._circuit.probe()

    def _serve_flushes(self) -> None:
        idle = self._senders is None or self._circuit.paused is not None
        for flush in [each for each in list(self.flushes) if each.is_done(self.outbox, idle=idle)]:
            self.flushes.remove(flush)
            flush.end()

    def end_flushes(self) -> None:
        """Let everybody go on who waits: there is nothing to wait for."""
        while self.flushes:
            self.flushes.pop().end()
