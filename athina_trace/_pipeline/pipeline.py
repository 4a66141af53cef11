"""What the settings do to a log between its capture and the outbox: sampling, `before_emit`, masks."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from athina_trace import _guard
from athina_trace._clock import clock
from athina_trace._pipeline.hooks import Bounded
from athina_trace._pipeline.masking import FAILED, build_mask, mask_fields, masked
from athina_trace._pipeline.redaction import INPUTS, RESPONSE, without, without_arguments
from athina_trace._pipeline.wire import partial_wire
from athina_trace.inference_log import InferenceLog
from athina_trace.schema import ALIASES
from athina_trace.settings import Settings

_NOTHING: Mapping[str, Any] = {}


class Policy:
    """The settings that look at logs.

    Attributes:
        rewrites: whether a mask or `before_emit` may change a log.
        waits: whether there is a `before_emit`, for which a call may have to wait.
    """

    def __init__(self, settings: Settings) -> None:
        self.mask = build_mask(settings.mask, settings.mask_patterns, settings.maskers)
        self.hides = (0 if settings.capture_inputs else INPUTS) | (0 if settings.capture_response else RESPONSE)
        self.sample_rate = settings.sample_rate
        self.keep_failed = settings.keep_failed
        self._before_emit = Bounded(settings.before_emit, settings.hook_timeout) if settings.before_emit else None
        self.rewrites = self.mask is not None or self._before_emit is not None
        self.waits = self._before_emit is not None

    def rewritten(self, fields: dict[str, Any], origins: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """The log (a JSON object to send) after `before_emit` and the masks; None where the former leaves it out."""
        if self._before_emit is None:
            return self.masked(fields, origins or _NOTHING)
        kept = self._ask(fields)
        return None if kept is None else self.masked(kept, origins or _NOTHING)

    def _ask(self, fields: dict[str, Any]) -> dict[str, Any] | None:
        log = InferenceLog.of(fields)
        try:
            answer = self._before_emit(log) if self._before_emit else log
            return None if answer is None else InferenceLog.model_validate(dict(answer)).wire()
        except Exception as error:  # noqa: BLE001 - the hook is the user's; what it was to keep back must not leave
            _guard.pass_on(error)
            said = "before_emit failed (%s): the log goes without its content"
            _guard.log_throttled(logging.WARNING, "before_emit", said, type(error).__name__)
            return _without_content(fields, error)

    def masked(self, fields: dict[str, Any], origins: Mapping[str, Any] = _NOTHING) -> dict[str, Any]:
        """`fields` as the masks give them."""
        if self.mask is None:
            return fields
        plainly = {name: value for name, value in fields.items() if name not in ALIASES}
        out = mask_fields(plainly, self.mask, origins)
        if out.get("external_reference_id") == FAILED:
            out["external_reference_id"] = clock.reference()  # two logs must not share one
        return partial_wire(out)

    def reference(self, reference: str) -> str:
        """A log's reference, as the masks leave it on the log itself."""
        return reference if self.mask is None else str(masked(reference, self.mask, "external_reference_id"))


def _without_content(fields: dict[str, Any], error: Exception) -> dict[str, Any]:
    kept = without(INPUTS | RESPONSE, fields)
    attributes = without_arguments(fields.get("custom_attributes", _NOTHING))
    attributes["before_emit"] = f"failed: {type(error).__name__}"
    kept.update(prompt="", response="", custom_attributes=attributes)
    if "error" in kept:
        kept["error"] = kept["error"].partition(":")[0]
    kept.pop("tool_call", None)
    return kept
