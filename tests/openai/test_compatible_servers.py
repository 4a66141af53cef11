"""OpenAI-compatible servers have their own ids, chunks, zero values and errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import OpenAI

import athina_trace
from athina_trace import _periodic, current_log, flush
from athina_trace._answers.accumulator import AnswerAccumulator
from athina_trace._answers.records import Answer, ToolCall
from athina_trace.integrations.openai import standalone_logs as standalone
from athina_trace.integrations.openai.standalone_logs import standalone_logs

from .samples import HOUR, Wire, chat, function_call, message, output_text, page, response, run
from .scripts import ASK, RAIN, RUN, THREAD, chunks
from .server import Events, Server

Logs = Callable[[], list[dict[str, Any]]]
QUERY = "What is the weather?"
DECORATED = pytest.mark.parametrize("decorated", [False, True], ids=["undecorated", "decorated"])


def as_a_call(decorated: bool) -> AbstractContextManager[Any]:
    return athina_trace.athina_trace() if decorated else nullcontext()


def ask(client: OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(model="gpt-4o-mini", messages=ASK, **more)


def only_log(logs: Logs) -> dict[str, Any]:
    (log,) = logs()
    return log


def streamed(made: list[Wire]) -> dict[str, Any]:
    """Return the fields of a log into which a program recorded these chunks."""
    accumulator = AnswerAccumulator()
    assert all(map(accumulator.add, made))
    return accumulator.fields()


# One request is one answer ------------------------------------------------------------------------------------------

IDS = [("chatcmpl-7", "chatcmpl-7"), ("", ""), (None, None), ("a", "b")]


@pytest.mark.parametrize("ids", IDS, ids=["repeated", "empty", "null", "distinct"])
@pytest.mark.parametrize("texts", [("One.", "Two."), ("One.", "One."), (None, None)], ids=["other", "same", "no"])
def test_two_requests_are_two_answers_whatever_their_ids(
    ids: Any, texts: Any, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    for own, text in zip(ids, texts, strict=True):
        called: Any = {} if text else {"tool_calls": [{**function_call(), "id": own}]}
        server.on("POST /chat/completions", {**chat(content=text, **called), "id": own})
    with athina_trace.athina_trace():
        for _ in ids:
            current_log().record(ask(client))
    log = only_log(instrumented)
    assert (log["total_tokens"], log["response"]) == (14, texts[1] or "")
    assert len(log.get("tool_calls", ())) == (0 if texts[0] else 2)


@pytest.mark.parametrize("own", ["chatcmpl-7", "", None])
def test_two_streams_are_two_answers_whatever_their_ids(
    own: Any, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    for text in ("One.", "Two."):
        made = [{**chunk, "id": own} for chunk in chunks({"content": text}, usage=usage)]
        server.on("POST /chat/completions", Events.of_chat(*made))
    with athina_trace.athina_trace():
        for _ in range(2):
            list(ask(client, stream=True))
    assert (only_log(instrumented)["total_tokens"], only_log(instrumented)["response"]) == (14, "Two.")


def test_two_responses_of_one_id_are_two_answers(server: Server, client: OpenAI, instrumented: Logs) -> None:
    server.on("POST /responses", response("resp_1", output_text("One.")), response("resp_1", output_text("Two.")))
    server.on("GET /responses/resp_1", response("resp_1", output_text("Two.")))
    with athina_trace.athina_trace():
        for _ in range(2):
            client.responses.create(model="gpt-4.1", input=QUERY)
        client.responses.retrieve("resp_1")
    assert only_log(instrumented)["total_tokens"] == 52


# Choices ------------------------------------------------------------------------------------------------------------


@DECORATED
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
def test_all_choices_are_logged(
    decorated: bool, is_stream: bool, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    says: list[Wire] = [
        {"content": "One."},
        {"content": None, "tool_calls": [{**function_call(), "index": 0}]},
        {"content": "Two."},
    ]
    if is_stream:
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": HOUR, "model": "gpt-4o-mini"}
        parts: list[Wire] = [
            {**head, "choices": [{"index": place, "delta": each, "finish_reason": None}]}
            for place, each in reversed(list(enumerate(says)))
        ]
        server.on("POST /chat/completions", Events.of_chat(*parts))
    else:
        choices = [
            {"index": place, "finish_reason": "stop", "message": {"role": "assistant", **each}}
            for place, each in enumerate(says)
        ]
        server.on("POST /chat/completions", {**chat(), "choices": choices})
    with as_a_call(decorated):
        answer = ask(client, n=3, stream=is_stream)
        list(answer) if is_stream else None
    log = only_log(instrumented)
    assert (log["response"], json.loads(log["custom_attributes"]["choices"])) == ("One.", ["", "Two."])
    assert [call["function"]["name"] for call in log["tool_calls"]] == ["weather"]


def test_tool_calls_of_two_choices_with_equal_ids_are_two_calls() -> None:
    calls = [{"function": {"name": name, "arguments": "{}"}} for name in ("weather", "time")]
    choices = [{"index": place, "message": {"tool_calls": [call]}} for place, call in enumerate(calls)]
    log = streamed([{**chat(), "choices": choices}])
    assert [call["function"]["name"] for call in log["tool_calls"]] == ["weather", "time"]


# Chunks -------------------------------------------------------------------------------------------------------------


def thought(text: str) -> Wire:
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}


def part(text: str) -> Wire:
    return {"type": "text", "text": text}


REFERENCE = {"type": "reference", "reference_ids": [0]}
PIECES = st.lists(
    st.text()
    | st.none()
    | st.text().map(part)
    | st.lists(st.text().map(part) | st.text(min_size=1).map(thought) | st.just(REFERENCE), max_size=3)
)


def text_in(content: Any) -> str:
    if isinstance(content, list):
        return "".join(each.get("text", "") for each in content)
    return content["text"] if isinstance(content, dict) else content or ""


@given(PIECES)
def test_text_is_assembled_however_it_is_streamed(contents: Any) -> None:
    log = streamed(chunks(*({"content": content} for content in contents)))
    assert log.get("response", "") == "".join(map(text_in, contents))


def test_an_object_instead_of_text_is_logged_as_json(server: Server, client: OpenAI, instrumented: Logs) -> None:
    content: Any = {"title": "Pears", "author": "Å"}
    server.on("POST /chat/completions", chat(content=content))
    ask(client)
    assert only_log(instrumented)["response"] == '{"title": "Pears", "author": "Å"}'


@st.composite
def calls_in_parts(draw: st.DrawFn) -> tuple[list[Wire], list[tuple[str, str]]]:
    """Draw the deltas of a few calls, as one of the known servers streams them, and the calls."""
    has_ids, has_index = draw(st.booleans()), draw(st.booleans())
    repeats_name, repeats_id = draw(st.booleans()), draw(st.booleans())
    arguments = st.dictionaries(st.text(max_size=3), st.text(max_size=5) | st.integers(), min_size=1, max_size=2)
    called = draw(st.lists(st.tuples(st.sampled_from(["weather", "time"]), arguments.map(json.dumps)), max_size=4))
    deltas: list[Wire] = []
    for place, (name, text) in enumerate(called):
        cuts = sorted(draw(st.lists(st.integers(1, len(text) - 1), max_size=2, unique=True)))
        for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(text)], strict=True)):
            function: Wire = {"arguments": text[start:end]}
            if number == 0 or repeats_name:
                function["name"] = name
            own = f"call_{place}" if has_ids and (number == 0 or repeats_id) else ""
            index = place if has_index else 0
            deltas.append({"tool_calls": [{"index": index, "id": own, "type": "function", "function": function}]})
    return deltas, called


@given(calls_in_parts())
def test_tool_calls_are_distinguished_however_they_are_streamed(made: Any) -> None:
    deltas, called = made
    log = streamed(chunks(*deltas, reason="tool_calls"))
    assert [tuple(call["function"].values()) for call in log.get("tool_calls", ())] == called


def test_a_function_name_in_parts_is_joined() -> None:
    parts = [{"name": "get_", "arguments": ""}, {"name": "weather"}, {"arguments": "{}"}]
    deltas = [
        {"tool_calls": [{"index": 0, "id": "call_1" if not n else None, "function": f}]} for n, f in enumerate(parts)
    ]
    (call,) = streamed(chunks(*deltas))["tool_calls"]
    assert call["function"] == {"name": "get_weather", "arguments": "{}"}


def test_calls_without_ids_and_with_object_arguments_are_distinguished() -> None:
    cities = [{"city": "Oslo"}, {"city": "Rome"}]
    deltas = [{"tool_calls": [{"index": 0, "function": {"name": "weather", "arguments": each}}]} for each in cities]
    log = streamed(chunks(*deltas))
    assert [call["function"]["arguments"] for call in log["tool_calls"]] == cities


# Ids of chunks ------------------------------------------------------------------------------------------------------


@st.composite
def labelled_streams(draw: st.DrawFn) -> list[list[Wire]]:
    """Draw a few streams as one of the known servers labels their chunks, each with text and usage."""
    # TGI sends no ids, some proxies one for each chunk; Ollama, llama.cpp and TGI say when each chunk was made.
    own, own_time = draw(st.sampled_from(["each stream", "each chunk", "none"])), draw(st.booleans())
    repeats_role = draw(st.booleans()) and own != "each chunk"
    made, number = [], 0
    for place in range(draw(st.integers(1, 3))):
        deltas: list[Wire] = [{"content": each} for each in draw(st.lists(st.text(min_size=1), min_size=1, max_size=4))]
        for each in deltas if repeats_role else deltas[:1]:
            each["role"] = "assistant"
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        stream = []
        for chunk in chunks(*deltas, usage=usage):
            number += 1
            label = {"each stream": f"c-{place}", "each chunk": f"c-{number}", "none": ""}[own]
            stream.append({**chunk, "id": label, "created": HOUR + (number / 2 if own_time else 100 * place)})
        made.append(stream)
    return made


@given(labelled_streams())
def test_recorded_chunks_are_assembled_whatever_their_ids(made: Any) -> None:
    log = streamed([chunk for stream in made for chunk in stream])
    texts = ["".join(c["delta"].get("content") or "" for each in one for c in each["choices"]) for one in made]
    assert (log["response"], log["total_tokens"]) == (texts[-1], 7 * len(made))


@pytest.mark.parametrize("first", [{"id": "", "created": 0}, {}], ids=["filter's first", "answer's first"])
def test_a_stream_is_identified_by_its_first_id_if_chunks_have_others(
    first: Wire, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    """Groq gives each chunk its own id, and the last one the id "stub"; Azure's first chunk has none."""
    made = chunks({"role": "assistant", "content": RAIN[:2]}, {"content": RAIN[2:]})
    for number, each in enumerate(made):
        each["id"] = "stub" if number == len(made) - 1 else f"c-{number}"
    if first:
        made.insert(0, {**made[0], **first, "choices": []})
    server.on("POST /chat/completions", Events.of_chat(*made))
    list(ask(client, stream=True))
    assert (only_log(instrumented)["custom_attributes"]["completion_id"], only_log(instrumented)["response"]) == (
        "c-0",
        RAIN,
    )


