"""Spans of the SDK become logs: in the session where they began, on disk when they end, each answer once."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import OpenAI
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import athina_trace
from athina_trace import athina_private, athina_session, instrument_openai, uninstrument_openai
from athina_trace._capture import answer_logs
from athina_trace.integrations.opentelemetry import AthinaCompletionHook, AthinaSpanProcessor
from athina_trace.testing import CapturedLogs, captured_logs
from tests.openai.samples import chat
from tests.openai.server import Server
from tests.support.changed import as_changed

from .test_reader import ANSWER, CURRENT, HOSTILE, QUESTION

ROOT = Path(__file__).parents[2]


@pytest.fixture
def logs() -> Iterator[CapturedLogs]:
    with captured_logs() as captured:
        yield captured


def tracer(*, sampler: Any = None, **resource: Any) -> trace.Tracer:
    provider = TracerProvider(sampler=sampler, resource=Resource(resource))
    provider.add_span_processor(AthinaSpanProcessor())
    return provider.get_tracer("tests")


def chat_span(tracer: trace.Tracer, *, response: str = "msg_1", **more: Any) -> None:
    attributes = {**CURRENT, "gen_ai.response.id": response, **more}
    with tracer.start_as_current_span("chat", attributes={n: v for n, v in attributes.items() if v is not None}):
        pass


def test_a_span_becomes_a_log_in_the_session_where_it_began(logs: CapturedLogs) -> None:
    with athina_session("desk", customer_id="acme"):
        span = tracer().start_span("chat", attributes=CURRENT)
    span.end()
    (log,) = logs.wire
    assert (log["session_id"], log["customer_id"], log["customer_user_id"]) == ("desk", "acme", "user_1")
    assert (log["user_query"], log["total_tokens"]) == (QUESTION, 7)
    assert log["response_time"] >= 0


def test_attribute_names_and_values_may_be_enum_members(logs: CapturedLogs) -> None:
    """Such a member hashes by its name, so it cannot be looked up by its text."""
    members: Any = Enum  # type checkers know only the members that are written out
    operations = members("Operation", {"CHAT": "chat"}, type=str)
    names = members("Name", {name.replace(".", "_").upper(): name for name in CURRENT}, type=str)
    span: Any = tracer().start_span("chat")
    span.set_attributes({names(name): value for name, value in CURRENT.items()})
    span.set_attribute(names("gen_ai.operation.name"), operations("chat"))
    span.add_event("exception", {names("gen_ai.provider.name"): "x"})
    span.end()
    (log,) = logs.wire
    assert (log["user_query"], log["response"], log["session_id"]) == (QUESTION, ANSWER, "thread_1")
    assert (log["total_tokens"], log["language_model_id"]) == (7, "gpt-4o-2024")


def test_session_and_user_default_to_those_of_outer_spans(logs: CapturedLogs) -> None:
    made = tracer()
    anonymous: dict[str, Any] = {"gen_ai.conversation.id": None, "user.id": None}
    with made.start_as_current_span("request", attributes={"session.id": "thread_9", "user.id": "user_9"}):
        with made.start_as_current_span("agent", attributes={"gen_ai.operation.name": "invoke_agent"}):
            chat_span(made, **anonymous)
        chat_span(made, response="msg_2")
    found = [(log["session_id"], log["customer_user_id"]) for log in logs.wire]
    assert found == [("thread_9", "user_9"), ("thread_1", "user_1")]


def test_session_and_user_are_taken_from_outer_spans_that_have_ended(logs: CapturedLogs) -> None:
    """Such as the span of a function that returns a stream."""
    made = tracer()
    with (
        made.start_as_current_span("request", attributes={"session.id": "thread_9", "user.id": "user_9"}),
        made.start_as_current_span("turn"),
    ):
        span = made.start_span("chat", attributes={"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"})
    span.end()
    (log,) = logs.wire
    assert (log["session_id"], log["customer_user_id"]) == ("thread_9", "user_9")


@pytest.mark.parametrize(
    "continued",
    [
        {"gen_ai.request.previous_response.id": "resp_1"},
        {"llm.invocation_parameters": json.dumps({"previous_response_id": "resp_1"})},
        {"gen_ai.conversation.id": "conv_1"},
    ],
    ids=["the current conventions", "OpenInference", "a conversation"],
)
def test_a_chain_of_responses_has_one_session_and_its_question(logs: CapturedLogs, continued: dict[str, Any]) -> None:
    traced, session = tracer(), continued.get("gen_ai.conversation.id")
    chat_span(traced, response="resp_1", **{"gen_ai.conversation.id": session})
    output = {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_1", "response": "Leipzig"}]}
    named = {"gen_ai.conversation.id": None, **continued, "gen_ai.input.messages": json.dumps([output])}
    chat_span(traced, response="resp_2", **named)
    chat_span(traced, **{**named, "gen_ai.response.id": None, "error.type": "400"})
    _, answered, failed = logs
    assert (answered.session_id, answered.user_query) == (session or "resp_1", QUESTION)
    assert failed.session_id == (session or "resp_1")


def test_the_question_of_a_chain_of_responses_is_the_latest_in_it_although_its_session_is_named(
    logs: CapturedLogs,
) -> None:
    traced = tracer()
    output = {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_1", "response": "Leipzig"}]}
    asked, again = ({"role": "user", "parts": [{"type": "text", "content": each}]} for each in ("One?", "Two?"))
    for number, message in enumerate((asked, output, again, output)):
        named = {"gen_ai.request.previous_response.id": f"resp_{number}" if number else None}
        chat_span(traced, response=f"resp_{number + 1}", **named, **{"gen_ai.input.messages": json.dumps([message])})
    assert [log.user_query for log in logs] == ["One?", "One?", "Two?", "Two?"]


def test_a_response_without_a_question_has_none_of_another_response_in_its_session(logs: CapturedLogs) -> None:
    traced = tracer()
    told = {"role": "system", "parts": [{"type": "text", "content": "Say something."}]}
    chat_span(traced, response="resp_1")
    chat_span(traced, response="resp_2", **{"gen_ai.input.messages": json.dumps([told])})
    first, second = logs
    assert (first.session_id, first.user_query) == (second.session_id, QUESTION)
    assert not second.user_query


def test_agents_chains_and_workflows_are_not_logged(logs: CapturedLogs) -> None:
    made = tracer()
    others: list[dict[str, Any]] = [
        {**CURRENT, "gen_ai.operation.name": "invoke_agent"},
        {"openinference.span.kind": "CHAIN", "llm.token_count.total": 7},
        {"http.route": "/"},
    ]
    for attributes in others:
        with made.start_as_current_span("any", attributes=attributes):
            pass
    assert logs.wire == []


@pytest.mark.parametrize(("configured", "expected"), [(None, "production"), ("staging", "staging")])
def test_the_environment_is_that_of_the_resource_unless_configured(configured: str | None, expected: str) -> None:
    with captured_logs(environment=configured) as logs:
        chat_span(tracer(**{"deployment.environment.name": "production"}))
    assert [log["environment"] for log in logs.wire] == [expected]


def test_tools_and_retrievals_are_added_to_the_log_that_requested_them(logs: CapturedLogs) -> None:
    made = tracer()
    calling = [{"role": "assistant", "parts": [{"type": "tool_call", "id": "call_1", "name": "weather"}]}]
    with made.start_as_current_span("agent", attributes={"gen_ai.operation.name": "invoke_agent"}):
        with made.start_as_current_span("retrieval", attributes={"gen_ai.operation.name": "retrieval"}) as found:
            found.set_attribute("gen_ai.retrieval.documents", json.dumps([{"content": "Oslo is cold."}]))
        chat_span(made, **{"gen_ai.output.messages": json.dumps(calling)})
        tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.id": "call_1"}
        with made.start_as_current_span("tool", attributes=tool) as run:
            run.set_attribute("gen_ai.tool.call.result", "3 degrees")
        chat_span(made, response="msg_2")
    first, second = as_changed(logs)
    assert (first["context"], first["tool_calls"][0]["output"]) == (["Oslo is cold."], "3 degrees")
    assert ("context" in second, "tool_calls" in second) == (False, False)


def test_spans_inside_a_decorated_call_go_into_its_log(logs: CapturedLogs) -> None:
    made = tracer()

    @athina_trace.athina_trace(prompt_slug="desk")
    def answer() -> str:
        chat_span(made)
        chat_span(made, response="msg_2")
        return "Both."

    answer()
    (log,) = logs.wire
    assert (log["prompt_slug"], log["response"], log["total_tokens"]) == ("desk", "Both.", 14)
    assert logs.updates == []


def test_private_scopes_masks_and_sampling_apply(logs: CapturedLogs) -> None:
    made = tracer()
    with athina_private():
        chat_span(made)
    with athina_session(sample_rate=0.0):
        chat_span(made, response="msg_2")
    (log,) = logs.wire
    assert ("user_query" in log, log["response"], log["total_tokens"]) == (False, "", 7)
    with captured_logs(mask_patterns=["degrees"]) as masked:
        chat_span(made, response="msg_3")
    assert masked.wire[0]["response"] == "Three [masked]."


def test_logs_are_on_disk_when_the_span_has_ended(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    code = (
        "import os, signal\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from athina_trace.integrations.opentelemetry import AthinaSpanProcessor\n"
        "from tests.otel.test_reader import CURRENT\n"
        "provider = TracerProvider()\n"
        "provider.add_span_processor(AthinaSpanProcessor())\n"
        "provider.get_tracer('t').start_span('chat', attributes=CURRENT).end()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    look = "import athina_trace, json; print(json.dumps(athina_trace.recent_logs()))"
    heir = subprocess.run([sys.executable, "-c", look], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert [log["user_query"] for log in json.loads(heir.stdout)] == [QUESTION]


def test_an_instrumented_client_inside_a_span_makes_one_log(logs: CapturedLogs) -> None:
    made = tracer()
    with Server() as server, OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        instrument_openai()
        try:
            server.on("POST /chat/completions", chat(content="Rain."))
            for has_id in (True, False):
                more = {"gen_ai.response.id": "chatcmpl-1"} if has_id else {}
                attributes: Any = {"gen_ai.operation.name": "chat", "operation.cost": 0.5, **more}
                with made.start_as_current_span("chat", attributes=attributes):
                    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Rain?"}])
        finally:
            uninstrument_openai()
    found = as_changed(logs)
    assert [(log["response"], log["total_tokens"], log["cost"]) for log in found] == [("Rain.", 7, 0.5)] * 2


@pytest.mark.parametrize("failed", [False, True])
def test_an_outer_function_span_of_kind_llm_is_not_logged_again(failed: bool, logs: CapturedLogs) -> None:
    """Such as LlamaIndex's `predict` around its `chat`, both from one instrumentation."""
    made = tracer()
    asked = {"llm.input_messages.0.message.role": "user", "llm.input_messages.0.message.content": QUESTION}
    kind, used = {"openinference.span.kind": "LLM", "llm.model_name": "gpt-4o"}, {"llm.token_count.total": 7}
    whole: Any = {"input.value": "of the function"} if failed else {"input.value": "x", "output.value": ANSWER}
    came: Any = {} if failed else {**used, "llm.output_messages.0.message.content": ANSWER}
    for _ in range(2):
        with made.start_as_current_span("predict", attributes={**kind, **whole}) as outer:
            with made.start_as_current_span("chat", attributes={**kind, **asked, **came}) as inner:
                if failed:
                    inner.set_status(trace.StatusCode.ERROR, "No.")
            if failed:
                outer.set_status(trace.StatusCode.ERROR, "No.")
    expected = (QUESTION, "" if failed else ANSWER, None if failed else 7, "No." if failed else None)
    found = [tuple(log.get(name) for name in ("user_query", "response", "total_tokens", "error")) for log in logs.wire]
    assert found == [expected] * 2


