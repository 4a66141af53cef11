"""Which exceptions are failures of a call, and how control-flow exceptions are logged."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import unittest
from collections.abc import Callable, Iterator
from typing import Any

import celery
import celery.exceptions
import click
import pytest
import starlette.exceptions
import werkzeug
import werkzeug.exceptions
import werkzeug.routing

from athina_trace import athina_trace, configure, recent_logs

Logs = Callable[[], list[dict[str, Any]]]


def made_like(name: str, *bases: type[BaseException], **attributes: Any) -> BaseException:
    """An exception of a library that is not installed: recognised by the names of its classes."""
    module, _, kind = name.rpartition(".")
    cls: Any = type(kind, bases or (Exception,), {"__module__": module, **attributes})
    error: BaseException = cls("words")
    return error


class Interrupt(type(made_like("langgraph.errors.GraphBubbleUp"))):  # type: ignore[misc]
    """The program's own subclass of a known class."""


class Moved(Exception):  # noqa: N818 - no error
    status_code = 302


ENDS: list[tuple[BaseException, str | None]] = [
    (ValueError("words"), None),
    (StopIteration("last"), "exhausted"),
    (StopAsyncIteration(), "exhausted"),
    (GeneratorExit(), "incomplete"),
    (KeyboardInterrupt(), "cancelled"),
    (SystemExit(0), "exited"),
    (click.exceptions.Exit(0), "exited"),
    (asyncio.CancelledError(), "cancelled"),
    (concurrent.futures.CancelledError(), "cancelled"),
    (made_like("trio.Cancelled", BaseException), "cancelled"),
    (made_like("gevent.GreenletExit", BaseException), "cancelled"),
    (celery.exceptions.Retry("later"), "retried"),
    (celery.exceptions.Ignore(), "ignored"),
    (celery.exceptions.Reject(), "ignored"),
    (celery.exceptions.TaskError("words"), None),
    *((made_like(f"{name}.Retry"), "retried") for name in ("arq.worker", "dramatiq.errors")),
    (made_like("huey.exceptions.RetryTask"), "retried"),
    (made_like("huey.exceptions.CancelExecution"), "cancelled"),
    (made_like("procrastinate.exceptions.JobRetry"), "retried"),
    (made_like("tenacity.TryAgain"), "retried"),
    (made_like("pydantic_ai.exceptions.ModelRetry"), "retried"),
    (made_like("pydantic_ai.exceptions.CallDeferred"), "deferred"),
    (made_like("pydantic_ai.exceptions.ApprovalRequired"), "deferred"),
    (Interrupt(), "interrupted"),
    (made_like("langgraph.errors.ParentCommand", Interrupt), "redirected"),
    (made_like("somebody.errors.GraphBubbleUp"), None),
    (made_like("tornado.web.Finish"), "responded"),
    (unittest.SkipTest("words"), "ignored"),
    *((made_like(f"{name}.exceptions.Exit"), "exited") for name in ("click", "typer")),
    *((made_like(f"{name}.exceptions.Abort"), "cancelled") for name in ("click", "typer")),
    (made_like("streamlit.runtime.scriptrunner_utils.exceptions.StopException", BaseException), "exited"),
    (made_like("streamlit.runtime.scriptrunner_utils.exceptions.RerunException", BaseException), "redirected"),
    (made_like("marimo._runtime.control_flow.MarimoStopError", BaseException), "exited"),
    (made_like("dagster._core.definitions.events.RetryRequested"), "retried"),
    *((made_like(f"airflow.{name}.AirflowSkipException"), "ignored") for name in ("exceptions", "sdk.exceptions")),
    *((made_like(f"airflow.exceptions.{name}"), "deferred") for name in ("TaskDeferred", "AirflowRescheduleException")),
    (made_like("airflow.exceptions.AirflowFailException"), None),
    (made_like("aiogram.dispatcher.event.bases.SkipHandler"), "ignored"),
    (made_like("aiogram.dispatcher.event.bases.CancelHandler"), "cancelled"),
    (made_like("cherrypy._cperror.HTTPRedirect", status=303), "redirected"),
    (made_like("bottle.HTTPResponse", status_code=302), "redirected"),
    (made_like("bottle.HTTPResponse", status_code=200), "responded"),
    (made_like("bottle.HTTPResponse", status_code=404), None),
    (made_like("falcon.http_status.HTTPStatus", status_code=302), "redirected"),
    (made_like("pyramid.httpexceptions.HTTPException", status_code=302), "redirected"),
    (starlette.exceptions.HTTPException(307, headers={"location": "/"}), "redirected"),
    (starlette.exceptions.HTTPException(404), None),
    (werkzeug.routing.RequestRedirect("/"), "redirected"),
    (werkzeug.exceptions.NotFound(), None),
    (werkzeug.exceptions.HTTPException(response=werkzeug.Response(status=302)), "redirected"),
    (werkzeug.exceptions.HTTPException(), None),
    # An answer that fails to be read has a status, too, and so has what a client makes of a redirect.
    (Moved(), None),
]


