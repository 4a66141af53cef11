"""Talk to the relay that the environment's settings name. Needs the extra `nats`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from nats.aio.client import Client

from athina_trace.cli.terminal import CommandError
from athina_trace.relay.connection import Address, ApiError, Loop, NoAnswerError, close, connect
from athina_trace.relay.names import Names
from athina_trace.relay.status import RelayStatus, read
from athina_trace.settings import Settings

T = TypeVar("T")
_FRESH_SECONDS = 2.0
_PATIENCE_SECONDS = 4.9
"""How long a page may wait for a relay: longer than JetStream takes to find that a partition has no leader, which is
four seconds, and less than a connection to hanging servers takes."""


class RelayWatch:
    """The relay's status for pages, cached, so that many may ask at once and none waits for long."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shown: RelayStatus | str = ""
        self._shown_until = float("-inf")

    def status(self) -> RelayStatus | str:
        """Return the status, at most two seconds old, or a sentence that says why it is unknown."""
        with self._lock:
            if time.monotonic() > self._shown_until:
                try:
                    self._shown = ask_relay(read, patience=_PATIENCE_SECONDS)
                except CommandError as error:
                    self._shown = str(error)
                self._shown_until = time.monotonic() + _FRESH_SECONDS
            return self._shown


def ask_relay(question: Callable[[Client, Names], Awaitable[T]], *, patience: float | None = None) -> T:
    """Connect, ask, and return the answer, within `patience` seconds. Raises `CommandError` with the remedy."""
    address = Address.of(Settings.build())

    async def run() -> T:
        client = await connect(address, name="athina-trace")
        try:
            return await question(client, address.names)
        finally:
            await close(client)

    return run_relay(asyncio.wait_for(run(), patience), address)


def run_relay(work: Coroutine[Any, Any, T], address: Address) -> T:
    """Run `work` in a new event loop, and turn a relay's errors into a message with the remedy."""
    try:
        return Loop().run(work)
    except PermissionError as error:
        raise CommandError(
            f"the relay at {address} denied access ({error}): check ATHINA_RELAY and ATHINA_RELAY_CREDENTIALS"
        ) from None
    except NoAnswerError as error:
        raise CommandError(
            f"the relay at {address} cannot be used: {error}; check ATHINA_RELAY and its servers"
        ) from None
    except asyncio.TimeoutError:
        raise CommandError(
            f"the relay at {address} did not answer in time: check ATHINA_RELAY and its servers"
        ) from None
    except OSError as error:
        raise CommandError(f"the relay at {address} cannot be used: {error}; check ATHINA_RELAY_CERTIFICATE") from None
    except ApiError as error:
        raise CommandError(f"the relay at {address} refused: {error}; run `athina-trace relay --setup`") from None
