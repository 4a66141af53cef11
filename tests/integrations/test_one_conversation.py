"""The same conversation gives the same logs through any source, and each log once through all of them together."""

from __future__ import annotations

import asyncio
import functools
import json
import random
from contextlib import ExitStack
from typing import Any

import pytest
from openai import AsyncOpenAI

from athina_trace import athina_session
from athina_trace._capture import answer_logs
from athina_trace.testing import captured_logs
from tests.openai.samples import chat
from tests.openai.server import Server
from tests.support.changed import as_changed

from . import frameworks
from .conversation import EXPECTED, FIELDS, MODEL, standin
from .frameworks import SOURCES
from .sources import Source


def comparable(log: dict[str, Any]) -> dict[str, Any]:
    """Return the compared fields, with tool arguments as data, since equal JSON may be written differently."""
    found = {name: log[name] for name in FIELDS if log.get(name) is not None}
    for call in found.get("tool_calls", []):
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return found


def expected_of(source: Source) -> list[dict[str, Any]]:
    lacking = [source.lacks.get(number, {}) for number in range(len(EXPECTED))]
    return [
        comparable(json.loads(json.dumps({name: value for name, value in log.items() if name not in lacks})))
        for log, lacks in zip(EXPECTED, lacking, strict=True)
    ]


@functools.cache  # some instrumentations, once disabled and enabled again, see everything twice
def seen_by(number: int) -> list[dict[str, Any]]:
    source = SOURCES[number]
    answer_logs.reset()  # each stand-in uses the same ids
    with standin() as server, captured_logs() as logs:
        with source.switch_on(), athina_session("thread_1", customer_id="acme"):
            source.talk(server)
        return [comparable(log) for log in as_changed(logs)]


@pytest.mark.parametrize("number", range(len(SOURCES)), ids=lambda number: SOURCES[number].name)
def test_each_source_makes_the_expected_logs_of_one_conversation(number: int) -> None:
    assert seen_by(number) == expected_of(SOURCES[number])


def test_the_table_of_fields_that_each_source_knows_is_true(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{'':24}" + "".join(f"{name[:11]:12}" for name in FIELDS)]
    for number, source in enumerate(SOURCES):
        found = seen_by(number)
        cells: list[str] = []
        for name in FIELDS:
            lacks = [place for place, each in source.lacks.items() if name in each]
            right = all(log.get(name) == want.get(name) for log, want in zip(found, expected_of(source), strict=True))
            cells.append(f"{'no' if not right else f'not {lacks[0] + 1}' if lacks else 'yes':12}")
        lines.append(f"{source.name:24}" + "".join(cells))
    lines += [
        f"{source.name}: {name} of log {place + 1}: {why}"
        for source in SOURCES
        for place, lacks in source.lacks.items()
        for name, why in lacks.items()
    ]
    with capsys.disabled():
        print("\n" + "\n".join(lines))  # noqa: T201 - the table is the point
    assert not any(" no " in line for line in lines[: len(SOURCES) + 1])


TALKS = list({source.talk: source for source in SOURCES}.values())
NAMING = (frameworks.talk_with_langgraph, frameworks.talk_with_agents)
"""If the framework is given a conversation, it wins over the scope around it."""
ORDERS = [
    (talking, random.Random(scope + talking.name).sample(SOURCES, len(SOURCES)), scope)
    for scope in ("thread_1", "ours")
    for talking in TALKS
]


@pytest.mark.parametrize(
    ("talking", "order", "scope"), ORDERS, ids=[f"{talking.talk.__name__}-{scope}" for talking, _, scope in ORDERS]
)
def test_all_sources_together_log_each_answer_once(talking: Source, order: list[Source], scope: str) -> None:
    with standin() as server, captured_logs() as logs:
        with ExitStack() as stack:
            for source in order:
                stack.enter_context(source.switch_on())
            with athina_session(scope, customer_id="acme"):
                talking.talk(server)
        session = "thread_1" if talking.talk in NAMING else scope
        expected = [{**log, "session_id": session} for log in expected_of(SOURCES[0])]
        assert [comparable(log) for log in as_changed(logs)] == expected


@pytest.mark.timeout(300)  # ten sources read each answer
@pytest.mark.parametrize("same_id", [False, True])
def test_concurrent_tasks_log_only_under_their_own_sessions(same_id: bool) -> None:
    count = 300
    with Server() as server, captured_logs() as logs:
        answers = [chat("chatcmpl-0" if same_id else f"chatcmpl-{n}", content=f"Answer {n}") for n in range(count)]
        server.on("POST /chat/completions", *answers)
        said: dict[str, str | None] = {}

        async def ask(client: AsyncOpenAI, number: int) -> None:
            with athina_session(f"session {number}", customer_id=f"customer {number % 7}"):
                question: Any = [{"role": "user", "content": f"Question {number}"}]
                answer = await client.chat.completions.create(model=MODEL, messages=question)
                said[f"session {number}"] = answer.choices[0].message.content

        async def main() -> None:
            async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0, timeout=240) as client:
                await asyncio.gather(*(ask(client, number) for number in range(count)))

        with ExitStack() as stack:
            for source in SOURCES:
                stack.enter_context(source.switch_on())
            asyncio.run(main())
        found = as_changed(logs)
    assert len(found) == count
    for log in found:
        number = log["session_id"].removeprefix("session ")
        expected = (f"customer {int(number) % 7}", f"Question {number}", said[log["session_id"]], 7)
        assert (log["customer_id"], log["user_query"], log["response"], log["total_tokens"]) == expected
