"""The composition root: settings → outbox → engine, once for each process, made when first needed."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import logging
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from athina_trace import _errands, _guard
from athina_trace._clock import clock
from athina_trace._delivery.answer import Outcome
from athina_trace._delivery.delivery import Delivery
from athina_trace._delivery.engine import Engine
from athina_trace._delivery.entry import Entry, Stored
from athina_trace._delivery.flushing import FlushReport
from athina_trace._delivery.outbox import MemoryOutbox, Outbox
from athina_trace._delivery.senders import Connection
from athina_trace._delivery.sqlite import SqliteOutbox
from athina_trace._delivery.worker import Worker
from athina_trace._hooks import Delivered, Notifier, Refused
from athina_trace._recorder import Recorder
from athina_trace._writer import Status, Writer
from athina_trace.errors import SettingsError
from athina_trace.settings import MEMORY, Settings

if TYPE_CHECKING:
    from athina_trace._delivery.api import Api


class Runtime(Writer):
    """What one process logs with, under one set of settings."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.notifier = Notifier(settings.on_delivered, settings.on_refused)
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
            _transport()

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
            share=settings.cpu_share,
            settled=self._settled,
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

    def _settled(self, lane: str, entry: Stored, outcome: Outcome, taken: bool) -> None:  # noqa: FBT001 - the engine's
        """Tell the callbacks, and remember whose conversation a delivered log was. Called by the engine's thread."""
        if not taken:
            self.notifier.tell(Refused(entry.kind, entry.reference, outcome.status, outcome.message))
            return
        self.notifier.tell(Delivered(entry.kind, entry.reference, outcome.prompt_run_id))
        if entry.kind == "log":
            self.lanes[entry.reference] = lane
            if outcome.prompt_run_id is not None:
                self.lanes[outcome.prompt_run_id] = lane

    def flush(self, timeout: float) -> FlushReport:
        """Wait until everything was delivered and the callbacks were told, for at most `timeout` seconds."""
        report = self.delivery.flush(timeout)
        self.notifier.wait(max(0.0, timeout - report.elapsed))
        return report

    def wake(self) -> None:
        """Have the worker look what is to be done."""
        self.delivery.worker.wake()

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


_once = threading.RLock()
"""Held while a runtime is made, which loads modules, and during a fork: a child could not finish what is half done."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_once.acquire, after_in_parent=_once.release, after_in_child=_once.release)

_runtime: Runtime | None = None
_pid = 0
_may_trace = True  # until settings are read
_recorders: list[Recorder] = []
"""Those that take what is logged instead of the runtime: see `athina_trace.testing`."""
_recorder: contextvars.ContextVar[Recorder | None] = contextvars.ContextVar("athina_trace_recorder", default=None)
_abandoned: list[Runtime | None] = []
"""The parent's runtimes in a forked child: never used, and never finalized, which would touch the parent's files."""


def may_trace() -> bool:
    """False where tracing is known to be off. The cheapest of questions, asked before each call."""
    return _may_trace or bool(_recorders)


def active() -> Runtime | Recorder | None:
    """This process's runtime, made from the environment when first asked for; None where tracing is off.

    While logs are being recorded: the recorder of this context.
    """
    if _recorders:
        return _recording()
    runtime = _runtime if _pid == os.getpid() else _renew()
    return runtime if runtime is not None and runtime.settings.enabled else None


def _recording() -> Recorder | None:
    """The recorder of this context, or the only one there is: threads do not inherit the context they were made in."""
    here = _recorder.get()
    if here is not None or len(_recorders) == 1:
        return here or _recorders[0]
    _guard.say(
        logging.WARNING,
        "unrecorded",
        "a log was made where several captured_logs() are open and none can be told: it is in none of them; "
        "hand the context on with athina_trace.wrap or ContextThreadPoolExecutor",
    )
    return None


def record_into(recorder: Recorder) -> contextvars.Token[Recorder | None]:
    """Have this context's logs go to `recorder`; `stop_recording` ends it."""
    _recorders.append(recorder)
    return _recorder.set(recorder)


def stop_recording(recorder: Recorder, token: contextvars.Token[Recorder | None]) -> None:
    """Undo `record_into`."""
    _recorders.remove(recorder)
    with suppress(ValueError):  # another context than it began in
        _recorder.reset(token)


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

    >>> configure(environment="staging", sample_rate=0.1).environment
    'staging'
    """
    built = Settings.build(**settings)
    if _recorders and (recorder := _recording()) is not None:
        recorder.adopt(built)
        return built
    if _runtime is not None and _pid == os.getpid():
        _errands.finish()
        _runtime.delivery.close(_runtime.settings.exit_timeout)
    return _install(Runtime(built)).settings


def flush(timeout: float = 10.0) -> FlushReport:
    """Wait until everything logged so far has reached Athina, or `timeout` seconds are over; say what happened.

    >>> if not (report := flush(timeout=5)):
    ...     print(report.waiting, "logs wait for the next process:", report.paused)
    """
    _errands.finish()
    runtime = active()
    return runtime.flush(timeout) if runtime else FlushReport(0, 0, 0, "tracing is off", 0.0)


async def aflush(timeout: float = 10.0) -> FlushReport:
    """`flush` for async code: the event loop goes on meanwhile.

    >>> import asyncio
    >>> bool(asyncio.run(aflush(timeout=5)))
    True
    """
    return await asyncio.to_thread(flush, timeout)


def shutdown(timeout: float | None = None) -> None:
    """Flush for at most `timeout` seconds (default: the setting `exit_timeout`) and stop; a later log starts anew.

    >>> shutdown(timeout=5)
    """
    runtime = _runtime
    if runtime is not None and _pid == os.getpid() and not _recorders:
        _errands.finish()
        runtime.delivery.close(runtime.settings.exit_timeout if timeout is None else timeout)
        _install(Runtime(runtime.settings))


def status() -> Status:
    """How the outbox stands: logs made, delivered, waiting, refused and dropped.

    >>> status().dropped
    0
    """
    runtime = active()
    return runtime.status() if runtime else Status(paused="tracing is off", faults=_guard.faults)


def recent_logs(limit: int = 100) -> list[dict[str, Any]]:
    """The newest logs that the outbox holds, oldest first, each as it is sent to Athina.

    Waiting and refused logs are there, and delivered ones for as long as the setting `keep_delivered` keeps them.

    >>> reference = log_inference(response="Hello")
    >>> [log["response"] for log in recent_logs(limit=10)]
    ['Hello']
    """
    runtime = active()
    return runtime.recent_logs(limit) if runtime else []


def _at_exit() -> None:
    if _runtime is not None and _pid == os.getpid():
        _errands.finish(ending=True)
        _runtime.delivery.close(_runtime.settings.exit_timeout)
