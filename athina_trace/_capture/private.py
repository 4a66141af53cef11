"""`athina_private`: calls inside are logged without their content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from athina_trace._capture.draft import current_draft
from athina_trace._pipeline.redaction import Redaction
from athina_trace.context import ScopeCall, Scoped, ScopeOverrides

if TYPE_CHECKING:
    from typing_extensions import Self


class athina_private(Scoped):  # noqa: N801 - reads as a verb, like contextlib's
    """Logs made inside carry no content: no prompt, question, document or answer, and of an error only its type.

    Who talked, when, how long, which model and how many tokens are still logged. Content that the program itself sets
    inside is left out, too, and the log of a call that is already running around the block becomes private as a whole.
    Inner scopes cannot undo this.

    Use it as `with`, `async with`, or as a decorator of any kind of function.

    Args:
        inputs: False logs the inputs all the same.
        response: False logs the answers all the same.

    >>> with athina_private():
    ...     reference = log_inference(user_query="My number is …", response="Thank you.", total_tokens=9)
    >>> log = recent_logs()[-1]
    >>> "user_query" in log, log["response"], log["total_tokens"]
    (False, '', 9)
    """

    def __init__(self, *, inputs: bool = True, response: bool = True) -> None:
        redaction = Redaction.NOTHING
        if inputs:
            redaction |= Redaction.INPUTS | Redaction.NAMED
        if response:
            redaction |= Redaction.RESPONSE | Redaction.NAMED
        super().__init__(ScopeOverrides(redaction=redaction))

    def __enter__(self) -> Self:
        self._redact_around()
        return super().__enter__()

    def _open(self, function: object, instance: object, args: object, kwargs: object) -> ScopeCall:
        self._redact_around()
        return super()._open(function, instance, args, kwargs)

    def _redact_around(self) -> None:
        # What the call captured before the block is as private as what happens inside.
        draft = current_draft()
        if draft is not None:
            draft.redaction |= self._overrides.redaction
