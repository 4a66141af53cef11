"""The composition root: settings → outbox → engine, once for each process, made when first needed."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from athina_trace import _guard
from athina_trace._clock import clock
from athina_trace._delivery.delivery import Delivery
from athina_trace._delivery.engine import Engine
from athina_trace._delivery.entry import Entry
from athina_trace._delivery.flushing import FlushReport
from athina_trace._delivery.outbox import MemoryOutbox, Outbox
from athina_trace._delivery.senders import Connection
from athina_trace._delivery.sqlite import SqliteOutbox
from athina_trace._delivery.worker import Worker
from athina_trace.errors import SettingsError
from athina_trace.records import attributes
from athina_trace.settings import MEMORY, Settings

if TYPE_CHECKING:
    from athina_trace._delivery.api import Api

_LONGEST_LANE = 256


@dataclass(frozen=True)
class Status:
    """How this process's outbox stands, over all processes that share it, since it was made.

    Attributes:
        made: logs, updates and feedback; always the sum of the next four.
        delivered, waiting, refused: what became of them.
        dropped: what could not be kept, since the outbox was full.
        possible_duplicates: tries whose answer was lost, so that Athina may have got the log from them and again
            from the next try, under the same `external_reference_id`.
        paused: why nothing is sent, such as a wrong key or an outage; None where it is.
        waiting_since: when the oldest log that waits was made, seconds since the epoch; None where none waits.
        bytes: what the outbox's file takes, without space that is free in it.
        outbox: the outbox's file, or ":memory:".
        faults: errors of athina_trace's own code that it kept from the program.
    """

    made: int = 0
    delivered: int = 0
    waiting: int = 0
    refused: int = 0
    dropped: int = 0
    possible_duplicates: int = 0
    paused: str | None = None
    waiting_since: float | None = None
    bytes: int = 0
    outbox: str = ""
    faults: int = 0


class Runtime:
    """What one process logs with, under one set of settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.defaults = {
            "environment": settings.environment,
            "language_model_id": settings.language_model_id,
            "custom_attributes": attributes(settings.custom_attributes),
        }
        path = settings.outbox_path()
        self.outbox: Outbox = (
            MemoryOutbox(max_bytes=settings.max_outbox_bytes)
            if path == MEMORY
            else SqliteOutbox(path, max_bytes=settings.max_outbox_bytes)
        )
        self.path = path
        self.delivery = Delivery(self.outbox, self._work, max_bytes=settings.max_outbox_bytes, seconds=time.monotonic)
        if settings.api_key is None and settings.enabled:
            _guard.logger.info("athina_trace has no ATHINA_API_KEY: logs stay in the local outbox %s", path)
        elif settings.enabled:
            # In the caller's thread: others look httpx up in sys.modules, and must not find it half loaded by a
            # thread that they know nothing of. The openai package does so with each request.
            with suppress(ImportError):  # a signal handler logs while its own thread is in the middle of loading it
                _transport()

    def emit(self, fields: dict[str, Any]) -> None:
        """Commit one log (a JSON-safe object) and have it delivered."""
        reference = fields["external_reference_id"]
        lane = fields.get("session_id") or reference
        self.put(Entry(lane[:_LONGEST_LANE], "log", reference, clock.time(), _encode(fields)))

    def put(self, entry: Entry) -> None:
        """Commit an entry and have it delivered; what a full outbox cannot take is counted and warned of."""
        self.delivery.put(entry)

    def _work(self, outbox: Outbox) -> Worker:
        settings = self.settings
        engine = Engine(
            outbox,
            self._connect if settings.api_key is not None else None,
            clock=clock,
            connections=settings.connections,
            max_bytes=settings.max_log_bytes,
            keep=settings.keep_delivered * 3600,
        )
        return Worker(engine, clock=clock)

    def _connect(self) -> Connection:
        key = self.settings.api_key
        return _transport()(
            base_url=self.settings.base_url,
            key=key.get_secret_value() if key else "",
            api_version=self.settings.api_version,
            total=self.settings.request_timeout,
        )

    def recent_logs(self, limit: int) -> list[dict[str, Any]]:
        """The newest logs in the outbox, oldest first."""
        self.outbox.collect_all()
        return [from_json(body) for body in self.outbox.store.newest(limit)]

    def status(self) -> Status:
        """How the outbox stands now."""
        counts, waiting_since, size = self.delivery.standing()
        return Status(
            made=counts.made,
            delivered=counts.delivered,
            waiting=counts.waiting,
            refused=counts.refused,
            dropped=counts.dropped,
            possible_duplicates=counts.doubtful,
            paused=self.delivery.paused,
            waiting_since=waiting_since,
            bytes=size,
            outbox=self.path,
            faults=_guard.faults,
        )


