"""The runtime of this process, and what a program asks of it.

none    active    made of the environment's settings, when a call first needs it; by one thread, the others wait
made    configure, shutdown    closed, and another one made of the new settings, or of the same
        at exit                closed: what can be delivered in time is delivered
        a fork                 the child leaves its parent's alone, and makes one of the same settings
        captured_logs()        a recorder takes its place in that context
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from athina_trace import _fork, _guard, _periodic
from athina_trace._clock import clock
from athina_trace.errors import AthinaTraceError, SettingsError

if TYPE_CHECKING:
    from athina_trace._assembly import Runtime
    from athina_trace._delivery.stats import FlushReport, Status
    from athina_trace._pipeline.recorder import Recorder
    from athina_trace.settings import Settings

_LONGEST_SECONDS = threading.TIMEOUT_MAX / 2
"""That a thread can wait for: a caller may ask for more, such as infinity."""
_START_SECONDS = 10.0
"""Longer than another thread takes to make a runtime. One that takes as long waits for what we hold: for a module that
we are just loading, for a lock of the program's, or for one that was taken before a fork."""
_RETRY_SECONDS = 1.0
"""After a first log that could not be made: what failed may have been a deep recursion, or a module that is missing."""

_once = threading.RLock()
"""Held while a runtime is made, which loads modules, and during a fork: a child could not finish what is half made."""
_waited_in_vain = False
"""Whether `_once` was not to be had in time: until it is, nobody waits for it again."""
_runtime: Runtime | None = None
_may_trace = True  # until settings are read
may_leave_out = False
"""Whether the present or earlier settings leave some logs out."""
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


def _take() -> bool:
    """Take `_once`; return False where another thread holds it and does not let go."""
    global _waited_in_vain  # noqa: PLW0603 - there is one lock for each process
    taken = _once.acquire(timeout=0 if _waited_in_vain else _START_SECONDS)
    _waited_in_vain = not taken
    return taken


def _after_fork_in_child() -> None:
    global _runtime, _maker  # noqa: PLW0603 - there is one for each process
    if _waited_in_vain:
        _maker = None  # it is not in this process, where its lock and the modules that it was loading are held for ever
    # A hook, since to compare process ids each call would have to ask the system.
    if _runtime is not None:
        _abandoned.append(_runtime)
        _runtime = None
    _let_go()


def _let_go() -> None:
    # Never acquired, where this module was just being loaded when the fork began, or where it was not to be had.
    with suppress(RuntimeError):
        _once.release()


_fork.register("runtime", before=_take, after_in_parent=_let_go, after_in_child=_after_fork_in_child)


def may_trace() -> bool:
    """Return False where tracing is known to be off. The cheapest of questions, asked before each call."""
    return _may_trace or bool(_recorders)


def active() -> Runtime | Recorder | None:
    """Return this process's runtime, made from the environment when first asked for; None where tracing is off.

    None, too, where it cannot be made, and for what runs on top of its making: see `afterwards`. While logs are being
    recorded: the recorder of this context.
    """
    if _recorders:
        return _recording()
    runtime = _runtime if _runtime is not None else _make_first()
    # What `runtime.settings.enabled` says, without two look-ups of attributes in each call.
    return runtime if _may_trace else None


def _recording() -> Recorder | None:
    """Return the recorder of this context, or the only one: few threads inherit the context they were made in."""
    here = _recorder.get()
    if here is not None or len(_recorders) == 1:
        return here or _recorders[0]
    _guard.log_throttled(
        logging.WARNING,
        "unrecorded",
        "a log was made where several captured_logs() are open, in a context of none of them: it is in none; "
        "hand the context on with athina_trace.wrap or ContextThreadPoolExecutor",
    )
    return None


def record_into(recorder: Recorder) -> contextvars.Token[Recorder | None]:
    """Send this context's logs to `recorder`, until `stop_recording`."""
    _recorders.append(recorder)
    _note_sampling(recorder.settings)
    return _recorder.set(recorder)


def stop_recording(recorder: Recorder, token: contextvars.Token[Recorder | None]) -> None:
    """Undo `record_into`."""
    _recorders.remove(recorder)
    # It may end in another context than it began in.
    with suppress(ValueError):
        _recorder.reset(token)


