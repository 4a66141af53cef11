"""The short way of reading gives what reading by shape gives, or nothing."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from athina_trace.integrations.openai.ledger import Ledger
from athina_trace.integrations.openai.memory import Chain
from athina_trace.integrations.openai.plain_answers import plain_chat, plain_response
from athina_trace.integrations.openai.requests import Exchange

from .samples import Wire, chat, function_call, output_text, response

MISSING = object()


def sometimes(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from((MISSING, None, *values))


def given_some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Wire]:
    """Dictionaries in which each of the fields may be there."""
    made = st.fixed_dictionaries(fields)
    return made.map(lambda wire: {name: value for name, value in wire.items() if value is not MISSING})


REFUSAL = {"type": "message", "id": "m", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
TWO_PARTS = {**output_text("one"), "content": output_text("one")["content"] + output_text("two")["content"]}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": []}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": "{}"}
SEARCH = {"type": "file_search_call", "id": "fs_1", "queries": ["q"], "status": "completed", "results": None}
ITEMS = [output_text("Rain."), output_text(""), TWO_PARTS, REFUSAL, THOUGHT, CALL, SEARCH]
COUNTS = {"input_tokens": 0, "output_tokens": 3, "total_tokens": 3}
DETAILED = {
    **COUNTS,
    "input_tokens_details": {"cached_tokens": 2, "text_tokens": 1},
    "output_tokens_details": {"reasoning_tokens": 4, "text_tokens": 5, "new": {"x": 1}},
}
REQUESTS = given_some(
    model=st.just("asked-for"),
    input=sometimes(
        "What is the weather?",
        "",
        [{"role": "user", "content": "Hi."}],
        [{"role": "user", "content": [{"type": "input_text", "text": "Hi."}]}, {"role": "developer", "content": "D"}],
        [{"type": "function_call_output", "call_id": "call_0", "output": "rain"}],
    ),
    instructions=sometimes("Be brief.", ""),
    conversation=sometimes("conv_1", {"id": "conv_2"}),
    previous_response_id=sometimes("resp_0"),
    temperature=sometimes(0.5),
    reasoning=sometimes({"effort": "low"}),
    tools=sometimes([], [{"type": "web_search"}]),
    stop=sometimes(["a", "b"]),
)
RESPONSES = given_some(
    status=st.sampled_from(["completed", "completed", "failed", "in_progress"]),
    output=st.lists(st.sampled_from(ITEMS), max_size=3),
    instructions=sometimes("Be kind.", "", [{"role": "system", "content": "List."}]),
    usage=st.sampled_from([COUNTS, DETAILED, None, {**COUNTS, "cost": 3}, {"input_tokens": 1}]),
    tools=st.sampled_from([[], [{"type": "file_search", "vector_store_ids": ["vs"]}]]),
    conversation=sometimes({"id": "conv_9"}),
    previous_response_id=sometimes("resp_0"),
    temperature=sometimes(1.0, 0),
    max_output_tokens=sometimes(100),
    reasoning=sometimes({"effort": None, "summary": None}, {"effort": "high"}),
    truncation=sometimes("disabled"),
    frequency_penalty=sometimes(0.0),
    service_tier=sometimes("default"),
    error=sometimes({"code": "server_error", "message": "It broke."}),
    incomplete_details=sometimes({"reason": "max_output_tokens"}),
)
CHAINS = st.sampled_from([Chain(), Chain("conv_7", "Before?"), Chain("resp_0", None)])


@given(RESPONSES, REQUESTS, CHAINS)
def test_of_a_response(more: Wire, params: Wire, chain: Chain) -> None:
    wire = {**response("resp_1"), **more}
    fields = plain_response(wire, params, chain)
    ledger = Ledger()
    ledger.add(Exchange(kind="response", order=1, params=params, answer=wire, session=chain.session, query=chain.query))
    assert fields is None or fields == ledger.fields()


@given(
    given_some(
        content=st.sampled_from(["Rain.", "", None]),
        refusal=sometimes("No."),
        tool_calls=sometimes([], [function_call()]),
        annotations=sometimes([]),
    ),
    given_some(
        usage=st.sampled_from(
            [
                {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
                {
                    "prompt_tokens": 1,
                    "completion_tokens": 2,
                    "total_tokens": 3,
                    "prompt_tokens_details": {"audio_tokens": 1, "cached_tokens": 0},
                    "completion_tokens_details": {"audio_tokens": 2, "reasoning_tokens": 1},
                },
                None,
            ]
        ),
        system_fingerprint=sometimes("fp_1"),
        service_tier=sometimes("default"),
        id=sometimes("chatcmpl-9", ""),
        choices=st.sampled_from([MISSING, []]),
    ),
    given_some(
        messages=st.lists(
            st.sampled_from(
                [
                    {"role": "user", "content": "Hi."},
                    {"role": "system", "content": "Be brief."},
                    {"role": "assistant", "content": None},
                    {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
                ]
            ),
            max_size=3,
        ),
        max_tokens=sometimes(5),
        temperature=sometimes(0.1),
        tools=sometimes([], [{"type": "function", "function": {"name": "f"}}]),
    ),
)
def test_of_a_completion(said: Wire, more: Wire, params: Wire) -> None:
    wire = {**chat(), **more}
    if wire["choices"]:
        wire["choices"] = [{**wire["choices"][0], "message": {"role": "assistant", **said}}]
    fields = plain_chat(wire, params)
    ledger = Ledger()
    ledger.add(Exchange(kind="chat", order=1, params=params, answer=wire))
    assert fields is None or fields == ledger.fields()


def test_the_common_ones_go_the_short_way() -> None:
    asked = {"model": "gpt-4.1", "input": "What is the weather?", "temperature": 0.5}
    assert plain_response(response("resp_1", output_text("Rain.")), asked, Chain()) is not None
    said = {"messages": [{"role": "user", "content": "Hi."}]}
    assert plain_chat(chat(), said) is not None


def test_what_is_no_answer_goes_the_long_way() -> None:
    for stranger in (None, {}, [], object(), "text", 7):
        assert plain_response(stranger, {}, Chain()) is None
        assert plain_chat(stranger, {}) is None


JUNK = st.sampled_from([None, "", "text", 7, -1, 2.0, True, [], ["x"], {}, {"id": "x"}])


@given(st.data())
def test_what_breaks_the_promise_of_its_type_is_read_alike(data: st.DataObject) -> None:
    answer = {**response("resp_1", output_text("Rain.")), "usage": DETAILED, "instructions": "Be kind."}
    params = {
        "input": "Will it rain?",
        "conversation": {"id": "conv_1"},
        "temperature": 0.5,
        "instructions": "Be brief.",
    }
    spoil(data, data.draw(st.sampled_from([answer, params])))
    fields = plain_response(answer, params, Chain())
    assert fields is None or fields == by_shape("response", answer, params)


@given(st.data())
def test_of_a_completion_too(data: st.DataObject) -> None:
    answer = chat(content="Rain.")
    params = {"messages": [{"role": "user", "content": "Will it rain?"}], "temperature": 0.5, "stop": ["."]}
    spoil(data, data.draw(st.sampled_from([answer, params])))
    fields = plain_chat(answer, params)
    assert fields is None or fields == by_shape("chat", answer, params)


def spoil(data: st.DataObject, wire: Any) -> None:
    """Put something else in one place, however deep."""
    place = data.draw(st.sampled_from(sorted(wire) if isinstance(wire, dict) else range(len(wire))))
    if isinstance(wire[place], dict | list) and wire[place] and data.draw(st.booleans()):
        wire[place] = copy.deepcopy(wire[place])
        spoil(data, wire[place])
    else:
        wire[place] = data.draw(JUNK)


def by_shape(kind: Any, answer: Wire, params: Wire) -> Wire:
    ledger = Ledger()
    ledger.add(Exchange(kind=kind, order=1, params=params, answer=answer))
    return ledger.fields()
