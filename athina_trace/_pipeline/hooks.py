"""Calls the program's hooks so that neither a call nor a delivery suffers if one raises or hangs."""

from __future__ import annotations

import contextvars
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from athina_trace import _guard

_MOST_WORKERS = 8
_MOST_WAITING = 10_000


@dataclass(frozen=True)
class Delivered:
    """The argument of `on_delivered`.

    Attributes:
        kind: "log", "update", "update_by_id" or "feedback".
        external_reference_id: the log's reference (for "update_by_id" its `prompt_run_id`).
        prompt_run_id: Athina's own id of the log; None if the answer had none.

    >>> ids = {}
    >>> def remember(event: Delivered) -> None:
    ...     ids[event.external_reference_id] = event.prompt_run_id
    >>> configure(on_delivered=remember).on_delivered is remember
    True
    """

    kind: str
    external_reference_id: str
    prompt_run_id: str | None


@dataclass(frozen=True)
class Refused:
    """The argument of `on_refused`.

    Attributes:
        kind: "log", "update", "update_by_id" or "feedback".
        external_reference_id: the log's reference (for "update_by_id" its `prompt_run_id`).
        status: the HTTP status.
        reason: the server's message.

    >>> configure(on_refused=lambda event: print(event.status, event.reason)).on_refused is None
    False
    """

    kind: str
    external_reference_id: str
    status: int | None
    reason: str


_NAMES = {Delivered: "on_delivered", Refused: "on_refused"}


class TimeLimited:
    """Calls a function in its own threads, and waits at most `timeout` seconds for each call.

    A call that hangs keeps its thread; when all threads hang, further calls fail after their `timeout`.
    """

    def __init__(self, function: Callable[[Any], Any], timeout: float) -> None:
        self._function = function
        self._timeout = timeout
        self._tasks: queue.SimpleQueue[tuple[contextvars.Context, Any, Future[Any]]] = queue.SimpleQueue()
        self._lock = threading.RLock()  # a signal handler or a finalizer may log meanwhile
        self._workers = 0
        self._busy = 0

    def __call__(self, argument: Any) -> Any:
        """Return the function's result. Raises what it raises, or `TimeoutError`."""
        answer: Future[Any] = Future()
        with self._lock:
            if self._busy >= self._workers < _MOST_WORKERS:
                try:
                    threading.Thread(target=self._work, name="athina-trace-hook", daemon=True).start()
                    self._workers += 1
                except RuntimeError:
                    # The system has no more threads: an existing one will take this call.
                    if not self._workers:
                        raise
            self._busy += 1
        self._tasks.put((contextvars.copy_context(), argument, answer))
        try:
            return answer.result(self._timeout)
        finally:
            # A call that timed out before a thread took it is dropped.
            answer.cancel()

    def _work(self) -> None:
        while True:
            context, argument, answer = self._tasks.get()
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(context.run(self._function, argument))
                except Exception as error:  # noqa: BLE001 - the caller of the hook gets it
                    answer.set_exception(error)
                except BaseException as error:  # noqa: BLE001 - `sys.exit()` in a hook must not end the program
                    answer.set_exception(RuntimeError(f"the hook raised {error!r}"))
            with self._lock:
                self._busy -= 1


class Notifier:
    """Calls the callbacks, in order, in its own thread, so that deliveries never wait for them."""

    def __init__(self, on_delivered: Callable[[Any], Any] | None, on_refused: Callable[[Any], Any] | None) -> None:
        self._callbacks = {Delivered: on_delivered, Refused: on_refused}
        self._changed = threading.Condition()
        self._waiting: list[Delivered | Refused] = []
        self._thread: threading.Thread | None = None
        self._calling = False

    def notify(self, event_type: type[Delivered | Refused], *fields: Any) -> None:
        """Call the callback for this type of event soon, with an event that has these fields."""
        # First, since most programs have no callback, and this is called for each log.
        if self._callbacks[event_type] is None:
            return
        event = event_type(*fields)
        with self._changed:
            if len(self._waiting) >= _MOST_WAITING:
                warning = "%s hangs or is too slow, and was not called for %r: leave its work to another thread"
                _guard.log_throttled(logging.WARNING, "slow callback", warning, _NAMES[event_type], event)
                return
            self._waiting.append(event)
            self._changed.notify_all()
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="athina-trace-callbacks", daemon=True)
                # If the system has no more threads, the next event tries again.
                with suppress(RuntimeError):
                    thread.start()
                    self._thread = thread

    def wait(self, timeout: float) -> bool:
        """Wait until all callbacks have been called, for at most `timeout` seconds; return whether they were."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._calling, timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._calling = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting)
                event, self._calling = self._waiting.pop(0), True
            try:
                if (callback := self._callbacks[type(event)]) is not None:
                    callback(event)
            except Exception as error:  # noqa: BLE001 - the callback is the program's
                _guard.log_throttled(
                    logging.WARNING, "callback", "%s raised %r for %r", _NAMES[type(event)], error, event
                )
