"""LangChain and LangGraph with the real packages: each model run is one complete log."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel, FakeListLLM, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk, LLMResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnablePassthrough
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt
from openai import OpenAI as Client
from openai import OpenAIError

from athina_trace import _guard, athina_session, athina_trace, instrument_openai, uninstrument_openai
from athina_trace.integrations.langchain import (
    AthinaCallbackHandler,
    _switch,
    instrument_langchain,
    uninstrument_langchain,
)
from athina_trace.testing import captured_logs
from tests.openai.samples import chat, function_call, output_text, response
from tests.openai.scripts import RAIN, RAIN_CHUNKS
from tests.openai.server import Events, Failure, Server

from .conftest import Logs
from .hostile import values

CALL = function_call(name="track", arguments='{"parcel":"PX-1"}')


@pytest.fixture(autouse=True)
def _instrumented() -> Iterator[None]:
    instrument_langchain()
    yield
    uninstrument_langchain()
    uninstrument_openai()


@pytest.fixture
def model(server: Server) -> ChatOpenAI:
    return ChatOpenAI(model="gpt-4o", base_url=server.base_url, api_key="any", max_retries=0, temperature=0.3)


@tool
def track(parcel: str) -> str:
    """Say where a parcel is."""
    return f"{parcel} is in Leipzig."


def test_a_chat_model_is_logged_with_question_options_tokens_and_tools(
    model: ChatOpenAI, server: Server, logs: Logs
) -> None:
    server.on("POST /chat/completions", chat(content=RAIN))
    model.bind_tools([track]).invoke([("system", "Be kind."), ("human", "What is the weather?")])
    (log,) = logs()
    assert log["prompt"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "What is the weather?"},
    ]
    assert (log["user_query"], log["response"]) == ("What is the weather?", RAIN)
    assert log["language_model_id"] == "gpt-4o-mini"  # the model that answered, not the requested one
    assert [log[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")] == [5, 2, 7]
    assert log["model_options"]["temperature"] == 0.3
    assert log["tools"][0]["function"]["name"] == "track"
    assert log["custom_attributes"]["completion_id"] == "chatcmpl-1"
    assert log["response_time"] >= 0


def test_the_responses_api_is_logged(model: ChatOpenAI, server: Server, logs: Logs) -> None:
    server.on("POST /responses", response("resp_1", output_text(RAIN)))
    model.model_copy(update={"use_responses_api": True}).invoke("What is the weather?")
    (log,) = logs()
    assert (log["response"], log["language_model_id"], log["total_tokens"]) == (RAIN, "gpt-4.1", 26)
    assert log["custom_attributes"] == {
        "response_id": "resp_1", "cached_tokens": 8, "reasoning_tokens": 4, "status": "completed"
    }  # fmt: skip


@pytest.mark.parametrize("conversation", [None, "conv_1"])
def test_a_chain_of_responses_has_one_session_and_its_question(
    model: ChatOpenAI, server: Server, logs: Logs, conversation: str | None
) -> None:
    called = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "track", "arguments": "{}"}
    server.on("POST /responses", response("resp_1", called), Failure(400, "No."), response("resp_2", output_text(RAIN)))
    named: dict[str, Any] = {"conversation": conversation} if conversation is not None else {}
    responses = model.model_copy(update={"use_responses_api": True})
    responses.invoke("What is the weather?", **named)
    more = named or {"previous_response_id": "resp_1"}
    with suppress(OpenAIError):
        responses.invoke([ToolMessage("rain", tool_call_id="call_1")], **more)
    responses.invoke([ToolMessage("rain", tool_call_id="call_1")], **more)
    asked, failed, answered = logs()
    assert asked["tool_calls"][0]["output"] == "rain"
    for log in (failed, answered):
        assert (log["session_id"], log["user_query"]) == (conversation or "resp_1", "What is the weather?")


def test_a_refusal_is_the_response(model: ChatOpenAI, server: Server, logs: Logs) -> None:
    refusal = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "content": [{"type": "refusal", "refusal": "No."}],
    }
    server.on("POST /chat/completions", chat(content=None, refusal="No."))
    server.on("POST /responses", response("resp_1", refusal))
    for api in (False, True):
        model.model_copy(update={"use_responses_api": api}).invoke("May I?")
    assert [log["response"] for log in logs()] == ["No.", "No."]


def test_legacy_llms_and_models_of_other_providers_are_logged(server: Server, logs: Logs) -> None:
    legacy = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "gpt-3.5-turbo-instruct"}
    choice = {"text": RAIN, "index": 0, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    server.on("POST /completions", {**legacy, "choices": [choice], "usage": usage})
    OpenAI(model="gpt-3.5-turbo-instruct", base_url=server.base_url, api_key="any", max_retries=0).invoke("Weather?")
    other = AIMessage(
        [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "No."}],
        usage_metadata={
            "input_tokens": 9, "output_tokens": 1, "total_tokens": 10, "input_token_details": {"cache_read": 4}
        },
        response_metadata={"id": "msg_01", "model": "claude-sonnet-4-5", "stop_reason": "end_turn"},
    )  # fmt: skip
    GenericFakeChatModel(messages=iter([other])).invoke([HumanMessage("Is it late?")])
    FakeListLLM(responses=["a", "b"]).batch(["1", "2"])
    first, second, *batch = logs()
    assert (first["user_query"], first["response"], first["total_tokens"]) == ("Weather?", RAIN, 7)
    assert first["language_model_id"] == "gpt-3.5-turbo-instruct"
    assert (second["response"], second["language_model_id"]) == ("No.", "claude-sonnet-4-5")
    assert (second["total_tokens"], second["custom_attributes"]["cached_tokens"]) == (10, 4)
    assert [(log["user_query"], log["response"]) for log in batch] == [("1", "a"), ("2", "b")]


@pytest.mark.parametrize("also_the_client", [False, True])
def test_streams_are_logged_whole_or_closed_early(
    model: ChatOpenAI, server: Server, logs: Logs, also_the_client: bool
) -> None:
    if also_the_client:
        instrument_openai()
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS))
    assert "".join(str(each.content) for each in model.stream("Weather?", stream_usage=True)) == RAIN
    left: Any = model.stream("Weather?")
    while next(left).content != "It rains":
        pass
    left.close()
    gc.collect()

    async def main() -> None:
        assert "".join([str(each.content) async for each in model.astream("Weather?")]) == RAIN
        left: Any = model.astream("Weather?")
        while (await anext(left)).content != "It rains":
            pass
        await left.aclose()

    asyncio.run(main())
    whole, part, async_whole, async_part = logs()
    assert [log["response"] for log in (whole, async_whole)] == [RAIN, RAIN]
    assert whole["total_tokens"] == 7
    assert "outcome" not in whole["custom_attributes"]
    for log in (part, async_part):
        assert log["response"].startswith("It rains")
        assert log["custom_attributes"]["outcome"] == "incomplete"
        assert "error" not in log


@pytest.mark.parametrize(
    ("requested", "answers"), [("gpt-4o", "gpt-4o-2024"), ("mama", "mama")], ids=["another name", "a periodic name"]
)
def test_what_two_chunks_of_a_stream_repeat_is_logged_once(
    model: ChatOpenAI, server: Server, logs: Logs, requested: str, answers: str
) -> None:
    last = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": answers}
    last["choices"] = [{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}]  # some servers send it twice
    server.on("POST /chat/completions", Events.of_chat({**last, "choices": [{"delta": {"content": RAIN}}]}, last, last))
    list(model.model_copy(update={"model_name": requested}).stream("Weather?"))
    (log,) = logs()
    assert (log["response"], log["language_model_id"]) == (RAIN, answers)
    assert log["custom_attributes"]["status"] == "stop"


@pytest.mark.parametrize("is_async", [False, True])
def test_a_failure_is_logged_with_the_servers_message_and_status(
    model: ChatOpenAI, server: Server, logs: Logs, is_async: bool
) -> None:
    server.on("POST /chat/completions", Failure(400, "No such thing."))
    with pytest.raises(Exception, match="No such thing"):
        asyncio.run(model.ainvoke("Weather?")) if is_async else model.invoke("Weather?")
    (log,) = logs()
    assert (log["error"], log["status_code"], log["response"]) == ("No such thing.", 400, "")
    assert (log["user_query"], log["language_model_id"]) == ("Weather?", "gpt-4o")


def test_the_status_of_a_failure_is_where_the_provider_keeps_it(logs: Logs) -> None:
    class Throttled(Exception):  # noqa: N818 - as botocore names it
        response = {"ResponseMetadata": {"HTTPStatusCode": 429}}  # noqa: RUF012 - as botocore has it

    class Throttling(GenericFakeChatModel):
        def _generate(self, *args: Any, run_manager: Any = None, **kwargs: Any) -> Any:
            run_manager.on_llm_error(Throttled("Slow down."))  # some models report a failure themselves as well
            raise Throttled("Slow down.")

    with pytest.raises(Throttled):
        Throttling(messages=iter([])).invoke("Weather?")
    (log,) = logs()
    assert (log["user_query"], log["error"], log["status_code"]) == ("Weather?", "Throttled: Slow down.", 429)


@pytest.mark.parametrize("also_the_client", [False, True])
def test_an_answer_from_the_cache_is_a_separate_log(
    model: ChatOpenAI, server: Server, logs: Logs, also_the_client: bool
) -> None:
    if also_the_client:
        instrument_openai()
    server.on("POST /chat/completions", chat(content=RAIN))
    cached = model.model_copy(update={"cache": InMemoryCache()})
    for _ in range(2):
        cached.invoke("Weather?")
    first, again = logs()
    assert [log["response"] for log in (first, again)] == [RAIN, RAIN]
    assert [log["custom_attributes"].get("cache_hit") for log in (first, again)] == [None, "true"]


def test_a_cancelled_task_is_logged_without_an_error(logs: Logs) -> None:
    async def main() -> None:
        entered = asyncio.Event()

        class Waiting(GenericFakeChatModel):
            async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
                entered.set()
                await asyncio.sleep(60)

        # LangChain reports no cancelled model, only the chain around it.
        chain: Any = RunnablePassthrough() | Waiting(messages=iter([]))
        task = asyncio.create_task(chain.ainvoke("Weather?"))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    (log,) = logs()
    assert (log["user_query"], log["custom_attributes"]["outcome"]) == ("Weather?", "cancelled")
    assert "error" not in log


class WaitingChat(GenericFakeChatModel):
    """A chat model that signals its call and never answers."""

    messages: Iterator[AIMessage | str] = iter(["Rain."])
    entered: Any

    async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
        self.entered.set()
        await asyncio.sleep(60)

    async def _astream(self, *args: Any, **kwargs: Any) -> Any:
        yield ChatGenerationChunk(message=AIMessageChunk("Rain"))
        self.entered.set()
        await asyncio.sleep(60)


class WaitingLLM(FakeListLLM):
    """An LLM that signals its call and never answers."""

    responses: Any = ()
    entered: Any

    async def _acall(self, *args: Any, **kwargs: Any) -> Any:
        self.entered.set()
        await asyncio.sleep(60)


@pytest.mark.parametrize("kind", ["chat", "llm", "batch", "stream", "streamed call"])
@pytest.mark.parametrize("by_time_limit", [False, True])
def test_a_cancelled_model_is_logged_although_langchain_reports_nothing(
    kind: str, by_time_limit: bool, logs: Logs
) -> None:
    entered = asyncio.Event()
    model: Any = (WaitingLLM if kind == "llm" else WaitingChat)(entered=entered)

    async def ask() -> None:
        if kind == "stream":
            async for _ in model.astream("Weather?"):
                pass
        elif kind == "batch":
            await model.abatch(["Weather?", "Weather?"])
        else:
            # LangChain streams a call by itself if something around it, such as a graph, is streamed.
            await model.ainvoke("Weather?", **({"stream": True} if kind == "streamed call" else {}))

    async def give_up(task: asyncio.Task[Any]) -> None:
        await entered.wait()
        task.cancel()

    async def main() -> None:
        if by_time_limit:  # like `asyncio.timeout`: the task is cancelled and continues
            given_up = asyncio.create_task(give_up(cast("asyncio.Task[Any]", asyncio.current_task())))
            with suppress(asyncio.CancelledError):
                await ask()
            await given_up
            assert logs()
        else:
            task = asyncio.create_task(ask())
            await give_up(task)
            await asyncio.wait([task])

    asyncio.run(main())
    found = logs()
    assert [log["user_query"] for log in found] == ["Weather?"] * (2 if kind == "batch" else 1)
    for log in found:
        assert (log["custom_attributes"]["outcome"], log.get("error")) == ("cancelled", None)
        assert log["response"] == ("Rain" if kind.startswith("stream") else "")


@pytest.mark.parametrize("is_chat", [True, False])
def test_a_streamed_call_that_fails_is_logged_with_what_it_had_received(is_chat: bool, logs: Logs) -> None:
    class BrokenChat(GenericFakeChatModel):
        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            yield ChatGenerationChunk(message=AIMessageChunk([{"type": "text", "text": "It "}]))
            yield ChatGenerationChunk(message=AIMessageChunk("rains"))
            raise RuntimeError("Cut off.")

    class BrokenLLM(FakeListLLM):
        def _call(self, *args: Any, run_manager: Any = None, **kwargs: Any) -> str:
            for token in ("It ", "rains"):
                run_manager.on_llm_new_token(token)
            raise RuntimeError("Cut off.")

    model: Any = BrokenChat(messages=iter([])).bind(stream=True) if is_chat else BrokenLLM(responses=[])
    with pytest.raises(RuntimeError, match=r"Cut off\."):
        model.invoke("Weather?")
    (log,) = logs()
    assert (log["response"], log["error"]) == ("It rains", "RuntimeError: Cut off.")


def test_closing_a_call_in_another_context_does_not_raise(logs: Logs) -> None:
    model = WaitingChat(entered=asyncio.Event())
    coroutine = model.ainvoke("Weather?")

    async def main() -> None:
        step = contextvars.copy_context()
        with suppress(StopIteration):
            step.run(coroutine.send, None)
        coroutine.close()

    asyncio.run(main())
    (log,) = logs()
    assert log["custom_attributes"]["outcome"] == "incomplete"


def test_ended_models_are_released(logs: Logs) -> None:
    handler = AthinaCallbackHandler()
    models: list[Any] = [FakeListLLM(responses=["a"]), FakeListChatModel(responses=["b"])]

    async def ask() -> None:
        for model in models:
            for _ in range(20):
                await model.ainvoke("Weather?", {"callbacks": [handler]})

    asyncio.run(ask())
    found = logs()
    assert [log["response"] for log in found] == ["a"] * 20 + ["b"] * 20
    assert not any("outcome" in log["custom_attributes"] for log in found)
    assert not handler._models.values()


@pytest.mark.parametrize("also_the_client", [False, True])
def test_each_attempt_of_fallbacks_and_retries_is_one_log(
    model: ChatOpenAI, server: Server, logs: Logs, also_the_client: bool
) -> None:
    if also_the_client:
        instrument_openai()
    server.on("POST /chat/completions", Failure(500, "Not now."), chat("chatcmpl-1", content="One."))
    model.with_fallbacks([model]).invoke("Weather?")
    server._replies.clear()
    server.on("POST /chat/completions", Failure(500, "Not now."), chat("chatcmpl-2", content="Two."))
    model.with_retry(wait_exponential_jitter=False).invoke("Weather?")
    assert [(log.get("error"), log["response"]) for log in logs()] == [
        ("Not now.", ""), (None, "One."), ("Not now.", ""), (None, "Two.")
    ]  # fmt: skip


@pytest.mark.parametrize("also_the_client", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
def test_batches_are_logged_even_if_the_server_repeats_ids(
    model: ChatOpenAI, server: Server, logs: Logs, is_async: bool, also_the_client: bool
) -> None:
    if also_the_client:
        instrument_openai()
    server.on("POST /chat/completions", chat(content=RAIN))
    questions = [f"Question {number}" for number in range(5)]
    asyncio.run(model.abatch(questions)) if is_async else model.batch(questions)
    model.generate([[HumanMessage("Question 5")], [HumanMessage("Question 6")]])
    asked = sorted((log["user_query"] for log in logs()), key=lambda text: int(text.split()[1]))
    assert asked == [*questions, "Question 5", "Question 6"]


@pytest.mark.parametrize("also_the_client", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_partly_failed_batch_logs_each_answer_exactly_once(
    model: ChatOpenAI, server: Server, logs: Logs, is_async: bool, also_the_client: bool
) -> None:
    if also_the_client:
        instrument_openai()
    server.on("POST /chat/completions", chat("chatcmpl-1", content=RAIN), Failure(400, "Not now."))
    batch: Any = [[HumanMessage("Weather?")]] * 12
    with pytest.raises(OpenAIError):
        asyncio.run(model.agenerate(batch)) if is_async else model.generate(batch)
    # In a synchronous batch, the models after the failing one are not called.
    assert len(server.requests) == (12 if is_async else 2)
    ended = sorted((log.get("error", ""), log["response"]) for log in logs())
    assert ended == [("", RAIN), *[("Not now.", "")] * (len(server.requests) - 1)]
    handler = _switch.handler
    assert handler is not None
    assert not handler._models.values()


@pytest.mark.parametrize("is_async", [False, True])
def test_a_langgraph_agent_is_logged_with_its_thread_and_tool_outputs(
    model: ChatOpenAI, server: Server, logs: Logs, is_async: bool
) -> None:
    server.on("POST /chat/completions", chat("c1", content=None, tool_calls=[CALL]), chat("c2", content="In Leipzig."))
    agent = create_agent(model, [track], checkpointer=InMemorySaver())
    asked: Any = {"messages": [("user", "Where is PX-1?")]}
    config: Any = {"configurable": {"thread_id": "thread-7"}}
    with athina_session(customer_id="disney"):
        asyncio.run(agent.ainvoke(asked, config)) if is_async else agent.invoke(asked, config)
    first, second = logs()
    assert [log["session_id"] for log in (first, second)] == ["thread-7"] * 2
    assert [log["customer_id"] for log in (first, second)] == ["disney"] * 2
    assert first["tool_calls"] == [{**CALL, "output": "PX-1 is in Leipzig."}]
    assert (second["response"], second["user_query"]) == ("In Leipzig.", "Where is PX-1?")
    assert second["prompt"][-1] == {"role": "tool", "content": "PX-1 is in Leipzig."}
    assert second["custom_attributes"]["langgraph_node"] == "model"


@pytest.mark.parametrize("also_the_client", [False, True])
def test_session_metadata_overrides_the_scope_but_other_metadata_does_not(
    also_the_client: bool, model: ChatOpenAI, server: Server, logs: Logs
) -> None:
    if also_the_client:
        instrument_openai()
    server.on("POST /chat/completions", *(chat(f"c{number}", content=RAIN) for number in range(4)))
    thread = uuid4()
    metadata = {"thread_id": thread, "customer_id": "disney", "customer_user_id": 7, "prompt_slug": "support/v2"}
    with athina_session("ours", customer_id="pixar"):
        model.invoke("Weather?", {"metadata": metadata})
        model.invoke("Weather?")
    model.invoke("Weather?", {"metadata": {**metadata, "session_id": "theirs"}})
    model.invoke("Weather?")
    inside, plain, outside, without = logs()
    assert (inside["session_id"], inside["customer_id"], inside["customer_user_id"]) == (str(thread), "pixar", "7")
    assert (plain["session_id"], outside["session_id"], without.get("session_id")) == ("ours", "theirs", None)
    assert (outside["customer_id"], outside["prompt_slug"]) == ("disney", "support/v2")


def test_the_innermost_source_of_the_session_wins(server: Server, model: ChatOpenAI, logs: Logs) -> None:
    """A client called by a graph's node is in the graph's thread, but inside its own scope in that scope's session."""
    instrument_openai()
    server.on("POST /chat/completions", *(chat(f"c{number}", content=RAIN) for number in range(7)))
    client = Client(base_url=server.base_url, api_key="any", max_retries=0)

    def ask(question: str) -> None:
        messages: Any = [{"role": "user", "content": question}]
        client.chat.completions.create(model="gpt-4o", messages=messages)

    @athina_trace
    def decorated(question: str) -> str:
        model.invoke(question)
        return RAIN

    def node(state: dict[str, Any]) -> dict[str, Any]:
        ask("in the node")
        decorated("decorated in the node")
        with athina_session("moderation"):
            ask("in a scope")
            model.invoke("a model in a scope")
            decorated("decorated in a scope")
        return state

    graph: Any = StateGraph(dict).add_node("node", node).add_edge(START, "node").compile(checkpointer=InMemorySaver())
    with athina_session("ours"):
        for _ in graph.stream({"n": 0}, {"configurable": {"thread_id": "thread-7"}}):
            with athina_session("beside"):
                ask("between two steps")
        ask("after it")
    assert {log["user_query"]: log["session_id"] for log in logs()} == {
        "in the node": "thread-7",
        "decorated in the node": "ours",
        "in a scope": "moderation",
        "a model in a scope": "moderation",
        "decorated in a scope": "moderation",
        "between two steps": "beside",
        "after it": "ours",
    }


