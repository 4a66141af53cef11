"""What a call cost where the program names no cost: computed by the price table of `genai-prices`, if there is one."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import cache
from importlib.util import find_spec

AVAILABLE = find_spec("genai_prices") is not None
"""Whether there is a table. It comes with the extra `ui`; without it, costs are those that programs name."""


def estimate(model: str, *, prompt: int, completion: int, cached: int = 0, made: float) -> float | None:
    """Return the price in dollars of a call that took so many tokens; None for a model that the table does not have.

    Prices are those of the day on which the call was made, without the discounts of any contract.
    """
    if not AVAILABLE or not _is_known(model):
        return None
    from genai_prices import Usage, calc_price  # noqa: PLC0415 - an optional extra, and half a second to load

    try:
        usage = Usage(input_tokens=prompt, output_tokens=completion, cache_read_tokens=min(cached, prompt))
        when = datetime.fromtimestamp(made, timezone.utc)
        return float(calc_price(usage, model, genai_request_timestamp=when).total_price)
    except (LookupError, ValueError, OverflowError, OSError):  # a negative count, a year that no calendar has
        return None


@cache
def _is_known(model: str) -> bool:
    # Looking for an unknown model goes through the whole table; there are few models, and many calls of each.
    from genai_prices import Usage, calc_price  # noqa: PLC0415

    try:
        calc_price(Usage(input_tokens=1), model)
    except (LookupError, ValueError):
        return False
    return True
