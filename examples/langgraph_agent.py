"""A support agent with LangGraph: each answer of its model is logged, with the tools that it called.

python -m pip install 'athina-trace[examples,langchain]' langchain langchain-openai
python examples/langgraph_agent.py     a stand-in plays the model's part; no key is needed
"""

from typing import Any

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver

from athina_trace import athina_session, athina_trace, flush, recent_logs, status
from athina_trace.integrations.langchain import instrument_langchain
from parcels import INSTRUCTIONS, use_tool
from show import show_conversation, show_delivery
from standin_openai import StandIn

QUESTIONS = ("Hello, where is my parcel PX-48213?", "What if I do not like it, can I send it back?")


@tool
def track_parcel(parcel_id: str) -> str:
    """Where a parcel is now and when it will arrive."""
    return use_tool("track_parcel", f'{{"parcel_id": "{parcel_id}"}}')


def talk(base_url: str) -> None:
    """Ask two questions, on one thread."""
    model: Any = ChatOpenAI(model="gpt-4.1-mini", base_url=base_url, api_key="not needed")
    agent: Any = create_agent(model, [track_parcel], system_prompt=INSTRUCTIONS, checkpointer=InMemorySaver())

    # Undecorated, each of the model's answers would have its own log, in the session of the thread.
    @athina_trace(prompt_slug="customer-support/v1")
    def answer(question: str) -> str:
        asked = {"messages": [("user", question)]}
        return str(agent.invoke(asked, {"configurable": {"thread_id": "thread-7"}})["messages"][-1].content)

    with athina_session(customer_id="disney-usa-2314832"):
        for question in QUESTIONS:
            answer(question)


if __name__ == "__main__":
    instrument_langchain()
    before = status().made
    with StandIn() as server:
        talk(server.base_url)
    report = flush(timeout=10)
    show_conversation(recent_logs(status().made - before))
    show_delivery(report, status())
