"""Finds token counts, and the model that used the tokens, wherever a library or server keeps them."""

from __future__ import annotations

import re
from typing import Any, Final

Data = dict[str, Any]
"""A dictionary of JSON-safe data."""

TOKENS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")
_SNAKE_COUNTS: Final = {
    **{name: name for name in TOKENS},
    "input_tokens": "prompt_tokens",
    "prompt_token_count": "prompt_tokens",
    "input_token_count": "prompt_tokens",
    "input_text_token_count": "prompt_tokens",
    "prompt_eval_count": "prompt_tokens",
    "output_tokens": "completion_tokens",
    "candidates_token_count": "completion_tokens",
    "output_token_count": "completion_tokens",
    "completion_token_count": "completion_tokens",
    "generation_token_count": "completion_tokens",
    "eval_count": "completion_tokens",
    "total_token_count": "total_tokens",
}
COUNTS: Final = {
    **_SNAKE_COUNTS,
    **{re.sub("_([a-z])", lambda found: found[1].upper(), name): ours for name, ours in _SNAKE_COUNTS.items()},
}
"""Libraries' and servers' names for token counts, in snake case and camel case → Athina's."""

_MOST_DIGITS: Final = 18
"""Digits of a count that is sent as text."""
USAGES: Final = ("usage", "usage_metadata", "usageMetadata", "token_usage", "tokenUsage", "models_usage", "_lm_usage")
BESIDE: Final = ("meta", "_meta", "metadata", "response_metadata", "metrics", "accumulated_usage", "raw")
"""Fields that may contain the counts or the model."""
MODELS: Final = ("model", "model_name", "modelName", "model_version", "modelVersion", "modelId")


def as_count(value: Any) -> int | None:
    """Return a count as an integer; it may also be a float without a fraction, or digits. None for anything else."""
    if type(value) is int:
        return value if value >= 0 else None
    if type(value) is str:
        return int(value) if value.isdecimal() and len(value) <= _MOST_DIGITS else None
    return int(value) if type(value) is float and value >= 0 and value.is_integer() else None


def counts_of(usage: Any) -> dict[str, int]:
    """Return token counts under Athina's names."""
    counts: dict[str, int] = {}
    for given, value in usage.items() if isinstance(usage, dict) else ():
        if given in COUNTS and (count := as_count(value)) is not None:
            counts[COUNTS[given]] = count
    return counts


def counts_beside(data: Data, depth: int = 2) -> tuple[dict[str, int], str | None]:
    """Return the token counts in or beside an answer, and its model."""
    model = next((data[name] for name in MODELS if isinstance(data.get(name), str) and data[name]), None)
    usage = next((data[name] for name in USAGES if isinstance(data.get(name), dict)), None)
    counts = {} if COUNTS.keys().isdisjoint(data) else counts_of(data)
    if usage is not None:
        counts = counts_of(usage)
        # Cohere counts both used and billed tokens.
        inner = [usage.get("tokens") or usage.get("billed_units")] if not counts else []
        inner = inner if inner and inner[0] else [*usage.values()] if not counts else []
        for each in inner:  # DSPy's counts are by model
            for name, count in counts_of(each).items():
                counts[name] = counts.get(name, 0) + count
        if model is None and len(usage) == 1 and isinstance(next(iter(usage.values())), dict):
            model = next(iter(usage))
    elif not counts and isinstance(tokens := data.get("tokens") or data.get("billed_units"), dict):
        counts = counts_of(tokens)
    for name in BESIDE if depth and not (counts and model) else ():
        inside = data.get(name)
        if isinstance(inside, dict):
            more, other = counts_beside(inside, depth - 1)
            counts, model = counts or more, model or other
    return counts, model
