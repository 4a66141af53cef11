"""The options of a decorator, which decide what its calls capture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from athina_trace._pipeline.redaction import NOTHING, Redaction
from athina_trace.context import is_share
from athina_trace.schema import ALIASES, check_names


@dataclass(frozen=True)
class Options:
    """The arguments of `@athina_trace(...)`. `Options.checked` rejects invalid ones."""

    named: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    response: Callable[[Any], Any] | None = None
    capture_inputs: bool | frozenset[str] = True
    sample_rate: float | None = None
    redaction: Redaction = NOTHING

    @classmethod
    def checked(
        cls,
        named: Mapping[str, Any],
        *,
        inputs: Mapping[str, str] | None,
        response: Callable[[Any], Any] | None,
        capture_inputs: Any,
        capture_response: bool,
        sample_rate: float | None,
    ) -> Options:
        """Return the options, or raise a `TypeError` that names the mistake and suggests a correction."""
        check_names("athina_trace", (*named, *(inputs or ())))
        if response is not None and not callable(response):
            raise TypeError(f"athina_trace(response=...) takes a function of the result, got {response!r}")
        if isinstance(capture_inputs, str):
            raise TypeError(
                f"athina_trace(capture_inputs=...) takes True, False or names of parameters; write [{capture_inputs!r}]"
            )
        if not isinstance(capture_inputs, bool):
            capture_inputs = frozenset(capture_inputs)
        mapped = {ALIASES.get(name, name): parameter for name, parameter in (inputs or {}).items()}
        if sample_rate is not None and not is_share(sample_rate):
            raise TypeError(f"athina_trace(sample_rate=...) takes a share from 0 to 1, got {sample_rate!r}")
        # Arguments are left out when they are read; this also removes what the model's API repeats of them.
        redaction = Redaction.INPUTS if capture_inputs is False else NOTHING
        if not capture_response:
            redaction |= Redaction.RESPONSE
        return cls(named, mapped, response, capture_inputs, sample_rate, redaction)


NO_OPTIONS: Final = Options()
"""Those of logs that no decorator makes."""
