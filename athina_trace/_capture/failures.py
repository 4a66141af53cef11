"""Decides whether a call that raised an exception has failed, or whether the exception only directs control flow."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from athina_trace import _guard
from athina_trace._serialization import text
from athina_trace._serialization.introspection import attribute_or_none, mro_of, type_name

_MOST_HELD: Final = 100
"""How many exceptions of a group are looked at."""

# By name, so that no library is imported. The first of an exception's classes that is listed decides.
_CONTROL_FLOW: Final[Mapping[str, str]] = {
    "GeneratorExit": "incomplete",
    "concurrent.futures._base.CancelledError": "cancelled",
    "StopIteration": "exhausted",
    "StopAsyncIteration": "exhausted",
    "SystemExit": "exited",
    "click.exceptions.Exit": "exited",
    "click.exceptions.Abort": "cancelled",
    "typer.exceptions.Exit": "exited",
    "typer.exceptions.Abort": "cancelled",
    "streamlit.runtime.scriptrunner_utils.exceptions.StopException": "exited",
    "streamlit.runtime.scriptrunner_utils.exceptions.RerunException": "redirected",
    "marimo._runtime.control_flow.MarimoStopError": "exited",
    "celery.exceptions.Retry": "retried",
    "celery.exceptions.TaskPredicate": "ignored",
    "arq.worker.Retry": "retried",
    "dramatiq.errors.Retry": "retried",
    "huey.exceptions.RetryTask": "retried",
    "huey.exceptions.CancelExecution": "cancelled",
    "procrastinate.exceptions.JobRetry": "retried",
    "tenacity.TryAgain": "retried",
    "pydantic_ai.exceptions.ModelRetry": "retried",
    "pydantic_ai.exceptions.CallDeferred": "deferred",
    "pydantic_ai.exceptions.ApprovalRequired": "deferred",
    "langgraph.errors.ParentCommand": "redirected",
    "langgraph.errors.GraphBubbleUp": "interrupted",
    "dagster._core.definitions.events.RetryRequested": "retried",
    **{
        f"airflow.{module}.{name}": outcome
        for module in ("exceptions", "sdk.exceptions")
        for name, outcome in (
            ("AirflowSkipException", "ignored"),
            ("AirflowRescheduleException", "deferred"),
            ("TaskDeferred", "deferred"),
        )
    },
    "aiogram.dispatcher.event.bases.SkipHandler": "ignored",
    "aiogram.dispatcher.event.bases.CancelHandler": "cancelled",
    "unittest.case.SkipTest": "ignored",
    "tornado.web.Finish": "responded",
    "cherrypy._cperror.HTTPRedirect": "redirected",
    "cherrypy._cperror.InternalRedirect": "redirected",
}
"""Exceptions that are not failures → the `outcome` of a call that raised one."""

_RESPONSES: Final = frozenset(
    {
        "starlette.exceptions.HTTPException",
        "werkzeug.exceptions.HTTPException",
        "aiohttp.web_exceptions.HTTPException",
        "litestar.exceptions.http_exceptions.HTTPException",
        "bottle.HTTPResponse",
        "falcon.http_status.HTTPStatus",
        "pyramid.httpexceptions.HTTPException",
    }
)
"""Exceptions with which web frameworks respond; with a status below 400, they are not failures."""
_FIRST_REDIRECT: Final = 300
_FIRST_FAILURE: Final = 400


def outcome(error: BaseException) -> str | None:
    """Return the outcome of a call that raised `error`; None if it failed.

    A group of exceptions is a failure if one of its exceptions is.
    """
    outcomes = [_outcome(each) for each in _held(error)]
    return None if None in outcomes else outcomes[0]


def _outcome(error: BaseException) -> str | None:
    names = [type_name(base) for base in mro_of(type(error))]
    for name in names:
        if name in _CONTROL_FLOW:
            return _CONTROL_FLOW[name]
    if not _RESPONSES.isdisjoint(names):
        status = status_of(error) or attribute_or_none(error, "code")
        if not isinstance(status, int) or status >= _FIRST_FAILURE:
            return None
        return "redirected" if status >= _FIRST_REDIRECT else "responded"
    # Any other `BaseException` ends a call from outside: the cancellation of a task, or Ctrl-C.
    return None if isinstance(error, Exception) else "cancelled"


def failure(error: BaseException) -> Mapping[str, Any]:
    """Return `error` and `status_code` of a call that failed with `error`."""
    fields: dict[str, Any] = {"error": message(error)}
    status = next((status for each in _held(error) if (status := status_of(each)) is not None), None)
    return fields if status is None else {**fields, "status_code": status}


def message(error: BaseException) -> str:
    """Return the type and text of an exception, and of those in a group."""
    kind = type(error).__name__
    try:
        own = f"{kind}: {error}" if str(error) else kind
        held = _held(error)
        return text(own if held == [error] else "\n".join([own, *map(message, held)]))
    except Exception as fault:  # noqa: BLE001 - a property of the program's exception may raise anything
        _guard.raise_if_the_programs(fault)
        return kind


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that a client keeps in its exception, or in the response that it keeps there."""
    response, code = attribute_or_none(error, "response"), attribute_or_none(error, "code")
    statuses = [attribute_or_none(error, "status_code"), attribute_or_none(response, "status_code")]
    if type(response) is dict and type(sent := response.get("ResponseMetadata")) is dict:
        statuses.append(sent.get("HTTPStatusCode"))  # botocore's
    if isinstance(code, HTTPStatus):
        statuses.append(code)  # of Google's clients, whose requests may not be HTTP
    return next((int(status) for status in statuses if isinstance(status, int) and status), None)


def _held(error: BaseException) -> list[BaseException]:
    """Return the exception, or for a group the exceptions in it, at any depth, at most 100."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting and len(found) < _MOST_HELD:
        each = waiting.pop(0)
        # By name: Python 3.10 has no groups, and its backport uses the same names.
        held = attribute_or_none(each, "exceptions") if type(each).__name__.endswith("ExceptionGroup") else None
        inner = [part for part in held if isinstance(part, BaseException)] if isinstance(held, tuple) else []
        waiting = inner + waiting
        if not inner:
            found.append(each)
    return found
