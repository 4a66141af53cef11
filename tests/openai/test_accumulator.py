"""Answers of one log: snapshots, messages and calls in any order make the same fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athina_trace._answers.accumulator import AnswerAccumulator
from athina_trace._answers.records import Record
from athina_trace.integrations.openai.exchange import read_exchange

from . import samples
from .samples import as_object


@dataclass(kw_only=True)
class Exchange:
    """A request and its result."""

    kind: str
    order: int
    request: int | None = None
    params: dict[str, Any] = field(default_factory=dict)
    answer: Any = None
    error: BaseException | None = None

    def read(self) -> Sequence[Record]:
        asked = read_exchange(
            self.kind, self.params, self.answer, order=self.order, request=self.request, error=self.error
        )
        return asked or ()


def fields(*subjects: object) -> dict[str, Any]:
    accumulator = AnswerAccumulator()
    for subject in subjects:
        if isinstance(subject, Exchange):
            accumulator.take(subject.read())
        else:
            assert accumulator.add(subject)
    return accumulator.fields()


def test_without_records_there_are_no_fields() -> None:
    assert fields() == {}


def test_an_unknown_object_is_not_read_and_changes_nothing() -> None:
    accumulator = AnswerAccumulator()
    assert not accumulator.add(object())
    assert accumulator.fields() == {}


def test_a_run_with_its_messages_and_steps_is_one_complete_log() -> None:
    chunk = {"content": [{"type": "text", "text": "Oslo: 3 degrees."}]}
    search = {"id": "call_2", "type": "file_search", "file_search": {"results": [chunk]}}
    answered = {**samples.function_call(), "function": {**samples.function_call()["function"], "output": "3"}}
    log = fields(
        samples.page(samples.message("msg_2", "Three.", at=14), samples.question("msg_1", "How cold?", at=9)),
        samples.run(),
        samples.step("step_2", search, at=12),
        samples.step("step_1", answered, at=11),
    )
    assert log == {
        "language_model_id": "gpt-4o",
        "session_id": "thread_1",
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How cold?"}],
        "user_query": "How cold?",
        "response": "Three.",
        "prompt_tokens": 30,
        "completion_tokens": 7,
        "total_tokens": 37,
        "tool_calls": [{**samples.function_call(), "output": "3"}, search],
        "tools": [{"type": "file_search"}],
        "model_options": {"temperature": 0.5},
        "context": ["Oslo: 3 degrees."],
        "custom_attributes": {"run_id": "run_1", "assistant_id": "asst_1", "status": "completed"},
    }


def test_only_messages_of_this_run_count_in_their_order() -> None:
    newest_first = [
        samples.message("msg_9", "After.", at=90, run_id="run_2"),
        samples.question("msg_8", "And then?", at=80),
        samples.message("msg_4", "Second.", at=14),
        samples.message("msg_3", "First.", at=12),
        samples.question("msg_2", "Please?", at=9),
        samples.question("msg_1", "May I ask?", at=8),
        samples.message("msg_0", "Before.", at=2, run_id="run_0"),
    ]
    pages = [samples.page(*newest_first[:4]), samples.page(*newest_first[4:])]
    log = fields(*pages, samples.run())
    assert log["response"] == "First.\nSecond."
    assert log["user_query"] == "Please?"
    assert [said["content"] for said in log["prompt"]] == ["Be brief.", "May I ask?", "Please?"]
    assert fields(samples.run(), *reversed(pages)) == log


def test_messages_of_one_second_keep_their_list_order() -> None:
    newest_first = [samples.message(f"msg_{n}", f"{n}.", at=12) for n in (3, 2, 1)]
    assert fields(samples.run(), samples.page(*newest_first))["response"] == "1.\n2.\n3."
    oldest_first = {**samples.page(*reversed(newest_first)), "_options": {"params": {"order": "asc"}}}
    assert fields(samples.run(), oldest_first)["response"] == "1.\n2.\n3."


def test_later_user_messages_are_not_the_question_of_the_run() -> None:
    log = fields(
        samples.run(status="failed"),
        samples.question("m1", "First?", at=9),
        samples.question("m2", "Next?", at=60),
    )
    assert log["user_query"] == "First?"
    assert log["error"] == "run failed"


def test_the_question_is_found_even_if_clocks_disagree() -> None:
    assert fields(samples.run(at=10), samples.question("m1", "Ahead?", at=11))["user_query"] == "Ahead?"


def test_messages_of_another_thread_are_never_used() -> None:
    foreign = samples.question("m2", "Not yours?", at=9, thread_id="thread_2")
    assert fields(samples.run(), foreign, samples.question("m1", "Mine?", at=8))["user_query"] == "Mine?"


def test_messages_without_a_run_describe_the_newest_run() -> None:
    log = fields(
        samples.page(
            samples.message("msg_3", "New.", at=30, run_id="run_2"),
            samples.question("msg_2", "Again?", at=20),
            samples.message("msg_1", "Old.", at=10),
        )
    )
    assert (log["response"], log["user_query"], log["session_id"]) == ("New.", "Again?", "thread_1")
    assert log["custom_attributes"] == {"run_id": "run_2"}


def test_a_later_snapshot_replaces_an_earlier_one_and_tokens_count_once() -> None:
    call = samples.function_call()
    waiting = samples.waiting_run(call)
    output = Exchange(
        kind="run",
        order=3,
        params={"tool_outputs": [{"tool_call_id": "call_1", "output": "3 degrees"}]},
        answer=samples.run(status="queued"),
    )
    log = fields(samples.run(status="queued"), waiting, output, samples.run(), waiting, samples.run())
    assert log["total_tokens"] == 37
    assert log["tool_calls"] == [{**call, "output": "3 degrees"}]
    assert log["custom_attributes"]["status"] == "completed"


def test_tokens_are_summed_over_distinct_answers() -> None:
    log = fields(samples.run(), samples.response(at=20), samples.chat(at=30), samples.chat(at=30))
    assert (log["prompt_tokens"], log["completion_tokens"], log["total_tokens"]) == (55, 15, 70)
    assert log["custom_attributes"]["cached_tokens"] == 8
    assert log["custom_attributes"]["models"] == "gpt-4o, gpt-4.1, gpt-4o-mini"


def test_tokens_are_summed_if_servers_repeat_or_omit_ids() -> None:
    same_id = [samples.chat("chatcmpl-0", at=at) for at in (1, 2)]
    no_id = [{**samples.chat(at=at), "id": None} for at in (3, 4)]
    nothing = [{"choices": [{"message": {"content": text}}], "usage": {"total_tokens": 1}} for text in "ab"]
    assert fields(*same_id, *no_id, *nothing, *nothing)["total_tokens"] == 4 * 7 + 2


def test_missing_usage_is_absent_and_not_zero() -> None:
    assert "prompt_tokens" not in fields({**samples.chat(), "usage": None})


def test_a_missing_total_is_the_sum_of_the_token_counts() -> None:
    usage = {"prompt_tokens": 2, "completion_tokens": 3}
    assert fields({**samples.chat(), "usage": usage})["total_tokens"] == 5


def test_a_tool_loop_over_responses_is_one_log() -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": "{}"}
    tools = [{"type": "function", "name": "weather"}]
    first = Exchange(
        kind="response",
        order=1,
        params={"input": "How cold?", "tools": tools, "temperature": 0.2},
        answer=samples.response("resp_1", call, at=10),
    )
    second = Exchange(
        kind="response",
        order=2,
        params={
            "previous_response_id": "resp_1",
            "input": [{"type": "function_call_output", "call_id": "call_1", "output": "3"}],
        },
        answer=samples.response(
            "resp_2", samples.output_text("Three."), at=12, previous_response_id="resp_1", temperature=0.3
        ),
    )
    log = fields(first, second)
    assert log["session_id"] == "resp_1"
    assert log["prompt"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "How cold?"},
    ]
    assert (log["user_query"], log["response"]) == ("How cold?", "Three.")
    assert [(made["function"]["name"], made["output"]) for made in log["tool_calls"]] == [("weather", "3")]
    assert (log["tools"], log["model_options"]) == (tools, {"temperature": 0.3})
    assert log["total_tokens"] == 52


def test_the_conversation_of_an_earlier_response_is_the_session() -> None:
    chain = [
        samples.response("resp_1", at=1, conversation={"id": "conv_1"}),
        samples.response("resp_2", at=2, previous_response_id="resp_1"),
    ]
    assert fields(*reversed(chain))["session_id"] == "conv_1"


def test_a_cyclic_chain_of_responses_terminates() -> None:
    circle = [
        samples.response("resp_1", at=1, previous_response_id="resp_2"),
        samples.response("resp_2", at=2, previous_response_id="resp_1"),
    ]
    assert fields(*circle)["session_id"] in {"resp_1", "resp_2"}


def test_outputs_of_built_in_tools_are_added_to_their_calls() -> None:
    call = {"type": "shell_call", "id": "sh_1", "call_id": "call_1", "action": {"commands": ["ls"]}}
    output = {"type": "shell_call_output", "id": "so_1", "call_id": "call_1", "output": [{"stdout": "a\n"}]}
    log = fields(samples.response("resp_1", call, output))
    assert log["tool_calls"] == [{**call, "output": [{"stdout": "a\n"}]}]


def test_a_thread_or_conversation_alone_is_the_session() -> None:
    assert fields({"object": "thread", "id": "thread_9"}) == {"session_id": "thread_9"}


def test_the_request_order_decides_if_it_is_known() -> None:
    late_clock = Exchange(kind="chat", order=1, answer=samples.chat("a", content="One.", at=99))
    early_clock = Exchange(kind="chat", order=2, answer=samples.chat("b", content="Two.", at=1))
    assert fields(early_clock, late_clock)["response"] == "Two."


def test_a_failure_followed_by_an_answer_is_no_error() -> None:
    failed = Exchange(kind="chat", order=1, params={"model": "gone"}, error=OSError("refused"))
    assert fields(failed)["error"] == "OSError: refused"
    assert fields(failed)["language_model_id"] == "gone"
    recovered = fields(failed, Exchange(kind="chat", order=2, answer=samples.chat()))
    assert "error" not in recovered
    assert recovered["language_model_id"] == "gpt-4o-mini"


def test_images_and_citations_are_custom_attributes() -> None:
    cited = {"type": "file_citation", "file_citation": {"file_id": "file-9", "quote": "Cold."}}
    image = {"type": "image_file", "image_file": {"file_id": "file-7"}}
    log = fields(samples.run(), samples.message("m1", samples.text_part("See."), image, at=11))
    assert (log["response"], log["custom_attributes"]["files"]) == ("See.", "file-7")
    log = fields(samples.run(), samples.message("m1", samples.text_part("See.", cited), at=11))
    assert (log["context"], log["custom_attributes"]["citations"]) == (["Cold."], "file-9")


CONVERSATION = [
    samples.run("run_1", at=10, status="queued"),
    samples.waiting_run(samples.function_call(), run_id="run_1", at=10),
    samples.run("run_1", at=10),
    samples.run("run_2", at=30, status="in_progress", thread_id="thread_1"),
    samples.run("run_2", at=30, status="failed", last_error={"code": "server_error", "message": "Sorry."}),
    samples.question("msg_1", "How cold?", at=9),
    samples.message("msg_2", at=13, status="in_progress"),
    samples.message("msg_2", "Three.", at=13, status="completed"),
    samples.page(samples.message("msg_3", "Degrees.", at=15), samples.message("msg_2", "Three.", at=13)),
    samples.page(samples.question("msg_4", "Sure?", at=29), samples.message("msg_0", "Hi.", at=1, run_id="run_0")),
    samples.step("step_1", at=11, status="in_progress"),
    samples.step("step_1", samples.function_call(), at=11),
    samples.step("step_2", samples.function_call("call_2", name="wind"), at=12),
    samples.response("resp_1", samples.output_text("Yes."), at=40),
    samples.chat("chat_1", content="Final.", at=50),
    Exchange(
        kind="run",
        params={"tool_outputs": [{"tool_call_id": "call_1", "output": "3"}]},
        answer=samples.run(status="queued"),
        order=5,
    ),
]


@given(st.permutations(CONVERSATION), st.lists(st.sampled_from(CONVERSATION)))
def test_any_order_and_repetition_of_objects_give_the_same_log(order: list[Any], again: list[Any]) -> None:
    assert fields(*order, *again) == fields(*CONVERSATION)


def test_the_conversation_of_the_order_test_gives_all_fields() -> None:
    log = fields(*CONVERSATION)
    assert log["user_query"] == "How cold?"
    assert log["response"] == "Final."
    assert [call["id"] for call in log["tool_calls"]] == ["call_1", "call_2"]
    assert log["tool_calls"][0]["output"] == "3"
    assert log["total_tokens"] == 37 + 26 + 7


@pytest.mark.parametrize("wrap", [dict, as_object])
def test_dictionaries_and_objects_give_the_same_log(wrap: Any) -> None:
    wires = [subject for subject in CONVERSATION if isinstance(subject, dict)]
    assert fields(*map(wrap, wires)) == fields(*wires)


def test_a_stream_that_is_read_before_its_end_counts_once() -> None:
    accumulator = AnswerAccumulator()
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": samples.HOUR, "model": "m"}
    for number, reason in ((1, None), (2, None), (3, "stop")):
        choice = {"index": 0, "delta": {"content": f"{number} "}, "finish_reason": reason}
        usage = {"prompt_tokens": 5, "completion_tokens": number, "total_tokens": 5 + number}
        assert accumulator.add({**head, "choices": [choice], "usage": usage})
        assert accumulator.fields()["total_tokens"] == 5 + number
    log = accumulator.fields()
    assert (log["response"], log["total_tokens"]) == ("1 2 3 ", 8)


def test_a_completion_recorded_beside_its_request_counts_once() -> None:
    params = {"messages": [{"role": "user", "content": "Hello?"}]}
    answers = [samples.chat("chatcmpl-0", content=text) for text in ("One.", "Two.")]
    requests = [Exchange(kind="chat", order=n, request=n, params=params, answer=answers[n]) for n in (0, 1)]
    for order in ([requests[0], answers[0], requests[1], answers[1]], [*requests, *reversed(answers)]):
        log = fields(*order, *order)
        assert (log["total_tokens"], log["response"], log["user_query"]) == (14, "Two.", "Hello?")
