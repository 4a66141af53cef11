"""Pydantic AI through OpenTelemetry: each turn of an agent is one log, with the tools that it called.

python -m pip install 'athina-trace[examples,otel]' 'pydantic-ai-slim[openai]'
python examples/pydantic_ai_agent.py     a stand-in plays the model's part; no key is needed
"""

import asyncio

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import set_tracer_provider
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from athina_trace import athina_session, athina_trace, flush, instrument, recent_logs, status
from parcels import INSTRUCTIONS, use_tool
from show import show_conversation, show_delivery
from standin_openai import StandIn

instrument()  # OpenTelemetry's spans, and OpenAI's client: each answer is logged once
set_tracer_provider(TracerProvider())
Agent.instrument_all()

QUESTIONS = ("Hello, where is my parcel PX-48213?", "What if I do not like it, can I send it back?")


def track_parcel(parcel_id: str) -> str:
    """Look up where a parcel is."""
    return use_tool("track_parcel", f'{{"parcel_id": "{parcel_id}"}}')


async def talk(base_url: str) -> None:
    """Ask two questions, the second in the conversation of the first."""
    model = OpenAIChatModel("gpt-4.1-mini", provider=OpenAIProvider(base_url=base_url, api_key="any"))
    agent = Agent(model, instructions=INSTRUCTIONS, tools=[track_parcel])

    @athina_trace
    async def answer(question: str) -> str:
        result = await agent.run(question, message_history=history)
        history.extend(result.new_messages())
        return str(result.output)

    history: list[ModelMessage] = []
    with athina_session("conversation-17", customer_id="disney-usa-2314832"):
        for question in QUESTIONS:
            await answer(question)


if __name__ == "__main__":
    before = status().made
    with StandIn() as server:
        asyncio.run(talk(server.base_url))
    report = flush(timeout=10)
    show_conversation(recent_logs(status().made - before))
    show_delivery(report, status())
