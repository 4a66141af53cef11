"""Commits to the outbox for clients that wait for an answer, and the answers if nothing can be kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, TypeVar

from athina_trace import _runtime
from athina_trace._serving.athina_api import RefusedRequest
from athina_trace.errors import OutboxError, OutboxFullError
from athina_trace.gateway import forward

RETRY_SECONDS: Final = 5
"""Seconds after which a client may try again if nothing can be kept."""

T = TypeVar("T")


class Commits:
    """Commits durably, and remembers the last failure."""

    def __init__(self) -> None:
        self._failed_at = float("-inf")

    @property
    def failed_lately(self) -> bool:
        """Whether something could not be kept, until its client tries again.

        No longer: without requests there would be no other way to see that it works again.
        """
        return time.monotonic() - self._failed_at < RETRY_SECONDS

    async def commit(self, work: Callable[[], T], *, takes_long: bool) -> T:
        """Do `work`, which commits something, off the event loop where it takes long.

        Raises:
            RefusedRequest: it cannot be kept durably.
        """
        try:
            result = await asyncio.to_thread(work) if takes_long else work()
            settings = forward.runtime().settings
            # Without a disk, only Athina, or the stream in front of it, keeps a log.
            is_kept = not settings.flush_each_call or bool(await _runtime.aflush(settings.flush_timeout))
        except OutboxFullError as error:
            raise self._refusal(429, "Too Many Requests", str(error)) from None
        except OutboxError as error:
            raise self._refusal(503, "Service Unavailable", str(error)) from None
        if not is_kept:
            message = f"not delivered within {settings.flush_timeout:g} seconds, but may be delivered later"
            raise self._refusal(503, "Service Unavailable", message)
        return result

    def _refusal(self, status: int, error: str, message: str) -> RefusedRequest:
        self._failed_at = time.monotonic()
        return RefusedRequest(status, error, message, retry_after=RETRY_SECONDS)