def _make_first() -> Runtime | None:
    """Return the first runtime of this process: of the environment's settings, or, in a forked child, of its parent's.

    None where it cannot be made: the call that asked goes unlogged, and soon a later one tries again.
    """
    global _retry_at, _trouble  # noqa: PLW0603 - there is one runtime for each process
    if is_being_made() or clock.monotonic() < _retry_at:
        return None
    with _guard.shield("starting, without which nothing is logged,") as start, _making():
        # Another thread may have been quicker.
        if _runtime is None:
            _install(_make(_abandoned[-1].settings if _abandoned else _environment_settings()))
    if start.error is not None:
        _retry_at = clock.monotonic() + _RETRY_SECONDS
        _trouble = f"athina_trace could not start: {start.error!r}"
    _catch_up()
    return _runtime


@contextmanager
def _making() -> Iterator[None]:
    """Be the only thread that makes a runtime, or loads what that takes.

    Raises `AthinaTraceError` where another thread is at it and does not end.
    """
    global _maker  # noqa: PLW0603 - there is one for each process
    if not _take():
        raise AthinaTraceError(
            f"another thread began to start it and has not ended within {_START_SECONDS:.0f} seconds: it waits for a "
            "module that is being loaded or for a lock, or the process was forked meanwhile"
        )
    outer, _maker = _maker, threading.get_ident()
    try:
        yield
    finally:
        _maker = outer
        _once.release()


def is_being_made() -> bool:
    """Return whether we are not to wait for the runtime that is being made.

    We run on top of its making, as signal handlers and finalizers may, or another thread makes it and waits for us.
    """
    return _maker is not None and (_waited_in_vain or _maker == threading.get_ident())


def afterwards(task: Callable[[], object]) -> None:
    """Do `task` once the runtime is there that is being made; where none is, forget it."""
    if is_being_made():
        _afterwards.append(task)
        if _maker is None:  # it has just been made
            _catch_up()


def _catch_up() -> None:
    if not _take():
        return
    try:
        while _afterwards:
            with _guard.shield("logging what came while logging was started"):
                _afterwards.pop(0)()
    finally:
        _once.release()


def _make(settings: Settings) -> Runtime:
    """Make a runtime of these settings. With the first one, everything is loaded that only logging programs need."""
    with _making():
        from athina_trace._assembly import Runtime  # noqa: PLC0415 - see above

        # So that no call has to load it half-way through a fork.
        import_module("athina_trace._answers.accumulator")
        return Runtime(settings)


def _install(runtime: Runtime) -> None:
    global _runtime, _may_trace, _trouble
    is_first = _runtime is None
    _note_sampling(runtime.settings)
    _runtime, _may_trace, _trouble = runtime, runtime.settings.enabled, None
    if is_first:
        _register_exit()


def _note_sampling(settings: Settings) -> None:
    global may_leave_out  # noqa: PLW0603 - there is one for each process
    may_leave_out = may_leave_out or settings.sample_rate < 1


def _register_exit() -> None:
    """Register with the interpreter's exit, so that this process delivers what it can before it ends.

    A forked child of multiprocessing calls no function of atexit before Python 3.13, and none of its parent's since;
    all its children call multiprocessing's own finalizers, the one of the lowest priority last. Those of Celery's pool
    call neither, but send a signal.
    """
    # In a child it is loaded; elsewhere another thread may just be loading it.
    parent = getattr(sys.modules.get("multiprocessing.process"), "parent_process", None)
    is_child = parent is not None and parent() is not None
    if is_child:
        import_module("multiprocessing.util").Finalize(None, _at_childs_end, exitpriority=-1000)
    ends_of_celerys = getattr(sys.modules.get("celery.signals"), "worker_process_shutdown", None)
    if ends_of_celerys is not None:
        ends_of_celerys.connect(_at_childs_end, weak=False, dispatch_uid=__name__)
    # Any other forked child has it from its parent.
    if is_child or not _abandoned:
        atexit.register(_at_exit)


def _at_childs_end(**_: object) -> None:
    """Close the runtime and make another: before Python 3.13, a child's threads are waited for after this, and log."""
    runtime = _runtime
    if runtime is None:
        return
    with _guard.shield("ending deliveries"):
        _periodic.finish(ending=True)
        _install(_make(runtime.settings))
    _close(runtime)


def _settings_class() -> type[Settings]:
    with _making():
        from athina_trace.settings import Settings  # noqa: PLC0415 - pydantic comes with it

        return Settings


def _environment_settings() -> Settings:
    # Where this fails, as in the first log of an interpreter that ends, no setting is to blame.
    settings = _settings_class()
    try:
        return settings.build()
    except Exception as error:  # noqa: BLE001 - a variable may name a module of the program, which raises when loaded
        _guard.raise_if_the_programs(error)
        # Sending logs to a place that was not meant would be worse than sending none: they are kept locally.
        reason = error if isinstance(error, SettingsError) else repr(error)
        message = "the settings of the environment cannot be used: %s. Logs are kept in the local outbox until they can"
        _guard.log_throttled(logging.ERROR, "settings", message, reason)
        return settings()


