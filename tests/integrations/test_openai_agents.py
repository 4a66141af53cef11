"""The Agents SDK with the real package: each answer of a model is one log, with data of the run around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrailTripwireTriggered,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    OutputGuardrailTripwireTriggered,
    RunConfig,
    Runner,
    UserError,
    function_tool,
    input_guardrail,
    output_guardrail,
    trace,
)
from agents.tracing import (
    TracingProcessor,
    add_trace_processor,
    custom_span,
    get_trace_provider,
    mcp_tools_span,
    response_span,
    set_trace_processors,
    transcription_span,
)
from agents.voice import (
    AudioInput,
    SingleAgentVoiceWorkflow,
    STTModel,
    TTSModel,
    VoicePipeline,
    VoicePipelineConfig,
)
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI, BadRequestError

from athina_trace import _guard, athina_session, athina_trace, instrument_openai, uninstrument_openai
from athina_trace.integrations.openai_agents import (
    AthinaTracingProcessor,
    instrument_openai_agents,
    uninstrument_openai_agents,
)
from athina_trace.testing import captured_logs
from tests.openai.samples import chat, function_call, output_text, response
from tests.openai.scripts import RAIN, RAIN_CHUNKS, events
from tests.openai.server import Events, Failure, Server

from .conftest import Logs
from .hostile import values

CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "track",
    "arguments": '{"parcel":"PX-1"}',
    "status": "completed",
}
CALLED = {**function_call(name="track", arguments='{"parcel":"PX-1"}'), "output": "PX-1 is in Leipzig."}


@function_tool
def track(parcel: str) -> str:
    """Say where a parcel is."""
    return f"{parcel} is in Leipzig."


class Upload(TracingProcessor):
    """A processor in place of OpenAI's own upload."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    def on_trace_start(self, trace: Any) -> None:
        pass

    def on_trace_end(self, trace: Any) -> None:
        pass

    def on_span_start(self, span: Any) -> None:
        pass

    def on_span_end(self, span: Any) -> None:
        self.ended.append(span.span_data.type)

    def shutdown(self) -> None:
        pass

    def force_flush(self) -> None:
        pass


@pytest.fixture(autouse=True)
def upload() -> Iterator[Upload]:
    made = Upload()
    set_trace_processors([made])
    instrument_openai_agents()
    yield made
    uninstrument_openai_agents()
    uninstrument_openai()
    set_trace_processors([])


Run = Callable[..., Any]


@pytest.fixture
def run(server: Server) -> Run:
    """Return a function that runs an agent: `run(question, agent's parameters…, config=…, chats=…)`."""

    def start(question: str, *, config: RunConfig | None = None, chats: bool = False, **parameters: Any) -> Any:
        return asyncio.run(arun(server, question, config=config, chats=chats, **parameters))

    return start


async def arun(
    server: Server, question: str, *, config: RunConfig | None = None, chats: bool = False, **parameters: Any
) -> Any:
    async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        kind: Any = OpenAIChatCompletionsModel if chats else OpenAIResponsesModel
        agent = Agent(name="Desk", instructions="Be kind.", model=kind("gpt-4.1", client), **parameters)
        return await Runner.run(agent, question, run_config=config)


