"""Talk to the relay that the environment's settings name. Needs the extra `nats`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from nats.aio.client import Client

from athina_trace.cli.terminal import CommandError
from athina_trace.relay.connection import Address, ApiError, Loop, NoAnswerError, close, connect
from athina_trace.relay.names import Names
from athina_trace.settings import Settings

T = TypeVar("T")


def ask_relay(question: Callable[[Client, Names], Awaitable[T]]) -> T:
    """Connect, ask, and give the answer. Raises `CommandError` with the remedy."""
    address = Address.of(Settings.build())

    async def run() -> T:
        client = await connect(address, name="athina-trace")
        try:
            return await question(client, address.names)
        finally:
            await close(client)

    return run_relay(run(), address)


def run_relay(work: Coroutine[Any, Any, T], address: Address) -> T:
    """Run it in a loop of its own, and turn what a relay can raise into a message with the remedy."""
    try:
        return Loop().run(work)
    except PermissionError as error:
        raise CommandError(
            f"the relay at {address} does not let us in ({error}): check ATHINA_RELAY and ATHINA_RELAY_CREDENTIALS"
        ) from None
    except NoAnswerError as error:
        raise CommandError(f"the relay at {address} cannot be used: {error}; check ATHINA_RELAY") from None
    except ApiError as error:
        raise CommandError(f"the relay at {address} refused: {error}; run `athina-trace relay --setup`") from None
