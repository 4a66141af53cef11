"""The user's hooks: what they may change, and that they harm neither the program nor deliveries."""

from __future__ import annotations

import contextvars
import threading
import time
from typing import Any

import pytest

import athina_trace as at
from athina_trace.testing import captured_logs
from tests.support import processes
from tests.support.athina_server import AthinaServer, answer
from tests.support.waiting import until


@at.athina_trace
def ask(question: str) -> str:
    return "answer"


def test_before_emit_can_change_and_drop_logs() -> None:
    def before_emit(log: at.InferenceLog) -> at.InferenceLog | None:
        return None if log.user_query == "skip" else log.model_copy(update={"prompt_slug": "v2", "tool_calls": [1]})

    with captured_logs(before_emit=before_emit, hook_timeout=60) as logs:
        ask("skip")
        ask("keep")
    log = logs.assert_one(user_query="keep", prompt_slug="v2", response="answer")
    assert logs.wire[0]["tool_call"] == log.tool_calls == [1]


def test_updates_and_feedback_of_a_dropped_log_are_dropped() -> None:
    with captured_logs(before_emit=lambda _log: None, hook_timeout=60) as logs:
        reference = at.log_inference(response="a")
        at.log_feedback(reference, 1)
        at.log_feedback("of another process", 1)
    assert len(logs) == 0
    assert [each["external_reference_id"] for each in logs.feedback] == ["of another process"]


def raises(_log: Any) -> Any:
    raise LookupError("secret words")


def gives_nonsense(_log: Any) -> Any:
    return 5


@pytest.mark.parametrize("hook", [raises, gives_nonsense])
def test_if_before_emit_fails_the_log_is_sent_without_content(hook: Any, caplog: pytest.LogCaptureFixture) -> None:
    @at.athina_trace
    def fail(question: str, other: str) -> str:
        raise RuntimeError("words of the user")

    with captured_logs(before_emit=hook) as logs, at.athina_session("s", customer_id="c"), pytest.raises(RuntimeError):
        fail("question", other="more")
    log = logs.assert_one(session_id="s", customer_id="c", error="RuntimeError", user_query=None, response="")
    assert str((log.custom_attributes or {})["before_emit"]).startswith("failed: ")
    assert "words" not in str(logs.wire)
    assert "secret words" not in caplog.text


def test_a_hanging_hook_delays_a_call_by_its_timeout_at_most() -> None:
    release = threading.Event()
    with captured_logs(before_emit=lambda log: log if release.wait(60) else None, hook_timeout=0.05) as logs:
        took = []
        for _ in range(3):
            began = time.monotonic()
            ask("q")
            took.append(time.monotonic() - began)
        release.set()
    assert min(took) < 0.9  # the default is one second
    assert [(log.user_query, (log.custom_attributes or {})["before_emit"]) for log in logs] == [
        (None, "failed: TimeoutError")
    ] * 3


def test_hooks_see_the_context_of_the_call() -> None:
    number = contextvars.ContextVar("number", default=0)
    seen: list[int] = []

    def before_emit(log: at.InferenceLog) -> at.InferenceLog:
        seen.append(number.get())
        return log

    number.set(7)
    with captured_logs(before_emit=before_emit, hook_timeout=60):
        ask("q")
    assert seen == [7]


def test_on_refused_gets_the_servers_message(athina: AthinaServer) -> None:
    told: list[at.Refused] = []
    at.configure(api_key="key", base_url=athina.url, on_refused=told.append)
    athina.script(answer(422, b'{"error": "no such field"}'))
    reference = at.log_inference(response="a")
    at.flush(60)
    (event,) = told
    assert (event.kind, event.external_reference_id, event.status) == ("log", reference, 422)
    assert "no such field" in event.reason


def test_callbacks_that_raise_or_hang_do_not_stop_deliveries(
    athina: AthinaServer, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    told: list[at.Delivered] = []

    def on_delivered(event: at.Delivered) -> None:
        told.append(event)
        if len(told) == 1:
            raise LookupError("the user's own")
        release.wait(60)

    at.configure(api_key="key", base_url=athina.url, on_delivered=on_delivered)
    for _ in range(5):
        ask("q")
    until(lambda: at.status().delivered == 5 and len(told) == 2)
    assert at.flush(1)
    assert len(athina.accepted) == 5
    assert f'on_delivered raised LookupError("the user\'s own") for {told[0]!r}' in caplog.text
    release.set()


def test_callbacks_run_outside_sessions_even_if_threads_inherit_context(athina: AthinaServer) -> None:
    out, err = processes.run(
        """
        import athina_trace as at
        def on_delivered(event):
            if event.external_reference_id == "first":
                at.log_inference(response="from the callback")
        at.configure(api_key="key", on_delivered=on_delivered)
        with at.athina_session("thread_1"):
            at.log_inference(response="a", external_reference_id="first")
        assert at.flush(60) and at.flush(60)
        print([log.get("session_id") for log in at.recent_logs()])
        """,
        ATHINA_BASE_URL=athina.url,
        PYTHON_THREAD_INHERIT_CONTEXT="1",  # from Python 3.14 on, and the default of its free-threaded build
    )
    assert (out.strip(), err) == ("['thread_1', None]", "")


def test_hooks_can_be_set_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHINA_BEFORE_EMIT", "tests.production.test_hooks:raises")
    assert at.Settings.build().before_emit is raises
    monkeypatch.setenv("ATHINA_BEFORE_EMIT", "tests.production.test_hooks:missing")
    with pytest.raises(at.SettingsError, match=r"ATHINA_BEFORE_EMIT='.*:missing': cannot be imported"):
        at.Settings.build()
    monkeypatch.setenv("ATHINA_BEFORE_EMIT", "missing")
    with pytest.raises(at.SettingsError, match=r"package\.module:name"):
        at.Settings.build()
