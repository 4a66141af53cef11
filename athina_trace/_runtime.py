"""The runtime of this process: made once, when first needed, and made anew in a forked child."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import logging
import os
import sys
import threading
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from athina_trace import _errands, _guard
from athina_trace.errors import SettingsError

if TYPE_CHECKING:
    from athina_trace._assembly import Runtime
    from athina_trace._delivery.counts import FlushReport, Status
    from athina_trace._recorder import Recorder
    from athina_trace.settings import Settings

_once = threading.RLock()
"""Held while a runtime is made, which loads modules, and during a fork: a child could not finish what is half done."""
_runtime: Runtime | None = None
_may_trace = True  # until settings are read
_recorders: list[Recorder] = []
"""Those that take what is logged instead of the runtime: see `athina_trace.testing`."""
_recorder: contextvars.ContextVar[Recorder | None] = contextvars.ContextVar("athina_trace_recorder", default=None)
_abandoned: list[Runtime] = []
"""The parent's runtimes in a forked child: never used, and never finalized, which would touch the parent's files."""


def _abandon() -> None:
    """In a forked child: leave the parent's runtime alone. To compare process ids, each call would ask the system."""
    global _runtime  # noqa: PLW0603 - there is one for each process
    if _runtime is not None:
        _abandoned.append(_runtime)
        _runtime = None
    _once.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_once.acquire, after_in_parent=_once.release, after_in_child=_abandon)


def may_trace() -> bool:
    """False where tracing is known to be off. The cheapest of questions, asked before each call."""
    return _may_trace or bool(_recorders)


def active() -> Runtime | Recorder | None:
    """This process's runtime, made from the environment when first asked for; None where tracing is off.

    While logs are being recorded: the recorder of this context.
    """
    if _recorders:
        return _recording()
    runtime = _runtime if _runtime is not None else _first()
    return runtime if _may_trace else None  # its settings, closer at hand


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


def _first() -> Runtime:
    """The first runtime of this process: of the environment's settings, or, in a forked child, of its parent's."""
    with _once:
        if _runtime is not None:
            return _runtime  # another thread was quicker
        return _install(_made(_abandoned[-1].settings if _abandoned else _environment_settings()))


def _made(settings: Settings) -> Runtime:
    """A runtime of these settings. With the first one, everything is loaded that only a program which logs needs."""
    with _once:
        from athina_trace._assembly import Runtime  # noqa: PLC0415 - see above

        import_module("athina_trace.openai.ledger")  # so that no call has to load it half-way through a fork
        return Runtime(settings)


def _install(runtime: Runtime) -> Runtime:
    global _runtime, _may_trace
    if _runtime is None:
        _register_exit()
    _runtime, _may_trace = runtime, runtime.settings.enabled
    return runtime


def _register_exit() -> None:
    """Have this process deliver what it can before it ends.

    A forked child of multiprocessing calls no function of atexit before Python 3.13, and none of its parent's since;
    all its children call multiprocessing's own finalizers, the one of the lowest priority last.
    """
    # In a child it is loaded; elsewhere another thread may just be loading it.
    parent = getattr(sys.modules.get("multiprocessing.process"), "parent_process", None)
    is_child = parent is not None and parent() is not None
    if is_child:
        import_module("multiprocessing.util").Finalize(None, _at_childs_end, exitpriority=-1000)
    if is_child or not _abandoned:  # any other forked child has it from its parent
        atexit.register(_at_exit)


def _at_childs_end() -> None:
    """Before Python 3.13 a child's threads are waited for after this: what they log needs a runtime."""
    _at_exit()
    if _runtime is not None:
        _install(_made(_runtime.settings))


def _settings() -> type[Settings]:
    with _once:
        from athina_trace.settings import Settings  # noqa: PLC0415 - pydantic comes with it

        return Settings


def _environment_settings() -> Settings:
    try:
        return _settings().build()
    except SettingsError as error:
        # Sending logs to a place that was not meant would be worse than sending none: they are kept locally.
        _guard.logger.error("%s. Logs are kept in the local outbox until this is mended", error)
        return _settings()()


def configure(**settings: Any) -> Settings:
    """Set how this process logs: any field of `Settings`; what is not given comes from the environment.

    May be called again; what the former outbox still holds is delivered first, for at most `exit_timeout` seconds.
    Raises `SettingsError`, naming the setting, its value and the rule.

    >>> configure(environment="staging", sample_rate=0.1).environment
    'staging'
    """
    built = _settings().build(**settings)
    if _recorders and (recorder := _recording()) is not None:
        recorder.adopt(built)
        return built
    if _runtime is not None:
        _errands.finish()
        _runtime.delivery.close(_runtime.settings.exit_timeout)
    return _install(_made(built)).settings


def flush(timeout: float = 10.0) -> FlushReport:
    """Wait until everything logged so far has reached Athina, or `timeout` seconds are over; say what happened.

    >>> if not (report := flush(timeout=5)):
    ...     print(report.waiting, "logs wait for the next process:", report.paused)
    """
    _errands.finish()
    runtime = active()
    if runtime is not None:
        return runtime.flush(timeout)
    from athina_trace._delivery.counts import FlushReport  # noqa: PLC0415 - else loaded with the first log

    return FlushReport(0, 0, 0, "tracing is off", 0.0)


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
    if runtime is not None and not _recorders:
        _errands.finish()
        runtime.delivery.close(runtime.settings.exit_timeout if timeout is None else timeout)
        _install(_made(runtime.settings))


def status() -> Status:
    """How the outbox stands: logs made, delivered, waiting, refused and dropped.

    >>> status().dropped
    0
    """
    runtime = active()
    if runtime is not None:
        return runtime.status()
    from athina_trace._delivery.counts import Status  # noqa: PLC0415 - else loaded with the first log

    return Status(paused="tracing is off", faults=_guard.faults)


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
    if _runtime is not None:
        _errands.finish(ending=True)
        _runtime.delivery.close(_runtime.settings.exit_timeout)
