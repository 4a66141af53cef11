"""What the settings do to a log between its capture and the wire: sample → `before_emit` → mask.

Every step takes and gives the fields of a log as data under the spelling used inside; see `wire`.
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
"""Characters of text from which on a log is masked off the event loop."""
_WIDE: Final = Limits(nodes=20_000, depth=24, string=400_000, strings=2_000_000)
"""Wider than what a log is captured with, so that nothing is cut a second time where a hook left it alone."""


class Pipeline:
    """The steps that the settings ask for."""

    def __init__(self, settings: Settings) -> None:
        self.redaction = Redaction.NOTHING
        """Applied where a log is assembled, which knows what was captured and what the program named."""
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
        """Return whether a log is in the sample; the rate of a sample is noted in it.

        Args:
            fields: the log's.
            rate: the share that the decorator or the session asks for; None for the setting's.
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
        """Return whether `rewrite` should not be run on an event loop."""
        return self._before_emit is not None or _room_left(fields, _LARGE) <= 0

    def rewrite(self, fields: dict[str, Any]) -> dict[str, Any] | None:
        """Return the log after `before_emit` and the masks; None where the former drops it."""
        # Types first: neither may see a number where text will be sent.
        right = repaired(fields)
        kept = right if self._before_emit is None else self._hooked(right, self._before_emit)
        return None if kept is None else self._masked(kept)

    def rewrite_change(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a change or of feedback after the masks: `before_emit` sees whole logs only."""
        return self._masked(repaired(fields))

    def reference(self, reference: str) -> str:
        """Return a log's reference, as the masks leave it on the log itself."""
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
            # The hook may have put any object there.
            out: dict[str, Any] = {
                name: {key: plain(each, limits=_WIDE) for key, each in value.items()}
                if name == "custom_attributes"
                else plain(value, limits=_WIDE)
                for name, value in kept
                if value is not None
            }
        except Exception as error:  # noqa: BLE001 - the hook is the user's; what it was to keep back must not leave
            _guard.raise_if_the_programs(error)
            message = "before_emit failed (%s): the log goes without its content"
            _guard.log_throttled(logging.WARNING, "before_emit", message, type(error).__name__)
            return _without_content(fields, error)
        if kept.response == sent:
            out["response"] = response  # so that a mask still walks data
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
    """Return what `value` leaves of `room` characters; stops counting where nothing is left."""
    if isinstance(value, str):
        return room - len(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        room = _room_left(part, room - 1)
        if room <= 0:
            break
    return room
