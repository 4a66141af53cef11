"""Many conversations at once on one async client: each log has its own session, customer and answer.

python examples/async_handlers.py     a stand-in plays OpenAI's part; with OPENAI_API_KEY, OpenAI itself
"""

import asyncio
from typing import Any

from openai import AsyncOpenAI

from athina_trace import aflush, athina_session, athina_trace, instrument_openai, recent_logs, status
from desk import open_async_client
from parcels import INSTRUCTIONS
from show import show_conversation, show_delivery

MODEL = "gpt-4.1-mini"
QUESTIONS = {
    "ann": ("Can I return my parcel?", "Thank you!"),
    "bob": ("Can a neighbour take it?", "Thanks."),
    "eve": ("I want a refund.", "Thank you very much."),
}


@athina_trace(prompt_slug="customer-support/v1")
async def answer(client: AsyncOpenAI, question: str, messages: list[dict[str, Any]]) -> str:
    """Answer a question after the messages so far; its log is on disk before this returns."""
    asked: Any = [*messages, {"role": "user", "content": question}]
    completion = await client.chat.completions.create(model=MODEL, messages=asked)
    return completion.choices[0].message.content or ""


async def talk(client: AsyncOpenAI, customer: str) -> None:
    """Hold one customer's conversation, in its own session."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": INSTRUCTIONS}]
    async with athina_session(f"chat-of-{customer}", customer_id=customer):
        for question in QUESTIONS[customer]:
            text = await answer(client, question, messages)
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": text}]


async def main() -> None:
    """Hold all conversations at once, then show what was logged, one conversation after the other."""
    instrument_openai()
    before = status().made
    async with open_async_client() as client:
        await asyncio.gather(*(talk(client, customer) for customer in QUESTIONS))
    report = await aflush(timeout=10)
    logs = recent_logs(status().made - before)
    show_conversation(sorted(logs, key=lambda log: str(log["session_id"])))
    show_delivery(report, status())


if __name__ == "__main__":
    asyncio.run(main())
