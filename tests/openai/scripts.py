"""Uses of OpenAI's client, as scripts against a server with fixed answers.

A script lays out the server's answers, makes its calls, and yields what each gave. The async ones make the same calls
on an async client. Every one is run with and without instrumentation, and for its logs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from .samples import (
    HOUR,
    Wire,
    chat,
    function_call,
    message,
    output_text,
    page,
    question,
    response,
    run,
    step,
    text_part,
    waiting_run,
)
from .server import Events, Failure, Server

Script = Callable[[Server, OpenAI], Iterator[Any]]
AsyncScript = Callable[[Server, AsyncOpenAI], AsyncIterator[Any]]

THREAD, RUN = "/threads/thread_1", "/threads/thread_1/runs/run_1"
ASK: Any = [{"role": "user", "content": "What is the weather?"}]
RAIN = "It rains in Oslo."
ASKED = question("msg_1", "What is the weather?", at=5)
SAID = message("msg_2", RAIN, at=12)


class Weather(BaseModel):
    """A structured answer."""

    city: str
    rain: bool


def chunks(*deltas: Wire, reason: str = "stop", usage: Wire | None = None) -> list[Wire]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": HOUR, "model": "gpt-4o-mini"}
    made = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    last: Wire = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    return [*made, last, *([{**head, "choices": [], "usage": usage}] if usage else [])]


RAIN_CHUNKS = chunks(
    {"role": "assistant", "content": ""},
    {"content": "It rains"},
    {"content": " in Oslo."},
    usage={"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
)


def events(text: str = RAIN, *, end: str = "completed", **more: Any) -> list[Wire]:
    whole = response("resp_1", output_text(text), status=end, **more)
    begun = {**response("resp_1"), "status": "in_progress", "usage": None}
    item = {**output_text(""), "content": [], "status": "in_progress"}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    half = len(text) // 2
    return [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {
            "type": "response.content_part.added",
            "part": {"type": "output_text", "text": "", "annotations": []},
            **place,
        },
        {"type": "response.output_text.delta", "delta": text[:half], "logprobs": [], **place},
        {"type": "response.output_text.delta", "delta": text[half:], "logprobs": [], **place},
        {"type": "response.output_item.done", "output_index": 0, "item": output_text(text)},
        {"type": f"response.{end}", "response": whole},
    ]


def delta(text: str) -> Wire:
    part = {"index": 0, **text_part(text)}
    return {"id": "msg_2", "object": "thread.message.delta", "delta": {"content": [part]}}


def run_events(*, end: str = "completed") -> list[tuple[str, Any]]:
    return [
        ("thread.run.created", run(status="queued")),
        ("thread.run.in_progress", run(status="in_progress")),
        ("thread.message.created", {**SAID, "content": [], "status": "in_progress"}),
        ("thread.message.delta", delta("It rains")),
        ("thread.message.delta", delta(" in Oslo.")),
        ("thread.message.completed", SAID),
        (f"thread.run.{end}", run(status=end)),
    ]


# Chat completions -----------------------------------------------------------------------------------------------


def chat_plain(server: Server, client: OpenAI) -> Iterator[Any]:
    server.on("POST /chat/completions", chat(content=RAIN))
    yield client.chat.completions.create(model="gpt-4o", messages=ASK, temperature=0.2)


def chat_refused(server: Server, client: OpenAI) -> Iterator[Any]:
    server.on("POST /chat/completions", chat(content=None, refusal="I cannot say."))
    yield client.chat.completions.create(model="gpt-4o", messages=ASK)


def chat_tools(server: Server, client: OpenAI) -> Iterator[Any]:
    server.on(
        "POST /chat/completions", chat(content=None, tool_calls=[function_call()]), chat("chatcmpl-2", content=RAIN)
    )
    first = client.chat.completions.create(model="gpt-4o", messages=ASK)
    yield first
    said: Any = [*ASK, first.choices[0].message, {"role": "tool", "tool_call_id": "call_1", "content": "rain"}]
    yield client.chat.completions.create(model="gpt-4o", messages=said)


def chat_failed(server: Server, client: OpenAI) -> Iterator[Any]:
    server.on("POST /chat/completions", Failure(429, "Slow down."))
    yield client.chat.completions.create(model="gpt-4o", messages=ASK)


def chat_parsed(server: Server, client: OpenAI) -> Iterator[Any]:
    server.on("POST /chat/completions", chat(content='{"city": "Oslo", "rain": true}'))
    yield client.chat.completions.parse(model="gpt-4o", messages=ASK, response_format=Weather)


def chat_parsed_too_long(server: Server, client: OpenAI) -> Iterator[Any]:
    cut_off = chat(content='{"city": "Os')
    cut_off["choices"][0]["finish_reason"] = "length"
    server.on("POST /chat/completions", cut_off)
    yield client.chat.completions.parse(model="gpt-4o", messages=ASK, response_format=Weather)


def chat_streamed(server: Server, client: OpenAI) -> Iterator[Any]:
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS))
    stream = client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True)
    yield type(stream)
    yield from stream


def chat_streamed_by_next(server: Server, client: OpenAI) -> Iterator[Any]:
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS))
    with client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True) as stream:
        while (piece := next(stream, None)) is not None:
            yield piece


def chat_stream_closed(server: Server, client: OpenAI) -> Iterator[Any]:
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS))
    with client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True) as stream:
        yield next(iter(stream))
        yield next(iter(stream))


def chat_stream_breaks(server: Server, client: OpenAI) -> Iterator[Any]:
    server.on("POST /chat/completions", Events([(None, each) for each in RAIN_CHUNKS[:2]], breaks=True))
    yield from client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True)


def chat_stream_fails(server: Server, client: OpenAI) -> Iterator[Any]:
    error = {"error": {"message": "The model is gone.", "code": "gone"}}
    server.on("POST /chat/completions", Events.of_chat(RAIN_CHUNKS[1], error))
    yield from client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True)


def chat_stream_helper(server: Server, client: OpenAI) -> Iterator[Any]:
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS))
    with client.chat.completions.stream(model="gpt-4o", messages=ASK) as stream:
        yield type(stream)
        for event in stream:
            yield event.type
        yield stream.get_final_completion()


def chat_raw(server: Server, client: OpenAI) -> Iterator[Any]:
    server.on("POST /chat/completions", chat(content=RAIN), Events.of_chat(*RAIN_CHUNKS))
    answer = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=ASK)
    yield type(answer)
    yield answer.parse()
    streamed = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=ASK, stream=True)
    yield from streamed.parse()


def chat_streaming_response(server: Server, client: OpenAI) -> Iterator[Any]:
    server.on("POST /chat/completions", chat(content=RAIN), chat("chatcmpl-2"), Events.of_chat(*RAIN_CHUNKS))
    create = client.chat.completions.with_streaming_response.create
    with create(model="gpt-4o", messages=ASK) as answer:
        yield type(answer)
        yield answer.parse()
    with create(model="gpt-4o", messages=ASK) as answer:
        yield answer.json()
    with create(model="gpt-4o", messages=ASK, stream=True) as answer:
        yield from answer.parse()


def chat_read_in_pieces(server: Server, client: OpenAI) -> Iterator[Any]:
    """Read unparsed answers: as lines, as bytes, and as the lines of a stream."""
    server.on("POST /chat/completions", chat(content=RAIN), chat("chatcmpl-2"), Events.of_chat(*RAIN_CHUNKS))
    create = client.chat.completions.with_streaming_response.create
    with create(model="gpt-4o", messages=ASK) as answer:
        yield "".join(answer.iter_lines())
    with create(model="gpt-4o", messages=ASK) as answer:
        yield b"".join(answer.iter_bytes(7))
    with create(model="gpt-4o", messages=ASK, stream=True) as answer:
        yield from answer.iter_lines()


# Responses and conversations ------------------------------------------------------------------------------------

ITEM = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Oslo"}'}


def response_plain(server: Server, client: OpenAI) -> Iterator[Any]:
    server.on("POST /responses", response("resp_1", output_text(RAIN)))
    yield client.responses.create(model="gpt-4.1", input="What is the weather?")


def response_chain(server: Server, client: OpenAI) -> Iterator[Any]:
    server.on(
        "POST /responses",
        response("resp_1", ITEM),
        response("resp_2", output_text(RAIN), previous_response_id="resp_1"),
        response("resp_3", output_text("You are welcome."), previous_response_id="resp_2"),
    )
    yield client.responses.create(model="gpt-4.1", input="What is the weather?")
    output: Any = [{"type": "function_call_output", "call_id": "call_1", "output": "rain"}]
    yield client.responses.create(model="gpt-4.1", previous_response_id="resp_1", input=output)
    yield client.responses.create(model="gpt-4.1", previous_response_id="resp_2", input="Thanks.")


def conversation(server: Server, client: OpenAI) -> Iterator[Any]:
    made = {"id": "conv_1", "object": "conversation", "created_at": HOUR, "metadata": {}}
    server.on("POST /conversations", made)
    server.on("POST /responses", response("resp_1", output_text(RAIN), conversation={"id": "conv_1"}))
    asked: Any = [{"type": "message", "role": "user", "content": "What is the weather?"}]
    yield client.conversations.create(items=asked)
    yield client.responses.create(model="gpt-4.1", conversation="conv_1", input=[])


def response_ends_otherwise(server: Server, client: OpenAI) -> Iterator[Any]:
    refusal = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "content": [{"type": "refusal", "refusal": "No."}],
    }
    cut_off: Wire = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    failed: Wire = {"status": "failed", "error": {"code": "server_error", "message": "It broke."}}
    server.on(
        "POST /responses",
        response("resp_1", refusal),
        response("resp_2", output_text("It ra"), **cut_off),
        response("resp_3", **failed),
        Failure(400, "Unknown model."),
    )
    for _ in range(4):
        yield client.responses.create(model="gpt-4.1", input="What is the weather?")


def response_in_background(server: Server, client: OpenAI) -> Iterator[Any]:
    server.on("POST /responses", response("resp_1", status="queued", usage=None))
    in_progress = response("resp_1", status="in_progress", usage=None)
    server.on("GET /responses/resp_1", in_progress, response("resp_1", output_text(RAIN)))
    yield client.responses.create(model="gpt-4.1", input="What is the weather?", background=True)
    for _ in range(3):
        yield client.responses.retrieve("resp_1")


def response_streamed(server: Server, client: OpenAI) -> Iterator[Any]:
    server.on("POST /responses", Events.of_response(*events()))
    stream = client.responses.create(model="gpt-4.1", input="What is the weather?", stream=True)
    yield type(stream)
    yield from stream


def response_read_in_pieces(server: Server, client: OpenAI) -> Iterator[Any]:
    answers = response("resp_1", output_text(RAIN)), Events.of_response(*events()), Events.of_response(*events()[:5])
    server.on("POST /responses", *answers)
    create = client.responses.with_streaming_response.create
    with create(model="gpt-4.1", input="What is the weather?") as answer:
        yield "".join(answer.iter_text())
    for _ in range(2):
        with create(model="gpt-4.1", input="What is the weather?", stream=True) as answer:
            yield from answer.iter_lines()


def response_stream_ends_otherwise(server: Server, client: OpenAI) -> Iterator[Any]:
    cut_off = events(end="incomplete", incomplete_details={"reason": "max_output_tokens"})
    server.on("POST /responses", Events.of_response(*cut_off), Events.of_response(*events()[:5]))
    for _ in range(2):
        yield from client.responses.create(model="gpt-4.1", input="What is the weather?", stream=True)


def response_stream_helper(server: Server, client: OpenAI) -> Iterator[Any]:
    server.on("POST /responses", Events.of_response(*events()))
    with client.responses.stream(model="gpt-4.1", input="What is the weather?") as stream:
        yield type(stream)
        for event in stream:
            yield event.type
        yield stream.get_final_response()


def response_parsed(server: Server, client: OpenAI) -> Iterator[Any]:
    server.on("POST /responses", response("resp_1", output_text('{"city": "Oslo", "rain": true}')))
    yield client.responses.parse(model="gpt-4.1", input="What is the weather?", text_format=Weather)


# Assistants -----------------------------------------------------------------------------------------------------


def run_polled(server: Server, client: OpenAI) -> Iterator[Any]:
    server.on("POST /threads", {"id": "thread_1", "object": "thread", "created_at": HOUR, "metadata": {}})
    server.on(f"POST {THREAD}/messages", ASKED)
    server.on(f"POST {THREAD}/runs", run(status="queued"))
    server.on(f"GET {RUN}", run(status="in_progress"), run())
    server.on(f"GET {RUN}/steps", page(step("step_1", function_call(), at=11)))
    server.on(f"GET {THREAD}/messages", page(SAID, ASKED))
    threads = client.beta.threads
    yield threads.create()
    yield threads.messages.create("thread_1", role="user", content="What is the weather?")
    yield threads.runs.create("thread_1", assistant_id="asst_1", additional_instructions="Be exact.")
    for _ in range(4):
        yield threads.runs.retrieve("run_1", thread_id="thread_1")
    yield list(threads.runs.steps.list("run_1", thread_id="thread_1"))
    yield list(threads.messages.list("thread_1"))
    yield list(threads.messages.list("thread_1"))


def run_with_tools(server: Server, client: OpenAI) -> Iterator[Any]:
    server.on("POST /threads/runs", run(status="queued"))
    server.on(f"GET {RUN}", waiting_run(function_call()), run())
    server.on(f"POST {RUN}/submit_tool_outputs", run(status="queued"))
    server.on(f"GET {THREAD}/messages", page(SAID, ASKED))
    threads = client.beta.threads
    yield threads.create_and_run_poll(assistant_id="asst_1", thread={"messages": ASK}, poll_interval_ms=1)
    outputs: Any = [{"tool_call_id": "call_1", "output": "rain"}]
    yield threads.runs.submit_tool_outputs_and_poll(
        run_id="run_1", thread_id="thread_1", tool_outputs=outputs, poll_interval_ms=1
    )
    yield threads.messages.list("thread_1", run_id="run_1")


def run_over_pages(server: Server, client: OpenAI) -> Iterator[Any]:
    image = {"type": "image_file", "image_file": {"file_id": "file-1"}}
    cited = {
        "type": "file_citation",
        "text": "[1]",
        "start_index": 0,
        "end_index": 3,
        "file_citation": {"file_id": "file-2"},
    }
    second = message("msg_3", text_part("Take an umbrella.[1]", cited), image, at=13)
    server.on(f"POST {THREAD}/runs", run())
    server.on(f"GET {THREAD}/messages", {**page(second), "has_more": True}, page(SAID, ASKED))
    yield client.beta.threads.runs.create("thread_1", assistant_id="asst_1")
    yield list(client.beta.threads.messages.list("thread_1", limit=1))


def runs_that_end_otherwise(server: Server, client: OpenAI) -> Iterator[Any]:
    error = {"code": "rate_limit_exceeded", "message": "Too much."}
    server.on(
        f"POST {THREAD}/runs",
        run("run_1", status="failed", last_error=error),
        run("run_2", status="expired"),
        run("run_3", status="cancelled"),
        run("run_4", status="incomplete", incomplete_details={"reason": "max_completion_tokens"}),
        Failure(404, "No thread found."),
    )
    for _ in range(5):
        yield client.beta.threads.runs.create("thread_1", assistant_id="asst_1")


def run_streamed(server: Server, client: OpenAI) -> Iterator[Any]:
    server.on(f"POST {THREAD}/messages", ASKED)
    server.on(f"POST {THREAD}/runs", Events.of_assistants(*run_events()))
    yield client.beta.threads.messages.create("thread_1", role="user", content="What is the weather?")
    yield from client.beta.threads.runs.create("thread_1", assistant_id="asst_1", stream=True)


def run_stream_helper(server: Server, client: OpenAI) -> Iterator[Any]:
    server.on(f"POST {THREAD}/runs", Events.of_assistants(*run_events()))
    with client.beta.threads.runs.stream(thread_id="thread_1", assistant_id="asst_1") as stream:
        yield type(stream)
        yield list(stream.text_deltas)
        yield stream.get_final_run()
        yield stream.get_final_messages()


def run_stream_that_waits(server: Server, client: OpenAI) -> Iterator[Any]:
    asked = [("thread.run.created", run(status="queued")), ("thread.run.requires_action", waiting_run(function_call()))]
    server.on(f"POST {THREAD}/runs", Events.of_assistants(*asked))
    server.on(f"POST {RUN}/submit_tool_outputs", Events.of_assistants(*run_events()[1:]))
    with client.beta.threads.runs.stream(thread_id="thread_1", assistant_id="asst_1") as stream:
        stream.until_done()
        yield stream.current_run
    outputs: Any = [{"tool_call_id": "call_1", "output": "rain"}]
    runs = client.beta.threads.runs
    with runs.submit_tool_outputs_stream(thread_id="thread_1", run_id="run_1", tool_outputs=outputs) as stream:
        stream.until_done()
        yield stream.get_final_run()


def run_read_in_pieces(server: Server, client: OpenAI) -> Iterator[Any]:
    server.on(f"POST {THREAD}/runs", Events.of_assistants(*run_events()))
    create = client.beta.threads.runs.with_streaming_response.create
    with create(thread_id="thread_1", assistant_id="asst_1", stream=True) as answer:
        yield from answer.iter_lines()


def other_requests(server: Server, client: OpenAI) -> Iterator[Any]:
    embedding = {"object": "embedding", "index": 0, "embedding": [0.5]}
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    server.on("POST /embeddings", {"object": "list", "data": [embedding], "model": "small", "usage": usage})
    server.on(f"GET {THREAD}/runs", page(run()))
    yield client.embeddings.create(model="small", input="Oslo", encoding_format="float")
    yield client.beta.threads.runs.list("thread_1")


SCRIPTS: list[Script] = [
    chat_plain,
    chat_refused,
    chat_tools,
    chat_failed,
    chat_parsed,
    chat_parsed_too_long,
    chat_streamed,
    chat_streamed_by_next,
    chat_stream_closed,
    chat_stream_breaks,
    chat_stream_fails,
    chat_stream_helper,
    chat_raw,
    chat_streaming_response,
    chat_read_in_pieces,
    response_read_in_pieces,
    run_read_in_pieces,
    response_plain,
    response_chain,
    conversation,
    response_ends_otherwise,
    response_in_background,
    response_streamed,
    response_stream_ends_otherwise,
    response_stream_helper,
    response_parsed,
    run_polled,
    run_with_tools,
    run_over_pages,
    runs_that_end_otherwise,
    run_streamed,
    run_stream_helper,
    run_stream_that_waits,
    other_requests,
]


# On the async client --------------------------------------------------------------------------------------------


async def chats_async(server: Server, client: AsyncOpenAI) -> AsyncIterator[Any]:
    server.on("POST /chat/completions", chat(content=RAIN), Events.of_chat(*RAIN_CHUNKS), Failure(400, "No."))
    yield await client.chat.completions.create(model="gpt-4o", messages=ASK)
    stream = await client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True)
    yield type(stream)
    async for piece in stream:
        yield piece
    yield await client.chat.completions.create(model="gpt-4o", messages=ASK)


async def chat_helpers_async(server: Server, client: AsyncOpenAI) -> AsyncIterator[Any]:
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS), chat(content=RAIN), Events.of_chat(*RAIN_CHUNKS))
    async with client.chat.completions.stream(model="gpt-4o", messages=ASK) as helper:
        async for event in helper:
            yield event.type
        yield await helper.get_final_completion()
    create = client.chat.completions.with_streaming_response.create
    async with create(model="gpt-4o", messages=ASK) as answer:
        yield await answer.parse()
    async with create(model="gpt-4o", messages=ASK, stream=True) as streamed:
        async for piece in await streamed.parse():
            yield piece


async def chat_stream_closed_async(server: Server, client: AsyncOpenAI) -> AsyncIterator[Any]:
    server.on("POST /chat/completions", Events.of_chat(*RAIN_CHUNKS))
    async with await client.chat.completions.create(model="gpt-4o", messages=ASK, stream=True) as stream:
        yield await stream.__anext__()
        yield await stream.__anext__()


async def responses_async(server: Server, client: AsyncOpenAI) -> AsyncIterator[Any]:
    server.on("POST /responses", response("resp_1", output_text(RAIN)), Events.of_response(*events()))
    yield await client.responses.create(model="gpt-4.1", input="What is the weather?")
    async with client.responses.stream(model="gpt-4.1", input="What is the weather?") as stream:
        async for event in stream:
            yield event.type
        yield await stream.get_final_response()


async def runs_async(server: Server, client: AsyncOpenAI) -> AsyncIterator[Any]:
    server.on(f"POST {THREAD}/messages", ASKED)
    server.on(f"POST {THREAD}/runs", run(status="queued"), Events.of_assistants(*run_events()))
    server.on(f"GET {RUN}", run(status="in_progress"), run())
    server.on(f"GET {THREAD}/messages", page(SAID, ASKED))
    threads = client.beta.threads
    yield await threads.messages.create("thread_1", role="user", content="What is the weather?")
    yield await threads.runs.create_and_poll(thread_id="thread_1", assistant_id="asst_1", poll_interval_ms=1)
    yield [each async for each in threads.messages.list("thread_1")]
    async with threads.runs.stream(thread_id="thread_1", assistant_id="asst_1") as stream:
        await stream.until_done()
        yield await stream.get_final_run()


async def read_in_pieces_async(server: Server, client: AsyncOpenAI) -> AsyncIterator[Any]:
    server.on("POST /chat/completions", chat(content=RAIN), Events.of_chat(*RAIN_CHUNKS), chat(content=RAIN))
    create = client.chat.completions.with_streaming_response.create
    async with create(model="gpt-4o", messages=ASK) as answer:
        yield b"".join([piece async for piece in answer.iter_bytes(7)])
    async with create(model="gpt-4o", messages=ASK, stream=True) as answer:
        yield [line async for line in answer.iter_lines()]
    async with create(model="gpt-4o", messages=ASK) as answer:
        yield await anext(answer.iter_text(5))  # and stop there


ASYNC_SCRIPTS: list[AsyncScript] = [
    chats_async,
    chat_helpers_async,
    chat_stream_closed_async,
    responses_async,
    runs_async,
    read_in_pieces_async,
]