def test_two_answers_and_a_tool_call_of_one_run_are_logged(
    run: Run, server: Server, logs: Logs, upload: Upload
) -> None:
    server.on("POST /responses", response("resp_1", CALL), response("resp_2", output_text("In Leipzig.")))
    config = RunConfig(group_id="thread-7", trace_metadata={"customer_id": "disney"})
    run("Where is PX-1?", tools=[track], config=config)
    asked, answered = logs()
    for log in (asked, answered):
        assert (log["session_id"], log["customer_id"], log["user_query"]) == ("thread-7", "disney", "Where is PX-1?")
        assert [log[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")] == [20, 6, 26]
        assert (log["language_model_id"], log["custom_attributes"]["agent"]) == ("gpt-4.1", "Desk")
    assert asked["tool_calls"] == [CALLED]
    assert answered["response"] == "In Leipzig."
    assert answered["prompt"][0] == {"role": "system", "content": "Be kind."}
    # OpenAI's own upload got everything, including the spans with sums of tasks and turns.
    assert {"response", "function", "turn", "task", "agent"} <= set(upload.ended)


def test_a_tool_output_is_logged_before_the_next_answer(server: Server, logs: Logs) -> None:
    server.on("POST /responses", response("resp_1", CALL, {**CALL, "id": "fc_2", "call_id": "call_2"}))
    asyncio.run(arun(server, "Where is PX-1?", tools=[track], tool_use_behavior="stop_on_first_tool"))
    (log,) = logs()
    assert [call["output"] for call in log["tool_calls"]] == ["PX-1 is in Leipzig."] * 2
    assert [call["id"] for call in log["tool_calls"]] == ["call_1", "call_2"]


def test_a_tool_failure_is_logged_as_its_output(run: Run, server: Server, logs: Logs) -> None:
    @function_tool(name_override="track", failure_error_function=None)
    def lose(parcel: str) -> str:
        raise LookupError(f"{parcel} is lost.")

    server.on("POST /responses", response("resp_1", CALL))
    with pytest.raises(UserError, match="is lost"):
        run("Where is PX-1?", tools=[lose])
    (log,) = logs()
    assert [call["output"] for call in log["tool_calls"]] == ["PX-1 is lost."]


@pytest.mark.parametrize("scope", [None, "ours"])
@pytest.mark.parametrize("also_the_client", [False, True])
def test_a_chain_of_responses_has_one_session_and_its_question(
    also_the_client: bool, scope: str | None, server: Server, logs: Logs
) -> None:
    """A request that continues a response contains only the output of a tool."""
    if also_the_client:
        instrument_openai()
    chained = response("resp_2", output_text("In Leipzig."), previous_response_id="resp_1")
    server.on("POST /responses", response("resp_1", CALL, previous_response_id="resp_0"), chained)

    async def ask() -> None:
        async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            agent = Agent(name="Desk", model=OpenAIResponsesModel("gpt-4.1", client), tools=[track])
            await Runner.run(agent, "Where is PX-1?", previous_response_id="resp_0")

    with athina_session(scope):
        asyncio.run(ask())
    found = [(log["session_id"], log["user_query"], log["response"]) for log in logs()]
    assert found == [(scope or "resp_0", "Where is PX-1?", answer) for answer in ("", "In Leipzig.")]


@pytest.mark.parametrize("also_the_client", [False, True])
def test_a_stream_without_counts_has_no_tokens(also_the_client: bool, server: Server, logs: Logs) -> None:
    if also_the_client:
        instrument_openai()
    server.on("POST /chat/completions", Events.of_chat(*(chunk for chunk in RAIN_CHUNKS if not chunk.get("usage"))))

    async def ask() -> None:
        async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            streamed = Runner.run_streamed(
                Agent(name="Desk", model=OpenAIChatCompletionsModel("gpt-4.1", client)), "Rain?"
            )
            async for _ in streamed.stream_events():
                pass

    asyncio.run(ask())
    (log,) = logs()
    assert log["response"] == RAIN
    assert "total_tokens" not in log


SESSIONS: list[tuple[str | None, str | None, str | None, str | None]] = [
    ("thread-7", "conv_1", "ours", "thread-7"),
    (None, "conv_1", None, "conv_1"),
    (None, "conv_1", "ours", "conv_1"),
    (None, None, "ours", "ours"),
    (None, None, None, None),
]
"""The run's group, the conversation, the scope around → what the log's session is."""


@pytest.mark.parametrize("named", SESSIONS)
@pytest.mark.parametrize("also_the_client", [False, True])
def test_the_session_is_the_group_the_conversation_or_the_scopes(
    named: Any, also_the_client: bool, run: Run, server: Server, logs: Logs
) -> None:
    if also_the_client:
        instrument_openai()
    group, conversation, scope, expected = named
    more: Any = {"conversation": {"id": conversation}} if conversation else {}
    server.on("POST /responses", response("resp_1", output_text(RAIN), **more))
    with athina_session(scope):
        run("Weather?", config=RunConfig(group_id=group))
    (log,) = logs()
    assert log.get("session_id") == expected


def test_without_sensitive_data_tokens_and_a_note_are_logged(run: Run, server: Server, logs: Logs) -> None:
    server.on("POST /responses", response("resp_1", CALL), response("resp_2", output_text("In Leipzig.")))
    run("Where is PX-1?", tools=[track], config=RunConfig(group_id="thread-7", trace_include_sensitive_data=False))
    for log in logs():
        assert (log["session_id"], log["total_tokens"], log["response"]) == ("thread-7", 26, "")
        assert log["custom_attributes"]["content"] == "withheld by trace_include_sensitive_data=False"
        assert "PX-1" not in str(log)
    assert len(logs()) == 2


def test_without_sensitive_data_an_instrumented_client_still_logs_everything(
    run: Run, server: Server, logs: Logs
) -> None:
    instrument_openai()
    server.on("POST /responses", response("resp_1", output_text(RAIN)))
    run("Weather?", config=RunConfig(group_id="thread-7", trace_include_sensitive_data=False))
    (log,) = logs()
    assert (log["session_id"], log["response"], log["total_tokens"]) == ("thread-7", RAIN, 26)
    assert "content" not in log["custom_attributes"]


@pytest.mark.parametrize("also_the_client", [False, True])
@pytest.mark.parametrize("chats", [False, True])
def test_streams_are_logged_whole(chats: bool, also_the_client: bool, server: Server, logs: Logs) -> None:
    if also_the_client:
        instrument_openai()
    server.on("POST /responses", Events.of_response(*events()))
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS))

    async def main() -> None:
        async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            kind: Any = OpenAIChatCompletionsModel if chats else OpenAIResponsesModel
            agent = Agent(name="Desk", instructions="Be kind.", model=kind("gpt-4.1", client))
            streamed = Runner.run_streamed(agent, "Weather?", run_config=RunConfig(group_id="thread-7"))
            async for _ in streamed.stream_events():
                pass

    asyncio.run(main())
    (log,) = logs()
    assert (log["response"], log["session_id"], log["user_query"]) == (RAIN, "thread-7", "Weather?")
    assert log["total_tokens"] == (7 if chats else 26)


