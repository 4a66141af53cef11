"""Objects of OpenAI's client, their dictionaries, and foreign objects that resemble them become records."""

from __future__ import annotations

import json
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athina_trace._answers.records import Answer, Record, SessionSeen, ThreadMessage, ToolCall

from . import samples
from .samples import HOUR, as_object, read


def known(subject: object) -> list[Record]:
    records = read(subject)
    assert records is not None
    return records


def one(subject: object) -> Any:
    (record,) = known(subject)
    return record


def test_a_run_gives_assistant_thread_and_usage() -> None:
    answer = one(samples.run(reasoning_effort="low", max_completion_tokens=400))
    assert answer == Answer(
        key=("run", "run_1"),
        created=HOUR + 10,
        status="completed",
        session="thread_1",
        model="gpt-4o",
        system=("Be brief.",),
        usage={"prompt_tokens": 30, "completion_tokens": 7, "total_tokens": 37},
        tools=({"type": "file_search"},),
        options={
            "temperature": 0.5,
            "max_completion_tokens": 400,
            "extra_options": {"reasoning_effort": "low"},
        },
        details={"run_id": "run_1", "assistant_id": "asst_1"},
    )


@pytest.mark.parametrize(
    ("failed", "error"),
    [
        (
            {"last_error": {"code": "rate_limit_exceeded", "message": "Slow down."}},
            "rate_limit_exceeded: Slow down.",
        ),
        ({"status": "failed"}, "run failed"),
        ({"status": "expired"}, "run expired"),
        ({"status": "cancelled"}, "run cancelled"),
        ({"incomplete_details": {"reason": "max_prompt_tokens"}}, "run incomplete: max_prompt_tokens"),
    ],
)
def test_a_failed_run_gives_its_error(failed: dict[str, object], error: str) -> None:
    assert one(samples.run(**{"status": "incomplete", **failed})).error == error  # type: ignore[arg-type]


def test_a_message_gives_its_text_files_and_citations() -> None:
    cited = {"type": "file_citation", "file_citation": {"file_id": "file-9", "quote": "Oslo is cold."}}
    image = {"type": "image_file", "image_file": {"file_id": "file-7"}}
    refusal = {"type": "refusal", "refusal": "I had rather not."}
    reading = one(samples.message("msg_1", samples.text_part("Cold.", cited), image, refusal, at=12))
    assert reading == ThreadMessage(
        id="msg_1",
        thread="thread_1",
        run="run_1",
        role="assistant",
        created=HOUR + 12,
        text="Cold.\nI had rather not.",
        files=("file-7",),
        citations=("file-9",),
        quotes=("Oslo is cold.",),
    )


def test_a_step_gives_its_tool_calls_with_their_outputs() -> None:
    function = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "f", "arguments": "{}", "output": "42"},
    }
    code = {"id": "call_2", "type": "code_interpreter", "code_interpreter": {"input": "1+1", "outputs": []}}
    results = [{"file_id": "f", "score": 0.9, "content": [{"type": "text", "text": "Oslo is cold."}]}]
    search = {"id": "call_3", "type": "file_search", "file_search": {"results": results}}
    readings = read(samples.step("step_1", function, code, search, at=11)) or ()
    calls = [reading for reading in readings if isinstance(reading, ToolCall)]
    assert [call.key for call in calls] == ["call_1", "call_2", "call_3"]
    assert calls[0].body == {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert calls[0].output == "42"
    assert calls[1].body == code
    assert calls[2].context == ("Oslo is cold.",)


def test_a_response_gives_text_calls_usage_and_conversation() -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{}"}
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]}
    found = {"type": "file_search_call", "id": "fs_1", "results": [{"text": "A chunk."}]}
    custom = {"type": "custom_tool_call", "id": "ct_1", "call_id": "call_2", "name": "sh", "input": "ls"}
    wire = samples.response(
        "resp_1", reasoning, call, found, custom, samples.output_text("Yes."), conversation={"id": "conv_1"}
    )
    answer, *calls = known(wire)
    assert isinstance(answer, Answer)
    assert (answer.text, answer.session, answer.model) == ("Yes.", "conv_1", "gpt-4.1")
    assert answer.usage == {
        "prompt_tokens": 20,
        "completion_tokens": 6,
        "total_tokens": 26,
        "cached_tokens": 8,
        "reasoning_tokens": 4,
    }
    bodies = [call.body for call in calls if isinstance(call, ToolCall)]
    assert bodies == [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        found,
        {"id": "call_2", "type": "custom", "custom": {"name": "sh", "input": "ls"}},
    ]


