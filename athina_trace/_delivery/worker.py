"""The worker: the thread that steps an engine, the operations for callers, and the handling of failed steps."""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from athina_trace import _guard, _periodic
from athina_trace._delivery.database import is_corrupt, is_locked, waiting_at_most
from athina_trace._delivery.engine import LINGER, Engine
from athina_trace._delivery.flush import Flush
from athina_trace._delivery.sqlite import sqlite3
from athina_trace._delivery.stats import FlushReport

_STUCK_SECONDS = 15.0
_UNDER_WAY_SECONDS = 2.0
"""How much of the time for closing is reserved for requests in flight; at most half of it."""
_FAULT_SECONDS = 1.0
"""The pause after an error of ours before the next step."""
_LONGEST_LINGER = 0.5
"""How long deliveries wait for a pause between calls: calls are faster, and their logs cheaper to collect, that way."""
_LONGEST_NAP = 0.1
"""Seconds between two checks whether calls have paused; each check slows down the calls that run then."""
_BEGINNING_SECONDS = 1.0
"""How long to wait for a new thread to begin before assuming that it will, and between attempts to start one."""
_ENDED = "deliveries of this process have ended"


class Worker:
    """The thread that runs `engine`, started by the first log. Nothing here ever raises into the program."""

    def __init__(self, engine: Engine, *, clock: Any) -> None:
        self.engine = engine
        self.stuck: str | None = None
        """Why the outbox's store cannot be used; None if it can."""
        self.locked: str | None = None
        """Says that another process locks the store for so long that nothing can be sent; None if none does."""
        self._clock = clock
        self._thread = _EngineThread(self._step_until_closed, engine.senders.start, clock.monotonic)
        self._event = engine.results.wake_event
        self._puts = 0  # approximate: concurrent threads may miscount
        self._puts_collected = 0
        self._refused_reported = 0

    @property
    def paused(self) -> str | None:
        """Why nothing is sent now: no key or a wrong one, an outage, an unusable store, the end; None otherwise."""
        never = _ENDED if self.has_ended else self.engine.senders.unsent
        return self.engine.paused or self.stuck or self.locked or never

    @property
    def has_ended(self) -> bool:
        """Whether the worker was closed, so that there is nothing to wait for."""
        return self._thread.ends is not None

    def wake(self) -> None:
        """Wake the thread after a put, and start it if necessary. Cheap, and safe in any thread or signal handler."""
        self._puts += 1
        # `is_woken` saves most logs a call. If no thread can start, the next log tries again.
        thread = self._thread
        if not thread.is_woken:
            try:
                if thread.start(patiently=True):
                    thread.is_woken = True
                    self._event.wake()
                    if not thread.is_started:  # it died in between, and no log would try again
                        thread.is_woken = False
            except BaseException as error:
                thread.is_woken = False
                # The log is in the outbox: what fails here, such as for want of memory, must not make it seem lost.
                if not isinstance(error, Exception):
                    raise
                _guard.swallow("waking the deliveries")

    def _step_until_closed(self) -> None:
        wait = took = 0.0
        ends: float | None = None
        while ends is None:
            # Around the loop, since an exception that the program injects may come between two rounds, too.
            try:
                while (ends := self._thread.ends) is None:
                    # During a burst, steps take at most a third of the time, so that calls rarely compete with them.
                    if not self._event.wait(wait):
                        self._linger(max(LINGER, 2 * took))
                    self._event.clear()
                    self._thread.is_woken = False
                    began = time.thread_time()
                    wait = self._step()
                    took = time.thread_time() - began
                    self.engine.results.interpreter.spent()
            except BaseException:  # noqa: BLE001, PERF203 - the guard decides; a dead thread would deliver nothing
                wait = _FAULT_SECONDS
                _guard.swallow("delivering logs")
        try:
            with _guard.shield("ending deliveries"), suppress(OSError, sqlite3.Error):
                self.engine.finish(max(0.0, ends - time.monotonic() - 0.1))
        finally:
            self.engine.flushes.end_all()

    def _linger(self, seconds: float) -> None:
        """Wait `seconds` for more entries, and longer while calls keep putting, unless woken urgently."""
        began, waited = time.monotonic(), 0.0
        # A step collects only part of a large backlog, so an engine that is behind does not wait for a pause.
        while waited <= (0.0 if self.engine.outbox.is_behind else _LONGEST_LINGER):
            seen = self._puts
            if self._event.wait(seconds):
                return
            with _guard.shield("supervising the senders"):
                self.engine.senders.supervise()
            if self._puts == seen:
                return
            waited = time.monotonic() - began
            seconds = max(seconds, min(2 * seconds, _LONGEST_NAP))

    def _step(self) -> float:
        try:
            if self.engine.outbox.refresh():
                self._store_replaced("its file was deleted, or closed by the program")
            now = self._clock.time()
            # Periodic callbacks first, so that this step collects their logs.
            wait, puts = _periodic.tick(now), self._puts
            wait = min(wait, self.engine.step(now))
            self._puts_collected = puts
        except Exception as error:
            # Damage may cause any error, such as a missing value in a NOT NULL column.
            is_ours = not isinstance(error, (OSError, sqlite3.OperationalError))
            if is_corrupt(error) or (is_ours and self.engine.outbox.is_damaged()):
                with suppress(OSError, sqlite3.OperationalError):
                    kept = self.engine.outbox.quarantine()
                    renamed = f" and was renamed to {kept}" if kept else ""
                    self._store_replaced(f"its file cannot be read ({error}){renamed}")
                return _FAULT_SECONDS
            if is_ours:
                raise
            if is_locked(error):
                self.locked = f"the outbox {self.engine.outbox.path} is locked by another process ({error})"
                _guard.log_throttled(
                    logging.WARNING,
                    "locked",
                    "%s: nothing is sent, and logs stay in its journal, until the lock is released; look for a "
                    "backup, a database browser or a suspended process that has the file open",
                    self.locked,
                )
                return _FAULT_SECONDS
            # The logs in the journal wait; another process may collect them.
            self.stuck = f"the outbox {self.engine.outbox.path} cannot be used: {error}"
            _guard.log_throttled(logging.ERROR, "stuck", "%s; new logs are kept in memory until it can be", self.stuck)
            self.engine.flushes.end_all()
            return _STUCK_SECONDS
        self.stuck = self.locked = None
        return wait

    def _store_replaced(self, why: str) -> None:
        self.engine.store_replaced()
        path = self.engine.outbox.path
        _guard.log_throttled(logging.ERROR, "recreated", "the outbox %s is recreated: %s", path, why)

    def flush(self, timeout: float) -> FlushReport:
        """Wait until all earlier entries are acknowledged or the key is refused, at most `timeout` seconds."""
        flush = Flush()
        self.engine.flushes.add(flush)
        self._thread.start()
        self._event.wake_now()
        try:
            # In the engine's own thread, as in a program's finalizer, waiting would block the deliveries themselves.
            flush.wait(timeout if self._thread.started not in (None, threading.current_thread()) else 0.0)
        finally:
            # Otherwise each step would check it as long as an outage lasts.
            self.engine.flushes.end(flush)
        refused, self._refused_reported = self.engine.refused - self._refused_reported, self.engine.refused
        new, known = self._puts - self._puts_collected, self.engine.waiting
        waiting = max((known or 0) + new, 1) if new or known is None else known
        return flush.report(self.paused, waiting=waiting, undelivered=refused)

    def close(self, timeout: float) -> bool:
        """Flush for at most about `timeout` seconds, then stop; return whether the thread ended in time.

        Undelivered entries stay in the outbox.
        """
        ends = time.monotonic() + timeout
        if self._thread.started is not None and timeout > 0:
            # The rest is for requests in flight: if one is aborted, its log may arrive twice.
            self.flush(timeout - min(_UNDER_WAY_SECONDS, timeout / 2))
        self._thread.ends = ends
        self._event.wake_now()
        thread = self._thread.started
        if thread is None:
            with waiting_at_most(), suppress(OSError, sqlite3.Error):
                self.engine.outbox.close()
            return True
        self.join(max(0.0, ends - time.monotonic()) + 0.05)
        return not thread.is_alive()

    def join(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for the thread to end after `close`."""
        thread = self._thread.started
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)


class _EngineThread:
    """The thread that steps an engine: started if it is not running, for the first time or after it died."""

    def __init__(
        self, steps: Callable[[], None], start_sender: Callable[[], None], seconds: Callable[[], float]
    ) -> None:
        """`steps` runs until `ends` is set. `start_sender` raises RuntimeError if no thread can be started.

        `seconds` is a monotonic clock.
        """
        self.started: threading.Thread | None = None
        """The last thread that was started; None if none was or could be."""
        self.ends: float | None = None
        """When the thread must end, in monotonic seconds; None before `close`. Once set, no thread is started."""
        self._steps = steps
        self._start_sender = start_sender
        self._running = threading.Lock()
        """Held by the thread while it runs."""
        self.is_started = False
        """Whether a thread runs, or is about to.

        Used instead of `Thread.is_alive`: if the program's signal handler raises within that, Python before 3.13
        considers a running thread dead from then on.
        """
        self.is_woken = False
        """Whether the thread was woken by a log since it last began a step; then other logs need not wake it.

        Apart from the event's own flag, which senders set even if this thread is dead.
        """
        self._lock = threading.RLock()
        self._seconds = seconds
        self._tried = float("-inf")

    def start(self, *, patiently: bool = False) -> bool:
        """Start the thread unless it runs; return whether it runs now, or must never run again.

        `patiently`: do nothing if an attempt has just failed.
        """
        # Before Python 3.12, starting a thread during interpreter shutdown waits for it forever.
        if self.is_started or sys.is_finalizing():
            return True
        now = self._seconds()
        if patiently and now - self._tried < _BEGINNING_SECONDS:
            return False
        with self._lock:
            self._tried = now
            if self.ends is None and not self.is_started:
                self.is_started = True
                try:
                    # In an empty context, as for the threads that it starts: from Python 3.14 on, threads may inherit
                    # their creator's context, and a callback would log into the session of the first request.
                    self.started = threading.Thread(
                        target=contextvars.Context().run, args=(self._run,), name="athina-trace-engine", daemon=True
                    )
                    self.started.start()
                    # At once, since a short program may exit before the engine has prepared its first log.
                    self._start_sender()
                    # The program's tools, such as profilers, may run code before the thread's own, and it may raise.
                    while not self._running.locked() and self._seconds() < now + _BEGINNING_SECONDS:
                        if not self.started.is_alive():
                            self.is_started = False
                            break
                        time.sleep(0.001)
                except BaseException as error:
                    # A signal handler may have raised while this waited for the thread, which may run nevertheless.
                    self.is_started = self._running.locked()
                    if not isinstance(error, RuntimeError):
                        raise
                    # At the end of a program no thread can be started: entries wait for the next process.
                    started = self.started
                    self.started = started if started is not None and started.is_alive() else None
                finally:
                    if not self.is_started:  # another thread's log may have woken it meanwhile
                        self.is_woken = False
            return self.is_started or self.ends is not None

    def _run(self) -> None:
        try:
            if not self._running.locked():  # else it was started twice: a signal handler interrupted the first start
                # By the lock's own `__enter__` and `__exit__`: an injected exception cannot come between the block and
                # the release, nor, before Python 3.14, between acquiring and the block.
                with self._running:
                    self.is_started, self.started = True, threading.current_thread()
                    self._steps()
        finally:
            self.is_started = self._running.locked()
            self.is_woken = False  # last, so that the next log starts another thread
