"""Senders: threads that do nothing but requests. Leases go in at one end, reports come out at the other.

Few busy threads cost less than many: one sender serves a fast server, and more are started only while leases wait and
requests take long. Each has a connection of its own.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple, Protocol

from athina_trace import _guard
from athina_trace._delivery.circuit import TRIP
from athina_trace._delivery.entry import Lease, Stored
from athina_trace._delivery.pace import Demand, Pace
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.retry import Verdict, verdict
from athina_trace._delivery.routes import Kind
from athina_trace._delivery.truncate import truncate

_TEND_SECONDS = 0.005
"""How often a queue that does not empty is looked after."""
_FEW = 16
"""Leases in the queue below which the engine is asked for more."""


class Connection(Protocol):
    """What a sender speaks through; see `api.Api`."""

    def deliver(self, kind: Kind, target: str, body: bytes) -> Outcome: ...

    def expire(self, *, now: float | None = None) -> bool: ...

    def close(self) -> None: ...


class Try(NamedTuple):
    """One entry that was sent, and what came of it."""

    entry: Stored
    outcome: Outcome
    told: Verdict


class Report(NamedTuple):
    """What came of a lease: an entry settled, or the lease's end, with the try that ended it if it failed."""

    lease: Lease
    tried: Try | None
    ended: bool


def send(lease: Lease, connection: Connection, *, max_bytes: int) -> Iterator[Try]:
    """Send the entries of a lease, in order. A refused one does not stop the next; one that has to wait should."""
    for entry in lease.entries:
        yield Try(entry, *_send_fitting(entry, connection, max_bytes))