def configure(**settings: Any) -> Settings:
    """Set how this process logs: any field of `Settings`; what is not given comes from the environment.

    May be called again; what the former outbox still holds is delivered first, for at most `exit_timeout` seconds.
    Raises `SettingsError`, naming the setting, its value and the rule; `AthinaTraceError` where another thread began
    to start logging and waits for this one.

    >>> configure(environment="staging", sample_rate=0.1).environment
    'staging'
    """
    with _making():
        built = _settings_class().build(**settings)
    if _recorders and (recorder := _recording()) is not None:
        recorder.use(built)
        _note_sampling(built)
        return built
    if _runtime is not None:
        _close(_runtime)
    _install(_make(built))
    _catch_up()
    return built


def _close(runtime: Runtime, timeout: float | None = None, *, ending: bool = False) -> None:
    """Deliver what can be delivered in time, by default in `exit_timeout` seconds, and stop."""
    with _guard.shield("ending deliveries"):
        _periodic.finish(ending=ending)
        seconds = runtime.settings.exit_timeout if timeout is None else timeout
        runtime.delivery.close(min(max(0.0, seconds), _LONGEST_SECONDS))


def flush(timeout: float = 10.0) -> FlushReport:
    """Wait until everything logged so far has reached Athina, or `timeout` seconds are over; say what happened.

    >>> if not (report := flush(timeout=5)):
    ...     print(report.waiting, "logs wait for the next process:", report.paused)
    """
    from athina_trace._delivery.stats import FlushReport  # noqa: PLC0415 - else loaded with the first log

    with _guard.shield("flush()") as asked:
        _periodic.finish()
        runtime = active()
        if runtime is not None:
            return runtime.flush(min(max(0.0, timeout), _LONGEST_SECONDS))
    if asked.error is not None:
        # Something may wait: the report is false.
        return FlushReport(0, 1, 0, f"flush() failed: {asked.error!r}", 0.0)
    # Where we could not start, calls went unlogged.
    return FlushReport(0, 0, 0, _trouble or "tracing is off", 0.0, undelivered=int(_trouble is not None))


async def aflush(timeout: float = 10.0) -> FlushReport:
    """Flush from async code, under asyncio or trio: the event loop runs meanwhile.

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
    """Flush for at most `timeout` seconds (default: the setting `exit_timeout`) and stop; a later log starts again.

    >>> shutdown(timeout=5)
    """
    runtime = _runtime
    if runtime is None or _recorders:
        return
    _close(runtime, timeout)
    with _guard.shield("shutdown()"):
        _install(_make(runtime.settings))


def status() -> Status:
    """Return the outbox's counts: logs made, delivered, waiting, refused and dropped.

    >>> status().dropped
    0
    """
    from athina_trace._delivery.stats import Status  # noqa: PLC0415 - else loaded with the first log

    with _guard.shield("status()") as asked:
        runtime = active()
        if runtime is not None:
            return runtime.status()
    paused = _trouble or "tracing is off" if asked.error is None else f"status() failed: {asked.error!r}"
    return Status(paused=paused, faults=_guard.faults)


def metrics() -> str:
    """Return the state of deliveries as Prometheus text, for a `/metrics` endpoint of the program's own.

    Serve it as `text/plain; version=0.0.4`. Counts of logs are of all processes that share the outbox; requests in
    flight and their latency are this process's own.

    >>> reference = log_inference(response="Hello")
    >>> "athina_trace_logs_made_total 1" in metrics().splitlines()
    True
    """
    from athina_trace._delivery.metrics import Traffic, exposition, of_status  # noqa: PLC0415 - few programs need it

    traffic = Traffic()
    with _guard.shield("metrics()"):
        runtime = active()
        traffic = traffic if runtime is None else runtime.traffic()
    return exposition(of_status(status(), traffic, time.time()))


def recent_logs(limit: int = 100) -> list[dict[str, Any]]:
    """Return the newest logs that the outbox holds, oldest first, each as it is sent to Athina.

    Waiting and refused logs are there, and delivered ones for as long as the setting `keep_delivered` keeps them.

    >>> reference = log_inference(response="Hello")
    >>> [log["response"] for log in recent_logs(limit=10)]
    ['Hello']
    """
    with _guard.shield("recent_logs()"):
        runtime = active()
        return runtime.recent_logs(limit) if runtime is not None else []
    return []


def _at_exit() -> None:
    if _runtime is not None:
        _close(_runtime, ending=True)
