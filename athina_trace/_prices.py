"""Estimates of a call's cost, for calls without one, from the price table of `genai-prices` if it is installed."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import cache
from importlib.util import find_spec

AVAILABLE = find_spec("genai_prices") is not None
"""Whether the price table is installed. It comes with the extra `ui`."""


def estimate(model: str, *, prompt: int, completion: int, cached: int = 0, made: float) -> float | None:
    """Return the price in dollars of a call with these counts of tokens; None for a model that is not in the table.

    Uses the list prices of the day on which the call was made.
    """
    if not AVAILABLE or not _is_known(model):
        return None
    from genai_prices import Usage, calc_price  # noqa: PLC0415 - an optional extra, and half a second to load

    try:
        usage = Usage(input_tokens=prompt, output_tokens=completion, cache_read_tokens=min(cached, prompt))
        when = datetime.fromtimestamp(made, timezone.utc)
        return float(calc_price(usage, model, genai_request_timestamp=when).total_price)
    except (LookupError, ValueError, OverflowError, OSError):  # a negative count, a year out of range
        return None


@cache
def _is_known(model: str) -> bool:
    # The lookup of an unknown model searches the whole table; there are few models, and many calls of each.
    from genai_prices import Usage, calc_price  # noqa: PLC0415

    try:
        calc_price(Usage(input_tokens=1), model)
    except (LookupError, ValueError):
        return False
    return True