def test_an_incomplete_response_gives_the_reason() -> None:
    wire = samples.response(status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    assert one(wire).error == "response incomplete: max_output_tokens"


def test_a_chat_completion_gives_text_and_usage() -> None:
    answer = one(samples.chat())
    assert (answer.text, answer.status, answer.model) == ("Hello.", "stop", "gpt-4o-mini")
    assert answer.usage == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def test_a_refusal_is_the_text_of_a_chat_completion() -> None:
    assert one(samples.chat(content=None, refusal="No.")).text == "No."


def test_the_text_of_an_audio_answer_is_its_transcript() -> None:
    assert one(samples.chat(content=None, audio={"id": "a", "transcript": "Hi."})).text == "Hi."


def test_tool_calls_and_the_legacy_function_call_of_a_chat_completion_are_read() -> None:
    custom = {"id": "call_2", "type": "custom", "custom": {"name": "sh", "input": "ls"}}
    legacy = {"name": "old", "arguments": "{}"}
    wire = samples.chat(content=None, tool_calls=[samples.function_call(), custom], function_call=legacy)
    _, *calls = known(wire)
    bodies = [call.body for call in calls if isinstance(call, ToolCall)]
    assert bodies == [
        samples.function_call(),
        custom,
        {"type": "function", "function": legacy},
    ]


@pytest.mark.parametrize("kind", ["thread", "conversation"])
def test_a_thread_or_conversation_is_a_session(kind: str) -> None:
    assert one({"object": kind, "id": "it_1"}) == SessionSeen(session="it_1")


WIRES = [
    samples.run(),
    samples.waiting_run(samples.function_call()),
    samples.message("msg_1", "Hi.", at=12),
    samples.step("step_1", samples.function_call(), at=11),
    samples.response("resp_1", samples.output_text("Yes.")),
    samples.chat(tool_calls=[samples.function_call()]),
    samples.page(samples.message("msg_1", "Hi.", at=12), samples.question("msg_0", "Hello?", at=9)),
]


@pytest.mark.parametrize("wire", WIRES)
def test_objects_dictionaries_and_wrappers_read_the_same(wire: dict[str, Any]) -> None:
    class Wrapper:
        def __init__(self) -> None:
            self.http_response = SimpleNamespace(content=json.dumps(wire).encode())

        def parse(self) -> object:
            raise AssertionError("parse() may run the user's own parser")

    assert read(wire) is not None
    assert read(as_object(wire)) == read(wire)
    assert read(Wrapper()) == read(wire)


@pytest.mark.parametrize("wire", WIRES)
def test_objects_without_a_kind_are_recognised_by_their_fields(wire: dict[str, Any]) -> None:
    assert read({name: value for name, value in wire.items() if name != "object"}) == read(wire)


def test_a_stream_event_with_an_object_is_read_as_that_object() -> None:
    assert read({"event": "thread.run.completed", "data": samples.run()}) == read(samples.run())
    assert read({"type": "response.completed", "response": samples.response()}) == read(samples.response())


def test_an_unread_body_is_not_read() -> None:
    class Unread:
        @property
        def content(self) -> bytes:
            raise RuntimeError("not read yet")

    assert read(SimpleNamespace(http_response=Unread())) is None


def test_pages_are_never_iterated() -> None:
    class Page:
        def __init__(self) -> None:
            self.data = (samples.message("msg_1", "Hi.", at=12),)

        def __iter__(self) -> object:
            raise AssertionError("iterating a page sends requests")

    assert len(read(Page()) or ()) == 1


def test_an_empty_page_is_recognised_and_has_no_records() -> None:
    assert read(samples.page()) == []


def test_a_programs_own_result_is_not_taken_for_an_answer() -> None:
    results: list[object] = [{"choices": ["tea"]}, {"id": "1", "output": ["x"]}, {"data": []}, {"data": [1]}]
    for own in [*results, results, []]:
        assert read(own) is None


def test_no_property_of_an_unknown_object_is_called() -> None:
    class Streaming:
        """A response like that of some web frameworks: looking at the body reads the stream."""

        @property
        def data(self) -> bytes:
            raise AssertionError

        content = response = http_response = choices = output = data

    assert read(Streaming()) is None


def test_only_the_first_items_of_a_long_unknown_list_are_examined() -> None:
    class Asked(dict[str, object]):
        count = 0

        def get(self, *name: object) -> object:
            Asked.count += 1
            return None

    assert read([Asked() for _ in range(1000)]) is None
    assert Asked.count < 100


@pytest.mark.parametrize("stranger", [None, 1, "run_1", b"{}", object(), {}, {"object": "assistant"}, [1], MagicMock()])
def test_unknown_objects_are_not_read(stranger: object) -> None:
    assert read(stranger) is None


def test_a_list_that_contains_itself_terminates() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert read(endless) is None


class Raises:
    """An object on which every attribute raises, even the class's name."""

    def __getattribute__(self, name: str) -> object:
        raise RuntimeError(name)


def test_an_object_that_raises_on_every_access_is_not_read() -> None:
    assert read(Raises()) is None


class Shy:
    """An object on which every attribute raises, except those that Python itself reads."""

    def __getattr__(self, name: str) -> object:
        raise AttributeError(name) if name.startswith("_") else RuntimeError(name)


def kinds(readings: Iterable[object] | None) -> set[type]:
    return {type(reading) for reading in readings or ()}


@pytest.mark.parametrize("wire", WIRES)
def test_one_member_that_raises_on_every_access_loses_nothing_else(wire: dict[str, Any]) -> None:
    for spoilt in set(wire) - {"id", "object", "data", "run_id"}:
        assert kinds(read({**wire, spoilt: Raises()})) >= kinds(read(wire)) - {ToolCall}
        assert kinds(read({**wire, spoilt: [Raises()]})) >= kinds(read(wire)) - {ToolCall}


JUNK = st.recursive(
    st.sampled_from([None, True, -1, 2.5, float("nan"), "", "completed", "text", b"\x00", object(), Shy()]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "type", "text", "value", "name", "content", "index"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@given(data=st.data(), wire=st.sampled_from(WIRES))
def test_a_field_of_any_other_type_never_raises_and_loses_nothing_else(
    data: st.DataObject, wire: dict[str, Any]
) -> None:
    spoilt = data.draw(st.sampled_from(sorted(set(wire) - {"id", "object", "data", "run_id"})))
    readings = read({**wire, spoilt: data.draw(JUNK)})
    assert kinds(readings) >= kinds(read(wire)) - {ToolCall}


@given(JUNK)
def test_arbitrary_data_never_raises(junk: object) -> None:
    read(junk)
    for kind in (
        "thread.run",
        "thread.message",
        "thread.run.step",
        "thread",
        "response",
        "chat.completion",
        "list",
    ):
        read({"object": kind, "id": junk, "data": junk, "content": junk, "output": junk, "choices": junk})
