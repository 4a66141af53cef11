"""Metrics of deliveries in the text format of Prometheus, version 0.0.4.

Source of the format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from athina_trace._delivery.stats import Status

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS: Final = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)
"""Seconds, from an answer on loopback to the usual timeout of a request."""
_ESCAPED: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Histogram:
    """A histogram of durations. One thread at a time observes; any may read."""

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS) + 1)
        """The number between each bound and the one before; the last is the number above all bounds."""
        self.total = 0.0
        """Total seconds."""

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(_BOUNDS, seconds)] += 1
        self.total += seconds

    def __add__(self, other: Histogram) -> Histogram:
        both = Histogram()
        both.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        both.total = self.total + other.total
        return both


class Traffic(NamedTuple):
    """This process's requests to Athina: how many are in flight, and their latencies."""

    in_flight: int = 0
    latency: Histogram = Histogram()


class Sample(NamedTuple):
    """One line: its value, its labels, and a suffix to the metric's name."""

    value: float
    labels: Mapping[str, str] = {}
    suffix: str = ""


class Metric(NamedTuple):
    """One metric. By convention, a counter's name ends in `_total`."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    description: str
    samples: Sequence[Sample]


def histogram(name: str, description: str, series: Iterable[tuple[Mapping[str, str], Histogram]]) -> Metric:
    """Return a metric of durations in seconds, with one series for each set of labels."""
    samples: list[Sample] = []
    for labels, durations in series:
        count = 0
        for bound, number in zip((*_BOUNDS, math.inf), durations.counts, strict=True):
            count += number
            samples.append(Sample(count, {**labels, "le": _number(bound)}, "_bucket"))
        samples += [Sample(durations.total, labels, "_sum"), Sample(count, labels, "_count")]
    return Metric(name, "histogram", description, samples)


def single(name: str, kind: Literal["counter", "gauge"], description: str, value: float) -> Metric:
    """Return a metric with a single value."""
    return Metric(f"athina_trace_{name}", kind, description, [Sample(value)])


def of_status(status: Status, traffic: Traffic, now: float) -> list[Metric]:
    """Return the metrics of an outbox and of this process's requests. `now`: seconds since the epoch."""
    oldest = 0.0 if status.waiting_since is None else max(0.0, now - status.waiting_since)
    return [
        single("logs_made_total", "counter", "Logs, updates and feedback that were put into the outbox.", status.made),
        single("logs_delivered_total", "counter", "Logs, updates and feedback that were delivered.", status.delivered),
        single(
            "logs_dropped_total",
            "counter",
            "Logs, updates and feedback that were dropped because the outbox was full.",
            status.dropped,
        ),
        single("logs_waiting", "gauge", "Logs, updates and feedback that wait for delivery.", status.waiting),
        single(
            "logs_refused",
            "gauge",
            "Logs, updates and feedback that were refused, and are kept for inspection.",
            status.refused,
        ),
        single(
            "possible_duplicates_total",
            "counter",
            "Requests whose answer was lost, so that their log may arrive twice.",
            status.possible_duplicates,
        ),
        single("oldest_waiting_seconds", "gauge", "Age of the oldest waiting log.", oldest),
        single("outbox_bytes", "gauge", "Size of the outbox on disk.", status.bytes),
        single(
            "memory_only",
            "gauge",
            "1 if logs are kept in memory only, such as when the disk is full.",
            bool(status.memory_only),
        ),
        *of_process(traffic, paused=bool(status.paused), faults=status.faults),
    ]


def of_process(traffic: Traffic, *, paused: bool, faults: int) -> list[Metric]:
    """Return the metrics of this process's requests to Athina."""
    return [
        single("deliveries_paused", "gauge", "1 if nothing is sent, because of a wrong key or an outage.", paused),
        single("requests_in_flight", "gauge", "Requests of this process in flight.", traffic.in_flight),
        single("faults_total", "counter", "Errors of athina_trace's own code.", faults),
        histogram("athina_trace_request_seconds", "Duration of this process's requests.", [({}, traffic.latency)]),
    ]


def exposition(metrics: Iterable[Metric]) -> str:
    """Return metrics in Prometheus's text format."""
    lines: list[str] = []
    for name, kind, description, samples in metrics:
        lines += [f"# HELP {name} {description}", f"# TYPE {name} {kind}"]
        for value, labels, suffix in samples:
            pairs = ",".join(f'{label}="{text.translate(_ESCAPED)}"' for label, text in labels.items())
            lines.append(f"{name}{suffix}{{{pairs}}} {_number(value)}" if pairs else f"{name}{suffix} {_number(value)}")
    return "\n".join([*lines, ""])


def _number(value: float) -> str:
    return "+Inf" if value == math.inf else str(int(value)) if value == int(value) else repr(value)
