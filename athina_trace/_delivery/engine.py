"""The engine: `step(now)` moves everything one step on, and a thread of ten lines calls it.

A step settles what senders reported, collects what was put, and leases lanes to the senders, in one transaction.
Only outcomes flow back; nothing here ever raises into the program.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from athina_trace import _guard
from athina_trace._delivery.answer import Outcome
from athina_trace._delivery.entry import Lease, Stored
from athina_trace._delivery.outbox import Outbox
from athina_trace._delivery.policy import Verdict, backoff
from athina_trace._delivery.senders import Connection, Report, Senders

LINGER = 0.02
"""Seconds between a put and the step that serves it, so that a burst is served by few steps."""
WINDOW = 64
"""Lanes on lease at once."""
BATCH = 16
"""Entries of one lane on lease at once."""
ADOPT_SECONDS = 5.0
"""How often the lanes of dead owners are looked for."""
PAUSE_SECONDS = 300.0
"""How long a wrong key keeps the engine from trying again."""
_RETRY_STEP_SECONDS = 1.0


@dataclass(frozen=True)
class FlushReport:
    """What a flush came to. True where nothing waits any more.

    Attributes:
        delivered: entries that reached Athina while flushing.
        waiting: entries still in the outbox, to be delivered later, by this process or the next one.
        refused: entries that Athina refused, ever; they are kept.
        paused: why nothing is sent at all, such as a wrong key; None where it is.
        elapsed: seconds.
    """

    delivered: int
    waiting: int
    refused: int
    paused: str | None
    elapsed: float

    def __bool__(self) -> bool:
        return self.waiting == 0


class Engine:
    """Delivers what an outbox holds. `connect` makes a connection to Athina; None means that nothing is sent."""

    def __init__(
        self,
        outbox: Outbox,
        connect: Callable[[], Connection] | None,
        *,
        clock: Any,
        connections: int = 8,
        max_bytes: int = 1_000_000,
        keep: bool = False,
    ) -> None:
        self.outbox = outbox
        self.paused: str | None = None
        self._noted: str | None = ""
        self._clock = clock
        self._keep = keep
        self._paused_until = 0.0
        self._adopted = float("-inf")
        self._reports: deque[Report] = deque()
        self._on_lease = 0
        self._senders = (
            Senders(connect, limit=connections, max_bytes=max_bytes, reported=self._reported) if connect else None
        )
        self._thread: threading.Thread | None = None
        self._start_lock = threading.RLock()
        self._woken = threading.Event()
        self._hurried = threading.Event()
        self._stepped = threading.Condition()
        self._flushing = 0
        self._stopping = False

    # -- one step

    def step(self, now: float) -> float | None:
        """Do what can be done at `now` (seconds since the epoch); when to step again, seconds from now, or None."""
        with self.outbox.transaction():
            self._settle(now)
            collected = self.outbox.collect()
            leases = self._lease(now)
            self._note(now)
        if self._senders is None:
            return 0.0 if collected else None
        self._senders.submit(leases)
        return self._next_step(now, collected)

    def _note(self, now: float) -> None:
        """Tell other processes why nothing is sent; the first step takes back what a dead one may have told."""
        if self.paused != self._noted:
            self.outbox.store.note("paused", self.paused, now)
            self._noted = self.paused

    def _next_step(self, now: float, collected: int) -> float | None:
        waits = [self._senders.tend() if self._senders else None]
        if self._on_lease < WINDOW:
            due = self.outbox.next_due(now)
            waits.append(None if due is None else max(due, self._paused_until) - now)
        if collected:
            waits.append(0.0)
        return min((max(wait, 0.0) for wait in waits if wait is not None), default=None)

    def _settle(self, now: float) -> None:
        while self._reports:
            report = self._reports.popleft()
            self._on_lease -= 1
            due, attempts = 0.0, 0
            for entry, outcome, told in report.tried:
                if told is Verdict.DELIVERED:
                    self._delivered(entry, outcome, now)
                elif told is Verdict.REFUSED:
                    self._refused(entry, outcome, now)
                elif told is Verdict.PAUSED:
                    self._pause(outcome, now)
                else:
                    attempts = report.lease.attempts + 1 if len(report.tried) == 1 else 1
                    due = self._defer(outcome, attempts, now)
            self.outbox.release(report.lease.lane, due=due, attempts=attempts)

    def _delivered(self, entry: Stored, outcome: Outcome, now: float) -> None:
        self.paused = None
        self.outbox.delivered(entry, now, keep=self._keep, prompt_run_id=outcome.prompt_run_id)

    def _refused(self, entry: Stored, outcome: Outcome, now: float) -> None:
        self.outbox.refused(entry, now, status=outcome.status, reason=outcome.message)
        _guard.say(
            logging.WARNING,
            f"refused {outcome.status}",
            "Athina refused log %s with status %s (%s); it is kept, see `athina-trace logs --state refused`",
            entry.reference,
            outcome.status,
            outcome.message,
        )

    def _pause(self, outcome: Outcome, now: float) -> None:
        self._paused_until = now + PAUSE_SECONDS
        self.paused = f"status {outcome.status}: {outcome.message}"
        _guard.say(
            logging.WARNING,
            "paused",
            "Athina refused the API key (%s): nothing is sent and everything is kept; check ATHINA_API_KEY",
            self.paused,
        )

    def _defer(self, outcome: Outcome, attempts: int, now: float) -> float:
        wait = backoff(attempts, random=self._clock.uniform(), retry_after=outcome.retry_after)
        _guard.say(
            logging.INFO,
            "deferred",
            "Athina cannot be reached (%s %s): logs are kept and tried again",
            outcome.status or "no answer,",
            outcome.message,
        )
        return now + wait

    def _lease(self, now: float) -> list[Lease]:
        if self._senders is None or now < self._paused_until:
            return []
        if now - self._adopted >= ADOPT_SECONDS or now < self._adopted:
            self._adopted = now
            self.outbox.adopt()
        # One lane at a time after a pause: the key may still be wrong.
        room = WINDOW - self._on_lease if self.paused is None else 1 - self._on_lease
        leases = self.outbox.lease(now, lanes=room, batch=BATCH) if room > 0 else []
        self._on_lease += len(leases)
        return leases

    # -- the thread around it

    def wake(self) -> None:
        """Something was put. Cheap, and from any thread."""
        if not self._woken.is_set():
            self._woken.set()
            if self._thread is None:
                self._start()

    def _start(self) -> None:
        with self._start_lock:
            if self._thread is None and not self._stopping:
                self._thread = threading.Thread(target=self._run, name="athina-trace-engine", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        wait: float | None = 0.0
        while not self._stopping:
            self._woken.wait(wait)
            self._hurried.wait(LINGER)
            self._woken.clear()
            self._hurried.clear()
            wait = self._step_guarded()
            with self._stepped:
                self._stepped.notify_all()

    def _step_guarded(self) -> float | None:
        try:
            return self.step(self._clock.time())
        except Exception:  # noqa: BLE001 - the guard decides
            _guard.fault("delivering logs")
            return _RETRY_STEP_SECONDS

    def _reported(self, report: Report, urgent: bool) -> None:  # noqa: FBT001 - called by senders alone
        self._reports.append(report)
        if urgent:
            self._hurry()

    def _hurry(self) -> None:
        self._hurried.set()
        self._woken.set()

    # -- for callers

    def flush(self, timeout: float) -> FlushReport:
        """Wait until everything put before this call is settled, the engine pauses, or `timeout` seconds are over."""
        began = self._clock.perf_ns()
        before = self.outbox.counts()
        while self.outbox.collect():
            pass
        last = self.outbox.last()
        self._start()
        self._hurry()

        def settled() -> bool:
            return self._senders is None or self.paused is not None or self.outbox.oldest_waiting() > last

        with self._stepped:
            while not settled() and (left := timeout - (self._clock.perf_ns() - began) / 1e9) > 0 and self._thread:
                self._stepped.wait(min(left, 0.1))
        after = self.outbox.counts()
        elapsed = (self._clock.perf_ns() - began) / 1e9
        return FlushReport(after.delivered - before.delivered, after.waiting, after.refused, self.paused, elapsed)

    def close(self, timeout: float) -> None:
        """Flush for at most `timeout` seconds, then stop. What is left stays in the outbox."""
        if self._thread is not None and timeout > 0:
            self.flush(timeout)
        self._stopping = True
        self._hurry()
        if self._senders is not None:
            self._senders.close()
        if self._thread is not None:
            self._thread.join(timeout=1.0)
        self.outbox.close()
