"""The steps between capture and wire that the settings ask for: sample → `before_emit` → mask.

Every step takes and returns the fields of a log as data, under our spelling; see `wire`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from athina_trace import _guard
from athina_trace._pipeline.hooks import TimeLimited
from athina_trace._pipeline.masking import build_key_mask, build_mask, mask_fields, mask_value
from athina_trace._pipeline.redaction import Redaction, redacted, type_only, without_arguments
from athina_trace._pipeline.wire import json_text, repaired
from athina_trace._serialization import Limits, plain
from athina_trace.inference_log import InferenceLog
from athina_trace.settings import Settings

_LARGE: Final = 65_536
"""A log with more characters of text is masked off the event loop."""
_WIDE: Final = Limits(nodes=20_000, depth=24, string=400_000, strings=2_000_000)
"""Wider than the limits for capturing, so that values which a hook did not touch are not cut again."""


class Pipeline:
    """The steps that the settings ask for."""

    def __init__(self, settings: Settings) -> None:
        self.redaction = Redaction.NOTHING
        """Applied when a log is assembled, where captured fields are still apart from those set by the program."""
        if not settings.capture_inputs:
            self.redaction |= Redaction.INPUTS
        if not settings.capture_response:
            self.redaction |= Redaction.RESPONSE
        self._sample_rate = settings.sample_rate
        self._keep_failed = settings.keep_failed
        self._before_emit = TimeLimited(settings.before_emit, settings.hook_timeout) if settings.before_emit else None
        self._mask = build_mask(settings.mask, settings.mask_patterns, settings.maskers)
        self._key_mask = build_key_mask(settings.mask_patterns, settings.maskers)
        self.has_hook = self._before_emit is not None
        self.rewrites = self._mask is not None or self.has_hook
        self.is_empty = not (self.rewrites or self.redaction or settings.sample_rate < 1)

    def samples(
        self,
        fields: dict[str, Any],
        *,
        rate: float | None,
        is_in_sample: Callable[[float, str | None], bool],
        failed: bool,
    ) -> bool:
        """Return whether a log is in the sample, and note the rate in its custom attributes.

        Args:
            fields: those of the log.
            rate: the share set by the decorator or the session; None to use the setting.
            is_in_sample: decides by the rate and the log's session.
            failed: whether the call raised an exception.
        """
        rate = self._sample_rate if rate is None else rate
        if rate >= 1:
            return True
        fields["custom_attributes"]["sample_rate"] = rate
        if failed and self._keep_failed:
            return True
        return is_in_sample(rate, fields.get("session_id"))

    def takes_long(self, fields: dict[str, Any]) -> bool:
        """Return whether `rewrite` should run off the event loop."""
        return self._before_emit is not None or _room_left(fields, _LARGE) <= 0

    def rewrite(self, fields: dict[str, Any]) -> dict[str, Any] | None:
        """Return the log after `before_emit` and the masks; None if `before_emit` drops it."""
        # Repair types first, so that hook and masks see text wherever text is sent.
        right = repaired(fields)
        kept = right if self._before_emit is None else self._hooked(right, self._before_emit)
        return None if kept is None else self._masked(kept)

    def rewrite_change(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a change or of feedback after the masks: `before_emit` sees whole logs only."""
        return self._masked(repaired(fields))

    def reference(self, reference: str) -> str:
        """Return a log's reference as it is after the masks."""
        return reference if self._mask is None else str(mask_value(reference, self._mask, "external_reference_id"))

    def _masked(self, fields: dict[str, Any]) -> dict[str, Any]:
        return fields if self._mask is None else mask_fields(fields, self._mask, self._key_mask)

    def _hooked(self, fields: dict[str, Any], hook: TimeLimited) -> dict[str, Any] | None:
        response = fields["response"]
        sent = response if type(response) is str else json_text(response)
        try:
            answer = hook(InferenceLog.of({**fields, "response": sent}))
            if answer is None:
                return None
            kept = InferenceLog.of(dict(answer))
            # The hook may have set any object.
            out: dict[str, Any] = {
                name: {key: plain(each, limits=_WIDE) for key, each in value.items()}
                if name == "custom_attributes"
                else plain(value, limits=_WIDE)
                for name, value in kept
                if value is not None
            }
        except Exception as error:  # noqa: BLE001 - the hook is the user's; what it was to remove must not be sent
            _guard.raise_if_the_programs(error)
            message = "before_emit failed (%s): the log is sent without its content"
            _guard.log_throttled(logging.WARNING, "before_emit", message, type(error).__name__)
            return _without_content(fields, error)
        if kept.response == sent:
            out["response"] = response  # so that a mask still sees structured data
        return out


def _without_content(fields: Mapping[str, Any], error: Exception) -> dict[str, Any]:
    kept = redacted(Redaction.INPUTS | Redaction.RESPONSE, fields)
    attributes = without_arguments(fields.get("custom_attributes") or {})
    attributes["before_emit"] = f"failed: {type(error).__name__}"
    kept.update(prompt="", response="", custom_attributes=attributes)
    if "error" in kept:
        kept["error"] = type_only(kept["error"])
    return kept


def _room_left(value: Any, room: int) -> int:
    """Return how much of `room` characters is left after `value`; stop counting when there is none."""
    if isinstance(value, str):
        return room - len(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        room = _room_left(part, room - 1)
        if room <= 0:
            break
    return room