def _transport() -> type[Api]:
    """Give the class that speaks to Athina; it brings httpx, which is loaded with the first log."""
    from athina_trace._delivery.api import Api  # noqa: PLC0415 - see above

    return Api


def _encode(fields: dict[str, Any]) -> bytes:
    try:
        return to_json(fields)
    except Exception:  # noqa: BLE001 - whatever slipped through: a log in plainer words beats none
        return to_json(fields, fallback=str, inf_nan_mode="strings", serialize_unknown=True)


_once = threading.RLock()
"""Held while a runtime is made, which loads modules, and during a fork: a child could not finish what is half done."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_once.acquire, after_in_parent=_once.release, after_in_child=_once.release)

_runtime: Runtime | None = None
_pid = 0
_may_trace = True  # until settings are read
_abandoned: list[Runtime | None] = []
"""The parent's runtimes in a forked child: never used, and never finalized, which would touch the parent's files."""


def may_trace() -> bool:
    """False where tracing is known to be off. The cheapest of questions, asked before each call."""
    return _may_trace


def active() -> Runtime | None:
    """This process's runtime, made from the environment when first asked for; None where tracing is off."""
    runtime = _runtime if _pid == os.getpid() else _renew()
    return runtime if runtime is not None and runtime.settings.enabled else None


def _renew() -> Runtime:
    """A runtime for this process: its first one, or the one of a child that was just forked."""
    with _once:
        if _runtime is None:
            return _install(Runtime(_environment_settings()))
        if _pid == os.getpid():
            return _runtime  # another thread was quicker
        _abandoned.append(_runtime)
        return _install(Runtime(_runtime.settings))


def _install(runtime: Runtime) -> Runtime:
    global _runtime, _pid, _may_trace
    if not _pid:
        atexit.register(_at_exit)
    _runtime, _pid, _may_trace = runtime, os.getpid(), runtime.settings.enabled
    return runtime


def _environment_settings() -> Settings:
    try:
        return Settings.build()
    except SettingsError as error:
        # Sending logs to a place that was not meant would be worse than sending none: they are kept locally.
        _guard.logger.error("%s. Logs are kept in the local outbox until this is mended", error)
        return Settings()


def configure(**settings: Any) -> Settings:
    """Set how this process logs: any field of `Settings`; what is not given comes from the environment.

    May be called again; what the former outbox still holds is delivered first, for at most `exit_timeout` seconds.
    Raises `SettingsError`, naming the setting, its value and the rule.
    """
    built = Settings.build(**settings)
    if _runtime is not None and _pid == os.getpid():
        _runtime.delivery.close(_runtime.settings.exit_timeout)
    return _install(Runtime(built)).settings


def flush(timeout: float = 10.0) -> FlushReport:
    """Wait until everything logged so far has reached Athina, or `timeout` seconds are over; say what happened."""
    runtime = active()
    return runtime.delivery.flush(timeout) if runtime else FlushReport(0, 0, 0, "tracing is off", 0.0)


async def aflush(timeout: float = 10.0) -> FlushReport:
    """`flush` for async code: the event loop goes on meanwhile."""
    return await asyncio.to_thread(flush, timeout)


def shutdown(timeout: float | None = None) -> None:
    """Flush for at most `timeout` seconds (default: the setting `exit_timeout`) and stop; a later log starts anew."""
    runtime = _runtime
    if runtime is not None and _pid == os.getpid():
        runtime.delivery.close(runtime.settings.exit_timeout if timeout is None else timeout)
        _install(Runtime(runtime.settings))


def status() -> Status:
    """How the outbox stands: logs made, delivered, waiting, refused and dropped."""
    runtime = active()
    return runtime.status() if runtime else Status(paused="tracing is off", faults=_guard.faults)


def recent_logs(limit: int = 100) -> list[dict[str, Any]]:
    """The newest logs that the outbox holds, oldest first, each as it is sent to Athina.

    Waiting and refused logs are there, and delivered ones for as long as the setting `keep_delivered` keeps them.
    """
    runtime = active()
    return runtime.recent_logs(limit) if runtime else []


def _at_exit() -> None:
    if _runtime is not None and _pid == os.getpid():
        _runtime.delivery.close(_runtime.settings.exit_timeout)
