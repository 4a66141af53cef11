"""Logfire also instruments pydantic, with which we validate settings and some logs."""

from __future__ import annotations

from pathlib import Path

from tests.support import processes


def test_our_own_pydantic_models_are_not_traced(tmp_path: Path) -> None:
    out, err = processes.run(
        """
        import sys
        import logfire
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        spans = InMemorySpanExporter()
        processors = [SimpleSpanProcessor(spans)]
        logfire.configure(
            send_to_logfire=False, console=False, scrubbing=False, additional_span_processors=processors
        )
        logfire.instrument_pydantic()
        import athina_trace
        from pydantic import BaseModel
        athina_trace.configure(api_key="key-of-athina", outbox=sys.argv[1])
        athina_trace.log_inference(response="Hello", prompt_tokens="12")  # a number as text: pydantic repairs it
        class Own(BaseModel):
            field: str
        Own(field="of the program")
        athina_trace.shutdown(timeout=0)
        print([(span.name, dict(span.attributes)) for span in spans.get_finished_spans()])
        """,
        str(tmp_path / "outbox.db"),
        ATHINA_BASE_URL="http://127.0.0.1:9",
    )
    assert ("of the program" in out, "key-of-athina" in out, "Hello" in out) == (True, False, False), err
