"""The composition root: settings → outbox → engine, once for each process, made when first needed."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from athina_trace import _guard
from athina_trace._clock import clock
from athina_trace._delivery.engine import Engine, FlushReport
from athina_trace._delivery.entry import Entry
from athina_trace._delivery.outbox import MemoryOutbox, Outbox, SqliteOutbox
from athina_trace._delivery.senders import Connection
from athina_trace.errors import OutboxError, OutboxFullError, SettingsError
from athina_trace.records import attributes
from athina_trace.settings import MEMORY, Settings

if TYPE_CHECKING:
    from athina_trace._delivery.api import Api

_LONGEST_LANE = 256


@dataclass(frozen=True)
class Status:
    """How this process's outbox stands, over all processes that share it.

    Attributes:
        made: logs, updates and feedback put so far; the sum of the next three.
        delivered, waiting, refused: what became of them.
        dropped: what this process could not keep, since the outbox was full.
        paused: why nothing is sent, such as a wrong key; None where it is.
        outbox: the outbox's file, or ":memory:".
        faults: errors of athina_trace's own code that it kept from the program.
    """

    made: int
    delivered: int
    waiting: int
    refused: int
    dropped: int
    paused: str | None
    outbox: str
    faults: int


class Runtime:
    """What one process logs with, under one set of settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.dropped = 0
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
        self.engine = Engine(
            self.outbox,
            self._connect if settings.api_key is not None else None,
            clock=clock,
            connections=settings.connections,
            max_bytes=settings.max_log_bytes,
            keep=settings.keep_delivered > 0,
        )
        if settings.api_key is None and settings.enabled:
            _guard.logger.info("athina_trace has no ATHINA_API_KEY: logs stay in the local outbox %s", path)
        elif settings.enabled:
            # In the caller's thread: others look httpx up in sys.modules, and must not find it half loaded by a
            # thread that they know nothing of. The openai package does so with each request.
            _transport()

    def emit(self, fields: dict[str, Any]) -> None:
        """Commit one log (a JSON-safe object) and have it delivered."""
        reference = fields["external_reference_id"]
        lane = fields.get("session_id") or reference
        self.put(Entry(lane[:_LONGEST_LANE], "log", reference, clock.time(), _encode(fields)))

    def put(self, entry: Entry) -> None:
        """Commit an entry and wake the engine; what a full outbox cannot take is counted and warned of."""
        try:
            self.outbox.put(entry)
        except OutboxFullError as error:
            self.dropped += 1
            _guard.say(logging.ERROR, "full", "%s: %d logs dropped so far", error, self.dropped)
        except OutboxError as error:
            self._use_memory(error)
            self.outbox.put(entry)
        self.engine.wake()

    def _use_memory(self, error: OutboxError) -> None:
        raise error

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
        self.outbox.collect()
        return [from_json(body) for body in self.outbox.store.newest(limit)]

    def status(self) -> Status:
        """How the outbox stands now."""
        self.outbox.collect()
        counts = self.outbox.counts()
        return Status(
            made=counts.made,
            delivered=counts.delivered,
            waiting=counts.waiting,
            refused=counts.refused,
            dropped=counts.dropped + self.dropped,
            paused=self.engine.paused,
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
    if _runtime is not None:
        _abandoned.append(_runtime)
        return _install(Runtime(_runtime.settings))
    return _install(Runtime(_environment_settings()))


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
        _runtime.engine.close(_runtime.settings.exit_timeout)
    return _install(Runtime(built)).settings


def flush(timeout: float = 10.0) -> FlushReport:
    """Wait until everything logged so far has reached Athina, or `timeout` seconds are over; say what happened."""
    runtime = active()
    return runtime.engine.flush(timeout) if runtime else FlushReport(0, 0, 0, "tracing is off", 0.0)


async def aflush(timeout: float = 10.0) -> FlushReport:
    """`flush` for async code: the event loop goes on meanwhile."""
    return await asyncio.to_thread(flush, timeout)


def shutdown(timeout: float | None = None) -> None:
    """Flush for at most `timeout` seconds (default: the setting `exit_timeout`) and stop; a later log starts anew."""
    runtime = _runtime
    if runtime is not None and _pid == os.getpid():
        runtime.engine.close(runtime.settings.exit_timeout if timeout is None else timeout)
        _install(Runtime(runtime.settings))


def status() -> Status:
    """How the outbox stands: logs made, delivered, waiting, refused and dropped."""
    runtime = active()
    return runtime.status() if runtime else Status(0, 0, 0, 0, 0, "tracing is off", "", _guard.faults)


def recent_logs(limit: int = 100) -> list[dict[str, Any]]:
    """The newest logs that the outbox holds, oldest first, each as it is sent to Athina.

    Waiting and refused logs are there, and delivered ones for as long as the setting `keep_delivered` keeps them.
    """
    runtime = active()
    return runtime.recent_logs(limit) if runtime else []


def _at_exit() -> None:
    if _runtime is not None and _pid == os.getpid():
        _runtime.engine.close(_runtime.settings.exit_timeout)