def _send_fitting(entry: Stored, connection: Connection, max_bytes: int) -> tuple[Outcome, Verdict]:
    """Send one entry, shortened to `max_bytes`, and halved for as long as the server calls it too large."""
    body = truncate(entry.body, limit=max_bytes) if len(entry.body) > max_bytes else entry.body
    while True:
        outcome = connection.deliver(entry.kind, entry.reference, body)
        told = verdict(outcome.status)
        if told is not Verdict.SHRINK:
            return outcome, told
        smaller = truncate(body, limit=len(body) // 2)
        if len(smaller) >= len(body):
            return outcome, Verdict.REFUSED
        body = smaller


_STOP = Lease("", 0, [])
"""Ends the sender that takes it."""


class _Sender:
    """One thread, its connection, and what it works on.

    Attributes:
        held: leases that it took from the queue and whose end it has not reported yet.
        busy_since: when its present request began, monotonic seconds.
        error: what it died of.
    """

    def __init__(self, work: Callable[[_Sender], None], name: str) -> None:
        self.thread = threading.Thread(target=work, args=(self,), name=name, daemon=True)
        self.connection: Connection | None = None
        self.held: list[Lease] = []
        self.busy_since: float | None = None
        self.error: BaseException | None = None


class Senders:
    """The threads and their queue. Everything here is for the engine; `reported` is called by senders."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        limit: int,
        max_bytes: int,
        reported: Callable[[Report, bool], None],
        pace: Pace,
    ) -> None:
        """`reported(report, urgent)`: urgent where the queue runs low."""
        self._connect = connect
        self._limit = limit
        self._max_bytes = max_bytes
        self._reported = reported
        self._queue: queue.SimpleQueue[Lease] = queue.SimpleQueue()
        self._senders: list[_Sender] = []
        self._lock = threading.Lock()
        self._demand = Demand()
        self._pace = pace
        self._closing = False
        self._failures = 0

    def submit(self, leases: list[Lease]) -> None:
        """Queue leases."""
        for lease in leases:
            self._queue.put(lease)

    def tend(self) -> float:
        """Look after the senders: replace dead ones, cut overdue requests, start one more where that helps.

        Returns:
            Seconds until the senders are to be looked after again.
        """
        self._remove_dead()
        senders = list(self._senders)
        for sender in senders:
            if sender.connection is not None:
                sender.connection.expire()
        if self._queue.empty():
            return 1.0 if any(sender.held for sender in senders) else math.inf
        if not senders or (len(senders) < self._limit and self._is_one_more_wanted()):
            with suppress(RuntimeError):  # the interpreter is shutting down, or has no threads left
                self.start()
        return _TEND_SECONDS

    def _is_one_more_wanted(self) -> bool:
        return self._demand.is_unmet(min(filter(None, [each.busy_since for each in list(self._senders)]), default=None))

    def start(self) -> None:
        """Start one more sender. Raises RuntimeError where no thread can be started."""
        # The lock makes listing and starting one: a sender that is listed but not yet alive would look dead, and one
        # that is done at once would retire before it is listed.
        with self._lock:
            sender = _Sender(self._work, f"athina-trace-sender-{len(self._senders) + 1}")
            self._senders.append(sender)
            try:
                sender.thread.start()
            except BaseException:
                self._senders.remove(sender)
                raise

    def _remove_dead(self) -> None:
        """Report what dead senders held as failed; others are started where work waits."""
        with self._lock:
            dead = [sender for sender in self._senders if not sender.thread.is_alive()]
        for sender in dead:
            # A failure, so that an entry which kills its senders is tried less and less often. How far its request
            # came is unknown once there was a connection.
            outcome = Outcome(
                None, message=f"a sender died: {sender.error!r}", possible_duplicate=sender.connection is not None
            )
            while sender.held:
                failed = Try(sender.held[0].entries[0], outcome, Verdict.RETRY)
                self._count(failed, sender)
                self._end(sender.held[0], failed, sender, urgent=True)
            with self._lock:
                self._senders.remove(sender)

    def _work(self, sender: _Sender) -> None:
        try:
            try:
                while not self._closing:
                    sender.held.append(self._queue.get())  # one step: an error in between would lose a lease
                    lease = sender.held[-1]
                    if lease is _STOP:
                        break
                    failed = self._serve(lease, sender)
                    sender.busy_since = None
                    self._count(failed, sender)
                    self._end(lease, failed, sender, urgent=self._queue.qsize() < _FEW)
                    if self._retires(sender):
                        break
            finally:
                if sender.connection is not None:
                    sender.connection.close()
        except BaseException as error:  # noqa: BLE001 - `tend` finds the dead sender, with what it held
            sender.error = error
            _guard.swallow("sending logs")

    def _end(self, lease: Lease, failed: Try | None, sender: _Sender, *, urgent: bool) -> None:
        """Report the end of a lease that `sender` holds."""
        self._reported(Report(lease, failed, ended=True), urgent)
        sender.held.remove(lease)

    def _retires(self, sender: _Sender) -> bool:
        """Whether the others will do, and `sender` is none of them any more."""
        with self._lock:
            if len(self._senders) < 2 or self._closing or self._is_one_more_wanted():  # noqa: PLR2004 - one always stays
                return False
            self._senders.remove(sender)
            return True

    def _count(self, failed: Try | None, sender: _Sender) -> None:
        """After failures in a row, give back what nobody has begun to send, until the engine knows what to do."""
        self._failures = self._failures + 1 if failed else 0
        if failed and (self._failures >= TRIP or failed.told is Verdict.PAUSED):
            with suppress(queue.Empty):
                while True:
                    sender.held.append(self._queue.get_nowait())
                    if sender.held[-1] is _STOP:
                        self._queue.put(sender.held.pop())  # it ends another sender
                        break
                    self._end(sender.held[-1], None, sender, urgent=False)

    def _serve(self, lease: Lease, sender: _Sender) -> Try | None:
        """Send what a lease holds and report each entry that is settled; the try that failed, where one did."""
        sender.connection = sender.connection or self._connect()
        began = sender.busy_since = time.monotonic()
        for tried in send(lease, sender.connection, max_bytes=self._max_bytes):
            self._demand.took(time.monotonic() - began)
            self._pace.rest()
            began = sender.busy_since = time.monotonic()
            if tried.told in (Verdict.RETRY, Verdict.PAUSED):
                return tried
            self._reported(Report(lease, tried, ended=False), False)  # noqa: FBT003 - the engine's own method
            if self._closing:
                break
        return None

    def close(self, seconds: float) -> None:
        """Let every sender end after its present request, which is cut if it takes longer than most of `seconds`."""
        self._closing = True
        with self._lock:  # else one may be listed that is not started, which nobody can wait for
            senders = list(self._senders)
        for _ in senders:
            self._queue.put(_STOP)
        _join(senders, seconds * 0.7)
        for sender in senders:
            if sender.connection is not None:
                sender.connection.expire(now=math.inf)
        _join(senders, seconds * 0.3)


def _join(senders: list[_Sender], seconds: float) -> None:
    ends = time.monotonic() + seconds
    for sender in senders:
        sender.thread.join(max(0.0, ends - time.monotonic()))
