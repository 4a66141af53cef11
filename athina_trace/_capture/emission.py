"""The end of a call: its draft becomes a log, is sampled, rewritten, and committed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from athina_trace import _guard, _runtime
from athina_trace._capture.arguments import Options
from athina_trace._capture.assemble import finish
from athina_trace._capture.draft import LogDraft
from athina_trace._wrapping.calls import Rest, complete

if TYPE_CHECKING:
    from athina_trace._pipeline.writer import Writer

_LARGE = 65_536
"""Characters of JSON from which on a log is masked off the event loop."""


def emit(draft: LogDraft, options: Options, *, result: object = None, error: BaseException | None = None) -> Rest:
    """Log a call that ended with `result` or `error`. Never raises; gives what is left to be done, if anything."""
    draft.ended = True
    try:
        runtime = _runtime.active()
        if runtime is None:
            _runtime.afterwards(lambda: complete(emit(draft, options, result=result, error=error)))
            return None
        if runtime.is_plain and options.sample_rate is None and draft.scope.sample_rate is None:
            runtime.emit(finish(draft, options, runtime.defaults, result=result, error=error))
            return None
        policy = runtime.policy
        draft.hides |= policy.hides
        if policy.mask is not None:
            draft.origins = {}
        fields = finish(draft, options, runtime.defaults, result=result, error=error)
        if not _sampled(fields, draft, options, runtime, error):
            runtime.leave_out(fields["external_reference_id"])
            return None
        return _commit(runtime, fields, draft)
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.swallow("writing a log")
        return None


def _commit(runtime: Writer, fields: dict[str, Any], draft: LogDraft) -> Rest:
    flushes = runtime.settings.flush_each_call and draft.parent is None
    if not runtime.policy.rewrites:
        runtime.emit(fields)
        return partial(_flush, runtime) if flushes else None
    rest = partial(_finish, runtime, fields, draft, flushes=flushes)
    if flushes or runtime.policy.waits or _is_large(fields):
        return rest
    rest()
    return None


def _flush(runtime: Writer) -> None:
    try:
        runtime.flush_call()
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.swallow("flushing at the end of a call")


def _finish(runtime: Writer, fields: dict[str, Any], draft: LogDraft, *, flushes: bool) -> None:
    try:
        runtime.emit(fields, draft.origins)
        if flushes:
            runtime.flush_call()
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.swallow("writing a log")


def _is_large(value: Any, room: int = _LARGE) -> bool:
    return _left(value, room) <= 0


def _left(value: Any, room: int) -> int:
    """What `value` leaves of `room` characters; stops counting where nothing is left."""
    if isinstance(value, str):
        return room - len(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        room = _left(part, room - 1)
        if room <= 0:
            break
    return room


def _sampled(
    fields: dict[str, Any], draft: LogDraft, options: Options, runtime: Writer, error: BaseException | None
) -> bool:
    """Whether the log is in the sample; the rate of a sample is noted in the log."""
    rate = options.sample_rate if options.sample_rate is not None else draft.scope.sample_rate
    if rate is None:
        rate = runtime.policy.sample_rate
    if rate >= 1:
        return True
    fields["custom_attributes"]["sample_rate"] = rate
    if runtime.policy.keep_failed and isinstance(error, Exception):
        return True
    from athina_trace._pipeline.sampling import keeps  # noqa: PLC0415 - only samples need it

    return keeps(fields.get("session_id") or draft.root().external_reference_id or "", rate)
