"""The client for the examples: of OpenAI if there is a key, otherwise of the stand-in."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from openai import AsyncOpenAI, OpenAI

from standin_openai import StandIn


@contextmanager
def open_client() -> Iterator[OpenAI]:
    """Open a client and, without a key, the stand-in's server."""
    if os.environ.get("OPENAI_API_KEY"):
        with OpenAI() as client:
            yield client
    else:
        with StandIn() as server, OpenAI(base_url=server.base_url, api_key="not needed") as client:
            yield client


@asynccontextmanager
async def open_async_client() -> AsyncIterator[AsyncOpenAI]:
    """Do what `open_client` does, for async code."""
    if os.environ.get("OPENAI_API_KEY"):
        async with AsyncOpenAI() as client:
            yield client
    else:
        with StandIn() as server:
            async with AsyncOpenAI(base_url=server.base_url, api_key="not needed") as client:
                yield client
