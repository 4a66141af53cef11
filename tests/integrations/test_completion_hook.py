"""Content that a program keeps off its spans is captured with the official instrumentation's hook."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from openai import OpenAI
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from athina_trace import instrument_openai, uninstrument_openai
from athina_trace.integrations.opentelemetry import AthinaSpanProcessor
from athina_trace.testing import captured_logs
from tests.openai.samples import chat
from tests.openai.server import Server
from tests.support.changed import as_changed

from .sources import traced


@pytest.fixture
def _hooked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep content off spans and pass it to our hook, which is found by its entry point."""
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "NO_CONTENT")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_COMPLETION_HOOK", "athina")
    yield
    OpenAIInstrumentor().uninstrument()
    uninstrument_openai()


@pytest.mark.usefixtures("_hooked")
@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("with_client", [True, False])
def test_content_kept_off_spans_is_captured_by_the_completion_hook(sampled: bool, with_client: bool) -> None:
    with Server() as server, captured_logs() as logs, ExitStack() as stack:
        provider = stack.enter_context(traced()) if sampled else TracerProvider(sampler=ALWAYS_OFF)
        if not sampled:
            provider.add_span_processor(AthinaSpanProcessor())
        server.on("POST /chat/completions", chat(content="Rain."))
        OpenAIInstrumentor().instrument(tracer_provider=provider, skip_dep_check=True)
        if with_client:
            instrument_openai()
        with OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Rain?"}])
    (log,) = as_changed(logs)
    assert (log["user_query"], log["response"]) == ("Rain?", "Rain.")
    assert log.get("total_tokens") == (7 if sampled or with_client else None)
