"""Senders: threads that only make requests. They take leases from a queue, and report results.

The controller limits how many requests may be in flight; while work waits, there are at most as many senders. Each has
its own connection.
"""

from __future__ import annotations

import _thread
import contextvars
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from athina_trace import _guard
from athina_trace._delivery.concurrency import HANGING_SECONDS, Concurrency, InFlight
from athina_trace._delivery.destination import ATHINA
from athina_trace._delivery.entry import Lease, Stored
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.results import Attempt, Result, Results
from athina_trace._delivery.retry import THROTTLED, Verdict, verdict
from athina_trace._delivery.routes import Kind
from athina_trace._delivery.truncate import halved, truncate

_SUPERVISE_SECONDS = HANGING_SECONDS
"""How often busy senders are supervised."""
_STALL_SECONDS = 1.0
_IDLE_SECONDS = 30.0
"""How long an idle sender lives on, with its connection; the last one always does."""
_ABORTING_SECONDS = 0.2
"""How long senders that are aborted on close may take to notice."""
_TRY_SECONDS = 0.0005
_FEW = 96
"""If fewer leases are in the queue, the engine is asked for more."""


class Connection(Protocol):
    """A sender's connection; see `client.Client`."""

    def deliver(self, kind: Kind, target: str, body: bytes) -> Outcome: ...

    def expire(self, *, now: float | None = None) -> bool: ...

    def close(self) -> None: ...


def send(entry: Stored, connection: Connection, *, max_bytes: int) -> Outcome:
    """Send one entry, truncated to `max_bytes`, and halved as long as the server says that it is too large."""
    body = truncate(entry.body, limit=max_bytes)
    while True:
        outcome = connection.deliver(entry.kind, entry.reference, body)
        smaller = halved(body) if verdict(outcome.status) is Verdict.TRUNCATE else None
        if smaller is None:
            return outcome
        body = smaller


class _Sender:
    """A sender's thread, its connection, and its work.

    Attributes:
        held: the leases that it took from the queue and whose end it has not reported yet.
        is_parked: whether it waits with a lease, until another request may be in flight.
        is_resting: whether it waits without a lease, since as many senders have one as may send.
        may_continue: set to wake it.
        has_ended: whether its thread is done, or about to be.
        error: the error that it died of.
    """

    def __init__(self, run: Callable[[_Sender], None], name: str) -> None:
        # In its own context, like the engine's thread.
        self.thread = threading.Thread(target=contextvars.Context().run, args=(run, self), name=name, daemon=True)
        self.connection: Connection | None = None
        self.held: list[Lease] = []
        self.is_parked = self.is_resting = False
        self.may_continue = threading.Event()
        self.has_ended = False
        self.error: BaseException | None = None


class _TurnLock(_thread.RLock):  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues] - final in stubs alone
    """A lock that only a running thread takes: the others poll.

    An ordinary lock is handed to a waiting thread, which keeps it while it waits 5 ms for the interpreter (GIL) if the
    program computes. Others that want it meanwhile wait as well, and so it is handed on like this forever.

    An exception that another thread or a signal handler injects comes between instructions, after any call. Here none
    comes between acquiring and the block, or between the block and `__exit__`, which is the lock's own.
    """

    def __enter__(self) -> None:  # type: ignore[override]  # it is always acquired
        # `iter` acquires and compares in one instruction.
        for _ in iter(partial(self.acquire, False), True):  # noqa: FBT003 - not to block
            time.sleep(_TRY_SECONDS)


