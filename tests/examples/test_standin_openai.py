"""The real client drives the stand-in's Responses, Conversations and Chat Completions, and its refusals."""

import json
from typing import Any

import pytest
from openai import AuthenticationError, BadRequestError, NotFoundError, OpenAI
from pydantic import BaseModel

from parcels import RETURNS, TRACK_PARCEL
from standin_openai import StandIn

pytestmark = pytest.mark.filterwarnings("ignore:(The Assistants API is )?deprecated:DeprecationWarning")

WHERE = "Where is my parcel PX-48213?"
RETURN = "Can I return it?"
TRACKED = json.dumps({"parcel_id": "PX-48213", "status": "on its way", "place": "Leipzig", "expected": "tomorrow"})
ANSWER = "Parcel PX-48213 is on its way, last seen at Leipzig. It should reach you tomorrow."


class Reply(BaseModel):
    """A structured answer."""

    answer: str
    sure: bool


# Responses and conversations --------------------------------------------------------------------------------

TRACK_FLAT: Any = {"type": "function", **TRACK_PARCEL}


def test_response_calls_a_function_and_goes_on_from_it(client: OpenAI) -> None:
    first = client.responses.create(model="gpt-4.1-mini", input=WHERE, instructions="Help.", tools=[TRACK_FLAT])
    assert (first.status, first.instructions, first.output_text) == ("completed", "Help.", "")
    assert first.model == "gpt-4.1-mini-2025-04-14"
    assert first.tools[0].name == "track_parcel"  # type: ignore[union-attr]
    call: Any = first.output[0]
    assert (call.type, json.loads(call.arguments)) == ("function_call", {"parcel_id": "PX-48213"})
    second = client.responses.create(
        model="gpt-4.1-mini",
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": TRACKED}],
        tools=[TRACK_FLAT],
    )
    assert second.output_text == ANSWER
    assert second.previous_response_id == first.id
    assert second.usage is not None
    assert second.usage.total_tokens == second.usage.input_tokens + second.usage.output_tokens
    assert client.responses.retrieve(second.id).output_text == ANSWER
    assert [item.type for item in client.responses.input_items.list(second.id)] == ["function_call_output"]


def test_conversation_keeps_what_was_said(client: OpenAI) -> None:
    conversation = client.conversations.create(metadata={"desk": "7"})
    assert client.conversations.retrieve(conversation.id) == conversation
    told = client.responses.create(model="gpt-4.1", conversation=conversation.id, input="My parcel is PX-48213.")
    asked = client.responses.create(model="gpt-4.1", conversation={"id": conversation.id}, input=RETURN)
    assert told.conversation is not None
    assert told.conversation.id == conversation.id
    assert "parcel PX-48213" in asked.output_text
    items: list[Any] = list(client.conversations.items.list(conversation.id, order="asc", limit=3))
    assert [item.role for item in items] == ["user", "assistant", "user", "assistant"]
    more = client.conversations.items.create(
        conversation.id, items=[{"type": "message", "role": "user", "content": "!"}]
    )
    assert more.data[0].type == "message"
    assert client.conversations.delete(conversation.id).deleted


def test_streamed_response_has_every_event(client: OpenAI) -> None:
    tools: Any = [{"type": "file_search", "vector_store_ids": ["vs_1"]}]
    events = list(
        client.responses.create(
            model="gpt-4.1-mini", input=RETURN, tools=tools, include=["file_search_call.results"], stream=True
        )
    )
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert list(dict.fromkeys(event.type for event in events)) == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.file_search_call.in_progress",
        "response.file_search_call.searching",
        "response.file_search_call.completed",
        "response.output_item.done",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.annotation.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.completed",
    ]
    last: Any = events[-1]
    assert last.response.output[0].results[0].text == RETURNS
    again = list(client.responses.retrieve(last.response.id, stream=True, starting_after=len(events) - 3))
    assert again == events[-2:]


def test_stream_helper_of_responses(client: OpenAI) -> None:
    with client.responses.stream(model="gpt-4.1-mini", input=WHERE, tools=[TRACK_FLAT]) as stream:
        snapshots: list[str] = [e.snapshot for e in stream if e.type == "response.function_call_arguments.delta"]
        call: Any = stream.get_final_response().output[0]
    assert snapshots[-1] == call.arguments
    with client.responses.stream(model="gpt-4.1-mini", input=RETURN, text_format=Reply) as parsed:
        final = parsed.get_final_response()
    assert final.output_parsed is not None
    assert final.output_parsed.answer.startswith("Yes, you can")


def test_parsed_responses(client: OpenAI) -> None:
    response = client.responses.parse(model="gpt-4.1-mini", input=RETURN, text_format=Reply)
    assert response.output_parsed == Reply.model_validate_json(response.output_text)
    assert response.text is not None
    assert response.text.format.type == "json_schema"  # type: ignore[union-attr]


# Chat completions -------------------------------------------------------------------------------------------

TRACK_CHAT: Any = {"type": "function", "function": TRACK_PARCEL}