@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.parametrize("is_decorated", [False, True])
def test_outer_model_spans_without_tokens_repeat_the_answer_inside(
    failed: bool, is_decorated: bool, logs: CapturedLogs
) -> None:
    """Such as those of LlamaIndex's structured models, which write the answer in their own way."""
    made = tracer()
    asked = {"llm.input_messages.0.message.role": "user", "llm.input_messages.0.message.content": QUESTION}
    kind: Any = {"openinference.span.kind": "LLM", "llm.model_name": "gpt-4o"}
    answered = "llm.output_messages.0.message.content"
    inner: Any = {} if failed else {answered: '{"sun": true}', "llm.token_count.total": 7}
    outer: Any = {} if failed else {answered: '{"sun":true}'}

    def ask() -> None:
        with ExitStack() as around:
            for attributes in (outer, outer, inner):
                span = around.enter_context(
                    made.start_as_current_span("chat", attributes={**kind, **asked, **attributes})
                )
                if failed:
                    span.set_status(trace.StatusCode.ERROR, "No.")

    for _ in range(2):
        athina_trace.athina_trace(ask)() if is_decorated else ask()
    text, error = ("", "No.") if failed else ('{"sun": true}', None)
    found = [tuple(log.get(name) for name in ("user_query", "response", "error", "total_tokens")) for log in logs.wire]
    assert found == [(QUESTION, text, error, None if failed else 7)] * 2