def test_chunks_yielded_by_a_decorated_generator_are_one_answer_whatever_their_ids(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    made = chunks({"role": "assistant", "content": RAIN[:2]}, {"content": RAIN[2:]}, usage=usage)
    for number, each in enumerate(made):
        each["id"] = f"c-{number}"
    server.on("POST /chat/completions", Events.of_chat(*made))

    @athina_trace.athina_trace
    def answer(query: str) -> Iterator[Any]:
        yield from ask(client, stream=True)

    assert len(list(answer(QUERY))) == len(made)
    assert (only_log(instrumented)["response"], only_log(instrumented)["total_tokens"]) == (RAIN, 7)


def test_chunks_with_non_standard_object_names_are_read() -> None:
    """Such as those of Azure's content filter, and of Perplexity."""
    bare: Wire = {"id": "", "object": "", "created": 0, "model": ""}
    first = {**bare, "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    verdict = {**bare, "choices": [{"index": 0, "finish_reason": None, "content_filter_results": {}}]}
    log = streamed([first, delta(content=RAIN), delta("stop"), verdict])
    assert (log["response"], log["custom_attributes"]["status"]) == (RAIN, "stop")
    thought = {**delta(role="assistant", content=""), "object": "chat.reasoning"}
    done = {**delta("stop", content=""), "object": "chat.completion.done"}
    done["choices"][0]["message"] = {"role": "assistant", "content": RAIN}
    log = streamed([thought, delta(content=RAIN), done])
    assert (log["response"], log["custom_attributes"]["status"]) == (RAIN, "stop")


# Ids of calls -------------------------------------------------------------------------------------------------------


def twice(call_id: str = "call_0") -> list[Wire]:
    return [function_call(call_id, arguments=json.dumps({"city": city})) for city in ("Oslo", "Rome")]


def cities_of(log: dict[str, Any]) -> list[tuple[Any, Any]]:
    return [(json.loads(call["function"]["arguments"])["city"], call.get("output")) for call in log["tool_calls"]]


@pytest.mark.parametrize("in_stream", [False, True])
def test_several_calls_with_one_id_in_an_answer_stay_separate(
    in_stream: bool, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    parts = [
        {**call, "index": place} for place, call in enumerate(twice("null"))
    ]  # Mistral's placeholder for a missing id
    whole = chat(content=None, tool_calls=twice("null"))
    server.on("POST /chat/completions", Events.of_chat(*chunks({"tool_calls": parts})) if in_stream else whole)
    server.on("POST /chat/completions", chat("chatcmpl-2", content=RAIN))
    told: Any = [{"role": "tool", "tool_call_id": "null", "content": each} for each in ("rain", "sun")]
    with athina_trace.athina_trace():
        answer = ask(client, stream=in_stream)
        for each in answer if in_stream else [answer, answer]:
            current_log().record(each)
        client.chat.completions.create(model="gpt-4o-mini", messages=[*ASK, *told])
    assert cities_of(only_log(instrumented)) == [("Oslo", "rain"), ("Rome", "sun")]


def test_several_calls_with_one_id_in_a_response_stay_separate() -> None:
    items = [{"type": "function_call", "call_id": "call_0", "id": f"fc_{n}", **each["function"]}
             for n, each in enumerate(twice())]  # fmt: skip
    assert cities_of(streamed([response("resp_1", *items)])) == [("Oslo", None), ("Rome", None)]


def test_several_calls_with_one_id_seen_by_two_sources_stay_separate() -> None:
    accumulator = AnswerAccumulator()
    for source in ("", "other"):
        key = ("chat", source or "c-1")
        calls = [ToolCall(key="call_0", owner=key, source=source, body=body) for body in twice()]
        accumulator.take([Answer(key=key, names=(("id", "c-1"),), source=source), *calls])
    assert cities_of(accumulator.fields()) == [("Oslo", None), ("Rome", None)]


def test_usage_is_read_from_groqs_field() -> None:
    usage = {"usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}}
    *others, last = chunks({"content": RAIN})
    assert streamed([*others, {**last, "x_groq": usage}])["total_tokens"] == 6


# Zero values and noise ----------------------------------------------------------------------------------------------


@DECORATED
def test_fields_filled_in_with_zero_values_are_not_logged(
    decorated: bool, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    empty: Wire = {
        "refusal": "",
        "function_call": {"name": "", "arguments": ""},
        "tool_calls": [{"id": "", "type": "", "function": {"name": "", "arguments": ""}}],
        "audio": {"id": "", "data": "", "expires_at": 0, "transcript": ""},
        "annotations": [{"type": "", "url_citation": {"url": "", "title": ""}}],
    }
    whole = {**chat("", content="Sunny.", **empty), "system_fingerprint": "fp_1", "service_tier": "default"}
    whole["usage"] |= {"prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": 3}, "error": {"message": ""}}
    server.on("POST /chat/completions", {**whole, "error": {"code": "", "message": ""}})
    with as_a_call(decorated):
        ask(client)
    log = only_log(instrumented)
    assert log["response"] == "Sunny."
    assert not {"tool_calls", "error"} & log.keys()
    noted = {name: value for name, value in log["custom_attributes"].items() if name != "function"}
    assert noted == {"status": "stop", "cached_tokens": 3}


def test_a_requested_service_tier_is_logged() -> None:
    assert streamed([{**chat(), "service_tier": "flex"}])["custom_attributes"]["service_tier"] == "flex"


def delta(finish: str | None = None, *, message: Wire | None = None, **parts: Any) -> Wire:
    """Return a chunk with one choice."""
    choice = {"index": 0, "finish_reason": finish, **({"delta": parts} if message is None else {"message": message})}
    return {"id": "c-1", "object": "chat.completion.chunk", "created": HOUR, "model": "m", "choices": [choice]}


def test_usage_is_read_from_moonshots_field() -> None:
    last = delta("stop")
    last["choices"][0]["usage"] = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    assert streamed([delta(content=RAIN), last, delta()])["total_tokens"] == 6


@pytest.mark.parametrize("place", ["first", "last"])
def test_a_later_usage_of_zeros_removes_no_counts(place: str) -> None:
    counts = [{"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}]
    counts.insert(0 if place == "first" else 1, dict.fromkeys(counts[0], 0))
    made = [{**delta(content=RAIN), "usage": counts[0]}, {**delta("stop"), "usage": counts[1]}]
    assert streamed(made)["total_tokens"] == 6


def test_later_zeros_of_token_details_remove_no_counts() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    zeros: Wire = {**dict.fromkeys(usage, 0), "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": None}}
    assert streamed([{**delta(content=RAIN), "usage": usage}, {**delta("stop"), "usage": zeros}])["total_tokens"] == 6


@pytest.mark.parametrize("in_stream", [False, True])
@pytest.mark.parametrize(
    ("beside", "noted"),
    [
        ({"cached_tokens": 3}, {"cached_tokens": 3}),  # Moonshot, Together
        ({"prompt_cache_hit_tokens": 3, "prompt_cache_miss_tokens": 2}, {"cached_tokens": 3}),  # DeepSeek
        ({"prompt_cache_hit_tokens": 3, "prompt_tokens_details": {"cached_tokens": 3}}, {"cached_tokens": 3}),
        ({"reasoning_tokens": 9, "citation_tokens": 7}, {"reasoning_tokens": 9}),  # Perplexity
        ({"cached_tokens": 0, "reasoning_tokens": None}, {}),
    ],
)
def test_token_details_beside_the_totals_count_once(beside: Wire, noted: Wire, in_stream: bool) -> None:
    usage = {**beside, "prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    made = [delta(content=RAIN), {**delta("stop"), "usage": usage}] if in_stream else [{**chat(), "usage": usage}]
    log = streamed(made)
    assert log["total_tokens"] == 6
    assert {name: each for name, each in log["custom_attributes"].items() if name.endswith("_tokens")} == noted


@pytest.mark.parametrize("in_stream", [False, True])
@pytest.mark.parametrize(
    ("beside", "cost"),
    [
        ({"cost": 0.00014, "is_byok": False, "cost_details": {"upstream_inference_cost": None}}, 0.00014),  # OpenRouter
        ({"cost": 0.00001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.0002}}, None),
        ({"cost": {"input_tokens_cost": 0.001, "request_cost": 0.005, "total_cost": 0.006}}, 0.006),  # Perplexity
        ({"cost": {}}, None),
        ({"cost": "free"}, None),
        ({"cost": float("nan")}, None),
    ],
)
def test_a_cost_stated_by_the_server_is_logged(beside: Wire, cost: float | None, in_stream: bool) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6, **beside}
    made = [delta(content=RAIN), {**delta("stop"), "usage": usage}] if in_stream else [{**chat(), "usage": usage}]
    log = streamed(made)
    assert (log.get("cost"), log["total_tokens"]) == (cost, 6)


def test_a_whole_message_at_the_end_of_a_stream_is_not_appended() -> None:
    """MiniMax sends one; Perplexity sends the answer so far with each chunk."""
    end = delta("stop", message={"role": "assistant", "content": RAIN})
    assert streamed([delta(content=RAIN[:2]), delta(content=RAIN[2:]), end])["response"] == RAIN
    pieces = [delta(content=RAIN[:2]), delta("stop", content=RAIN[2:])]
    for piece, whole in zip(pieces, (RAIN[:2], RAIN), strict=True):
        piece["choices"][0]["message"] = {"role": "assistant", "content": whole}
    assert streamed(pieces)["response"] == RAIN


ZERO_FUNCTION = {"name": "", "arguments": ""}


@pytest.mark.parametrize("zeros", [{}, {"tool_calls": []}, {"tool_calls": None, "function_call": ZERO_FUNCTION}])
@pytest.mark.parametrize("content", ["", None])
def test_a_message_of_zero_values_at_the_end_of_a_stream_removes_nothing(content: Any, zeros: Wire) -> None:
    """Some servers fill it in beside the delta, which is just as empty."""
    call = {"index": 0, **function_call()}
    end = delta("stop")
    end["choices"][0] |= {"delta": {}, "message": {"role": "assistant", "content": content, **zeros}}
    log = streamed([delta(content=RAIN), delta(tool_calls=[call]), end])
    assert (log["response"], len(log["tool_calls"])) == (RAIN, 1)


def test_a_tool_call_streamed_without_a_list_is_read() -> None:
    """TGI streams calls so."""
    parts = [{"name": "weather", "arguments": '{"city":'}, {"name": None, "arguments": '"Oslo"}'}]
    made = [delta(tool_calls={"index": 0, "id": "", "type": "function", "function": part}) for part in parts]
    whole = {"id": "", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
    assert "tool_calls" not in streamed(
        [chat(content=RAIN, tool_calls={})]
    )  # the placeholder of Mistral's client for none
    for each in ([*made, delta("eos_token")], [chat(content=None, tool_calls=whole)]):
        (call,) = streamed(each)["tool_calls"]
        assert call["function"] == whole["function"]


def test_unrequested_token_counts_of_llama_cpp_are_read() -> None:
    timings = {"cache_n": 3, "prompt_n": 2, "prompt_ms": 1.5, "predicted_n": 4}
    log = streamed([delta(content=RAIN), {**delta("stop"), "timings": timings}])
    assert (log["prompt_tokens"], log["completion_tokens"], log["total_tokens"]) == (5, 4, 9)
    broken = streamed([delta(content=RAIN), {**delta("stop"), "timings": {"prompt_n": "2", "predicted_n": None}}])
    assert broken["response"] == RAIN


@pytest.mark.parametrize("in_stream", [False, True])
def test_urls_beside_an_answer_are_its_citations(in_stream: bool) -> None:
    """Perplexity, xAI and DashScope list them; Azure and Groq do so beside the citations in the message."""
    addresses = ["https://a.test", "https://b.test"]
    pages = [{"title": "T", "url": each} for each in addresses]
    for cited in ({"citations": addresses}, {"search_results": pages}, {"search_info": {"search_results": pages}}):
        made = [{**delta(content=RAIN), **cited}, delta("stop")] if in_stream else [{**chat(content=RAIN), **cited}]
        assert streamed(made)["custom_attributes"]["citations"] == "https://a.test, https://b.test"
    tool = {"index": 0, "type": "search", "search_results": {"results": pages}}
    for more in ({"context": {"citations": pages, "intent": "[]"}}, {"executed_tools": [tool]}):
        made = [delta(**more), delta("stop", content=RAIN)] if in_stream else [chat(content=RAIN, **more)]
        assert streamed(made)["custom_attributes"]["citations"] == "https://a.test, https://b.test"


# Failures with status 200 -------------------------------------------------------------------------------------------

FILTERED: Wire = {"error": {"message": "The prompt was filtered.", "type": None, "code": "content_filter"}}


def direct(client: OpenAI) -> None:
    ask(client)


def raw(client: OpenAI) -> None:
    client.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=ASK).parse()


def raw_and_streamed(client: OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(model="gpt-4o-mini", messages=ASK) as answer:
        answer.parse()


FAILURES: dict[str, Any] = {
    "Ollama": {"error": "No such model."},
    "Groq": {"choices": [], "x_groq": {"id": "req_1", "error": "No such model."}},
    "MiniMax": {"id": "1", "choices": None, "base_resp": {"status_code": 1008, "status_msg": "No such model."}},
    "Qianfan": {"error_code": 336003, "error_msg": "No such model."},
    "Cloudflare": {"result": None, "success": False, "errors": [{"message": "No such model.", "code": 5007}]},
    "vLLM": {"object": "error", "message": "No such model.", "type": "NotFoundError", "code": 404},
    "Gemini": [{"error": {"code": 404, "message": "No such model.", "status": "NOT_FOUND"}}],
}


@pytest.mark.parametrize("maker", FAILURES)
def test_non_standard_errors_of_servers_are_read(
    maker: str, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on("POST /chat/completions", FAILURES[maker])
    ask(client)
    log = only_log(instrumented)
    assert (log["user_query"], log["error"]) == (QUERY, "No such model.")


def test_an_error_in_the_middle_of_a_stream_is_logged() -> None:
    failed = {**delta("stop"), "x_groq": {"error": "internal server error"}}
    log = streamed([delta(content=RAIN), failed, {**delta(), "choices": [], "base_resp": {"status_code": 0}}])
    assert (log["response"], log["error"]) == (RAIN, "internal server error")
    ended = delta("error", content=RAIN)
    ended["choices"][0]["error"] = {"code": 502, "message": "The provider is gone."}
    log = streamed([ended])
    assert (log["response"], log["error"]) == (RAIN, "The provider is gone.")


@DECORATED
@pytest.mark.parametrize("call", [direct, raw, raw_and_streamed])
def test_an_error_with_status_200_is_logged(
    call: Any, decorated: bool, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on("POST /chat/completions", FILTERED)
    with as_a_call(decorated):
        call(client)
    log = only_log(instrumented)
    assert (log["user_query"], log["error"]) == (QUERY, "content_filter: The prompt was filtered.")


PAGE = "<html>Sign in to continue</html>"


@pytest.mark.parametrize("call", [direct, raw, raw_and_streamed])
@pytest.mark.parametrize("answer", [PAGE, {"detail": "Sign in."}, [], {"code": 0, "data": {"choices": []}}])
def test_a_response_without_a_models_answer_is_logged_as_an_error(
    answer: Any, call: Any, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on("POST /chat/completions", answer)
    call(client)
    log = only_log(instrumented)
    assert (log["user_query"], log["response"], log["language_model_id"]) == (QUERY, "", "gpt-4o-mini")
    assert log["error"].startswith("the server did not return a model's answer")
    assert call is not direct or answer is not PAGE or log["error"].endswith(f": {PAGE}")


def test_an_empty_stream_is_logged_as_an_error(server: Server, client: OpenAI, instrumented: Logs) -> None:
    server.on("POST /chat/completions", chat(content=RAIN))  # not a stream, so that the client finds no events in it
    assert list(ask(client, stream=True)) == []
    log = only_log(instrumented)
    assert (log["user_query"], log["error"]) == (QUERY, "the server did not return a model's answer")


# Legacy completions and compaction ----------------------------------------------------------------------------------

WHOLE: Wire = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": HOUR,
    "model": "gpt-3.5-turbo-instruct",
    "choices": [{"index": 0, "text": RAIN, "finish_reason": "stop", "logprobs": None}],
    "usage": {"prompt_tokens": 4, "completion_tokens": 1, "total_tokens": 5},
}


def in_parts() -> Iterator[Wire]:
    for text, reason in (("It rains", None), (" in Oslo.", None), ("", "stop")):
        yield {**WHOLE, "choices": [{"index": 0, "text": text, "finish_reason": reason}], "usage": None}
    yield {**WHOLE, "choices": []}


@DECORATED
def test_legacy_completions_are_logged(decorated: bool, server: Server, client: OpenAI, instrumented: Logs) -> None:
    server.on("POST /completions", WHOLE, Events.of_chat(*in_parts()))
    for is_stream in (False, True):
        with as_a_call(decorated):
            answer: Any = client.completions.create(model="instruct", prompt=QUERY, max_tokens=9, stream=is_stream)
            list(answer)
    for log in instrumented():
        assert (log["user_query"], log["response"], log["total_tokens"]) == (QUERY, RAIN, 5)
        assert (log["language_model_id"], log["custom_attributes"]["status"]) == ("gpt-3.5-turbo-instruct", "stop")
        assert log["model_options"] == {"max_completion_tokens": 9}
    assert len(instrumented()) == 2


def test_chunks_of_a_legacy_completion_that_a_program_yields_are_one_answer() -> None:
    log = streamed(list(in_parts()))
    assert (log["response"], log["total_tokens"]) == (RAIN, 5)


def test_a_compaction_is_logged(server: Server, client: OpenAI, instrumented: Logs) -> None:
    asked = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUERY}]}
    output = [asked, {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAAA"}]
    made = {**response("resp_1"), "object": "response.compaction", "output": output}
    server.on("POST /responses/compact", made)
    client.post("/responses/compact", cast_to=object, body={"model": "gpt-4.1", "input": QUERY})
    log = only_log(instrumented)
    assert (log["user_query"], log["response"], log["total_tokens"]) == (QUERY, "", 26)


# Answers without an observed end ------------------------------------------------------------------------------------


def unfinished(log: dict[str, Any]) -> tuple[Any, ...]:
    noted = log["custom_attributes"]
    return log.get("user_query"), noted.get("run_id") or noted.get("response_id"), noted["outcome"]


def test_answers_without_an_observed_end_are_logged_at_process_exit(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on(f"POST {THREAD}/messages", message("msg_1", QUERY, role="user", at=1))
    server.on(f"POST {THREAD}/runs", run(status="queued")).on(f"GET {RUN}", run(status="in_progress"))
    server.on("POST /responses", response("resp_1", status="queued", usage=None))
    threads = client.beta.threads
    threads.messages.create("thread_1", role="user", content=QUERY)
    threads.runs.create("thread_1", assistant_id="asst_1")
    threads.runs.retrieve("run_1", thread_id="thread_1")
    client.responses.create(model="gpt-4.1", input=QUERY, background=True)
    flush(0)
    assert instrumented() == []
    for _ in range(2):
        _periodic.finish(ending=True)
    assert sorted(map(unfinished, instrumented())) == [
        (QUERY, "resp_1", "incomplete"),
        (QUERY, "run_1", "incomplete"),
    ]


def test_a_run_followed_by_another_before_its_end_is_logged_as_incomplete(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on(f"POST {THREAD}/runs", run(status="queued"), run("run_2", at=20, status="queued"))
    for _ in range(2):
        client.beta.threads.runs.create("thread_1", assistant_id="asst_1")
    flush(0)
    assert [unfinished(log)[1:] for log in instrumented()] == [("run_1", "incomplete")]


def test_a_run_evicted_from_memory_is_logged_as_incomplete(
    server: Server, client: OpenAI, instrumented: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standalone, "_MOST_PENDING", 2)
    standalone_logs.reset()
    for number in range(3):
        where = f"thread_{number}"
        server.on(f"POST /threads/{where}/runs", run(f"run_{number}", status="queued", thread_id=where))
        client.beta.threads.runs.create(where, assistant_id="asst_1")
    assert [unfinished(log)[1:] for log in instrumented()] == [("run_0", "incomplete")]


def test_a_run_of_another_process_is_not_logged_before_it_ends(
    server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on(f"GET {RUN}", run(status="in_progress"))
    client.beta.threads.runs.retrieve("run_1", thread_id="thread_1")
    _periodic.finish(ending=True)
    assert instrumented() == []


def test_a_run_that_ends_after_another_began_is_complete(server: Server, client: OpenAI, instrumented: Logs) -> None:
    server.on(f"POST {THREAD}/runs", run(status="queued"), run("run_2", at=20, status="queued"))
    server.on(f"GET {RUN}", run()).on(f"GET {THREAD}/messages", page(message("msg_2", RAIN, at=12)))
    threads = client.beta.threads
    for _ in range(2):
        threads.runs.create("thread_1", assistant_id="asst_1")
    threads.runs.retrieve("run_1", thread_id="thread_1")
    threads.messages.list("thread_1")
    log = only_log(instrumented)
    assert (log["response"], log["custom_attributes"]["status"]) == (RAIN, "completed")
    assert "outcome" not in log["custom_attributes"]


# Loose types ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [("5", "2", "7"), (5.0, 2.0, 7.0), ("5", 2.0, None)])
@pytest.mark.parametrize("in_stream", [False, True])
def test_counts_in_text_are_counts(
    counts: tuple[Any, ...], in_stream: bool, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    usage = dict(zip(("prompt_tokens", "completion_tokens", "total_tokens"), counts, strict=True))
    whole = {**chat(content="Sunny."), "usage": usage | {"prompt_tokens_details": {"cached_tokens": "3"}}}
    made = [delta(content="Sunny."), {**delta("stop"), "usage": whole["usage"]}]
    server.on("POST /chat/completions", Events.of_chat(*made) if in_stream else whole)
    list(ask(client, stream=in_stream))
    log = only_log(instrumented)
    assert [log[name] for name in usage] == [5, 2, 7]
    assert log["custom_attributes"]["cached_tokens"] == 3


@pytest.mark.parametrize("words", ["", "many", "-5", "5.5", "9" * 19, True, "\u00b2"])
def test_other_text_is_no_count(words: object) -> None:
    log = streamed([{**chat(content="Sunny."), "usage": {"prompt_tokens": words, "completion_tokens": 2}}])
    assert ("prompt_tokens" in log, log["completion_tokens"]) == (False, 2)


@pytest.mark.parametrize(("content", "words"), [(42, "42"), (2.5, "2.5"), (0, "0"), (True, "")])
def test_a_number_instead_of_text_is_the_answer(
    content: object, words: str, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on("POST /chat/completions", {**chat(), "choices": [{"index": 0, "message": {"content": content}}]})
    ask(client)
    assert only_log(instrumented)["response"] == words


def test_numbers_among_the_pieces_of_a_text_belong_to_it(server: Server, client: OpenAI, instrumented: Logs) -> None:
    pieces = ["It is ", 21, ".", 5, " degrees", None, "."]
    server.on("POST /chat/completions", Events.of_chat(*(delta(content=piece) for piece in pieces), delta("stop")))
    list(ask(client, stream=True))
    assert only_log(instrumented)["response"] == "It is 21.5 degrees."


# Non-standard forms --------------------------------------------------------------------------------------------------

FORMS: dict[str, Wire] = {
    "ollama": {
        "model": "m",
        "message": {"role": "assistant", "content": "Sunny."},
        "done": True,
        "prompt_eval_count": 5,
        "eval_count": 2,
    },
    "google": {
        "candidates": [{"content": {"role": "model", "parts": [{"text": "Sunny."}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7},
        "modelVersion": "m",
    },
    "anthropic": {
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Sunny."}],
        "usage": {"input_tokens": 5, "output_tokens": 2},
    },
    "camel case": {
        "id": "1",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Sunny."}}],
        "usage": {"promptTokens": 5, "completionTokens": 2, "totalTokens": 7},
    },
    "google's counts": {
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Sunny."}}],
        "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2},
    },
}


@DECORATED
@pytest.mark.parametrize("kind", FORMS)
def test_answers_in_non_standard_forms_are_read(
    kind: str, decorated: bool, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on("POST /chat/completions", FORMS[kind])
    with as_a_call(decorated):
        ask(client)
    log = only_log(instrumented)
    assert (log["response"], log["language_model_id"], log["total_tokens"]) == ("Sunny.", "m", 7)
    assert (log["prompt_tokens"], log["user_query"]) == (5, QUERY)
    assert "error" not in log


@DECORATED
@pytest.mark.parametrize("named", [{"object": "response", "output": []}, {}], ids=["named", "unnamed"])
def test_response_text_beside_the_output_is_read(
    named: Wire, decorated: bool, server: Server, client: OpenAI, instrumented: Logs
) -> None:
    server.on("POST /responses", {**named, "id": "r", "model": "m", "output_text": "Sunny."})
    with as_a_call(decorated):
        client.responses.create(model="m", input=QUERY)
    assert (only_log(instrumented)["response"], only_log(instrumented)["user_query"]) == ("Sunny.", QUERY)
