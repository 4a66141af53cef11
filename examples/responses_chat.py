"""Responses, without a decorator: each answer of the model gets its own log.

A conversation at OpenAI gives the first two their session; the last two form a chain by `previous_response_id`.

    python examples/responses_chat.py     a stand-in plays OpenAI's part; with OPENAI_API_KEY, OpenAI itself
"""

from typing import Any

from openai import OpenAI

from athina_trace import athina_session, flush, instrument_openai, recent_logs, status
from desk import open_client
from parcels import INSTRUCTIONS, TRACK_PARCEL, use_tool
from show import show_conversation, show_delivery

MODEL = "gpt-4.1-mini"
TOOLS: Any = [{"type": "function", **TRACK_PARCEL}]


def talk(client: OpenAI) -> None:
    """Ask where a parcel is, and let the model call the function that finds out."""
    conversation = client.conversations.create().id
    where = "Hello, where is my parcel PX-48213?"
    asked = client.responses.create(model=MODEL, conversation=conversation, input=where, tools=TOOLS)
    outputs: Any = [
        {"type": "function_call_output", "call_id": call.call_id, "output": use_tool(call.name, call.arguments)}
        for call in asked.output
        if call.type == "function_call"
    ]
    client.responses.create(model=MODEL, conversation=conversation, input=outputs, tools=TOOLS)


def chain(client: OpenAI) -> None:
    """Ask two questions, the second of which follows on from the first."""
    first = client.responses.create(model=MODEL, instructions=INSTRUCTIONS, input="Can I return my parcel?")
    client.responses.create(model=MODEL, previous_response_id=first.id, input="Thank you!")


def main() -> None:
    """Hold both conversations, then show what was logged."""
    instrument_openai()
    with open_client() as client, athina_session(customer_id="disney-usa-2314832"):
        before = status().made
        talk(client)
        chain(client)
    report = flush(timeout=10)
    show_conversation(recent_logs(status().made - before))
    show_delivery(report, status())


if __name__ == "__main__":
    main()