def test_chat_calls_a_function_and_goes_on_from_it(client: OpenAI) -> None:
    said: list[Any] = [{"role": "user", "content": WHERE}]
    first = client.chat.completions.create(model="gpt-4o-mini", messages=said, tools=[TRACK_CHAT])
    assert first.choices[0].finish_reason == "tool_calls"
    assert first.choices[0].message.content is None
    call = first.choices[0].message.tool_calls[0]  # type: ignore[index]
    said += [first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": TRACKED}]
    second = client.chat.completions.create(model="gpt-4o-mini", messages=said, tools=[TRACK_CHAT])
    assert (second.choices[0].finish_reason, second.choices[0].message.content) == ("stop", ANSWER)
    assert second.model == "gpt-4o-mini-2024-07-18"
    assert second.usage is not None
    assert second.usage.prompt_tokens > first.usage.prompt_tokens  # type: ignore[union-attr]


@pytest.mark.parametrize("counted", [True, False])
def test_streamed_chat(client: OpenAI, *, counted: bool) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if counted else {}
    said: Any = [{"role": "user", "content": [{"type": "text", "text": RETURN}]}]
    chunks = list(client.chat.completions.create(model="gpt-4o-mini", messages=said, stream=True, **options))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text.startswith("Yes, you can send your parcel back")
    assert [bool(chunk.usage) for chunk in chunks] == [False] * (len(chunks) - 1) + [counted]
    assert [len(chunk.choices) for chunk in chunks][-1] == (0 if counted else 1)


def test_stream_helper_and_parsing_of_chat(client: OpenAI) -> None:
    said: Any = [{"role": "user", "content": WHERE}]
    with client.chat.completions.stream(model="gpt-4o-mini", messages=said, tools=[TRACK_CHAT]) as stream:
        done: Any = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion()
    assert done[0].parsed_arguments == {"parcel_id": "PX-48213"}
    assert final.choices[0].finish_reason == "tool_calls"
    parsed = client.chat.completions.parse(
        model="gpt-4o-mini", messages=[{"role": "user", "content": RETURN}], response_format=Reply
    )
    assert parsed.choices[0].message.parsed is not None
    assert parsed.choices[0].message.parsed.sure


# What it says, and what it refuses --------------------------------------------------------------------------


@pytest.mark.parametrize("question", [WHERE, RETURN, "Can a neighbour take it?", "Thanks!", "My cat is purple.", ""])
def test_the_same_question_gets_the_same_answer(client: OpenAI, question: str) -> None:
    said: Any = [{"role": "user", "content": question}]
    replies = [client.chat.completions.create(model="gpt-4o-mini", messages=said) for _ in range(2)]
    assert replies[0].choices[0].message.content == replies[1].choices[0].message.content != ""
    assert replies[0].id != replies[1].id


def test_output_that_is_not_tracking_data_is_quoted(client: OpenAI) -> None:
    said: Any = [
        {"role": "user", "content": WHERE},
        {"role": "tool", "tool_call_id": "call_1", "content": "lost"},
    ]
    reply = client.chat.completions.create(model="gpt-4o-mini", messages=said)
    assert reply.choices[0].message.content == "Here is what our tracking says: lost"


def test_tool_choice_none_keeps_the_model_from_calling(client: OpenAI) -> None:
    reply = client.responses.create(model="gpt-4.1", input=WHERE, tools=[TRACK_FLAT], tool_choice="none")
    assert [item.type for item in reply.output] == ["message"]


def test_what_does_not_exist_is_404_in_openais_form(client: OpenAI) -> None:
    with pytest.raises(NotFoundError, match="No thread found with id 'thread_x'") as caught:
        client.beta.threads.retrieve("thread_x")
    assert caught.value.type == "invalid_request_error"
    with pytest.raises(NotFoundError, match="No run found"):
        client.beta.threads.runs.retrieve("run_x", thread_id=client.beta.threads.create().id)
    with pytest.raises(NotFoundError, match="No response found"):
        client.responses.retrieve("resp_x")
    with pytest.raises(NotFoundError, match="Invalid URL"):
        client.models.list()


def test_request_without_messages_is_refused(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="Missing required parameter: 'messages'") as caught:
        client.chat.completions.create(model="gpt-4o-mini", messages=[])
    assert (caught.value.param, caught.value.code) == ("messages", "missing_required_parameter")


def test_request_without_a_key_is_refused(stand_in: StandIn) -> None:
    from_nobody = OpenAI(
        base_url=stand_in.base_url, api_key="any", default_headers={"Authorization": ""}, max_retries=0
    )
    with from_nobody, pytest.raises(AuthenticationError, match="API key"):
        from_nobody.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hi"}])


def test_client_that_leaves_in_the_middle_of_a_stream_disturbs_nobody(
    capfd: pytest.CaptureFixture[str],
) -> None:
    said: Any = [{"role": "user", "content": RETURN}]
    with StandIn(latency=0.2) as slow, OpenAI(base_url=slow.base_url, api_key="any", max_retries=0) as client:
        with client.chat.completions.create(model="gpt-4o-mini", messages=said, stream=True) as stream:
            next(iter(stream))
        assert client.chat.completions.create(model="gpt-4o-mini", messages=said).choices[0].message.content
    assert capfd.readouterr().err == ""