@pytest.mark.parametrize("also_the_client", [False, True])
def test_chat_completions_are_logged_from_generation_spans(
    run: Run, server: Server, logs: Logs, also_the_client: bool
) -> None:
    if also_the_client:
        instrument_openai()
    call = function_call(name="track", arguments='{"parcel":"PX-1"}')
    server.on("POST /chat/completions", chat("c1", content=None, tool_calls=[call]), chat("c2", content="In Leipzig."))
    run("Where is PX-1?", tools=[track], config=RunConfig(group_id="thread-7"), chats=True)
    asked, answered = logs()
    assert [log["total_tokens"] for log in (asked, answered)] == [7, 7]
    assert [log["session_id"] for log in (asked, answered)] == ["thread-7"] * 2
    assert asked["tool_calls"] == [CALLED]
    assert answered["response"] == "In Leipzig."
    # The span has the requested model; only the client sees which one answered.
    assert answered["language_model_id"] == ("gpt-4o-mini" if also_the_client else "gpt-4.1")


@pytest.mark.parametrize("also_the_client", [False, True])
def test_a_failure_is_logged_with_message_and_status(
    run: Run, server: Server, logs: Logs, also_the_client: bool
) -> None:
    if also_the_client:
        instrument_openai()
    server.on("POST /responses", Failure(400, "No such thing."))
    with pytest.raises(BadRequestError):
        run("Weather?", config=RunConfig(group_id="thread-7"))
    (log,) = logs()
    assert (log["session_id"], log["response"]) == ("thread-7", "")
    assert (log["error"], log["status_code"]) == ("No such thing.", 400)