class Senders:
    """The sender threads, their queue and their controller. Everything public is for the engine's thread."""

    destination = ATHINA
    unsent = None

    def __init__(  # noqa: PLR0913 - settings, all by keyword
        self,
        connect: Callable[[], Connection],
        results: Results,
        *,
        clock: Any,
        limit: int = 64,
        max_bytes: int = 1_000_000,
        revise: Callable[[bytes], bytes] | None = None,
        is_queue: bool = False,
    ) -> None:
        """Start no threads.

        Args:
            connect: makes the connection of a sender.
            results: receives the reports on all entries.
            clock: has `monotonic` (seconds) and `uniform` (0 to 1).
            limit: the maximum of requests in flight.
            max_bytes: longer entries are truncated.
            revise: returns the JSON to send for a log; must not raise.
            is_queue: see `Concurrency`.
        """
        self.controller = Concurrency(limit, is_queue=is_queue)
        self._connect = connect
        self._results = results
        self._clock = clock
        self._max_bytes = max_bytes
        self._revise = revise
        self._queue: deque[Lease] = deque()
        # One for each lease in the queue. What is raised in a thread that waits, from outside, loses no more than that.
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._senders: list[_Sender] = []
        self._requests: dict[_Sender, InFlight] = {}
        """The requests in flight."""
        self._lock = _TurnLock()
        self._closed = threading.Event()

    @property
    def alive(self) -> int:
        """How many senders there are."""
        # For any thread, even in a signal handler, so without `Thread.is_alive`: see `_EngineThread`.
        return sum(not sender.has_ended for sender in list(self._senders))

    def submit(self, lease: Lease) -> None:
        """Queue a lease whose entries are to be sent."""
        self._queue.append(lease)
        self._calls.put(None)

    def start(self) -> None:
        """Start one more sender. Raises RuntimeError if no thread can be started."""
        # The lock makes listing and starting atomic: a sender that is listed but not yet alive would look dead, and one
        # that ends at once would unlist itself before it is listed.
        with self._lock:
            sender = _Sender(self._run, f"athina-trace-sender-{len(self._senders) + 1}")
            self._senders.append(sender)
            try:
                sender.thread.start()
            except BaseException:
                self._senders.remove(sender)
                raise

    def supervise(self) -> float:
        """Supervise the senders: replace dead ones, abort overdue requests, and see to it that others do not hang.

        Returns:
            In how many seconds to supervise them again.
        """
        self._replace_dead()
        senders = list(self._senders)
        for sender in senders:
            if sender.connection is not None:
                sender.connection.expire()
        with self._lock:
            now = self._clock.monotonic()
            begun = [request.begins for request in self._requests.values()]
            if self._is_waiting() and begun and now - max(begun) > _STALL_SECONDS:
                self.controller.stalled()
            if self.controller.is_any_hanging(now):
                # Some servers answer a connection for each of their workers, and others once one of these is closed.
                for sender in senders:
                    if sender not in self._requests and sender.connection is not None:
                        sender.connection.close()
            self._wake()
        self._start_where_needed()
        return _SUPERVISE_SECONDS if self._is_waiting() or any(sender.held for sender in senders) else math.inf

    def _is_waiting(self) -> bool:
        """Return whether there is more to send than may be in flight."""
        return bool(self._queue) or any(sender.is_parked for sender in list(self._senders))

    def _start_where_needed(self) -> None:
        if self._queue and len(self._senders) < self.controller.limit and not self._closed.is_set():
            with suppress(RuntimeError):  # the interpreter is shutting down, or has no threads left
                self.start()

    def _replace_dead(self) -> None:
        """Report the leases of dead senders as failed; `_start_where_needed` starts new senders."""
        with self._lock:
            dead = [sender for sender in self._senders if not sender.thread.is_alive()]
        for sender in dead:
            # As a failure, so that an entry that kills its senders is retried less and less often. If there was a
            # connection, the entry may have been sent.
            message, sent = f"a sender died: {sender.error!r}", sender.connection is not None
            outcome = Outcome(None, message=message, possible_duplicate=sent)
            if (request := self._requests.pop(sender, None)) is not None:
                self.controller.abandon(request)
            while sender.held:
                lease = sender.held[0]
                with self._lock:
                    is_queued = lease in self._queue  # it was about to be taken out
                if not is_queued:
                    self._results.put(Result(lease, Attempt(lease.entries[0], outcome, Verdict.RETRY), ended=True))
                sender.held.remove(lease)
            with self._lock:
                self._senders.remove(sender)
            self._calls.put(None)

    def _run(self, sender: _Sender) -> None:
        try:
            with self._lock:  # `start` holds it until it is done; it unlists a sender whose start was interrupted
                is_listed = sender in self._senders
            try:
                while is_listed and self._take(sender):
                    self._serve(sender.held[-1], sender)
            finally:
                sender.has_ended = True
                if sender.connection is not None:
                    sender.connection.close()
        except BaseException as error:  # noqa: BLE001 - `supervise` finds the dead sender and its leases
            sender.error = error
            self._results.wake_event.wake()
            _guard.swallow("sending logs")

    def _take(self, sender: _Sender) -> bool:
        """Wait for a lease, and add it to `sender.held`; return False if the sender must end."""
        while not self._closed.is_set():
            is_idle = False
            try:
                self._calls.get(timeout=_IDLE_SECONDS if len(self._senders) > 1 else None)
            except queue.Empty:
                is_idle = True
            else:
                with self._lock:
                    sender.is_resting = sum(bool(each.held) for each in self._senders) >= self.controller.limit
                    if sender.is_resting:
                        sender.may_continue.clear()
                        self._calls.put(None)
                    elif self._queue:
                        # In this order, so that an error in between does not lose the lease.
                        sender.held.append(self._queue[0])
                        self._queue.popleft()
                if sender.held:
                    self._start_where_needed()
                    return True
                is_idle = sender.is_resting and not self._wait(sender, _IDLE_SECONDS)
            with self._lock:
                sender.is_resting = False
                if is_idle and len(self._senders) > 1:
                    self._senders.remove(sender)
                    return False
        return False

    def _serve(self, lease: Lease, sender: _Sender) -> None:
        """Send the entries of a lease in order until one fails, and report each."""
        connection = sender.connection = sender.connection or self._connect()
        last = lease.entries[-1]
        for entry in lease.entries:
            # Before the request begins, since the controller judges the server by the request's time.
            revise = self._revise if entry.kind == "log" else None
            revised = entry._replace(body=revise(entry.body)) if revise is not None else entry
            attempt: Attempt | None = None
            if (request := self._begin(lease, entry, sender)) is not None:
                outcome = send(revised, connection, max_bytes=self._max_bytes)
                attempt = Attempt(entry, outcome, self._end(request, outcome, sender))
            failed = attempt is None or attempt.verdict in (Verdict.RETRY, Verdict.PAUSED)
            if failed and attempt is not None and attempt.outcome.status not in (None, THROTTLED):
                connection.close()  # the next one may lead to another, healthy server
            ended = failed or entry is last
            self._results.put(Result(lease, attempt, ended), is_low=ended and len(self._queue) < _FEW)
            if ended:
                break
        sender.held.remove(lease)

    def _begin(self, lease: Lease, entry: Stored, sender: _Sender) -> InFlight | None:
        """Wait until a request may be sent; None if the gate is shut, or the process ends."""
        request: InFlight | None = None
        now = self._clock.monotonic()
        while not self._closed.is_set() and not self.controller.gate.wait(now):
            with self._lock:
                sender.is_parked = len(self._requests) >= self.controller.limit
                if not sender.is_parked:
                    key, reference, kind = lease.ordering_key, entry.reference, entry.kind
                    request = self._requests[sender] = self.controller.begin(now, key, reference, kind)
                    break
                sender.may_continue.clear()
            self._wait(sender)
            sender.is_parked = False
            now = self._clock.monotonic()
        if request is not None and request.is_paced:
            self._closed.wait(request.begins - now)
        return None if self._closed.is_set() else request

    def _wait(self, sender: _Sender, seconds: float | None = None) -> bool:
        """Wait until the sender may continue; False if it may not after so many seconds."""
        # Checked after `may_continue` was cleared: `close` may have set it just before.
        return self._closed.is_set() or sender.may_continue.wait(seconds)

    def _end(self, request: InFlight, outcome: Outcome, sender: _Sender) -> Verdict:
        """Report the outcome of a request to the controller; return the verdict on its log."""
        with self._lock:
            del self._requests[sender]
            verdict = self.controller.end(
                request,
                outcome,
                self._clock.monotonic(),
                waiting=self._is_waiting(),
                chance=self._clock.uniform(),
                share=self._results.interpreter.share,
            )
            self._wake()
        self._start_where_needed()
        self._results.interpreter.spent()
        self._results.interpreter.look()
        return verdict

    def _wake(self) -> None:
        """Wake only the senders that may continue, since each has to wait for the interpreter (GIL)."""
        waiting = [each for each in self._senders if each.is_parked or each.is_resting]
        if not waiting:
            return
        parked = [each for each in waiting if each.is_parked]
        resting = [each for each in waiting if each.is_resting]
        limit, gate = self.controller.limit, self.controller.gate
        room = len(parked) if gate.is_shut else limit - len(self._requests)
        more = min(limit - sum(bool(each.held) for each in self._senders), len(self._queue))
        for sender in (*parked[: max(0, room)], *resting[: max(0, more)]):
            sender.may_continue.set()

    def close(self, seconds: float) -> None:
        """End all senders after their current requests, which are aborted if they take nearly all of `seconds`."""
        self._closed.set()
        with self._lock:
            senders = list(self._senders)
        for sender in senders:
            sender.may_continue.set()
            self._calls.put(None)
        aborting = min(_ABORTING_SECONDS, seconds * 0.3)
        _join(senders, seconds - aborting)
        for sender in senders:
            if sender.connection is not None:
                sender.connection.expire(now=math.inf)
        _join(senders, aborting)


def _join(senders: list[_Sender], seconds: float) -> None:
    ends = time.monotonic() + seconds
    for sender in senders:
        sender.thread.join(max(0.0, ends - time.monotonic()))


class NoSenders:
    """Replaces senders if nothing is to be sent: everything stays in the outbox."""

    destination = ATHINA
    alive = 0

    def __init__(self, unsent: str) -> None:
        """`unsent`: why nothing is sent."""
        self.unsent = unsent
        self.controller = Concurrency(0)

    def submit(self, lease: Lease) -> None:
        """Do nothing: there are no leases, since the controller allows none."""

    def start(self) -> None:
        """Do nothing: there is no thread to start."""

    def supervise(self) -> float:
        """Return infinity: there is nothing to supervise."""
        return math.inf

    def close(self, seconds: float) -> None:
        """Do nothing: nothing is in flight."""
