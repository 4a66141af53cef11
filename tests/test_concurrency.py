"""Concurrent users never get into each other's logs."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from athina_trace import athina_session, athina_trace, current_log, set_customer

Logs = Callable[[], list[dict[str, Any]]]


def _assert_each_log_is_its_users(logs: list[dict[str, Any]], users: int, turns: int) -> None:
    assert len(logs) == users * turns
    for log in logs:
        user = log["user_query"].split()[0]
        assert log["session_id"] == f"session-{user}"
        assert log["customer_id"] == f"customer-{user}"
        assert log["custom_attributes"]["mark"] == user
        assert log["response"] == f"answer for {log['user_query']}"
    for user in range(users):
        mine = [log["user_query"] for log in logs if log["session_id"] == f"session-{user}"]
        assert mine == [f"{user} asks {turn}" for turn in range(turns)]


def test_two_hundred_tasks(delivered: Logs) -> None:
    @athina_trace
    async def answer(question: str) -> str:
        await asyncio.sleep(random.random() / 200)
        current_log().update(custom_attributes={"mark": question.split(maxsplit=1)[0]})
        await asyncio.sleep(0)
        return f"answer for {question}"

    async def user(number: int) -> None:
        async with athina_session(f"session-{number}"):
            set_customer(f"customer-{number}")
            for turn in range(3):
                await answer(f"{number} asks {turn}")

    async def everyone() -> None:
        await asyncio.gather(*(user(number) for number in range(200)))

    asyncio.run(everyone())
    _assert_each_log_is_its_users(delivered(), 200, 3)


def test_fifty_threads(delivered: Logs) -> None:
    @athina_trace
    def answer(question: str) -> str:
        time.sleep(random.random() / 500)
        current_log().update(custom_attributes={"mark": question.split(maxsplit=1)[0]})
        return f"answer for {question}"

    def user(number: int) -> None:
        with athina_session(f"session-{number}", customer_id=f"customer-{number}"):
            for turn in range(5):
                answer(f"{number} asks {turn}")

    threads = [threading.Thread(target=user, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _assert_each_log_is_its_users(delivered(), 50, 5)


def test_one_context_manager_object_entered_by_many_tasks(local: Logs) -> None:
    shared = athina_trace(language_model_id="m")

    async def user(number: int) -> None:
        with shared as log:
            await asyncio.sleep(random.random() / 200)
            log.update(user_query=f"q{number}")
            await asyncio.sleep(random.random() / 200)
            current_log().update(response=f"r{number}")

    async def everyone() -> None:
        await asyncio.gather(*(user(number) for number in range(50)))

    asyncio.run(everyone())
    assert {(log["user_query"], log["response"]) for log in local()} == {(f"q{n}", f"r{n}") for n in range(50)}


def test_one_session_object_entered_by_many_tasks(local: Logs) -> None:
    shared = athina_session("shared", environment="test")

    @athina_trace
    async def answer(question: str) -> str:
        await asyncio.sleep(random.random() / 200)
        return question

    async def user(number: int) -> None:
        with athina_session(f"outer-{number}", customer_id=number):
            async with shared:
                set_customer(f"inner-{number}")
                await answer(f"q{number}")
            await answer(f"after {number}")

    async def everyone() -> None:
        await asyncio.gather(*(user(number) for number in range(50)))

    asyncio.run(everyone())
    for log in local():
        number = log["user_query"].split()[-1].lstrip("q")
        after = log["user_query"].startswith("after")
        assert log["session_id"] == (f"outer-{number}" if after else "shared")
        assert log["customer_id"] == (number if after else f"inner-{number}")
