"""The runtime of this process: made once, when first needed, and made anew in a forked child."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from athina_trace import _guard, _periodic
from athina_trace.errors import SettingsError

if TYPE_CHECKING:
    from athina_trace._assembly import Runtime
    from athina_trace._delivery.stats import FlushReport, Status
    from athina_trace._pipeline.recorder import Recorder
    from athina_trace.settings import Settings

_RETRY_SECONDS = 1.0
"""After a first log that could not be made: what failed may have been a deep recursion, or a module that is missing."""

_once = threading.RLock()
"""Held while a runtime is made, which loads modules, and during a fork: a child could not finish what is half done."""
_runtime: Runtime | None = None
_may_trace = True  # until settings are read
_maker: int | None = None
"""The thread that is making a runtime, which holds `_once`."""
_afterwards: list[Callable[[], object]] = []
_retry_at = float("-inf")
_trouble: str | None = None
"""Why there is no runtime, where making one failed last."""
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
    _end_fork()


def _end_fork() -> None:
    with suppress(RuntimeError):  # never acquired: this module was just being loaded when the fork began
        _once.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_once.acquire, after_in_parent=_end_fork, after_in_child=_abandon)


def may_trace() -> bool:
    """False where tracing is known to be off. The cheapest of questions, asked before each call."""
    return _may_trace or bool(_recorders)


def active() -> Runtime | Recorder | None:
    """This process's runtime, made from the environment when first asked for; None where tracing is off.

    None, too, where it cannot be made, and for what runs on top of its making: see `afterwards`. While logs are being
    recorded: the recorder of this context.
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
    _guard.log_throttled(
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


def _first() -> Runtime | None:
    """The first runtime of this process: of the environment's settings, or, in a forked child, of its parent's.

    None where it cannot be made, which nobody's call must suffer from.
    """
    global _retry_at, _trouble  # noqa: PLW0603 - there is one runtime for each process
    if is_being_made() or time.monotonic() < _retry_at:
        return None
    try:
        with _making():
            if _runtime is None:  # else another thread was quicker
                _install(_made(_abandoned[-1].settings if _abandoned else _environment_settings()))
    except Exception as error:  # noqa: BLE001 - the guard decides
        _retry_at = time.monotonic() + _RETRY_SECONDS
        _trouble = f"athina_trace could not start: {error!r}"
        _guard.swallow("starting, without which nothing is logged,")
    _catch_up()
    return _runtime


@contextmanager
def _making() -> Iterator[None]:
    """Be the only thread that makes a runtime, or loads what that takes."""
    global _maker  # noqa: PLW0603 - there is one for each process
    with _once:
        outer, _maker = _maker, threading.get_ident()
        try:
            yield
        finally:
            _maker = outer


def is_being_made() -> bool:
    """Whether we run on top of the making of the runtime, as signal handlers and finalizers may."""
    return _maker == threading.get_ident()


def afterwards(task: Callable[[], object]) -> None:
    """Do `task` once the runtime is there that we run on top of the making of; elsewhere, forget it."""
    if is_being_made():
        _afterwards.append(task)


def _catch_up() -> None:
    with _once:
        while _afterwards:
            _afterwards.pop(0)()


def _made(settings: Settings) -> Runtime:
    """A runtime of these settings. With the first one, everything is loaded that only a program which logs needs."""
    with _making():
        from athina_trace._assembly import Runtime  # noqa: PLC0415 - see above

        import_module(
            "athina_trace.integrations.openai.ledger"
        )  # so that no call has to load it half-way through a fork
        return Runtime(settings)


def _install(runtime: Runtime) -> None:
    global _runtime, _may_trace, _trouble
    is_first = _runtime is None
    _runtime, _may_trace, _trouble = runtime, runtime.settings.enabled, None
    if is_first:
        _register_exit()


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
    shutdown(0)


def _settings() -> type[Settings]:
    with _making():
        from athina_trace.settings import Settings  # noqa: PLC0415 - pydantic comes with it

        return Settings


def _environment_settings() -> Settings:
    try:
        return _settings().build()
    except Exception as error:  # noqa: BLE001 - a variable may name a module of the program, which raises when loaded
        _guard.pass_on(error)
        # Sending logs to a place that was not meant would be worse than sending none: they are kept locally.
        said = error if isinstance(error, SettingsError) else repr(error)
        message = "the settings of the environment cannot be used: %s. Logs are kept in the local outbox until they can"
        _guard.log_throttled(logging.ERROR, "settings", message, said)
        return _settings()()


def configure(**settings: Any) -> Settings:
    """Set how this process logs: any field of `Settings`; what is not given comes from the environment.

    May be called again; what the former outbox still holds is delivered first, for at most `exit_timeout` seconds.
    Raises `SettingsError`, naming the setting, its value and the rule.

    >>> configure(environment="staging", sample_rate=0.1).environment
    'staging'
    """
    with _making():
        built = _settings().build(**settings)
    if _recorders and (recorder := _recording()) is not None:
        recorder.adopt(built)
        return built
    if _runtime is not None:
        _close(_runtime)
    _install(_made(built))
    _catch_up()
    return built


def _close(runtime: Runtime, timeout: float | None = None, *, ending: bool = False) -> None:
    """Deliver what can be delivered in time, by default in `exit_timeout` seconds, and stop."""
    try:
        _periodic.finish(ending=ending)
        runtime.delivery.close(runtime.settings.exit_timeout if timeout is None else timeout)
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.swallow("ending deliveries")


def flush(timeout: float = 10.0) -> FlushReport:
    """Wait until everything logged so far has reached Athina, or `timeout` seconds are over; say what happened.

    >>> if not (report := flush(timeout=5)):
    ...     print(report.waiting, "logs wait for the next process:", report.paused)
    """
    from athina_trace._delivery.stats import FlushReport  # noqa: PLC0415 - else loaded with the first log

    try:
        _periodic.finish()
        runtime = active()
        if runtime is not None:
            return runtime.flush(timeout)
    except Exception as error:  # noqa: BLE001 - the guard decides
        _guard.swallow("flush()")
        return FlushReport(0, 1, 0, f"flush() failed: {error!r}", 0.0)  # as long as it is not known that nothing waits
    return FlushReport(0, 0, 0, _trouble or "tracing is off", 0.0)


async def aflush(timeout: float = 10.0) -> FlushReport:
    """`flush` for async code, under asyncio or trio: the event loop continues meanwhile.

    >>> import asyncio
    >>> bool(asyncio.run(aflush(timeout=5)))
    True
    """
    trio: Any = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run() and asyncio._get_running_loop() is None:  # noqa: SLF001 - documented
        report: FlushReport = await trio.to_thread.run_sync(flush, timeout)
        return report
    return await asyncio.to_thread(flush, timeout)


def shutdown(timeout: float | None = None) -> None:
    """Flush for at most `timeout` seconds (default: the setting `exit_timeout`) and stop; a later log starts anew.

    >>> shutdown(timeout=5)
    """
    runtime = _runtime
    if runtime is None or _recorders:
        return
    _close(runtime, timeout)
    try:
        _install(_made(runtime.settings))
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.swallow("shutdown()")


def status() -> Status:
    """How the outbox stands: logs made, delivered, waiting, refused and dropped.

    >>> status().dropped
    0
    """
    from athina_trace._delivery.stats import Status  # noqa: PLC0415 - else loaded with the first log

    try:
        runtime = active()
        if runtime is not None:
            return runtime.status()
    except Exception as error:  # noqa: BLE001 - the guard decides
        _guard.swallow("status()")
        return Status(paused=f"status() failed: {error!r}", faults=_guard.faults)
    return Status(paused=_trouble or "tracing is off", faults=_guard.faults)


def recent_logs(limit: int = 100) -> list[dict[str, Any]]:
    """The newest logs that the outbox holds, oldest first, each as it is sent to Athina.

    Waiting and refused logs are there, and delivered ones for as long as the setting `keep_delivered` keeps them.

    >>> reference = log_inference(response="Hello")
    >>> [log["response"] for log in recent_logs(limit=10)]
    ['Hello']
    """
    try:
        runtime = active()
        return runtime.recent_logs(limit) if runtime is not None else []
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.swallow("recent_logs()")
        return []


def _at_exit() -> None:
    if _runtime is not None:
        _close(_runtime, ending=True)
