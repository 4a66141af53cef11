"""The worker: the one thread that steps an engine, what callers may ask of it, and what it does when a step fails."""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from contextlib import suppress
from typing import Any

from athina_trace import _guard, _periodic
from athina_trace._delivery.database import is_locked, waiting_at_most
from athina_trace._delivery.engine import LINGER, Engine
from athina_trace._delivery.flush import Flush
from athina_trace._delivery.stats import FlushReport

_STUCK_SECONDS = 15.0
_FAULT_SECONDS = 1.0
"""How long to wait after a fault of ours before the next step."""
_LONGEST_LINGER = 0.5
"""Seconds that deliveries wait for calls to pause, which are quicker, and cheaper to serve, without them."""
_DENSE = 200.0
"""Calls in a second; where more go on, deliveries would meet most of them,"""
_DENSE_LINGER = 5.0
"""and wait as long as this."""
_LONGEST_NAP = 0.1
"""Seconds between two looks whether calls have paused; each look costs the calls that it meets."""
_HURRY = "hurry"
_ENDED = "deliveries of this process have ended"


class Worker:
    """The thread around `engine`, started with the first log. Nothing here ever raises into the program."""

    def __init__(self, engine: Engine, *, clock: Any) -> None:
        self.stuck: str | None = None
        """Why the outbox's store cannot be used; None where it can."""
        self._engine = engine
        engine.hurry, engine.wake = self._hurry, self._ring
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._start_lock = threading.RLock()
        # Of the standard library's means to wake a thread the only one that a signal handler may use, which can
        # interrupt its own thread in the middle of the same call.
        self._bell: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._awake = False
        self._puts = 0  # about: threads may lose count
        self._ends: float | None = None

    @property
    def paused(self) -> str | None:
        """Why nothing is sent now: a wrong key, an outage, a store that cannot be used, the end; None where it is."""
        return self._engine.paused or self.stuck or (_ENDED if self.has_ended else None)

    @property
    def has_ended(self) -> bool:
        """Whether it was closed: nothing is to be waited for."""
        return self._ends is not None

    def wake(self) -> None:
        """Something was put. Cheap, and from any thread or signal handler."""
        self._puts += 1
        if not self._awake:  # asked here, too: a call less for most logs
            self._ring()

    def _ring(self) -> None:
        """There is something to be done."""
        if not self._awake:
            self._awake = True
            self._bell.put("put")
            if self._thread is None:
                self._start()

    def _hurry(self) -> None:
        self._bell.put(_HURRY)

    def _start(self) -> None:
        with self._start_lock:
            if self._thread is None and self._ends is None:
                self._thread = threading.Thread(target=self._run, name="athina-trace-engine", daemon=True)
                try:
                    self._thread.start()
                    # At once: a short program may be ending already when the engine has its first log ready.
                    self._engine.start_sender()
                except RuntimeError:
                    # At the end of a program no thread can be started any more: what was put waits for the next one.
                    self._thread = self._thread if self._thread.is_alive() else None

    def _run(self) -> None:
        wait = took = 0.0
        while self._ends is None:
            try:
                # Of a burst, steps take a third of the time at most: its calls should seldom meet us.
                if not self._sleep(wait):
                    self._linger(max(LINGER, 2 * took))
                self._listen_anew()
                began = time.monotonic()
                wait = self._step()
                took = time.monotonic() - began
                self._engine.pace.rest()
            except BaseException:  # noqa: BLE001, PERF203 - the guard decides; a dead thread would deliver nothing more
                wait = _FAULT_SECONDS
                _guard.swallow("delivering logs")
        self._finish(self._ends)

    def _sleep(self, seconds: float) -> bool:
        """Sleep until something was put, or for `seconds`; whether there is a hurry."""
        try:
            return self._bell.get(timeout=seconds) == _HURRY
        except queue.Empty:
            return False

    def _linger(self, seconds: float) -> None:
        """Wait `seconds` for more, and on while calls go on putting; until there is a hurry."""
        began, first, waited = time.monotonic(), self._puts, 0.0
        while waited <= self._patience(self._puts - first, waited):
            seen = self._puts
            if self._sleep(seconds):
                return
            self._tend_guarded()
            if self._puts == seen:
                return
            waited = time.monotonic() - began
            seconds = max(seconds, min(2 * seconds, _LONGEST_NAP))

    def _patience(self, puts: int, seconds: float) -> float:
        """How long to wait in all for calls to pause, of which so many came in that time."""
        if self._engine.outbox.is_behind:
            return 0.0  # a step takes up no more than a part of what waits
        dense = puts > _DENSE * seconds > 0 and self._engine.outbox.is_roomy
        return _DENSE_LINGER if dense else _LONGEST_LINGER

    def _listen_anew(self) -> None:
        """Forget what was heard: the step that follows serves it."""
        with suppress(queue.Empty):
            while True:
                self._bell.get_nowait()
        self._awake = False

    def _tend_guarded(self) -> None:
        try:
            self._engine.tend()
        except Exception:  # noqa: BLE001 - the guard decides
            _guard.swallow("looking after the senders")

    def _step(self) -> float:
        try:
            if self._engine.outbox.refresh():
                self._recreate("its file was deleted")
            now = self._clock.time()
            # Errands first: the logs that they make travel with this step.
            wait = min(_periodic.tick(now), self._engine.step(now))
        except (OSError, sqlite3.OperationalError) as error:
            return self._stall(error)
        except sqlite3.DatabaseError as error:
            return self._quarantine(error)
        self.stuck = None
        return wait

    def _stall(self, error: Exception) -> float:
        """The store cannot be used now: logs wait in the journal, which another process may collect."""
        if is_locked(error):
            return 1.0
        self.stuck = f"the outbox cannot be used: {error}"
        _guard.log_throttled(logging.ERROR, "stuck", "%s; new logs are kept in memory until it can", self.stuck)
        self._engine.end_flushes()
        return _STUCK_SECONDS

    def _quarantine(self, error: Exception) -> float:
        with suppress(OSError):
            kept = self._engine.outbox.quarantine()
            self._recreate(f"its file cannot be read ({error}){f' and was renamed to {kept}' if kept else ''}")
        return 1.0

    def _recreate(self, why: str) -> None:
        self._engine.forget_leases()
        _guard.log_throttled(
            logging.ERROR, "recreated", "the outbox %s is recreated: %s", self._engine.outbox.path, why
        )

    def flush(self, timeout: float) -> FlushReport:
        """Wait until everything put before this call is settled, the key is refused, or `timeout` seconds are over."""
        flush = Flush()
        self._engine.flushes.append(flush)
        self._start()
        self._hurry()
        flush.wait(timeout if self._thread is not None else 0.0)
        return flush.report(self.paused)

    def close(self, timeout: float) -> bool:
        """Flush for at most about `timeout` seconds in all, then stop; False where the thread did not end in time.

        What is left stays in the outbox.
        """
        ends = time.monotonic() + timeout
        if self._thread is not None and timeout > 0:
            # The last part is for requests under way: cutting one means that its log may arrive twice.
            self.flush(timeout - min(0.5, timeout / 2))
        self._ends = ends
        self._hurry()
        if self._thread is None:
            with waiting_at_most(), suppress(OSError, sqlite3.Error):
                self._engine.outbox.close()
            return True
        self._thread.join(max(0.0, ends - time.monotonic()) + 0.05)
        return not self._thread.is_alive()

    def join(self, timeout: float) -> None:
        """Wait for another thread's `close`, at most `timeout` seconds."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _finish(self, ends: float) -> None:
        try:
            with suppress(OSError, sqlite3.Error):
                self._engine.finish(max(0.0, ends - time.monotonic() - 0.1))
        except Exception:  # noqa: BLE001 - the guard decides
            _guard.swallow("ending deliveries")
        finally:
            self._engine.end_flushes()
