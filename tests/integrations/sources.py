"""A table of the sources that see models' answers: how each is enabled, and which fields it does not know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import logfire
from openai import AsyncOpenAI, OpenAI
from openai.resources.chat.completions import AsyncCompletions, Completions
from openai.resources.responses import AsyncResponses, Responses
from openinference.instrumentation.openai import OpenAIInstrumentor as OpenInference
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor as GenAI
from opentelemetry.instrumentation.openai import OpenAIInstrumentor as OpenLLMetry
from opentelemetry.sdk.trace import TracerProvider
from pydantic_ai import Agent
from pydantic_ai.exceptions import AgentRunError
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from athina_trace import instrument_openai, uninstrument_openai
from athina_trace.integrations.opentelemetry import AthinaSpanProcessor
from tests.openai.server import Server

from . import conversation

SwitchedOn = AbstractContextManager[object]


@dataclass(frozen=True)
class Source:
    """A source that sees the conversation."""

    name: str
    switch_on: Callable[[], SwitchedOn]
    talk: Callable[[Server], None] = conversation.talk
    lacks: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    """By the number of the log: fields that the source does not know, and why."""


@contextmanager
def own() -> Iterator[None]:
    instrument_openai()
    try:
        yield
    finally:
        uninstrument_openai()


@contextmanager
def traced() -> Iterator[TracerProvider]:
    """Yield a separate provider with our processor, since some instrumentations cannot be disabled entirely."""
    made, processor = TracerProvider(), AthinaSpanProcessor()
    made.add_span_processor(processor)
    try:
        yield made
    finally:
        processor.enabled = False


@contextmanager
def put_back() -> Iterator[None]:
    """Undo what an instrumentation leaves in the client: OpenLLMetry's wrappers would keep making spans."""
    owners = Completions, AsyncCompletions, Responses, AsyncResponses
    before = [(owner, name, member) for owner in owners for name, member in vars(owner).items() if callable(member)]
    try:
        yield
    finally:
        for owner, name, member in before:
            if vars(owner)[name] is not member:
                setattr(owner, name, member)


def by_instrumentor(kind: Any) -> Callable[[], SwitchedOn]:
    @contextmanager
    def switch_on() -> Iterator[None]:
        instrumentor = kind()
        with traced() as provider, put_back():
            instrumentor.instrument(tracer_provider=provider, skip_dep_check=True)
            try:
                yield
            finally:
                instrumentor.uninstrument()

    return switch_on


@contextmanager
def by_logfire() -> Iterator[None]:
    processor = AthinaSpanProcessor()
    configured = logfire.configure(
        local=True, send_to_logfire=False, console=False, additional_span_processors=[processor]
    )
    with configured.instrument_openai(OpenAI), configured.instrument_openai(AsyncOpenAI):
        yield
    processor.enabled = False


@contextmanager
def by_pydantic_ai() -> Iterator[None]:
    with traced() as provider:
        Agent.instrument_all(InstrumentationSettings(tracer_provider=provider))
        try:
            yield
        finally:
            Agent.instrument_all(False)


def talk_with_pydantic_ai(server: Server) -> None:
    async def talk() -> None:
        async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            model = OpenAIChatModel(conversation.MODEL, provider=OpenAIProvider(openai_client=client))
            agent = Agent(model, system_prompt=conversation.SYSTEM)
            agent.tool_plain(conversation.find_parcel)
            messages = (await agent.run(conversation.FIRST)).all_messages()
            async with agent.run_stream(conversation.SECOND, message_history=messages) as stream:
                async for _ in stream.stream_text():
                    pass
                messages = stream.all_messages()
            with suppress(AgentRunError):
                await agent.run(conversation.THIRD, message_history=messages)

    asyncio.run(talk())


SOURCES = [
    Source("instrument_openai()", own),
    Source("genai instrumentation", by_instrumentor(GenAI)),
    Source("OpenInference", by_instrumentor(OpenInference)),
    Source("OpenLLMetry", by_instrumentor(OpenLLMetry)),
    Source("Logfire", by_logfire),
    Source(
        "Pydantic AI",
        by_pydantic_ai,
        talk_with_pydantic_ai,
        {3: {"user_query": "the span of a request that failed has no messages"}},
    ),
]
