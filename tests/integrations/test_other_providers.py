"""Providers whose clients we do not instrument ourselves."""

from __future__ import annotations

import pytest
from anthropic import Anthropic, APIStatusError
from opentelemetry.instrumentation.genai.anthropic import AnthropicInstrumentor

from athina_trace import athina_session
from athina_trace.testing import captured_logs
from tests.openai.samples import Wire
from tests.openai.server import Failure, Server
from tests.support.changed import as_changed

from .sources import traced

TOOL = {"type": "tool_use", "id": "toolu_1", "name": "find_parcel", "input": {"number": "7"}}


def message(number: int, *content: Wire, reason: str = "end_turn") -> Wire:
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": list(content),
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 5, "output_tokens": 2},
    }


def test_anthropics_client_is_logged_through_its_instrumentation() -> None:
    with Server() as server, traced() as provider, captured_logs() as logs:
        answer = message(2, {"type": "text", "text": "In Oslo."})
        server.on("POST /messages", message(1, TOOL, reason="tool_use"), answer, Failure(529, "Overloaded"))
        AnthropicInstrumentor().instrument(tracer_provider=provider, skip_dep_check=True)
        url = server.base_url.removesuffix("/v1")
        with athina_session("desk"), Anthropic(base_url=url, api_key="any", max_retries=0) as client:
            asked = [{"role": "user", "content": "Where is my parcel?"}]
            found = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "In Oslo."}
            more = [{"role": "assistant", "content": [TOOL]}, {"role": "user", "content": [found]}]
            for messages in (asked, [*asked, *more]):
                client.messages.create(model="claude-sonnet-4-5", max_tokens=99, system="Be kind.", messages=messages)
            with pytest.raises(APIStatusError):
                client.messages.create(model="claude-sonnet-4-5", max_tokens=99, messages=asked)
        AnthropicInstrumentor().uninstrument()
    first, second, failed = as_changed(logs)
    assert (first["tool_calls"][0]["function"]["name"], first["tool_calls"][0]["output"]) == ("find_parcel", "In Oslo.")
    assert (second["user_query"], second["response"], second["session_id"]) == (
        "Where is my parcel?",
        "In Oslo.",
        "desk",
    )
    assert second["prompt"][0] == {"role": "system", "content": "Be kind."}
    assert second["language_model_id"].startswith("claude-sonnet-4-5")
    assert (second["prompt_tokens"], second["completion_tokens"], second["total_tokens"]) == (5, 2, 7)
    assert ("Overloaded" in failed["error"], failed["user_query"]) == (True, "Where is my parcel?")
