"""`Runtime`: what a process logs with, made of one set of settings. `_runtime` decides when one is made and closed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from athina_trace import _guard
from athina_trace._clock import clock
from athina_trace._delivery import sqlite
from athina_trace._delivery.delivery import Delivery
from athina_trace._delivery.engine import Engine, Pool
from athina_trace._delivery.entry import Stored
from athina_trace._delivery.metrics import Traffic
from athina_trace._delivery.outbox import MemoryOutbox, Outbox
from athina_trace._delivery.response import Outcome
from athina_trace._delivery.results import Results
from athina_trace._delivery.senders import NoSenders, Senders
from athina_trace._delivery.sqlite_outbox import SqliteOutbox
from athina_trace._delivery.stats import FlushReport, Status
from athina_trace._delivery.worker import Worker
from athina_trace._pipeline.console import Console, FirstNote, is_read
from athina_trace._pipeline.hooks import Delivered, Notifier, Refused
from athina_trace._pipeline.writer import Writer
from athina_trace.settings import MEMORY, Settings

if TYPE_CHECKING:
    from athina_trace._delivery.client import Client


_NO_KEY = "there is no API key: set ATHINA_API_KEY"
_NO_PACKAGE = "ATHINA_RELAY needs a package that is missing: pip install 'athina-trace[nats]'"


class Runtime(Writer):
    """A writer whose entries go to an outbox, and an engine that delivers them."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.notifier = Notifier(settings.on_delivered, settings.on_refused)
        path = _path(settings)
        self.outbox: Outbox = (
            MemoryOutbox(max_bytes=settings.max_outbox_bytes)
            if path == MEMORY
            else SqliteOutbox(path, max_bytes=settings.max_outbox_bytes)
        )
        self.delivery = Delivery(
            self.outbox, self._make_worker, max_bytes=settings.max_outbox_bytes, seconds=clock.monotonic
        )
        self.put = self.delivery.put
        self.put_or_raise = self.delivery.put_on_disk
        if settings.console:
            self.put, self.put_or_raise = Console(self.put), Console(self.put_or_raise)
        elif settings.api_key is None and settings.relay is None and not settings.quiet and is_read():
            self.put = FirstNote(self.put, path)
        if settings.enabled and settings.relay is not None:
            _relay_pool(settings)  # loads the client's package, or reports with the first log that it is missing
        elif settings.api_key is None and settings.enabled:
            message = "athina_trace has no ATHINA_API_KEY: logs stay in the local outbox %s"
            _guard.log_throttled(logging.INFO, f"no key {path}", message, path)
        elif settings.enabled:
            # In the caller's thread: other code looks httpx up in sys.modules, and must not find it half imported by
            # a background thread. The openai package looks it up with each request.
            try:
                _client_class().prepare(settings.base_url)
            except Exception as error:  # noqa: BLE001 - bad proxies or certificates, which the first request meets again
                _guard.raise_if_the_programs(error)
                message = "athina_trace cannot set up sending: %r; logs are kept, and sending is tried again"
                _guard.log_throttled(logging.WARNING, "prepare", message, error)

    def _make_worker(self, outbox: Outbox) -> Worker:
        settings = self.settings
        engine = Engine(
            outbox,
            self._make_pool(),
            clock=clock,
            keep=settings.keep_delivered * 3600,
            max_attempts=settings.max_attempts,
            on_result=self._on_result,
        )
        return Worker(engine, clock=clock)

    def _make_pool(self) -> Callable[[Results], Pool]:
        """Return the factory of the senders: to Athina, to a relay, or, without a key, none."""
        settings = self.settings
        if settings.relay is not None:
            return _relay_pool(settings)
        if settings.api_key is None:
            return lambda _: NoSenders(_NO_KEY)
        revise = None
        if settings.estimate_cost:
            from athina_trace._delivery.cost_estimates import estimator  # noqa: PLC0415 - most programs do not use it

            revise = estimator()
        return lambda results: Senders(
            lambda: _client_class().of(settings),
            results,
            clock=clock,
            limit=settings.connections,
            max_bytes=settings.max_log_bytes,
            revise=revise,
        )

    def _on_result(self, key: str, entry: Stored, outcome: Outcome, taken: bool) -> None:  # noqa: FBT001 - the engine's
        """Call the callbacks, and remember a delivered log's ordering key for its changes. For the engine's thread."""
        if not taken:
            self.notifier.notify(Refused, entry.kind, entry.reference, outcome.status, outcome.message)
            return
        self.notifier.notify(Delivered, entry.kind, entry.reference, outcome.prompt_run_id)
        if entry.kind == "log":
            self.ordering_keys[entry.reference] = key
            if outcome.prompt_run_id is not None:
                self.ordering_keys[outcome.prompt_run_id] = key

    def flush(self, timeout: float) -> FlushReport:
        """Wait until everything is delivered and the callbacks have been called, for at most `timeout` seconds."""
        report = self.delivery.flush(timeout)
        self.notifier.wait(max(0.0, timeout - report.elapsed))
        return report

    def wake(self) -> None:
        """Wake the worker."""
        self.delivery.worker.wake()

    def recent_logs(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest logs in the outbox, oldest first; those that are in memory only come last."""
        return [from_json(body) for body in self.delivery.newest(min(max(0, limit), sys.maxsize))]

    def traffic(self) -> Traffic:
        """Return this process's requests in flight and their latencies."""
        return self.delivery.traffic()

    def status(self) -> Status:
        """Return the outbox's current counts."""
        counts, waiting_since, size = self.delivery.snapshot()
        return Status(
            made=counts.made,
            delivered=counts.delivered,
            waiting=counts.waiting,
            refused=counts.refused,
            dropped=counts.dropped,
            possible_duplicates=counts.possible_duplicates,
            paused=self.delivery.paused,
            waiting_since=waiting_since,
            bytes=size,
            outbox=self.delivery.path,
            faults=_guard.faults,
            damaged=counts.damaged,
            senders=self.delivery.worker.engine.senders.alive,
            last_error=self.delivery.worker.engine.last_error,
            memory_only=self.delivery.memory_only,
        )


def _path(settings: Settings) -> str:
    if sqlite.missing is not None and settings.outbox != MEMORY:
        message = "%s: logs are kept in memory and delivered from there; install a Python that has the module `sqlite3`"
        _guard.log_throttled(logging.WARNING, "sqlite", message, sqlite.missing)
        return MEMORY
    try:
        return settings.outbox_path()
    except RuntimeError as error:  # a container's user without a home directory
        _guard.raise_if_the_programs(error)
        message = (
            "%s Logs are kept in memory and delivered from there; set ATHINA_OUTBOX to a file to keep them on disk"
        )
        _guard.log_throttled(logging.ERROR, "home", message, error)
        return MEMORY


def _relay_pool(settings: Settings) -> Callable[[Results], Pool]:
    """Return the factory of the publisher to the relay; without the package `nats`, log an error and send nothing."""
    try:
        from athina_trace.relay.connection import Address  # noqa: PLC0415 - an optional extra
        from athina_trace.relay.publisher import Publisher  # noqa: PLC0415
    except ImportError as error:
        _guard.log_throttled(logging.ERROR, "relay package", "%s; logs are kept (%s)", _NO_PACKAGE, error)
        return lambda _: NoSenders(_NO_PACKAGE)
    address = Address.of(settings)
    return lambda results: Publisher(
        address, results, clock=clock, max_bytes=settings.max_log_bytes, patience=settings.request_timeout
    )


def _client_class() -> type[Client]:
    """Return the client's class, imported by the thread that makes the first log."""
    from athina_trace._delivery.client import Client  # noqa: PLC0415 - it loads httpx

    return Client
