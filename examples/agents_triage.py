"""OpenAI's Agents SDK: a triage agent hands each question over to a colleague; the answers of both are logged.

python -m pip install 'athina-trace[agents,examples]'
python examples/agents_triage.py     a stand-in plays the models' part; no key is needed
"""

import asyncio

from agents import Agent, OpenAIResponsesModel, RunConfig, Runner, function_tool
from openai import AsyncOpenAI

from athina_trace import athina_session, flush, recent_logs, status
from athina_trace.integrations.openai_agents import instrument_openai_agents
from parcels import INSTRUCTIONS, use_tool
from show import show_conversation, show_delivery
from standin_openai import StandIn

QUESTIONS = ("Hello, where is my parcel PX-48213?", "What if I do not like it, can I send it back?")


@function_tool
def track_parcel(parcel_id: str) -> str:
    """Where a parcel is now and when it will arrive."""
    return use_tool("track_parcel", f'{{"parcel_id": "{parcel_id}"}}')


async def talk(base_url: str) -> None:
    """Ask two questions in one conversation, each to the triage agent."""
    async with AsyncOpenAI(base_url=base_url, api_key="not needed") as client:
        model = OpenAIResponsesModel("gpt-4.1-mini", client)
        tracking = Agent(name="Tracking", instructions=INSTRUCTIONS, tools=[track_parcel], model=model)
        returns = Agent(name="Returns", instructions=INSTRUCTIONS, model=model)
        triage = Agent(name="Triage", instructions="Hand over.", handoffs=[tracking, returns], model=model)
        # The group is the session; customer and environment come from the surrounding scope.
        run = RunConfig(group_id="conversation-17")
        with athina_session(customer_id="disney-usa-2314832"):
            for question in QUESTIONS:
                await Runner.run(triage, question, run_config=run)


if __name__ == "__main__":
    instrument_openai_agents()
    before = status().made
    with StandIn() as server:
        asyncio.run(talk(server.base_url))
    report = flush(timeout=10)
    show_conversation(recent_logs(status().made - before))
    show_delivery(report, status())
