"""Updates of a log whose call has ended are durable, and follow the same rules."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

import athina_trace as at
from athina_trace.testing import captured_logs
from tests.support.athina_server import AthinaServer

COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "secret words"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
}


def ended(**options: Any) -> at.LogDraft:
    """Return the log of a call that has ended."""
    drafts: list[Any] = []

    @at.athina_trace(**options)
    def answer(question: str) -> str:
        drafts.append(at.current_log())
        return "answer"

    answer("q")
    draft: at.LogDraft = drafts[0]
    return draft


def test_a_task_that_outlives_the_call_updates_its_log() -> None:
    tasks: list[asyncio.Task[None]] = []

    @at.athina_trace
    async def handler(question: str) -> str:
        async def judge() -> None:
            await asyncio.sleep(0.01)
            at.current_log().update(total_tokens=42, custom_attributes={"judge": {"score": 1}})

        tasks.append(asyncio.create_task(judge()))
        return "answer"

    async def main() -> None:
        await handler("q")
        await asyncio.gather(*tasks)

    with captured_logs() as logs:
        asyncio.run(main())
    (log,) = logs.wire
    assert "total_tokens" not in log
    assert logs.updates == [
        {
            "external_reference_id": log["external_reference_id"],
            "total_tokens": 42,
            "custom_attributes": {"judge": '{"score":1}'},
        }
    ]


def test_a_late_update_arrives_after_the_log(athina: AthinaServer) -> None:
    at.configure(api_key="key", base_url=athina.url)
    draft = ended()
    draft.update(expected_response="e")
    assert at.flush(60)
    assert [request.json.get("expected_response") for request in athina.accepted] == [None, "e"]


def test_objects_recorded_late_update_only_the_fields_that_they_add() -> None:
    with captured_logs() as logs:
        draft = ended(response="named")
        draft.record(COMPLETION)
        draft.record(COMPLETION)
    (update,) = logs.updates
    assert (update["total_tokens"], update["language_model_id"]) == (7, "gpt-4o")
    assert "response" not in update


def test_late_unknown_fields_and_references_are_treated_as_during_a_call(caplog: pytest.LogCaptureFixture) -> None:
    late: dict[str, Any] = {"respons": "r", "external_reference_id": "another"}
    with captured_logs() as logs:
        draft = ended()
        draft.update(**late)
        draft.update(external_reference_id="another")
    assert logs.updates == [
        {"external_reference_id": draft.external_reference_id, "custom_attributes": {"respons": "r"}}
    ]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_content_omitted_from_the_log_stays_omitted_later() -> None:
    with captured_logs() as logs, at.athina_private():
        draft = ended()
    with captured_logs() as logs:
        draft.update(response="secret words", status_code=1)
        draft.record(COMPLETION)
    assert "secret words" not in str(logs.updates)
    assert logs.updates[0] == {"external_reference_id": draft.external_reference_id, "status_code": 1}


@pytest.mark.parametrize(
    ("settings", "options"), [({"capture_response": False}, {}), ({}, {"capture_response": False})]
)
def test_disabled_captures_apply_to_objects_recorded_late(settings: Any, options: Any) -> None:
    with captured_logs(**settings) as logs:
        draft = ended(**options)
        draft.record(COMPLETION)
        assert "secret words" not in str(logs.updates)
        draft.update(response="named")
    assert logs.updates[-1]["response"] == "named"


def test_a_dropped_log_gets_no_updates() -> None:
    with captured_logs(before_emit=lambda _log: None, hook_timeout=60) as logs:
        ended().update(total_tokens=1)
    assert logs.updates == []


@pytest.mark.parametrize("rewrite", ["mask", "before_emit"])
def test_an_update_made_while_its_log_waits_for_a_mask_follows_it(athina: AthinaServer, rewrite: str) -> None:
    began, changed = threading.Event(), threading.Event()

    def held(*given: Any) -> Any:
        # The log is rewritten in its own thread, and so is an update, once the log is written.
        if not changed.is_set():
            began.set()
            assert changed.wait(60)
        return given[-1]

    at.configure(api_key="any", base_url=athina.url, hook_timeout=30, **{rewrite: held})

    @at.athina_trace
    async def answer(question: str) -> str:
        drafts.append(at.current_log())
        return "a" * 100_000

    async def main() -> None:
        answering = asyncio.create_task(answer("q"))
        assert await asyncio.to_thread(began.wait, 60)
        for number in range(3):
            drafts[0].update(total_tokens=number)
        drafts[0].record(COMPLETION)
        changed.set()
        await answering
        drafts[0].update(total_tokens=9)

    drafts: list[Any] = []
    asyncio.run(main())
    assert at.flush(60)
    log, *updates = [request.json for request in athina.accepted]
    assert len(log["response"]) >= 100_000
    assert [update.get("total_tokens") for update in updates] == [0, 1, 2, 7, 9]
