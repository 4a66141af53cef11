from __future__ import annotations

from typing import Any

import pytest

from athina_trace.integrations.openai.readings import Answer, Output
from athina_trace.integrations.openai.requests import Exchange, error_text, read_exchange

from . import samples


def answer_of(**exchange: Any) -> Answer:
    readings = read_exchange(Exchange(**{"order": 7, **exchange})) or ()
    return next(reading for reading in readings if isinstance(reading, Answer))


def test_a_chat_request_tells_the_prompt_the_question_and_the_options() -> None:
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
def test_a_responses_input_is_text_or_items(asked: object) -> None:
    answer = answer_of(kind="response", params={"input": asked}, answer=samples.response())
    assert answer.query == "How cold?"
    assert answer.prompt == ({"role": "user", "content": "How cold?"},)


def test_outputs_in_a_request_are_read_and_stand_in_the_prompt() -> None:
    items = [
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"},
        {
            "type": "function_call_output",
            "call_id": "call_1",
            "output": [{"type": "input_text", "text": "3"}],
        },
    ]
    exchange = Exchange(kind="response", order=1, params={"input": items}, answer=samples.response())
    answer, output = read_exchange(exchange) or ()
    assert isinstance(answer, Answer)
    assert answer.prompt == ({"role": "tool", "content": "3"},)
    assert output == Output(call="call_1", value=[{"type": "input_text", "text": "3"}])


def test_a_run_started_with_its_thread_tells_the_question() -> None:
    params = {
        "thread": {"messages": [{"role": "user", "content": "How cold?"}]},
        "additional_instructions": "Be kind too.",
    }
    answer = answer_of(kind="run", params=params, answer=samples.run())
    assert answer.query == "How cold?"
    assert answer.system == ("Be brief.", "Be kind too.")


def test_additional_instructions_that_the_run_shows_are_not_said_twice() -> None:
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


def test_a_stream_that_failed_keeps_what_had_come() -> None:
    answer = answer_of(kind="chat", answer=samples.chat(content="Hel"), error=ConnectionError("reset"))
    assert (answer.text, answer.error) == ("Hel", "ConnectionError: reset")


def test_a_failed_request_for_no_answer_says_nothing() -> None:
    assert read_exchange(Exchange(order=1, error=OSError())) is None


def test_an_exception_that_cannot_be_read_still_has_its_name() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert error_text(MuteError()) == "MuteError"


def test_parameters_that_were_left_out_are_left_out() -> None:
    unset = object()
    params = dict.fromkeys(("input", "instructions", "tools", "temperature", "conversation", "stop", "model"), unset)
    answer = answer_of(kind="response", params=params, answer=samples.response())
    assert (answer.prompt, answer.tools, answer.options, answer.session) == ((), (), {}, None)


def test_a_generator_of_messages_is_left_to_the_client() -> None:
    messages = ({"role": "user", "content": text} for text in "ab")
    assert answer_of(kind="chat", params={"messages": messages}, answer=samples.chat()).prompt == ()
    assert len(list(messages)) == 2
