"""The real client drives the stand-in's Assistants API: plain, polled, streamed, cancelled, once async."""

import asyncio
import json
from typing import Any

import pytest
from openai import AssistantEventHandler, AsyncOpenAI, BadRequestError, OpenAI

from parcels import RETURNS, TRACK_PARCEL
from standin_openai import StandIn

pytestmark = pytest.mark.filterwarnings("ignore:(The Assistants API is )?deprecated:DeprecationWarning")

WHERE = "Where is my parcel PX-48213?"
RETURN = "Can I return it?"
TRACKED = json.dumps({"parcel_id": "PX-48213", "status": "on its way", "place": "Leipzig", "expected": "tomorrow"})
ANSWER = "Parcel PX-48213 is on its way, last seen at Leipzig. It should reach you tomorrow."


@pytest.fixture
def assistant(client: OpenAI) -> Any:
    return client.beta.assistants.create(
        model="gpt-4o-mini",
        name="Parcel desk",
        instructions="Help.",
        tools=[{"type": "function", "function": TRACK_PARCEL}, {"type": "file_search"}],
    )


def thread_with(client: OpenAI, text: str) -> str:
    return client.beta.threads.create(messages=[{"role": "user", "content": text}]).id


def outputs_for(run: Any) -> Any:
    return [{"tool_call_id": call.id, "output": TRACKED} for call in run.required_action.submit_tool_outputs.tool_calls]


def text_of(client: OpenAI, run: Any) -> str:
    messages = client.beta.threads.messages.list(run.thread_id, run_id=run.id)
    return "\n".join(part.text.value for message in messages for part in message.content if part.type == "text")


def test_assistant_is_kept_with_all_it_was_given(client: OpenAI, assistant: Any) -> None:
    assert client.beta.assistants.retrieve(assistant.id) == assistant
    assert [tool.type for tool in assistant.tools] == ["function", "file_search"]
    assert assistant.id in [row.id for row in client.beta.assistants.list()]
    assert client.beta.assistants.delete(assistant.id).deleted


def test_polled_run_calls_a_function_and_answers(client: OpenAI, assistant: Any) -> None:
    thread = client.beta.threads.create()
    asked = client.beta.threads.messages.create(thread.id, role="user", content=WHERE)
    run = client.beta.threads.runs.create_and_poll(
        thread_id=thread.id, assistant_id=assistant.id, additional_instructions="Be kind."
    )
    assert run.status == "requires_action"
    assert run.usage is None
    assert run.instructions == "Help.\nBe kind."
    call = run.required_action.submit_tool_outputs.tool_calls[0]  # type: ignore[union-attr]
    assert json.loads(call.function.arguments) == {"parcel_id": "PX-48213"}
    run = client.beta.threads.runs.submit_tool_outputs_and_poll(
        run_id=run.id, thread_id=thread.id, tool_outputs=outputs_for(run)
    )
    assert run.status == "completed"
    assert run.usage is not None
    assert run.usage.total_tokens == run.usage.prompt_tokens + run.usage.completion_tokens > 0
    assert text_of(client, run) == ANSWER
    assert next(iter(client.beta.threads.messages.list(thread.id, order="asc"))).id == asked.id
    steps = list(client.beta.threads.runs.steps.list(run.id, thread_id=thread.id, order="asc"))
    assert [step.type for step in steps] == ["tool_calls", "message_creation"]
    assert steps[0].step_details.tool_calls[0].function.output == TRACKED  # type: ignore[union-attr]
    assert client.beta.threads.runs.steps.retrieve(steps[0].id, run_id=run.id, thread_id=thread.id) == steps[0]
    assert client.beta.threads.runs.list(thread.id).data == [run]


def test_run_is_queued_and_works_while_it_is_polled(assistant: Any) -> None:
    with StandIn(latency=0.5) as slow, OpenAI(base_url=slow.base_url, api_key="any") as client:
        mine = client.beta.assistants.create(model=assistant.model)
        run = client.beta.threads.create_and_run(
            assistant_id=mine.id, thread={"messages": [{"role": "user", "content": "Hi"}]}
        )
        assert run.status == "queued"
        assert client.beta.threads.runs.retrieve(run.id, thread_id=run.thread_id).status == "in_progress"
        with pytest.raises(BadRequestError, match="while a run"):
            client.beta.threads.messages.create(run.thread_id, role="user", content="Hello?")
        assert client.beta.threads.runs.poll(run.id, thread_id=run.thread_id).status == "completed"


def test_run_with_a_search_cites_its_document(client: OpenAI, assistant: Any) -> None:
    run = client.beta.threads.create_and_run_poll(
        assistant_id=assistant.id, thread={"messages": [{"role": "user", "content": RETURN}]}
    )
    include: Any = ["step_details.tool_calls[*].file_search.results[*].content"]
    first: Any = {"thread_id": run.thread_id, "order": "asc"}
    bare: Any = client.beta.threads.runs.steps.list(run.id, **first).data[0].step_details
    full: Any = client.beta.threads.runs.steps.list(run.id, **first, include=include).data[0].step_details
    assert bare.tool_calls[0].file_search.results[0].content is None
    found = full.tool_calls[0].file_search.results[0]
    assert found.content[0].text == RETURNS
    text: Any = client.beta.threads.messages.list(run.thread_id, run_id=run.id).data[0].content[0]
    mark = text.text.annotations[0]
    assert text.text.value[mark.start_index : mark.end_index] == mark.text
    assert mark.file_citation.file_id == found.file_id