def test_an_interrupt_is_no_failure_and_the_resumed_tool_output_is_logged(
    model: ChatOpenAI, server: Server, logs: Logs
) -> None:
    server.on("POST /chat/completions", chat("c1", content=None, tool_calls=[CALL]), chat("c2", content="Sent back."))

    @tool("track")
    def ask_first(parcel: str) -> str:
        """Say where a parcel is."""
        return str(interrupt(f"May I open {parcel}?"))

    agent = create_agent(model, [ask_first], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "thread-7"}}
    assert "__interrupt__" in agent.invoke({"messages": [("user", "Where is PX-1?")]}, config)
    (first,) = logs()
    assert "error" not in first
    assert "output" not in first["tool_calls"][0]
    agent.invoke(Command(resume="you may"), config)
    first, second = logs()
    assert first["tool_calls"][0]["output"] == "you may"
    assert second["response"] == "Sent back."


def test_a_tool_failure_is_logged_as_its_output(model: ChatOpenAI, server: Server, logs: Logs) -> None:
    server.on("POST /chat/completions", chat(content=None, tool_calls=[CALL]))

    @tool("track")
    def broken(parcel: str) -> str:
        """Say where a parcel is."""
        raise LookupError(parcel)

    agent = create_agent(model, [broken])
    with pytest.raises(LookupError):
        agent.invoke({"messages": [("user", "Where is PX-1?")]})
    (log,) = logs()
    assert log["tool_calls"][0]["output"] == "LookupError: PX-1"


