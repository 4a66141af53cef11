"""The tools for users' tests: no network, disk or thread; each context is separate."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import athina_trace as at
from athina_trace.testing import CapturedLogs, captured_logs

pytest_plugins = ["pytester"]


@at.athina_trace
def ask(question: str, **more: object) -> str:
    return f"answer to {question}"


def test_logs_are_captured_without_disk_or_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHINA_API_KEY", "key")
    monkeypatch.setenv("ATHINA_CAPTURE_INPUTS", "false")  # ignored: a test has its own settings
    others = {*threading.enumerate()}  # threads of earlier tests, which may end meanwhile
    with captured_logs(environment="test") as logs:
        assert ask("q") == "answer to q"
        assert at.flush()
        assert at.status().made == 1
        assert at.recent_logs() == logs.wire
        assert {*threading.enumerate()} <= others
    assert list(tmp_path.rglob("*")) == []
    log = logs.assert_one(user_query="q", environment="test")
    assert isinstance(log, at.InferenceLog)


def test_the_runtime_is_restored_after_a_capture() -> None:
    at.configure(outbox=":memory:")
    ask("before")
    with captured_logs() as logs:
        ask("inside")
        at.shutdown()
    ask("after")
    assert [log["user_query"] for log in at.recent_logs()] == ["before", "after"]
    assert [log.user_query for log in logs] == ["inside"]


def test_configure_inside_a_capture_configures_that_capture() -> None:
    with captured_logs() as logs:
        at.configure(environment="staging", outbox="/nowhere/at/all.db")
        ask("q")
    logs.assert_one(environment="staging")


def test_captures_can_be_nested_and_cleared() -> None:
    with captured_logs() as outer:
        ask("1")
        with captured_logs() as inner:
            ask("2")
        ask("3")
    assert [log.user_query for log in outer] == ["1", "3"]
    assert [log.user_query for log in inner[:]] == ["2"]
    inner.clear()
    inner.assert_none()


def test_concurrent_tasks_and_threads_have_separate_captures() -> None:
    found: dict[str, list[object]] = {}

    def one(name: str, barrier: threading.Barrier) -> None:
        with captured_logs() as logs:
            barrier.wait(60)
            for _ in range(20):
                ask(name)
            barrier.wait(60)
        found[name] = [log.user_query for log in logs]

    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=one, args=(str(n), barrier)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {str(n): [str(n)] * 20 for n in range(4)}

    async def task(name: str) -> list[object]:
        with captured_logs() as logs:
            for _ in range(3):
                await asyncio.sleep(0)
                ask(name)
        return [log.user_query for log in logs]

    async def both() -> list[list[object]]:
        return list(await asyncio.gather(task("a"), task("b")))

    assert asyncio.run(both()) == [["a"] * 3, ["b"] * 3]


def test_a_thread_without_a_context_causes_a_warning_if_several_captures_are_open(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with captured_logs() as outer, captured_logs() as inner:
        # In an empty context: from Python 3.14 on, threads may inherit their creator's.
        stray = threading.Thread(target=contextvars.Context().run, args=(ask, "stray"))
        stray.start()
        stray.join()
        followed = threading.Thread(target=at.wrap(ask), args=("followed",))
        followed.start()
        followed.join()
    outer.assert_none()
    inner.assert_one(user_query="followed")
    assert "ContextThreadPoolExecutor" in caplog.text


def failure(check: Callable[[], object]) -> str:
    with pytest.raises(AssertionError) as raised:
        check()
    return str(raised.value)


def test_failed_assertions_name_the_differences(athina_logs: CapturedLogs) -> None:
    assert failure(lambda: athina_logs.assert_logged(user_query="q")) == "expected a log, but nothing was logged"
    with at.athina_session("thread_1", plan="gold"):
        ask("one")
    ask("two" + "x" * 300)
    assert failure(athina_logs.assert_none).startswith(
        "expected no log, got 2:\n  1. 'one' -> 'answer to one'\n  2. 'two"
    )
    assert failure(athina_logs.assert_one).startswith("expected one log, got 2:")
    said = failure(
        lambda: athina_logs.assert_logged(session_id="thread_1", response="no", custom_attributes={"plan": "basic"})
    )
    assert said == (
        "none of 2 logs has the expected fields; the nearest is number 1:\n"
        "  response\n    expected: 'no'\n    logged:   'answer to one'\n"
        "  custom_attributes['plan']\n    expected: 'basic'\n    logged:   'gold'"
    )
    assert "… (" in failure(lambda: athina_logs[1:2] and athina_logs.assert_logged(response="no", session_id=None))
    athina_logs.assert_logged(user_query="one", custom_attributes={"plan": "gold"})
    assert repr(athina_logs) == "<2 captured logs>"


def test_a_misspelled_expected_field_is_reported_as_such(athina_logs: CapturedLogs) -> None:
    ask("q")
    with pytest.raises(TypeError, match="did you mean 'user_query'"):
        athina_logs.assert_logged(user_qery="q")


def test_the_package_provides_the_fixture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from athina_trace import athina_trace

        @athina_trace
        def ask(question):
            return "answer"

        def test_one(athina_logs):
            ask("q")
            athina_logs.assert_one(user_query="q", response="answer")

        def test_another_starts_empty(athina_logs):
            athina_logs.assert_none()
        """
    )
    pytester.runpytest_subprocess("-q", "-W", "error").assert_outcomes(passed=2)
