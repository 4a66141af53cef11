"""`instrument()` finds installed libraries, imports nothing, and is undone by `uninstrument()`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PREAMBLE = """
import logging, sys
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
import athina_trace
from athina_trace.testing import captured_logs
from tests.openai.samples import chat
from tests.openai.server import Server
def ask():
    with Server() as server, openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        server.on("POST /chat/completions", chat(content="Rain."))
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Rain?"}])
def trace(answer):
    from tests.otel.test_reader import CURRENT
    from opentelemetry import trace
    attributes = {**CURRENT, "gen_ai.response.id": answer}
    trace.get_tracer("t").start_span("chat", attributes=attributes).end()
"""


def said_by(code: str) -> list[str]:
    ran = subprocess.run([sys.executable, "-c", PREAMBLE + code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_an_installed_library_is_instrumented_on_import_and_not_imported() -> None:
    said = said_by(
        "athina_trace.instrument()\n"
        "athina_trace.instrument()\n"
        "print([name for name in ('openai', 'opentelemetry.sdk', 'langchain_core') if name in sys.modules])\n"
        "import openai\n"
        "from opentelemetry import trace as api\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "api.set_tracer_provider(TracerProvider())\n"
        "with captured_logs() as logs:\n"
        "    ask()\n"
        "    trace('msg_1')\n"
        "    athina_trace.uninstrument()\n"
        "    ask()\n"
        "    trace('msg_2')\n"
        "print([log['response'] for log in logs.wire])\n"
    )
    named = "athina_trace instruments openai (when it is imported), opentelemetry.sdk.trace (when it is imported)"
    assert said[0].startswith(named)
    assert said[2] == "[]"
    assert said[-1] == "['Rain.', 'Three degrees.']"


def test_an_imported_library_is_instrumented_at_once_and_again_after_uninstrument() -> None:
    said = said_by(
        "import openai\n"
        "athina_trace.instrument()\n"
        "athina_trace.uninstrument()\n"
        "athina_trace.uninstrument()\n"
        "athina_trace.instrument()\n"
        "with captured_logs() as logs:\n"
        "    ask()\n"
        "print(len(logs), len(logs.updates))\n"
    )
    assert said[0].startswith("athina_trace instruments openai, opentelemetry.sdk.trace (when")
    assert said[-1] == "1 0"


def test_a_library_imported_after_uninstrument_is_not_instrumented() -> None:
    said = said_by(
        "athina_trace.instrument()\n"
        "athina_trace.uninstrument()\n"
        "import openai\n"
        "with captured_logs() as logs:\n"
        "    ask()\n"
        "print(len(logs))\n"
    )
    assert said[-1] == "0"


def test_a_library_that_cannot_be_instrumented_can_be_imported() -> None:
    said = said_by(
        "from athina_trace.integrations import everything\n"
        "broken = everything.Integration('wave', 'no_such_module', 'instrument')\n"
        "everything.INTEGRATIONS = (broken, broken._replace(host='no_such_host'), broken._replace(host='a.b.c'))\n"
        "athina_trace.instrument()\n"
        "import wave\n"
        "everything.INTEGRATIONS = ()\n"
        "athina_trace.instrument()\n"
    )
    assert said[0] == "athina_trace instruments wave (when it is imported)"
    assert "athina_trace: instrumenting wave failed" in said[1]
    assert said[2] == "athina_trace instruments nothing: no known client or framework is installed"