class Shelf(BaseRetriever):
    """A retriever that always finds the same document."""

    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        return [Document("Parcels may be returned within 30 days.")]


@pytest.mark.parametrize("is_async", [False, True])
def test_retrieved_documents_are_the_context_of_the_answer(
    model: ChatOpenAI, server: Server, logs: Logs, is_async: bool
) -> None:
    server.on("POST /chat/completions", chat(content="You may."))
    template = ChatPromptTemplate.from_template("{documents} {question}")
    chain: Any = {"documents": Shelf(), "question": RunnablePassthrough()} | template | model
    asyncio.run(chain.ainvoke("May I?")) if is_async else chain.invoke("May I?")
    model.invoke("Something else?")
    first, second = logs()
    assert first["context"] == ["Parcels may be returned within 30 days."]
    assert "context" not in second


def test_a_graph_in_a_decorated_call_is_one_log(model: ChatOpenAI, server: Server, logs: Logs) -> None:
    server.on("POST /chat/completions", chat("c1", content=None, tool_calls=[CALL]), chat("c2", content="In Leipzig."))
    instrument_openai()
    agent = create_agent(model, [track])

    @athina_trace
    def answer(question: str) -> str:
        return str(agent.invoke({"messages": [("user", question)]})["messages"][-1].content)

    with athina_session("thread-7"):
        answer("Where is PX-1?")
    (log,) = logs()
    assert (log["session_id"], log["response"], log["total_tokens"]) == ("thread-7", "In Leipzig.", 14)
    assert log["tool_calls"] == [{**CALL, "output": "PX-1 is in Leipzig."}]


