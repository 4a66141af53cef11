"""Metrics: Prometheus's text format, and numbers that agree with the status."""

import re
import threading
from collections.abc import Callable

import athina_trace
from athina_trace._delivery.metrics import Histogram, Metric, Sample, Traffic, exposition, histogram, of_status
from athina_trace._delivery.stats import Status
from tests.support.athina_server import AthinaServer, accept, answer

LINE = re.compile(r'^([a-z_]+)(\{(?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)*\})? (-?\d+(?:\.\d+)?(?:e-?\d+)?|\+Inf)$')


def values(text: str) -> dict[str, float]:
    """Return each series and its value; every line must be valid in the format."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = LINE.match(line)
            assert match, line
            found[match[1] + (match[2] or "")] = float(match[3])
    return found


def test_labels_are_escaped_and_values_are_exact() -> None:
    samples = [Sample(3, {"a": 'x"y\\z\n'}), Sample(1234567.25), Sample(float("inf"))]
    text = exposition([Metric("m", "gauge", "Help.", samples)])
    assert text == '# HELP m Help.\n# TYPE m gauge\nm{a="x\\"y\\\\z\\n"} 3\nm 1234567.25\nm +Inf\n'


def test_a_histogram_counts_what_is_at_most_each_bound() -> None:
    durations = Histogram()
    for seconds in (0.001, 0.0025, 0.3, 100.0):
        durations.observe(seconds)
    found = values(exposition([histogram("h", "Help.", [({}, durations)])]))
    assert found['h_bucket{le="0.0025"}'] == 2
    assert found['h_bucket{le="0.25"}'] == 2
    assert found['h_bucket{le="0.5"}'] == 3
    assert found['h_bucket{le="25"}'] == 3
    assert found['h_bucket{le="+Inf"}'] == found["h_count"] == 4
    assert found["h_sum"] == 100.3035


def test_the_age_is_that_of_the_oldest_that_waits() -> None:
    found = values(exposition(of_status(Status(made=3, waiting=2, waiting_since=100.0), Traffic(), 160.0)))
    assert found["athina_trace_oldest_waiting_seconds"] == 60
    assert found["athina_trace_logs_made_total"] == 3
    assert values(exposition(of_status(Status(), Traffic(), 160.0)))["athina_trace_oldest_waiting_seconds"] == 0


def test_a_program_sees_what_was_delivered(athina: AthinaServer, delivered: Callable[[], object]) -> None:
    athina.script(answer(500), answer(400))
    for _ in range(3):
        athina_trace.log_inference(response="r", language_model_id="m")
    athina_trace.flush(60)
    found = values(athina_trace.metrics())
    now = athina_trace.status()
    assert (now.delivered, now.refused) == (2, 1)
    assert found["athina_trace_logs_made_total"] == 3
    assert found["athina_trace_logs_delivered_total"] == 2
    assert found["athina_trace_logs_refused"] == 1
    assert found["athina_trace_logs_waiting"] == 0
    assert found["athina_trace_requests_in_flight"] == 0
    assert found["athina_trace_request_seconds_count"] == 4  # one was retried


def test_a_request_in_flight_is_counted(athina: AthinaServer, delivered: Callable[[], object]) -> None:
    may_answer = threading.Event()
    athina.script(lambda exchange: accept(exchange) if may_answer.wait(60) else None)
    athina_trace.log_inference(response="r", language_model_id="m")
    athina.wait_for_requests(1)
    assert values(athina_trace.metrics())["athina_trace_requests_in_flight"] == 1
    may_answer.set()
    delivered()
    assert values(athina_trace.metrics())["athina_trace_requests_in_flight"] == 0


def test_with_tracing_off_all_metrics_are_zero() -> None:
    athina_trace.configure(enabled=False)
    found = values(athina_trace.metrics())
    assert found["athina_trace_logs_made_total"] == 0
    assert found["athina_trace_deliveries_paused"] == 1
