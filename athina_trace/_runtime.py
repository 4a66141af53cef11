"""The one runtime of this process (class `Runtime` in `_pipeline.runtime`), and the public functions that use it.

active()               makes it from the environment's settings, when a call first needs it; other threads wait. If that
                       fails, logs wait in memory for a later attempt
configure, shutdown    close it, and make another one from the new settings, or from the same ones
exit                   closes it: what can be delivered in time is delivered
fork                   the child abandons its parent's runtime, and makes its own from the same settings
captured_logs()        puts a recorder in its place, in one context
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import errno
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
from athina_trace._delivery.stats import FlushReport, Status  # now, since `flush` must not fail without descriptors
from athina_trace.errors import AthinaTraceError, SettingsError

if TYPE_CHECKING:
    from athina_trace._pipeline.recorder import Recorder
    from athina_trace._pipeline.runtime import Runtime
    from athina_trace.settings import Settings

_LONGEST_SECONDS = threading.TIMEOUT_MAX / 2
"""The longest time that a thread can wait; callers may ask for more, such as infinity."""
_START_SECONDS = 10.0
"""Longer than another thread needs to make a runtime. If it takes longer, it waits for something that we hold (a module
that is being imported, a lock of the program's), or the lock was held by a thread that does not exist after a fork."""
_RETRY_SECONDS = 1.0
"""How long to wait after a failed start, for example one in a deep recursion or without descriptors."""
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors of a process or system that has no descriptors or memory left at the moment."""
_MOST_AFTERWARDS = 1000
"""How many logs wait in memory for a runtime: they hold objects of the program, and a module may be missing forever."""

_once = threading.RLock()
"""Held while a runtime is made, which imports modules, and during a fork: a child could not complete half of one."""
_waited_in_vain = False
"""Whether acquiring `_once` timed out: until it succeeds, no thread waits for it again."""
_runtime: Runtime | None = None
_may_trace = True  # until settings are read
may_leave_out = False
"""Whether the current or earlier settings leave out some logs."""
_maker: int | None = None
"""The thread that is making a runtime, which holds `_once`."""
_afterwards: list[Callable[[], object]] = []
"""What waits for a runtime: see `afterwards`."""
_dropped = 0
"""How many logs were beyond `_MOST_AFTERWARDS`."""
_retry_at = float("-inf")
_trouble: str | None = None
"""Why there is no runtime, if the last attempt to make one failed."""
_recorders: list[Recorder] = []
"""They receive logs in place of the runtime: see `athina_trace.testing`."""
_recorder: contextvars.ContextVar[Recorder | None] = contextvars.ContextVar("athina_trace_recorder", default=None)
_abandoned: list[Runtime] = []
"""In a forked child, its parent's runtimes: kept, since finalizing them would affect the parent's files."""


def _take() -> bool:
    """Acquire `_once`; return False if another thread does not release it in time."""
    global _waited_in_vain  # noqa: PLW0603 - there is one lock for each process
    taken = _once.acquire(timeout=0 if _waited_in_vain else _START_SECONDS)
    _waited_in_vain = not taken
    return taken


def _after_fork_in_child() -> None:
    global _runtime, _maker, _trouble, _dropped, _retry_at  # noqa: PLW0603 - there is one for each process
    # What waits for a runtime, its parent logs.
    _afterwards.clear()
    _trouble, _dropped, _retry_at = None, 0, float("-inf")
    if _waited_in_vain:
        _maker = None  # that thread does not exist here: its lock, and its half-imported modules, stay locked for ever
    # In a hook, since comparing process ids would cost each call a system call.
    if _runtime is not None:
        _abandoned.append(_runtime)
        _runtime = None
    _let_go()


def _let_go() -> None:
    # Not acquired if this module was being imported when the fork began, or if `_take` timed out.
    with suppress(RuntimeError):
        _once.release()


_fork.register("runtime", before=_take, after_in_parent=_let_go, after_in_child=_after_fork_in_child)


def may_trace() -> bool:
    """Return False if tracing is known to be off. Cheap, since it is called before each call."""
    return _may_trace or bool(_recorders)


def active() -> Runtime | Recorder | None:
    """Return this process's runtime, made from the environment on first use; None if tracing is off.

    Also None if it cannot be made, and for code that runs while it is being made: see `afterwards`. While logs are
    being recorded, returns the recorder of this context.
    """
    if _recorders:
        return _recording()
    runtime = _runtime if _runtime is not None else _make_first()
    # The same as `runtime.settings.enabled`, without two attribute lookups in each call.
    return runtime if _may_trace else None


def _recording() -> Recorder | None:
    """Return the recorder of this context, or the only one: most threads do not inherit their creator's context."""
    here = _recorder.get()
    if here is not None or len(_recorders) == 1:
        return here or _recorders[0]
    _guard.log_throttled(
        logging.WARNING,
        "unrecorded",
        "several captured_logs() are open, and a log was made outside the context of each, so none of them has it; "
        "pass the context on with athina_trace.wrap or ContextThreadPoolExecutor",
    )
    return None


def record_into(recorder: Recorder) -> contextvars.Token[Recorder | None]:
    """Send this context's logs to `recorder` until `stop_recording`."""
    _recorders.append(recorder)
    _note_sampling(recorder.settings)
    return _recorder.set(recorder)


def stop_recording(recorder: Recorder, token: contextvars.Token[Recorder | None]) -> None:
    """Undo `record_into`."""
    _recorders.remove(recorder)
    # The token may belong to another context.
    with suppress(ValueError):
        _recorder.reset(token)


def _make_first() -> Runtime | None:
    """Make the first runtime, from the environment's settings, or in a forked child from its parent's.

    Returns None if it cannot be made: logs wait, see `afterwards`, and a later call tries again.
    """
    global _retry_at, _trouble  # noqa: PLW0603 - there is one runtime for each process
    if is_being_made() or clock.monotonic() < _retry_at:
        return None
    with _guard.shield("start-up (without it, logs only wait in memory)") as start, _making():
        # Another thread may have made it meanwhile.
        if _runtime is None:
            _install(_make(_abandoned[-1].settings if _abandoned else _environment_settings()))
    if start.error is not None and _runtime is None:
        is_first = _trouble is None
        _trouble = f"athina_trace could not start: {start.error!r}"
        # After `_trouble`, since in between, logs of other threads would neither try to start nor wait.
        _retry_at = clock.monotonic() + _RETRY_SECONDS
        if is_first:
            with _guard.shield("registering an exit handler"):
                _register_exit()
    _catch_up()
    return _runtime


def _retried() -> Runtime | Recorder | None:
    """Return `active()`, for a caller who may be the last: tries again at once if the last attempt has failed."""
    global _retry_at  # noqa: PLW0603 - there is one runtime for each process
    _retry_at = float("-inf")
    return active()


@contextmanager
def _making() -> Iterator[None]:
    """Ensure that one thread at a time makes a runtime, or imports the modules for it.

    Raises `AthinaTraceError` if another thread does so and does not finish in time, or if the block runs out of
    descriptors or memory.
    """
    global _maker  # noqa: PLW0603 - there is one for each process
    try:
        # Inside `try`, since the program's signal handler may raise as soon as the lock is acquired.
        if not _take():
            raise AthinaTraceError(
                f"another thread is starting it and has not finished within {_START_SECONDS:.0f} seconds: it waits for "
                "a module that is being imported or for a lock, or the process was forked meanwhile"
            )
        outer, _maker = _maker, threading.get_ident()
        try:
            yield
        except (OSError, MemoryError) as error:
            if _is_shortage(error):
                raise AthinaTraceError(f"no descriptors or memory are left ({error!r}): try again later") from error
            raise
        finally:
            _maker = outer
    finally:
        # At once, without checking whether it was acquired: a signal handler may raise after any other call.
        try:  # noqa: SIM105 - making a context manager is such a call, and so is the start of a function
            _once.release()
        except RuntimeError:
            pass


def _is_shortage(error: Exception) -> bool:
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in _SHORTAGES


def is_being_made() -> bool:
    """Return whether a runtime is being made that we must not wait for.

    Either this thread makes it, and we run in a signal handler or finalizer, or another thread makes it and waits for
    us.
    """
    return _maker is not None and (_waited_in_vain or _maker == threading.get_ident())


def is_expected() -> bool:
    """Return whether there is no runtime yet, but will be: it is being made, or the last attempt to make it failed."""
    return is_being_made() or _trouble is not None


def afterwards(task: Callable[[], object]) -> None:
    """Run `task` once there is a runtime, if one is expected; do nothing if tracing is off."""
    global _dropped  # noqa: PLW0603 - there is one counter for each process
    # The second: it was made since the caller asked for it.
    if is_expected() or (_runtime is not None and _may_trace and not _recorders):
        if len(_afterwards) < _MOST_AFTERWARDS:
            _afterwards.append(task)
        else:
            _dropped += 1
        if _maker is None:
            _catch_up()


def _catch_up() -> None:
    if _runtime is None or not _afterwards:
        return
    try:
        if _take():
            while _afterwards:
                with _guard.shield("logging the calls made during start-up"):
                    _afterwards.pop(0)()
    finally:
        try:  # noqa: SIM105 - see `_making`
            _once.release()
        except RuntimeError:
            pass


def _make(settings: Settings) -> Runtime:
    """Make a runtime from these settings. The first one imports everything that only programs that log need."""
    with _making():
        from athina_trace._pipeline.runtime import Runtime  # noqa: PLC0415 - loaded with the first log

        # So that no call imports it in the middle of a fork.
        import_module("athina_trace._answers.accumulator")
        return Runtime(settings)


def _install(runtime: Runtime) -> None:
    global _runtime, _may_trace, _trouble, _dropped
    is_first = _runtime is None and _trouble is None  # else the exit handler is registered
    _note_sampling(runtime.settings)
    dropped, _dropped = _dropped, 0
    for _ in range(dropped):
        runtime.outbox.drop()
    _runtime, _may_trace, _trouble = runtime, runtime.settings.enabled, None
    if is_first:
        _register_exit()


def _note_sampling(settings: Settings) -> None:
    global may_leave_out  # noqa: PLW0603 - there is one for each process
    may_leave_out = may_leave_out or settings.sample_rate < 1


def _register_exit() -> None:
    """Register an exit handler, so that this process delivers what it can before it ends.

    Forked children of multiprocessing call no atexit functions before Python 3.13, and none of their parent's since.
    All of multiprocessing's children call its own finalizers, the one with the lowest priority last. Processes of
    Celery's pool call neither, but send a signal.
    """
    # Looked up, not imported: in a child it is loaded, and elsewhere another thread may be importing it.
    parent = getattr(sys.modules.get("multiprocessing.process"), "parent_process", None)
    is_child = parent is not None and parent() is not None
    if is_child:
        import_module("multiprocessing.util").Finalize(None, _at_childs_end, exitpriority=-1000)
    ends_of_celerys = getattr(sys.modules.get("celery.signals"), "worker_process_shutdown", None)
    if ends_of_celerys is not None:
        ends_of_celerys.connect(_at_childs_end, weak=False, dispatch_uid=__name__)
    # Other forked children inherit the registration from their parent.
    if is_child or not _abandoned:
        atexit.register(_at_exit)


def _at_childs_end(**_: object) -> None:
    """Close the runtime and make another: before Python 3.13, a child's threads may still log after this."""
    if _afterwards:
        _retried()
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
    # Outside the `try`: if this fails, as it may while the interpreter ends, no setting is to blame.
    settings = _settings_class()
    try:
        return settings.build()
    except Exception as error:  # any: a variable may name a module of the program, whose import may raise
        _guard.raise_if_the_programs(error)
        if _is_shortage(error):
            raise  # no setting is to blame: a later log tries again
        # Keep logs locally: sending them to the wrong place would be worse than not sending them.
        reason = error if isinstance(error, SettingsError) else repr(error)
        message = (
            "the environment's settings are invalid: %s. Logs are kept in the local outbox until they are corrected"
        )
        _guard.log_throttled(logging.ERROR, "settings", message, reason)
        return settings()


def configure(**settings: Any) -> Settings:
    """Set how this process logs: any field of `Settings`; other fields come from the environment.

    May be called again; logs in the previous outbox are delivered first, for at most `exit_timeout` seconds.
    Raises `SettingsError`, naming the setting, its value and the rule; `AthinaTraceError` if another thread is starting
    to log and waits for this one, or if no descriptors or memory are left.

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
    """Deliver for at most `timeout` seconds (default: `exit_timeout`), and stop."""
    with _guard.shield("ending deliveries"):
        _periodic.finish(ending=ending)
        seconds = runtime.settings.exit_timeout if timeout is None else timeout
        runtime.delivery.close(min(max(0.0, seconds), _LONGEST_SECONDS))


def flush(timeout: float = 10.0) -> FlushReport:
    """Wait until everything logged so far has reached Athina, for at most `timeout` seconds; report what happened.

    >>> if not (report := flush(timeout=5)):
    ...     print(report.waiting, "logs wait for the next process:", report.paused)
    """
    with _guard.shield("flush()") as asked:
        _periodic.finish()
        runtime = _retried()
        if runtime is not None:
            return runtime.flush(min(max(0.0, timeout), _LONGEST_SECONDS))
    if asked.error is not None:
        # One log counts as waiting, so that the report is false.
        return FlushReport(0, 1, 0, f"flush() failed: {asked.error!r}", 0.0)
    lost = _dropped or _trouble is not None  # before the first attempt to start, other threads may have logged
    return FlushReport(0, len(_afterwards), 0, _trouble or "tracing is off", 0.0, undelivered=int(lost))


async def aflush(timeout: float = 10.0) -> FlushReport:
    """Flush from async code, under asyncio or trio, without blocking the event loop.

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
    if _afterwards:
        _retried()
    runtime = _runtime
    if runtime is None or _recorders:
        return
    _close(runtime, timeout)
    with _guard.shield("shutdown()"):
        _install(_make(runtime.settings))


def status() -> Status:
    """Return the outbox's counts of logs made, delivered, waiting, refused and dropped, and the state of deliveries.

    >>> status().dropped
    0
    """
    with _guard.shield("status()") as asked:
        runtime = active()
        if runtime is not None:
            return runtime.status()
    paused = _trouble or "tracing is off" if asked.error is None else f"status() failed: {asked.error!r}"
    waiting = len(_afterwards)
    return Status(made=waiting + _dropped, waiting=waiting, dropped=_dropped, paused=paused, faults=_guard.faults)


def metrics() -> str:
    """Return the state of deliveries as Prometheus text, for the program's own `/metrics` endpoint.

    Serve it as `text/plain; version=0.0.4`. Counts of logs cover all processes that share the outbox; requests in
    flight and their latency cover this process only.

    >>> reference = log_inference(response="Hello")
    >>> "athina_trace_logs_made_total 1" in metrics().splitlines()
    True
    """
    with _guard.shield("metrics()"):
        from athina_trace._delivery.metrics import Traffic, exposition, of_status  # noqa: PLC0415 - few programs need it

        runtime = active()
        return exposition(of_status(status(), Traffic() if runtime is None else runtime.traffic(), time.time()))
    return ""


def recent_logs(limit: int = 100) -> list[dict[str, Any]]:
    """Return the newest logs in the outbox, oldest first, each as it is sent to Athina.

    Includes waiting and refused logs, and delivered ones for as long as the setting `keep_delivered` keeps them.

    >>> reference = log_inference(response="Hello")
    >>> [log["response"] for log in recent_logs(limit=10)]
    ['Hello']
    """
    with _guard.shield("recent_logs()"):
        runtime = active()
        return runtime.recent_logs(limit) if runtime is not None else []
    return []


def _at_exit() -> None:
    if _afterwards:
        _retried()
    if _runtime is not None:
        _close(_runtime, ending=True)
    elif _afterwards:
        _guard.log_throttled(logging.ERROR, "lost", "%s: %d logs are lost", _trouble, len(_afterwards) + _dropped)