@pytest.mark.parametrize("first", ["client", "langchain"])
def test_with_an_instrumented_client_each_answer_is_logged_once_with_all_content(
    model: ChatOpenAI, server: Server, logs: Logs, first: str
) -> None:
    if first == "langchain":
        instrument_langchain()
    instrument_openai()
    instrument_langchain()
    server.on("POST /chat/completions", chat("c1", content=None, tool_calls=[CALL]), Events.of_chat(*RAIN_CHUNKS))
    agent = create_agent(model, [track], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "thread-7"}}
    agent.invoke({"messages": [("user", "Where is PX-1?")]}, config, interrupt_after=["tools"])
    list(agent.stream(None, config, stream_mode="messages"))
    asked, answered = logs()
    assert [log["session_id"] for log in (asked, answered)] == ["thread-7"] * 2
    assert (asked["total_tokens"], answered["total_tokens"]) == (7, 7)
    assert asked["tool_calls"] == [{**CALL, "output": "PX-1 is in Leipzig."}]
    assert answered["response"] == RAIN


def test_repeated_handlers_and_instrumentation_log_once(model: ChatOpenAI, server: Server, logs: Logs) -> None:
    instrument_langchain()
    server.on("POST /chat/completions", chat(content=RAIN))
    config: Any = {"callbacks": [AthinaCallbackHandler(), AthinaCallbackHandler()]}
    (RunnablePassthrough() | model.with_config(callbacks=[AthinaCallbackHandler()])).invoke("Weather?", config)
    assert len(logs()) == 1
    uninstrument_langchain()
    model.invoke("Weather?")
    assert len(logs()) == 1
    model.invoke("Weather?", {"callbacks": [AthinaCallbackHandler()]})
    assert len(logs()) == 2


