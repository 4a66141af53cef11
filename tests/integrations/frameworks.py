"""Runs the conversation with several frameworks and our callbacks; see `sources`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import agents
import litellm
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
from openai import AsyncOpenAI, OpenAIError

from athina_trace.integrations.langchain import instrument_langchain, uninstrument_langchain
from athina_trace.integrations.litellm import instrument_litellm, uninstrument_litellm
from athina_trace.integrations.openai_agents import instrument_openai_agents, uninstrument_openai_agents
from tests.openai.server import Server

from . import sources
from .conversation import FIRST, MODEL, SECOND, SYSTEM, THIRD, TOOL, find_parcel
from .sources import Source, SwitchedOn


def between(switch_on: Callable[[], None], switch_off: Callable[[], None]) -> Callable[[], SwitchedOn]:
    @contextmanager
    def switched_on() -> Iterator[None]:
        switch_on()
        try:
            yield
        finally:
            switch_off()

    return switched_on


def _chat_openai(server: Server) -> ChatOpenAI:
    given: Any = {"base_url": server.base_url, "api_key": "any", "max_retries": 0, "stream_usage": True}
    return ChatOpenAI(model=MODEL, **given)


def talk_with_chat_openai(server: Server) -> None:
    found = tool(find_parcel)
    model = _chat_openai(server).bind_tools([TOOL])
    messages: list[Any] = [SystemMessage(SYSTEM), HumanMessage(FIRST)]
    for _ in range(2):
        messages.append(model.invoke(messages))
        messages += [found.invoke(call) for call in messages[-1].tool_calls]
    messages.append(HumanMessage(SECOND))
    first, *rest = model.stream(messages)
    messages += [sum(rest, first), HumanMessage(THIRD)]
    with suppress(OpenAIError):
        model.invoke(messages)


def talk_with_langgraph(server: Server) -> None:
    agent: Any = create_agent(
        _chat_openai(server), [tool(find_parcel)], system_prompt=SYSTEM, checkpointer=InMemorySaver()
    )
    config = {"configurable": {"thread_id": "thread_1"}}
    agent.invoke({"messages": [("user", FIRST)]}, config)
    list(agent.stream({"messages": [("user", SECOND)]}, config, stream_mode="messages"))
    with suppress(OpenAIError):
        agent.invoke({"messages": [("user", THIRD)]}, config)


def talk_with_agents(server: Server) -> None:
    async def talk() -> None:
        async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            agent = agents.Agent(
                name="Desk",
                instructions=SYSTEM,
                model=agents.OpenAIChatCompletionsModel(MODEL, client),
                model_settings=agents.ModelSettings(include_usage=True),
                tools=[agents.function_tool(find_parcel)],
            )
            config = agents.RunConfig(group_id="thread_1")
            messages: Any = (await agents.Runner.run(agent, FIRST, run_config=config)).to_input_list()
            messages.append({"role": "user", "content": SECOND})
            streamed = agents.Runner.run_streamed(agent, messages, run_config=config)
            async for _ in streamed.stream_events():
                pass
            messages = [*streamed.to_input_list(), {"role": "user", "content": THIRD}]
            with suppress(OpenAIError):
                await agents.Runner.run(agent, messages, run_config=config)

    asyncio.run(talk())


def talk_with_litellm(server: Server) -> None:
    async def talk() -> None:
        given: Any = {"api_base": server.base_url, "api_key": "any", "max_retries": 0, "tools": [TOOL]}
        messages: list[Any] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": FIRST}]
        asked: Any = {"model": f"openai/{MODEL}", "messages": messages, **given}
        for _ in range(2):
            message = (await litellm.acompletion(**asked)).choices[0].message
            messages.append(message.model_dump(exclude_none=True))
            calls = message.tool_calls or []
            messages += [{"role": "tool", "tool_call_id": call.id, "content": find_parcel("7")} for call in calls]
        messages.append({"role": "user", "content": SECOND})
        text = ""
        async for chunk in await litellm.acompletion(**asked, stream=True, stream_options={"include_usage": True}):
            text += chunk.choices[0].delta.content or "" if chunk.choices else ""
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": THIRD}]
        with suppress(OpenAIError):
            await litellm.acompletion(**asked)
        await GLOBAL_LOGGING_WORKER.flush()  # LiteLLM calls loggers in a separate task

    asyncio.run(talk())


def _instrument_agents() -> None:
    agents.set_trace_processors([])  # OpenAI's own upload has no server here
    instrument_openai_agents()


by_langchain = between(instrument_langchain, uninstrument_langchain)
SOURCES = [
    *sources.SOURCES,
    Source("LangChain's ChatOpenAI", by_langchain, talk_with_chat_openai),
    Source("LangGraph", by_langchain, talk_with_langgraph),
    Source("OpenAI Agents SDK", between(_instrument_agents, uninstrument_openai_agents), talk_with_agents),
    Source("LiteLLM", between(instrument_litellm, uninstrument_litellm), talk_with_litellm),
]
