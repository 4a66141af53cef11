"""A request and its answer, read together: the question, the options, and the failure."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athina_trace._answers.accumulator import AnswerAccumulator
from athina_trace._answers.records import Answer, Record, ToolOutput
from athina_trace.integrations.openai.exchange import error_text, read_exchange
from athina_trace.integrations.openai.normalise import normalise

from . import samples


def records_of(*, kind: str | None = None, params: Any = None, answer: object = None, **more: Any) -> list[Record]:
    """Read a request and its answer as the instrumentation does."""
    return list(read_exchange(kind, normalise(params or {}), normalise(answer), **{"order": 7, **more}) or ())


def answer_of(**exchange: Any) -> Answer:
    return next(record for record in records_of(**exchange) if isinstance(record, Answer))


def test_a_chat_request_gives_the_prompt_the_question_and_the_options() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": None, "tool_calls": [samples.function_call()]},
        {"role": "tool", "tool_call_id": "call_1", "content": "3"},
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]},
    ]
    params = {"messages": messages, "model": "alias", "max_tokens": 9, "stop": ["."], "seed": 1}
    answer = answer_of(kind="chat", params=params, answer=samples.chat())
    assert answer.order == 7
    assert answer.model == "gpt-4o-mini"
    assert answer.query == "What is this?"
    assert [said["role"] for said in answer.prompt] == ["developer", "user", "assistant", "tool", "user"]
    assert answer.options == {"max_completion_tokens": 9, "stop": ["."], "extra_options": {"seed": 1}}


@pytest.mark.parametrize("asked", ["How cold?", [{"role": "user", "content": "How cold?"}]])
def test_the_input_of_a_response_is_text_or_items(asked: object) -> None:
    answer = answer_of(kind="response", params={"input": asked}, answer=samples.response())
    assert answer.query == "How cold?"
    assert answer.prompt == ({"role": "user", "content": "How cold?"},)


def test_tool_outputs_in_a_request_are_read_and_part_of_the_prompt() -> None:
    items = [
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"},
        {
            "type": "function_call_output",
            "call_id": "call_1",
            "output": [{"type": "input_text", "text": "3"}],
        },
    ]
    answer, output = records_of(kind="response", params={"input": items}, answer=samples.response())
    assert isinstance(answer, Answer)
    assert answer.prompt == ({"role": "tool", "content": "3"},)
    assert output == ToolOutput(call="call_1", value=[{"type": "input_text", "text": "3"}])


def test_a_run_created_with_its_thread_gives_the_question() -> None:
    params = {
        "thread": {"messages": [{"role": "user", "content": "How cold?"}]},
        "additional_instructions": "Be kind too.",
    }
    answer = answer_of(kind="run", params=params, answer=samples.run())
    assert answer.query == "How cold?"
    assert answer.system == ("Be brief.", "Be kind too.")


def test_additional_instructions_are_not_repeated_if_the_run_has_them() -> None:
    params = {"additional_instructions": "Be brief."}
    assert answer_of(kind="run", params=params, answer=samples.run()).system == ("Be brief.",)


def test_a_failed_request_is_an_answer_with_an_error() -> None:
    class ApiError(Exception):
        status_code = 400
        body = {"message": "No such image.", "code": "invalid_image_url"}  # noqa: RUF012 - as the client has it

    params = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "What is this?"}],
        "conversation": "conv_1",
    }
    answer = answer_of(kind="chat", params=params, error=ApiError())
    assert (answer.error, answer.status_code, answer.status) == ("No such image.", 400, "failed")
    assert (answer.model, answer.query, answer.session) == ("gpt-4o", "What is this?", "conv_1")


def test_a_failed_stream_keeps_what_had_arrived() -> None:
    answer = answer_of(kind="chat", answer=samples.chat(content="Hel"), error=ConnectionError("reset"))
    assert (answer.text, answer.error) == ("Hel", "ConnectionError: reset")


def test_a_failed_request_that_asks_no_model_gives_no_records() -> None:
    assert read_exchange(None, {}, None, order=1, error=OSError()) is None


def test_an_exception_whose_text_cannot_be_read_is_logged_by_its_name() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert error_text(MuteError()) == "MuteError"


def test_omitted_parameters_are_not_logged() -> None:
    unset = object()
    params = dict.fromkeys(("input", "instructions", "tools", "temperature", "conversation", "stop", "model"), unset)
    answer = answer_of(kind="response", params=params, answer=samples.response())
    assert (answer.prompt, answer.tools, answer.options, answer.session) == ((), (), {}, None)


def test_a_generator_of_messages_is_not_consumed() -> None:
    messages = ({"role": "user", "content": text} for text in "ab")
    assert answer_of(kind="chat", params={"messages": messages}, answer=samples.chat()).prompt == ()
    assert len(list(messages)) == 2


DETAILED = {
    "input_tokens": 0,
    "output_tokens": 3,
    "total_tokens": 3,
    "input_tokens_details": {"cached_tokens": 2, "text_tokens": 1},
    "output_tokens_details": {"reasoning_tokens": 4, "text_tokens": 5, "new": {"x": 1}},
}
EXCHANGES: dict[str, tuple[Any, Any]] = {
    "response": (
        {**samples.response("resp_1", samples.output_text("Rain.")), "usage": DETAILED, "instructions": "Be kind."},
        {"input": "Will it rain?", "conversation": {"id": "conv_1"}, "temperature": 0.5, "instructions": "Be brief."},
    ),
    "chat": (
        samples.chat(content="Rain."),
        {"messages": [{"role": "user", "content": "Will it rain?"}], "temperature": 0.5, "stop": ["."]},
    ),
    "run": (
        samples.run(),
        {
            "thread": {"messages": [{"role": "user", "content": "Will it rain?"}]},
            "additional_instructions": "Be brief.",
        },
    ),
}
JUNK = st.sampled_from([None, "", "text", 7, -1, 2.0, True, [], ["x"], {}, {"id": "x"}])


def spoil(data: st.DataObject, wire: Any) -> None:
    """Replace one value at any depth."""
    place = data.draw(st.sampled_from(sorted(wire) if isinstance(wire, dict) else range(len(wire))))
    if isinstance(wire[place], dict | list) and wire[place] and data.draw(st.booleans()):
        spoil(data, wire[place])
    else:
        wire[place] = data.draw(JUNK)


@given(st.data(), st.sampled_from(sorted(EXCHANGES)), st.sampled_from([0, 1]))
def test_a_value_of_the_wrong_type_loses_nothing_else(data: st.DataObject, kind: str, spoilt: int) -> None:
    exchange: Any = copy.deepcopy(EXCHANGES[kind])
    spoil(data, exchange[spoilt])
    answer, params = exchange
    accumulator = AnswerAccumulator()
    accumulator.take(records_of(kind=kind, params=params, answer=answer))
    fields = accumulator.fields()
    if spoilt == 1:
        assert fields["language_model_id"] == answer["model"]
        assert fields.get("response") == ("Rain." if kind != "run" else None)


def test_token_details_of_the_same_name_are_summed() -> None:
    answer, params = EXCHANGES["response"]
    usage = answer_of(kind="response", params=params, answer=answer).usage
    assert usage == {
        "prompt_tokens": 0,
        "completion_tokens": 3,
        "total_tokens": 3,
        "cached_tokens": 2,
        "text_tokens": 6,
        "reasoning_tokens": 4,
    }