def test_handoffs_and_guardrails_are_logged(server: Server, logs: Logs) -> None:
    transfer = {**CALL, "name": "transfer_to_refunds", "arguments": "{}"}
    server.on("POST /responses", response("resp_1", transfer), response("resp_2", output_text("Refunded.")))

    @input_guardrail(run_in_parallel=False)
    async def polite(*_: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)

    @output_guardrail
    async def cheap(*_: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    async def main() -> None:
        async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            model = OpenAIResponsesModel("gpt-4.1", client)
            refunds = Agent(name="Refunds", model=model, output_guardrails=[cheap])
            triage = Agent(name="Triage", model=model, handoffs=[refunds], input_guardrails=[polite])
            with pytest.raises(OutputGuardrailTripwireTriggered):
                await Runner.run(triage, "My money, please.")

    asyncio.run(main())
    first, second = (log["custom_attributes"] for log in logs())
    assert (first["agent"], first["handoff"]) == ("Triage", "Triage -> Refunds")
    assert first["guardrail_polite"] == "passed"
    assert (second["agent"], second["guardrail_cheap"]) == ("Refunds", "triggered")
    assert "handoff" not in second


def test_a_question_that_a_guardrail_stopped_is_not_logged(run: Run, server: Server, logs: Logs) -> None:
    @input_guardrail(run_in_parallel=False)
    async def never(*_: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    with pytest.raises(InputGuardrailTripwireTriggered):
        run("Weather?", input_guardrails=[never])
    assert logs() == []


class Ears(STTModel):
    """A transcription model that returns one question, with a span like OpenAI's own."""

    model_name = "whisper-1"

    async def transcribe(self, *_: Any) -> str:
        with transcription_span(model=self.model_name, input="AAAA", input_format="pcm") as span:
            span.span_data.output = "What is the weather?"
        return "What is the weather?"

    async def create_session(self, *_: Any) -> Any:
        raise NotImplementedError


class Voice(TTSModel):
    """A speech model that produces no audio."""

    model_name = "tts-1"

    async def run(self, *_: Any) -> AsyncIterator[bytes]:
        yield b"\0\0" * 100


@pytest.mark.parametrize("also_the_client", [False, True])
def test_a_voice_pipeline_logs_the_answer_but_no_transcription_or_speech(
    also_the_client: bool, server: Server, logs: Logs, upload: Upload
) -> None:
    if also_the_client:
        instrument_openai()
    server.on("POST /responses", Events.of_response(*events()))

    async def main() -> None:
        async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            agent = Agent(name="Desk", model=OpenAIResponsesModel("gpt-4.1", client))
            pipeline = VoicePipeline(
                workflow=SingleAgentVoiceWorkflow(agent),
                stt_model=Ears(),
                tts_model=Voice(),
                config=VoicePipelineConfig(group_id="call-7"),
            )
            heard = AudioInput(buffer=np.zeros(240, dtype=np.int16))
            async for _ in (await pipeline.run(heard)).stream():
                pass

    with athina_session("ours", customer_id="disney"):
        asyncio.run(main())
    (log,) = logs()
    assert (log["user_query"], log["response"]) == ("What is the weather?", RAIN)
    assert (log["session_id"], log["customer_id"], log["total_tokens"]) == ("call-7", "disney", 26)
    assert {"transcription", "speech", "speech_group", "response"} <= set(upload.ended)


def test_spans_of_other_kinds_are_not_answers(logs: Logs, upload: Upload) -> None:
    with trace("all kinds"):
        for made in (custom_span("mine", {"usage": {"input_tokens": 5}}), mcp_tools_span("server", ["track"])):
            with made:
                pass
    assert upload.ended == ["custom", "mcp_tools"]
    assert logs() == []


def test_a_run_in_a_decorated_call_is_one_log(server: Server, logs: Logs) -> None:
    instrument_openai()
    server.on("POST /responses", response("resp_1", CALL), response("resp_2", output_text("In Leipzig.")))

    @athina_trace
    async def answer(question: str) -> str:
        return str((await arun(server, question, tools=[track])).final_output)

    with athina_session("thread-7"):
        asyncio.run(answer("Where is PX-1?"))
    (log,) = logs()
    assert (log["session_id"], log["response"], log["total_tokens"]) == ("thread-7", "In Leipzig.", 52)
    assert log["tool_calls"] == [CALLED]


def test_a_cancelled_task_is_logged_as_incomplete(server: Server, logs: Logs) -> None:
    async def main() -> None:
        entered = asyncio.Event()

        class Waiting(OpenAIResponsesModel):
            async def _fetch_response(self, *args: Any, **kwargs: Any) -> Any:
                entered.set()
                await asyncio.sleep(60)

        async with AsyncOpenAI(base_url=server.base_url, api_key="any") as client:
            agent = Agent(name="Desk", model=Waiting("gpt-4.1", client))
            task = asyncio.create_task(Runner.run(agent, "Weather?", run_config=RunConfig(group_id="thread-7")))
            await entered.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    (log,) = logs()
    assert (log["session_id"], log["custom_attributes"]["outcome"]) == ("thread-7", "incomplete")


def test_concurrent_tasks_log_under_their_own_sessions(logs: Logs) -> None:
    async def one(number: int) -> None:
        with athina_session(f"session {number}", customer_id=f"customer {number}"), response_span() as span:
            await asyncio.sleep(0.001 * (number % 7))
            answered: Any = response(f"resp_{number}", output_text(f"Answer {number}"))
            span.span_data.response, span.span_data.input = answered, f"Question {number}"

    async def main() -> None:
        with trace("all at once"):
            await asyncio.gather(*map(one, range(300)))

    asyncio.run(main())
    seen = {int(log["user_query"].split()[1]): log for log in logs()}
    assert sorted(seen) == list(range(300))
    for number, log in seen.items():
        assert (log["session_id"], log["customer_id"]) == (f"session {number}", f"customer {number}")
        assert log["response"] == f"Answer {number}"


def test_instrumenting_twice_adds_nothing_and_uninstrumenting_keeps_other_processors(
    run: Run, server: Server, logs: Logs, upload: Upload
) -> None:
    server.on("POST /responses", response("resp_1", output_text(RAIN)))
    before: Any = get_trace_provider()
    processors = before._multi_processor._processors
    instrument_openai_agents()
    assert before._multi_processor._processors == processors
    add_trace_processor(AthinaTracingProcessor())  # a second one, added by hand: each span is still one answer
    run("Weather?")
    assert len(logs()) == 1
    set_trace_processors([upload])
    uninstrument_openai_agents()
    run("Weather?")
    assert len(logs()) == 1
    instrument_openai_agents()
    run("Weather?")
    assert len(logs()) == 2


SPAN_FIELDS = (
    *("type", "name", "input", "output", "model", "model_config", "usage", "response", "from_agent", "to_agent"),
    *("triggered", "agent_name"),
)
spans = st.builds(
    SimpleNamespace,
    span_id=st.one_of(st.sampled_from(["a", "b", "c"]), values),
    parent_id=st.one_of(st.sampled_from(["a", "b", "c"]), values),
    error=values,
    span_data=st.builds(
        lambda kind, fields: SimpleNamespace(**{**dict.fromkeys(SPAN_FIELDS), **fields, "type": kind}),
        st.sampled_from(["response", "generation", "function", "agent", "turn", "handoff", "guardrail", "task", "?"]),
        st.dictionaries(st.sampled_from(SPAN_FIELDS), values),
    ),
)


@given(st.lists(st.tuples(st.booleans(), spans), max_size=8))
def test_hostile_spans_raise_nothing_and_lose_no_later_log(given_spans: list[tuple[bool, Any]]) -> None:
    _guard.strict = False  # values may raise when they are read: the program must not see it
    processor = AthinaTracingProcessor()
    for starts, span in given_spans:
        (processor.on_span_start if starts else processor.on_span_end)(span)
    _guard.strict = True
    with captured_logs() as captured:
        answered = response(str(uuid4()), output_text("Here."))
        data = SimpleNamespace(type="response", input="Where?", response=answered, usage=None)
        good = SimpleNamespace(span_id=str(uuid4()), parent_id=None, error=None, span_data=data)
        processor.on_span_start(good)
        processor.on_span_end(good)
    assert [log.response for log in captured] == ["Here."]
