"""Ends a call: its draft becomes the fields of a log, which the writer commits."""

from __future__ import annotations

from athina_trace import _guard, _runtime
from athina_trace._capture.assemble import assemble
from athina_trace._capture.changes import LateChanges
from athina_trace._capture.draft import LogDraft
from athina_trace._capture.failures import outcome
from athina_trace._clock import clock
from athina_trace._pipeline.redaction import NOTHING
from athina_trace._wrapping.calls import DeferredWork, run_now


def emit(draft: LogDraft, result: object = None, error: BaseException | None = None) -> DeferredWork:
    """Log a call that ended with `result` or `error`. Never raises; returns slow work to be done later, if any."""
    options = draft.options
    try:
        # First, so that what another thread records from now on becomes a change, rather than being lost.
        if (late := draft.late) is None:  # else the log waited, and so may changes
            draft.late = late = LateChanges(options.redaction)
        runtime = _runtime.active()
        if runtime is None:
            # Now, since it does not include the wait.
            draft.named.setdefault("response_time", (clock.perf_ns() - draft.started_ns) // 1_000_000)
            _runtime.afterwards(lambda: run_now(emit(draft, result, error)))
            return None
        redaction = runtime.pipeline.redaction
        if redaction is not NOTHING:
            late.redaction |= redaction
        failed = False
        if error is not None:
            draft.outcome = outcome(error)
            failed = draft.outcome is None
        if failed and runtime.settings.keep_failed:
            draft.keep()
        fields = assemble(draft, runtime.defaults, redaction, result, error)
        late.attributes = fields["custom_attributes"]
        # The decorator's rate comes before the session's, and that before the setting's.
        rate = draft.scope.sample_rate if options.sample_rate is None else options.sample_rate
        if rate is None and runtime.is_plain:
            runtime.commit(fields)
            late.log_written()
            return None
        return runtime.write(
            fields,
            rate=rate,
            is_in_sample=draft.is_in_sample,
            failed=failed,
            outermost=draft.parent is None,
            on_written=late.log_written,
        )
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.swallow("writing a log")
        return None
