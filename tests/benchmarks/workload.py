"""The work of every contestant: one answer of a support assistant, with the same arguments and result."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any

Handler = Callable[[Any, str, Any, str], Any]

MARK = re.compile(rb"call-(\d{6})-")
"""Each call carries its number in its question, so that the sink can tell whose log arrived, in whatever format."""

FIRST_UNCOUNTED = b"900000"
"""Calls from this number on only warm up."""

SYSTEM = ("You are a patient support assistant of a parcel service. " * 9)[:300]
DOCUMENTS = [(f"Document {number}: terms and conditions of delivery and return. " * 9)[:400] for number in range(3)]
ANSWER = ("You can return it free of charge within thirty days. " * 15)[:600]
CHUNKS = [f"word{number:03d} " for number in range(200)]


def arguments(number: int) -> tuple[list[dict[str, str]], str, list[str], str]:
    """Return the arguments of call `number`; two calls make a session."""
    question = f"call-{number:06d}- How do I send a parcel back that I have opened already? ".ljust(120, "?")
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    return messages, question, list(DOCUMENTS), f"session-{number // 2}"


def handler(messages: list[dict[str, str]], question: str, context: list[str], session_id: str) -> str:
    return ANSWER


async def async_handler(messages: list[dict[str, str]], question: str, context: list[str], session_id: str) -> str:
    await asyncio.sleep(0)
    return ANSWER


def streaming_handler(
    messages: list[dict[str, str]], question: str, context: list[str], session_id: str
) -> Iterator[str]:
    yield from CHUNKS


def nested(decorate: Callable[[Handler], Handler]) -> Handler:
    """Return three nested decorated functions, each calling the next with its arguments."""

    @decorate
    def inner(messages: Any, question: str, context: Any, session_id: str) -> str:
        return handler(messages, question, context, session_id)

    @decorate
    def middle(messages: Any, question: str, context: Any, session_id: str) -> Any:
        return inner(messages, question, context, session_id)

    @decorate
    def outer(messages: Any, question: str, context: Any, session_id: str) -> Any:
        return middle(messages, question, context, session_id)

    return outer