def test_concurrent_tasks_log_under_their_own_sessions(model: ChatOpenAI, server: Server, logs: Logs) -> None:
    instrument_openai()
    numbers = count()

    class Answers(GenericFakeChatModel):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(0.001 * (next(numbers) % 7))
            return await super()._agenerate(*args, **kwargs)

    graph: Any = StateGraph(dict)

    async def node(state: dict[str, Any]) -> dict[str, Any]:
        fake = Answers(messages=iter([AIMessage(f"Answer {state['n']}")]))
        await fake.ainvoke(f"Question {state['n']}")
        return state

    graph.add_node("n", node)
    graph.add_edge(START, "n")
    compiled = graph.compile()

    async def one(number: int) -> None:
        if number % 2:
            with athina_session(f"session {number}", customer_id=f"customer {number}"):
                await compiled.ainvoke({"n": number})
        else:
            metadata = {"thread_id": f"session {number}", "customer_id": f"customer {number}"}
            await compiled.ainvoke({"n": number}, {"metadata": metadata})

    async def main() -> None:
        await asyncio.gather(*map(one, range(300)))

    asyncio.run(main())
    seen = sorted((int(log["user_query"].split()[1]), log) for log in logs())
    assert [number for number, _ in seen] == list(range(300))
    for number, log in seen:
        assert (log["session_id"], log["customer_id"]) == (f"session {number}", f"customer {number}")
        assert log["response"] == f"Answer {number}"


