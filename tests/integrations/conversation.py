"""One conversation with a support assistant: two turns, a tool call, a stream and an error, against a stand-in.

With any instrumentation and any framework, its logs must be `EXPECTED`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from openai import OpenAI, OpenAIError

from tests.openai.samples import Wire, chat, function_call
from tests.openai.server import Events, Failure, Server

MODEL = "gpt-4o-mini"
SYSTEM = "You are the support of a parcel service."
FIRST, SECOND, THIRD = "Where is my parcel?", "When will it arrive?", "Can I speak to a human?"
TOOL = {
    "type": "function",
    "function": {
        "name": "find_parcel",
        "description": "Find a parcel.",
        "parameters": {"type": "object", "properties": {"number": {"type": "string"}}, "required": ["number"]},
    },
}
CALL = function_call("call_1", name="find_parcel", arguments='{"number":"7"}')
FOUND = "In Oslo."
OVERLOADED = "The model is overloaded."
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def _chunks(chat_id: str, *texts: str) -> list[Wire]:
    head = {"id": chat_id, "object": "chat.completion.chunk", "created": 1_700_000_030, "model": MODEL}
    deltas: list[Wire] = [{"role": "assistant", "content": ""}, *({"content": text} for text in texts)]
    made: list[Wire] = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}], "usage": None} for delta in deltas
    ]
    made.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None})
    return [*made, {**head, "choices": [], "usage": USAGE}]


def _expected(question: str, response: str, **more: Any) -> dict[str, Any]:
    return {
        "session_id": "thread_1",
        "customer_id": "acme",
        "language_model_id": MODEL,
        "user_query": question,
        "response": response,
        **USAGE,
        **more,
    }


EXPECTED: list[dict[str, Any]] = [
    _expected(FIRST, "", tool_calls=[{**CALL, "output": FOUND}]),
    _expected(FIRST, "Your parcel is in Oslo."),
    _expected(SECOND, "It arrives tomorrow."),
    {
        "session_id": "thread_1",
        "customer_id": "acme",
        "language_model_id": MODEL,
        "user_query": THIRD,
        "response": "",
        "error": OVERLOADED,
        "status_code": 400,
    },
]
FIELDS = sorted({name for log in EXPECTED for name in log})


@contextmanager
def standin() -> Iterator[Server]:
    """Start a server that plays the model's part of one conversation."""
    with Server() as server:
        server.on(
            "POST /chat/completions",
            calling("chatcmpl-1"),
            chat("chatcmpl-2", content="Your parcel is in Oslo."),
            Events.of_chat(*_chunks("chatcmpl-3", "It arrives", " tomorrow.")),
            Failure(400, OVERLOADED),
        )
        yield server


def calling(chat_id: str) -> Wire:
    """Make an answer that calls the tool."""
    answer = chat(chat_id, content=None, tool_calls=[CALL])
    answer["choices"][0]["finish_reason"] = "tool_calls"
    return answer


def find_parcel(number: str) -> str:
    """Find a parcel."""
    assert number == "7"
    return FOUND


def talk(server: Server, run_tool: Callable[[Wire], str] | None = None) -> None:
    """Run the conversation with OpenAI's client alone."""
    messages: list[Any] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": FIRST}]
    asked: Any = {"model": MODEL, "tools": [TOOL], "messages": messages}
    with OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        for _ in range(2):
            message = client.chat.completions.create(**asked).choices[0].message
            messages.append(message.model_dump(exclude_none=True))
            for call in message.tool_calls or []:
                arguments = json.loads(call.function.arguments)
                output = run_tool(arguments) if run_tool is not None else find_parcel(**arguments)
                messages.append({"role": "tool", "tool_call_id": call.id, "content": output})
        messages.append({"role": "user", "content": SECOND})
        options: Any = {"stream": True, "stream_options": {"include_usage": True}}
        texts = [
            chunk.choices[0].delta.content
            for chunk in client.chat.completions.create(**asked, **options)
            if chunk.choices
        ]
        messages.append({"role": "assistant", "content": "".join(text or "" for text in texts)})
        messages.append({"role": "user", "content": THIRD})
        with suppress(OpenAIError):
            client.chat.completions.create(**asked)
