"""Context shared with the program's tools: OpenTelemetry's active span in logs, the session in log records."""

from __future__ import annotations

import io
import logging
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from athina_trace import athina_session, athina_trace, current_log, log_inference, set_customer
from athina_trace.log_context import LogContextFilter, add_log_context, log_context

Logs = Callable[[], list[dict[str, Any]]]
TRACER = TracerProvider().get_tracer("tests")


def ids(span: trace.Span) -> dict[str, str]:
    context = span.get_span_context()
    return {"trace_id": trace.format_trace_id(context.trace_id), "span_id": trace.format_span_id(context.span_id)}


def noted(log: dict[str, Any]) -> dict[str, str]:
    return {
        name: log["custom_attributes"][name] for name in ("trace_id", "span_id") if name in log["custom_attributes"]
    }


@athina_trace
def answer(question: str) -> str:
    with TRACER.start_as_current_span("inside"):
        return question


@athina_trace
def stream(question: str) -> Iterator[str]:
    yield question


def test_a_log_notes_the_span_that_its_call_was_made_in(local: Logs) -> None:
    with TRACER.start_as_current_span("request") as span:
        answer("q")
        log_inference(response="a")
        with athina_trace(user_query="q"):
            pass
        reading = stream("q")
    list(reading)
    answer("q")
    *inside, read_later, outside = local()
    assert [noted(log) for log in inside] == [ids(span)] * 3
    assert noted(read_later) == noted(outside) == {}


def test_a_span_that_is_not_recorded_is_noted_and_none_is_not(local: Logs) -> None:
    # A span of another service, or one that was not sampled, has a trace all the same.
    with TracerProvider(sampler=ALWAYS_OFF).get_tracer("tests").start_as_current_span("request") as span:
        answer("q")
    with trace.use_span(trace.INVALID_SPAN):
        answer("q")
    unsampled, invalid = local()
    assert noted(unsampled) == ids(span)
    assert noted(invalid) == {}


def test_values_from_the_program_win_over_the_span(local: Logs) -> None:
    with TRACER.start_as_current_span("request"), athina_session("s", trace_id="ours"):
        answer("q")
    assert local()[0]["custom_attributes"]["trace_id"] == "ours"


@pytest.mark.parametrize(
    "broken", [None, types.ModuleType("half loaded"), types.SimpleNamespace(get_current_span=None)]
)
def test_with_an_incomplete_opentelemetry_there_is_no_span(
    local: Logs, broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TRACER.start_as_current_span("request"):
        if broken is None:
            monkeypatch.delitem(sys.modules, "opentelemetry.trace")
        else:
            monkeypatch.setitem(sys.modules, "opentelemetry.trace", broken)
        log_inference(response="a")
    assert noted(local()[0]) == {}


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """The output of the root logger's handler: session, customer, end user, reference, text."""
    stream, logger = io.StringIO(), logging.getLogger("their.program")
    handler = logging.StreamHandler(stream)
    names = ("session_id", "customer_id", "customer_user_id", "external_reference_id", "message")
    handler.setFormatter(logging.Formatter(" ".join(f"%({name})s" for name in names)))
    handler.addFilter(LogContextFilter())
    logger.addHandler(handler)
    yield stream
    logger.removeHandler(handler)


@athina_trace
def warned(question: str, session_id: str | None = None) -> str:
    logging.getLogger("their.program").warning(question)
    return current_log().external_reference_id or ""


def test_log_records_have_session_customer_and_reference(written: io.StringIO, local: Logs) -> None:
    logger = logging.getLogger("their.program")
    logger.warning("outside")
    with athina_session("thread_1", customer_id="disney", customer_user_id="mickey"):
        logger.warning("in a session")
        reference = warned("in a call")
        logger.warning("theirs", extra={"session_id": "their own"})
    argument = warned("by argument", session_id="thread_2")
    assert written.getvalue().splitlines() == [
        "- - - - outside",
        "thread_1 disney mickey - in a session",
        f"thread_1 disney mickey {reference} in a call",
        "their own disney mickey - theirs",
        f"thread_2 - - {argument} by argument",
    ]


def test_a_filter_may_omit_unknown_values() -> None:
    record = logging.makeLogRecord({})
    assert LogContextFilter(missing=None).filter(record)
    assert (record.session_id, record.external_reference_id) == (None, None)  # type: ignore[attr-defined]


def test_what_is_named_and_inherited_is_in_the_context_as_in_the_log(local: Logs) -> None:
    seen: list[dict[str, str]] = []

    @athina_trace
    def inner(question: str) -> None:
        seen.append(log_context())

    with athina_session(), athina_trace(session_id="thread_3", customer_user_id="of the outer call alone"):
        set_customer(7)
        inner("q")
    (context,) = seen
    log = local()[0]
    assert context == {name: log[name] for name in ("session_id", "customer_id", "external_reference_id")}


def test_structlog(local: Logs) -> None:
    with structlog.testing.capture_logs(processors=[add_log_context]) as events, athina_session("thread_1"):
        logger = structlog.get_logger()
        with athina_trace(user_query="q") as log:
            logger.info("asked")
        logger.info("theirs", session_id="their own")
    asked, theirs = events
    assert (asked["session_id"], asked["external_reference_id"]) == ("thread_1", log.external_reference_id)
    assert "customer_id" not in asked
    assert theirs["session_id"] == "their own"
    assert "external_reference_id" not in theirs
