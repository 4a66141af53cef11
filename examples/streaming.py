"""Streams: a log is written when its stream ends, with the whole text and the time to the first chunk.

Three ways to pass on an answer in chunks: a decorated generator, a decorated function that returns the client's
own stream, and the client's stream helper without any decorator.

    python examples/streaming.py     a stand-in plays OpenAI's part; with OPENAI_API_KEY, OpenAI itself
"""

from collections.abc import Iterator
from typing import Any

from openai import OpenAI, Stream
from openai.types.responses import ResponseStreamEvent

from athina_trace import athina_session, athina_trace, flush, instrument_openai, recent_logs, status
from desk import open_client
from parcels import INSTRUCTIONS
from show import show_conversation, show_delivery

MODEL = "gpt-4.1-mini"


@athina_trace
def words(client: OpenAI, question: str) -> Iterator[str]:
    """Yield the answer of a chat completion in chunks."""
    messages: Any = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": question}]
    counted: Any = {"include_usage": True}
    for chunk in client.chat.completions.create(model=MODEL, messages=messages, stream=True, stream_options=counted):
        yield from (choice.delta.content for choice in chunk.choices if choice.delta.content)


@athina_trace
def events(client: OpenAI, question: str) -> Stream[ResponseStreamEvent]:
    """Return the client's own stream: the log is written when its reader reaches the end."""
    return client.responses.create(model=MODEL, instructions=INSTRUCTIONS, input=question, stream=True)


def helper(client: OpenAI, question: str) -> str:
    """Read a response with the client's stream helper, without a decorator."""
    with client.responses.stream(model=MODEL, instructions=INSTRUCTIONS, input=question) as stream:
        return stream.get_final_response().output_text


def main() -> None:
    """Ask in all three ways, then show what was logged."""
    instrument_openai()
    with open_client() as client, athina_session("streaming-1"):
        before = status().made
        for piece in words(client, "Can I return my parcel?"):
            print(piece, end="", flush=True)
        print()
        for event in events(client, "Can a neighbour take it?"):
            print(event.delta if event.type == "response.output_text.delta" else "", end="", flush=True)
        print()
        print(helper(client, "Thank you!"))
    report = flush(timeout=10)
    show_conversation(recent_logs(status().made - before))
    show_delivery(report, status())


if __name__ == "__main__":
    main()