def test_streamed_run_tells_its_events_in_the_order_of_the_api(client: OpenAI, assistant: Any) -> None:
    thread = thread_with(client, WHERE)
    first = list(client.beta.threads.runs.create(thread, assistant_id=assistant.id, stream=True))
    names = [event.event for event in first]
    assert names[:5] == [
        "thread.run.created",
        "thread.run.queued",
        "thread.run.in_progress",
        "thread.run.step.created",
        "thread.run.step.in_progress",
    ]
    assert set(names[5:-1]) == {"thread.run.step.delta"}
    assert names[-1] == "thread.run.requires_action"
    run: Any = first[-1].data
    second = list(
        client.beta.threads.runs.submit_tool_outputs(
            run.id, thread_id=thread, tool_outputs=outputs_for(run), stream=True
        )
    )
    names = list(dict.fromkeys(event.event for event in second))
    assert names == [
        "thread.run.step.completed",
        "thread.run.queued",
        "thread.run.in_progress",
        "thread.run.step.created",
        "thread.run.step.in_progress",
        "thread.message.created",
        "thread.message.in_progress",
        "thread.message.delta",
        "thread.message.completed",
        "thread.run.completed",
    ]


def test_stream_helpers_of_runs(client: OpenAI, assistant: Any) -> None:
    heard: list[str] = []

    class Handler(AssistantEventHandler):
        def on_text_delta(self, delta: Any, snapshot: Any) -> None:
            heard.append(delta.value)

    thread = thread_with(client, WHERE)
    with client.beta.threads.runs.stream(
        thread_id=thread, assistant_id=assistant.id, event_handler=Handler()
    ) as stream:
        stream.until_done()
        run = stream.get_final_run()
    with client.beta.threads.runs.submit_tool_outputs_stream(
        run_id=run.id, thread_id=thread, tool_outputs=outputs_for(run), event_handler=Handler()
    ) as stream:
        stream.until_done()
        assert stream.get_final_run_steps()[-1].type == "message_creation"
        assert stream.get_final_messages()[0].content[0].text.value == ANSWER  # type: ignore[union-attr]
    assert "".join(heard) == ANSWER
    said: Any = {"messages": [{"role": "user", "content": RETURN}]}
    with client.beta.threads.create_and_run_stream(assistant_id=assistant.id, thread=said) as opened:
        text = "".join(opened.text_deltas)
        assert opened.get_final_run().status == "completed"
    assert text.startswith("Yes, you can send your parcel back")


def test_messages_come_in_pages(client: OpenAI) -> None:
    thread = client.beta.threads.create(metadata={"desk": "7"})
    assert client.beta.threads.retrieve(thread.id) == thread
    sent = [client.beta.threads.messages.create(thread.id, role="user", content=f"No. {n}").id for n in range(5)]
    page = client.beta.threads.messages.list(thread.id, limit=2)
    assert [row.id for row in page.data] == sent[:2:-1]
    assert page.has_next_page()
    assert [row.id for row in client.beta.threads.messages.list(thread.id, limit=2)] == sent[::-1]
    assert [row.id for row in client.beta.threads.messages.list(thread.id, order="asc", before=sent[2])] == sent[:2]
    assert client.beta.threads.messages.list(thread.id, run_id="run_none").data == []
    assert client.beta.threads.messages.retrieve(sent[0], thread_id=thread.id).id == sent[0]
    assert client.beta.threads.delete(thread.id).deleted


def test_run_is_cancelled(client: OpenAI, assistant: Any) -> None:
    run = client.beta.threads.create_and_run_poll(
        assistant_id=assistant.id, thread={"messages": [{"role": "user", "content": WHERE}]}
    )
    assert client.beta.threads.runs.cancel(run.id, thread_id=run.thread_id).status == "cancelling"
    gone = client.beta.threads.runs.retrieve(run.id, thread_id=run.thread_id)
    assert (gone.status, gone.usage) == ("cancelled", None)
    with pytest.raises(BadRequestError, match="do not accept tool outputs"):
        client.beta.threads.runs.submit_tool_outputs(run.id, thread_id=run.thread_id, tool_outputs=outputs_for(run))


def test_async_client_holds_the_same_conversation(stand_in: StandIn) -> None:
    async def talk() -> tuple[str, str]:
        async with AsyncOpenAI(base_url=stand_in.base_url, api_key="any", max_retries=0) as client:
            assistant = await client.beta.assistants.create(model="gpt-4o-mini", tools=[{"type": "file_search"}])
            said: Any = {"messages": [{"role": "user", "content": RETURN}]}
            run = await client.beta.threads.create_and_run_poll(assistant_id=assistant.id, thread=said)
            async with client.responses.stream(model="gpt-4.1-mini", input=RETURN) as stream:
                final = await stream.get_final_response()
            return run.status, final.output_text

    status, text = asyncio.run(talk())
    assert status == "completed"
    assert text.startswith("Yes, you can send your parcel back")