@pytest.mark.parametrize("is_asked", [False, True])
def test_a_model_asked_within_the_span_of_another_is_another_answer(is_asked: bool, logs: CapturedLogs) -> None:
    """As long as their questions are not known to be the same."""
    made, kind = tracer(), {"openinference.span.kind": "LLM", "llm.model_name": "gpt-4o"}

    def spoken(number: int) -> dict[str, Any]:
        asked, came = "llm.input_messages.0.message", "llm.output_messages.0.message"
        texts = {f"{asked}.content": f"Question {number}" if is_asked else "", f"{came}.content": f"Answer {number}"}
        return {**kind, f"{asked}.role": "user", **texts}

    with (
        made.start_as_current_span("stream", attributes=spoken(1)),
        made.start_as_current_span("chat", attributes=spoken(2)),
    ):
        pass
    assert sorted(log["response"] for log in logs.wire) == ["Answer 1", "Answer 2"]


def test_a_closed_stream_is_incomplete_without_an_error(logs: CapturedLogs) -> None:
    span = tracer().start_span("chat", attributes={**CURRENT, "error.type": "GeneratorExit"})
    span.set_status(trace.StatusCode.ERROR, "GeneratorExit: ")
    span.end()
    (log,) = logs.wire
    assert ("error" in log, log["custom_attributes"]["outcome"]) == (False, "incomplete")


