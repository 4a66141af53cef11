"""Measure what `AthinaSpanProcessor` adds to the end of a model's span, compared with a processor that does nothing.

    python -m tests.benchmarks.spans [turns]

The log is on disk when the span has ended. Each turn ends 200 spans with each of the two processors, so that changes of
the machine's speed affect both equally; only the CPU time of this thread is measured.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import Tracer

import athina_trace
from athina_trace.integrations.opentelemetry import AthinaSpanProcessor

_SPANS = 200
_ATTRIBUTES = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "server.address": "api.openai.com",
    "gen_ai.response.finish_reasons": ("stop",),
    "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
    "gen_ai.usage.input_tokens": 31,
    "gen_ai.usage.output_tokens": 9,
    "gen_ai.input.messages": json.dumps(
        [
            {"role": "system", "parts": [{"type": "text", "content": "You are the support of a parcel service."}]},
            {"role": "user", "parts": [{"type": "text", "content": "Where is my parcel?"}]},
        ]
    ),
    "gen_ai.output.messages": json.dumps(
        [{"role": "assistant", "parts": [{"type": "text", "content": "In Oslo."}], "finish_reason": "stop"}]
    ),
}
"""Those that the official instrumentation of OpenAI's client puts on the span of a completion."""


def tracer_of(processor: SpanProcessor) -> Tracer:
    """Return a tracer of a provider with only this processor."""
    provider = TracerProvider()
    provider.add_span_processor(processor)
    return provider.get_tracer("benchmark")


def turn(tracer: Tracer, number: int) -> float:
    """Return the median time of ending a span, in microseconds."""
    times = []
    for place in range(_SPANS):
        attributes: Any = {**_ATTRIBUTES, "gen_ai.response.id": f"chatcmpl-{number}-{place}"}
        span = tracer.start_span("chat", attributes=attributes)
        began = time.thread_time_ns()
        span.end()
        times.append(time.thread_time_ns() - began)
    return statistics.median(times) / 1000


def measure(turns: int) -> tuple[float, float]:
    """Return the time of ending a span alone, and the added time, in microseconds: medians over the turns."""
    nothing, ours = tracer_of(SpanProcessor()), tracer_of(AthinaSpanProcessor())
    own, added = [], []
    for number in range(turns):
        own.append(turn(nothing, number))
        added.append(turn(ours, number) - own[-1])
    return statistics.median(own), statistics.median(added)


def main() -> None:
    """Measure and print."""
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    with tempfile.TemporaryDirectory() as folder:
        athina_trace.configure(outbox=str(Path(folder) / "outbox.db"), api_key=None)
        own, added = measure(turns)
        if sys.argv[2:] == ["as-json"]:
            print(json.dumps({"alone": own, "added": added}), flush=True)
        else:
            print(f"the end of a span alone {own:.1f} µs, with AthinaSpanProcessor {added:.1f} µs more", flush=True)
        athina_trace.shutdown(timeout=0)


if __name__ == "__main__":
    main()