EVENTS = ("on_chat_model_start", "on_llm_start", "on_tool_start", "on_retriever_start", "on_chain_start")
ENDS = ("on_llm_end", "on_llm_error", "on_tool_end", "on_tool_error", "on_retriever_end", "on_chain_end")


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*EVENTS, "on_llm_new_token", *ENDS]),
            values, values, st.sampled_from([None, 1, UUID(int=1)]),
            st.dictionaries(
                st.sampled_from(["parent_run_id", "metadata", "invocation_params", "name", "chunk"]), values,
                max_size=3,
            ),
        ),
        max_size=8,
    )
)  # fmt: skip
def test_hostile_callbacks_raise_nothing_and_lose_no_later_log(
    callbacks: list[tuple[str, Any, Any, Any, dict[str, Any]]],
) -> None:
    _guard.strict = False  # values may raise when they are read: the program must not see it
    handler = AthinaCallbackHandler()
    for name, first, second, run, more in callbacks:
        arguments = (first, second) if name in EVENTS else (first,)
        getattr(handler, name)(*arguments, run_id=run, **more)
    _guard.strict = True
    with captured_logs() as captured:
        GenericFakeChatModel(messages=iter([AIMessage("Here.")])).invoke("Where?", {"callbacks": [handler]})
    assert [log.response for log in captured] == ["Here."]


def test_the_end_of_an_unknown_run_is_logged_with_the_available_data(logs: Logs) -> None:
    handler = AthinaCallbackHandler()
    assert isinstance(handler, BaseCallbackHandler)
    handler.on_llm_end(LLMResult(generations=[[]]), run_id=uuid4())
    (log,) = logs()
    assert (log["response"], log["language_model_id"]) == ("", "unknown")