def test_tasks_log_under_their_own_sessions(logs: CapturedLogs) -> None:
    made = tracer()

    async def ask(number: int) -> None:
        with athina_session(f"session {number}"):
            question = json.dumps([{"role": "user", "parts": [{"type": "text", "content": f"Question {number}"}]}])
            with made.start_as_current_span("agent"):
                attributes = {**CURRENT, "gen_ai.response.id": "msg_0", "gen_ai.input.messages": question}
                with made.start_as_current_span("chat", attributes=attributes):
                    await asyncio.sleep(number % 3 / 1000)

    async def main() -> None:
        await asyncio.gather(*(ask(number) for number in range(300)))

    asyncio.run(main())
    found = {(log["session_id"], log["user_query"]) for log in logs.wire}
    assert len(logs) == 300
    assert found == {(f"session {number}", f"Question {number}") for number in range(300)}


@given(HOSTILE, st.text(max_size=20))
def test_no_span_prevents_the_next_log(attributes: dict[str, Any], name: str) -> None:
    answer_logs.reset()
    with captured_logs() as logs:
        processor, made = AthinaSpanProcessor(), tracer()
        span = TracerProvider().get_tracer("hostile").start_span(name)
        assert isinstance(span, Span)
        processor.on_start(span)
        span.end()
        span._attributes = attributes
        processor.on_end(span)
        answer_logs.reset()
        chat_span(made)
    assert logs.wire[-1]["user_query"] == QUESTION


