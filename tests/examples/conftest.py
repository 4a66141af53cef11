"""The stand-in for these tests: one server, which answers without a pause."""

from collections.abc import Iterator

import pytest
from openai import OpenAI

from standin_openai import StandIn


@pytest.fixture(scope="module")
def stand_in() -> Iterator[StandIn]:
    with StandIn(latency=0) as server:
        yield server


@pytest.fixture
def client(stand_in: StandIn) -> Iterator[OpenAI]:
    with OpenAI(base_url=stand_in.base_url, api_key="any", max_retries=0) as made:
        yield made