@athina_trace
def raising(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "outcome"), ENDS, ids=[f"{number} {type(error).__name__}" for number, (error, _) in enumerate(ENDS)]
)
def test_the_outcome_of_a_call(local: Logs, error: BaseException, outcome: str | None) -> None:
    with pytest.raises(type(error)) as raised:
        raising(error)
    assert raised.value is error
    (log,) = local()
    assert log["custom_attributes"].get("outcome") == outcome
    assert ("error" in log) == (outcome is None)
    assert outcome is None or "status_code" not in log


def test_the_end_of_the_programs_own_iterator_is_no_failure(local: Logs) -> None:
    class Words:
        def __init__(self) -> None:
            self.left = ["On", " its", " way."]

        def __iter__(self) -> Iterator[str]:
            return self

        @athina_trace
        def __next__(self) -> str:
            if not self.left:
                raise StopIteration
            return self.left.pop(0)

    assert "".join(Words()) == "On its way."
    *words, end = local()
    assert [log["response"] for log in words] == ["On", " its", " way."]
    assert (end["custom_attributes"]["outcome"], "error" in end) == ("exhausted", False)


def test_a_celery_task_that_is_retried_has_not_failed(local: Logs) -> None:
    app = celery.Celery(broker="memory://", backend="cache+memory://")
    app.conf.task_always_eager = True
    tries = []

    @app.task(bind=True, max_retries=2, default_retry_delay=0)  # type: ignore[untyped-decorator]
    @athina_trace
    def answer(self: Any, question: str) -> str:
        tries.append(question)
        if len(tries) < 2:
            raise self.retry(exc=ConnectionError("gone"))
        return "On its way."

    assert answer.delay("Where is it?").get() == "On its way."
    outcomes = [(log["response"], log["custom_attributes"].get("outcome"), log.get("error")) for log in local()]
    assert sorted(outcomes, key=str) == [("", "retried", None), ("On its way.", None, None)]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="groups of exceptions came with Python 3.11")
def test_an_exception_group_is_a_failure_if_it_holds_one(local: Logs) -> None:
    retry, lost = celery.exceptions.Retry("later"), KeyboardInterrupt()
    for held in ([retry, retry], [retry, ValueError("words")], [lost, ValueError("words")], [lost, retry]):
        group = BaseExceptionGroup("several", held)  # type: ignore[name-defined]  # noqa: F821 - see above
        with pytest.raises(type(group)):
            raising(group)
    retried, failed, lost_and_failed, lost_and_retried = local()
    assert [each["custom_attributes"].get("outcome") for each in (retried, lost_and_retried)] == [
        "retried",
        "cancelled",
    ]
    assert all("ValueError: words" in each["error"] for each in (failed, lost_and_failed))


def test_sampling_keeps_failures_but_not_control_flow() -> None:
    configure(outbox=":memory:", sample_rate=0)
    for error in (celery.exceptions.Retry("later"), ValueError("words")):
        with pytest.raises(type(error)):
            raising(error)
    assert [log["error"] for log in recent_logs()] == ["ValueError: words"]
