"""Implements the setting `estimate_cost`: adds an estimated cost to logs that have none, when they are sent.

This happens behind the outbox rather than in the call, since the price table takes half a second to load. So it comes
after `before_emit` and masks: the estimate does not use what they removed, and a cost that they set is kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from pydantic_core import from_json, to_json

from athina_trace import _guard, _prices

MARK = "cost_estimated"
"""The custom attribute that is true if a log's cost is an estimate."""


def estimator() -> Callable[[bytes], bytes] | None:
    """Return `with_estimate`; None, with a warning, if the price table is not installed."""
    if _prices.AVAILABLE:
        return with_estimate
    message = (
        "ATHINA_ESTIMATE_COST needs a package that is missing, and logs are sent without estimates of their cost: "
        "pip install genai-prices"
    )
    _guard.log_throttled(logging.WARNING, "price table", message)
    return None


def with_estimate(body: bytes) -> bytes:
    """Return the JSON of a log, with today's list price of its tokens if it has no cost. Never raises."""
    with _guard.shield("estimating the cost of a log"):
        try:
            log = from_json(body)
        except ValueError:
            return body
        match log:
            case {"cost": int() | float()}:
                pass
            case {"language_model_id": str(model), "prompt_tokens": int(prompt), "completion_tokens": int(completion)}:
                attributes: dict[str, Any] = log.get("custom_attributes") or {}
                cached = attributes.get("cached_tokens")
                cost = _prices.estimate(
                    model,
                    prompt=prompt,
                    completion=completion,
                    cached=cached if isinstance(cached, int) else 0,
                    made=time.time(),
                )
                if cost is not None:
                    return to_json({**log, "cost": cost, "custom_attributes": {**attributes, MARK: True}})
    return body
