"""Decorated functions keep their types. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from typing_extensions import assert_type

from athina_trace import FlushReport, LogDraft, Status, athina_session, athina_trace, current_log, flush, status


@athina_trace
def plain(question: str, *, limit: int = 3) -> str:
    return question * limit


@athina_trace(prompt_slug="support/v1", response=lambda result: result["text"], capture_inputs=["question"])
async def coroutine(question: str) -> dict[str, str]:
    return {"text": question}


@athina_trace()
def generator(question: str) -> Iterator[int]:
    yield len(question)


@athina_session("thread", customer_id=3, plan="pro")
async def agenerator(question: str) -> AsyncIterator[bytes]:
    yield question.encode()


class Desk:
    @athina_trace
    def method(self, question: str) -> int:
        return len(question)

    @classmethod
    @athina_trace
    def of(cls, question: str) -> Desk:
        return cls()

    @staticmethod
    @athina_trace(inputs={"user_query": "ask"})
    def static(ask: str) -> float:
        return float(ask)


def seen_as_before() -> None:
    assert_type(plain("q", limit=2), str)
    assert_type(Desk().method("q"), int)
    assert_type(Desk.of("q"), Desk)
    assert_type(Desk.static("1"), float)
    assert_type([*generator("q")], list[int])
    handlers: list[Callable[[str], Awaitable[dict[str, str]]]] = [coroutine]
    assert handlers


async def blocks() -> None:
    assert_type(await coroutine("q"), dict[str, str])
    assert_type([part async for part in agenerator("q")], list[bytes])
    with athina_trace(user_query="q") as log:
        assert_type(log, LogDraft)
        log.update(response="r", prompt_tokens=1)
    async with athina_session("thread"), athina_trace() as log:
        assert_type(log.external_reference_id, str)


def refused() -> None:
    """Both checkers report an error on each of these lines; an unused ignore would be an error, too."""
    plain(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    plain("q", 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    athina_trace(promt="p")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    current_log().update(prompt_tokens="many")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def reports() -> None:
    assert_type(flush(timeout=1), FlushReport)
    assert_type(status(), Status)