class Raising:
    """A span that is not one of the SDK's, and raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


@given(st.permutations(range(8)), st.lists(st.booleans(), min_size=8, max_size=8), st.booleans())
def test_spans_may_end_in_any_order_and_thread_and_give_one_log_each_in_their_session(
    order: list[int], nested: list[bool], has_ids: bool
) -> None:
    answer_logs.reset()
    provider, processor = TracerProvider(), AthinaSpanProcessor()
    for each in (processor, processor, AthinaSpanProcessor()):
        provider.add_span_processor(each)
    spans: list[trace.Span] = []
    with captured_logs() as logs, ThreadPoolExecutor(2) as threads:
        for number, is_nested in enumerate(nested):
            around = trace.set_span_in_context(spans[-1]) if is_nested and spans else None
            content = [{"role": "assistant", "parts": [{"type": "text", "content": f"Answer {number}"}]}]
            given = {**CURRENT, "gen_ai.output.messages": json.dumps(content), "gen_ai.response.id": f"msg_{number}"}
            left_out = {"gen_ai.conversation.id"} | ({"gen_ai.response.id"} if not has_ids else set())
            given = {name: value for name, value in given.items() if name not in left_out}
            with athina_session(f"session {number}"):
                spans.append(provider.get_tracer("tests").start_span("chat", context=around, attributes=given))
        list(threads.map(lambda number: spans[number].end(), order[:4]))
        provider.shutdown()
        list(threads.map(lambda number: spans[number].end(), order[4:]))
    found = sorted((log["session_id"], log["response"]) for log in as_changed(logs))
    assert found == [(f"session {number}", f"Answer {number}") for number in range(8)]


@pytest.mark.parametrize(
    "more",
    [
        {"gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": "x" * 10**7}]}])},
        {"gen_ai.input.messages": "[" * 10**5 + "]" * 10**5},
        {"gen_ai.output.messages": "1" * 5000},
        {"anything": "x" * 10**7},
        {f"gen_ai.prompt.{number}.content": "x" for number in range(10**4)},
        {f"llm.input_messages.{number}.message.content": "x" for number in (-1, 10**20, "one", "")},
    ],
    ids=["text", "depth", "number", "unknown", "count", "places"],
)
def test_huge_attributes_lose_no_log(more: dict[str, Any], logs: CapturedLogs) -> None:
    provider = TracerProvider(span_limits=SpanLimits(max_attributes=10**5, max_events=10**5))
    provider.add_span_processor(AthinaSpanProcessor())
    span = provider.get_tracer("tests").start_span("chat", attributes={**CURRENT, **more})
    for number in range(10**4):
        span.add_event("gen_ai.user.message", {"content": str(number)})
    span.end()
    chat_span(provider.get_tracer("tests"), response="msg_2")
    assert [log["total_tokens"] for log in as_changed(logs)] == [7, 7]


def test_errors_raised_by_a_span_do_not_reach_the_program(logs: CapturedLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("athina_trace._guard.strict", False)
    hostile: Any = Raising()
    processor = AthinaSpanProcessor()
    processor.on_start(hostile)
    processor.on_end(hostile)
    AthinaCompletionHook().on_completion(inputs=hostile, outputs=[hostile], span=hostile)
    chat_span(tracer())
    assert len(logs) == 1


def test_a_span_whose_start_was_not_seen_is_still_logged(logs: CapturedLogs) -> None:
    span = TracerProvider().get_tracer("early").start_span("chat", attributes=CURRENT)
    assert isinstance(span, ReadableSpan)
    AthinaSpanProcessor().on_end(span)
    assert len(logs) == 1


# Content that is not on spans ----------------------------------------------------------------------------------------


@dataclasses.dataclass
class Text:
    content: str
    type: str = "text"


@dataclasses.dataclass
class Typed:
    role: str
    parts: list[Text]
    finish_reason: str | None = None


BARE: dict[str, Any] = {
    name: value for name, value in CURRENT.items() if "messages" not in name and "instructions" not in name
}
GIVEN: dict[str, Any] = {
    "inputs": [Typed("user", [Text(QUESTION)])],
    "outputs": [Typed("assistant", [Text("Three.")], "stop")],
    "system_instruction": [Text("Be brief.")],
}


@pytest.mark.parametrize("sees_spans", [True, False])
def test_the_completion_hook_provides_content_missing_from_spans(logs: CapturedLogs, sees_spans: bool) -> None:
    made = tracer() if sees_spans else TracerProvider().get_tracer("unseen")
    with athina_session("desk"):
        span = made.start_span("chat", attributes=BARE)
        AthinaCompletionHook().on_completion(span=span, **GIVEN)
        span.end()
    (log,) = logs.wire
    assert (log["user_query"], log["response"], log["total_tokens"]) == (QUESTION, "Three.", 7)
    assert (log["prompt"][0], log["session_id"]) == ({"role": "system", "content": "Be brief."}, "desk")


def test_the_completion_hook_provides_content_of_unsampled_spans(logs: CapturedLogs) -> None:
    span = tracer(sampler=ALWAYS_OFF).start_span("chat", attributes=BARE)
    AthinaCompletionHook().on_completion(span=span, **GIVEN)
    span.end()
    (log,) = logs.wire
    assert (log["user_query"], log["response"]) == (QUESTION, "Three.")


def test_the_completion_hook_makes_no_log_without_a_model_request(logs: CapturedLogs) -> None:
    made = TracerProvider().get_tracer("agents")
    span = made.start_span("agent", attributes={"gen_ai.operation.name": "invoke_agent"})
    AthinaCompletionHook().on_completion(span=span, **GIVEN)
    AthinaCompletionHook().on_completion(span=None, **GIVEN)
    assert logs.wire == []


# The global provider -------------------------------------------------------------------------------------------------


def in_a_process(code: str) -> str:
    preamble = (
        "import logging, sys\n"
        "logging.basicConfig(stream=sys.stdout, level=logging.INFO)\n"
        "from opentelemetry import trace\n"
        "from opentelemetry.trace import set_tracer_provider\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from athina_trace.integrations.opentelemetry import instrument_opentelemetry, uninstrument_opentelemetry\n"
        "from athina_trace.testing import captured_logs\n"
        "def ask(answer):\n"
        f"    attributes = {{**{CURRENT!r}, 'gen_ai.response.id': answer}}\n"
        "    trace.get_tracer('t').start_span('chat', attributes=attributes).end()\n"
    )
    ran = subprocess.run([sys.executable, "-c", preamble + code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_global_provider_is_instrumented_once_before_or_after_it_is_set() -> None:
    others = (
        "from opentelemetry.sdk.trace.export import SimpleSpanProcessor\n"
        "from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter\n"
        "class OneProcessor(TracerProvider):\n"
        "    def add_span_processor(self, processor):\n"
        "        self._active_span_processor._span_processors = ()\n"
        "        super().add_span_processor(processor)\n"
        "exporter, provider = InMemorySpanExporter(), OneProcessor()\n"
        "provider.add_span_processor(SimpleSpanProcessor(exporter))\n"
    )
    for before in (True, False):
        setting, instrumenting = f"{others}set_tracer_provider(provider)\n", "instrument_opentelemetry()\n" * 2
        given = instrumenting + setting + instrumenting if before else setting + instrumenting
        asking = (
            "with captured_logs() as logs:\n"
            "    ask('msg_1')\n"
            "    uninstrument_opentelemetry()\n"
            "    ask('msg_2')\n"
            "    instrument_opentelemetry()\n"
            "    ask('msg_3')\n"
            "print(len(logs), len(logs.updates), len(exporter.get_finished_spans()))\n"
        )
        assert in_a_process(given + asking).splitlines()[-1] == "2 0 3"


def test_a_sampler_that_drops_spans_is_reported_once() -> None:
    said = in_a_process(
        "from opentelemetry.sdk.trace.sampling import TraceIdRatioBased\n"
        "set_tracer_provider(TracerProvider(sampler=TraceIdRatioBased(0.5)))\n"
        "instrument_opentelemetry()\n"
        "instrument_opentelemetry()\n"
    )
    assert said.count("TraceIdRatioBased{0.5} drops spans: model answers in those spans are not captured") == 1
    assert "drops spans" not in in_a_process("set_tracer_provider(TracerProvider())\ninstrument_opentelemetry()\n")


def test_a_sampler_is_reported_if_the_processor_was_added_by_hand() -> None:
    said = in_a_process(
        "from opentelemetry.sdk.trace.sampling import TraceIdRatioBased\n"
        "from athina_trace.integrations.opentelemetry import AthinaSpanProcessor\n"
        "provider = TracerProvider(sampler=TraceIdRatioBased(1.0))\n"
        "provider.add_span_processor(AthinaSpanProcessor())\n"
        "set_tracer_provider(provider)\n"
        "with captured_logs() as logs:\n"
        "    ask('msg_1')\n"
        "    ask('msg_2')\n"
    )
    assert said.count("TraceIdRatioBased{1.0} drops spans") == 1


def test_flushing_the_provider_flushes_our_logs() -> None:
    with captured_logs():
        assert AthinaSpanProcessor().force_flush(60_000)
        AthinaSpanProcessor().shutdown()


def test_reading_spans_does_not_need_opentelemetry_packages() -> None:
    code = (
        "import sys, athina_trace, athina_trace.integrations.opentelemetry.span_logs\n"
        "import athina_trace.integrations.openai.instrument\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'opentelemetry'])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
