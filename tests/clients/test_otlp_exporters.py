"""Spans that OpenTelemetry's own exporters send to a gateway become logs, although children come before parents."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import athina_trace
from athina_trace.local_athina import LocalAthina
from tests.gateway.conftest import serving

TOKEN = "0123456789abcdef"
NODE = shutil.which("node")
MODULES = Path(sys.prefix) / "node_modules"
ASKED = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "Where is my parcel?"}]}])
ANSWERED = json.dumps(
    [{"role": "assistant", "parts": [{"type": "text", "content": "On its way. ü"}], "finish_reason": "stop"}]
)
MODEL = {
    "gen_ai.operation.name": "chat",
    "gen_ai.response.model": "gpt-4o",
    "gen_ai.input.messages": ASKED,
    "gen_ai.output.messages": ANSWERED,
    "gen_ai.usage.input_tokens": 3,
    "gen_ai.usage.output_tokens": 4,
}

PYTHON = """
import json, sys
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

url, token, model = sys.argv[1:4]
provider = TracerProvider(resource=Resource.create({"deployment.environment.name": "production"}))
exporter = OTLPSpanExporter(url, headers={"authorization": f"Bearer {token}"}, compression=Compression.Gzip)
# One request for each span, as it ends: children before the spans around them.
provider.add_span_processor(SimpleSpanProcessor(exporter))
tracer = provider.get_tracer("the.program")
with tracer.start_as_current_span("turn", attributes={"session.id": "thread-7", "user.id": "ann"}):
    with tracer.start_as_current_span("chat gpt-4o", attributes=json.loads(model)):
        pass
provider.shutdown()
"""

JAVASCRIPT = """
const { NodeTracerProvider, SimpleSpanProcessor } = require("@opentelemetry/sdk-trace-node");
const { OTLPTraceExporter } = require(process.argv[4]);
const { resourceFromAttributes } = require("@opentelemetry/resources");
const [url, token, model] = process.argv.slice(1, 4);
const exporter = new OTLPTraceExporter({ url, headers: { authorization: `Bearer ${token}` }, compression: "gzip" });
const provider = new NodeTracerProvider({
  resource: resourceFromAttributes({ "deployment.environment.name": "production" }),
  spanProcessors: [new SimpleSpanProcessor(exporter)],
});
provider.register();
const tracer = provider.getTracer("the.program");
tracer.startActiveSpan("turn", { attributes: { "session.id": "thread-7", "user.id": "ann" } }, (turn) => {
  tracer.startActiveSpan("chat gpt-4o", { attributes: JSON.parse(model) }, (chat) => chat.end());
  turn.end();
});
provider.shutdown();
"""


def log_of(command: list[str], local_athina: LocalAthina, **environment: str) -> dict[str, Any]:
    athina_trace.configure(api_key="k", base_url=local_athina.url)
    with serving(token=TOKEN) as url:
        arguments = [f"{url}/v1/traces", TOKEN, json.dumps(MODEL)]
        done = subprocess.run(
            [*command[:3], *arguments, *command[3:]],
            env={**os.environ, "NO_PROXY": "*", **environment},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert athina_trace.flush(60)
    (log,) = local_athina.logs()
    for change in local_athina.changes():
        log.update(change)
    return log


def check(log: dict[str, Any]) -> None:
    assert log["response"] == "On its way. ü"
    assert log["prompt"] == [{"role": "user", "content": "Where is my parcel?"}]
    assert (log["user_query"], log["language_model_id"], log["total_tokens"]) == ("Where is my parcel?", "gpt-4o", 7)
    assert (log["session_id"], log["customer_user_id"], log["environment"]) == ("thread-7", "ann", "production")


def test_pythons_exporter(local_athina: LocalAthina) -> None:
    check(log_of([sys.executable, "-c", PYTHON], local_athina))


@pytest.mark.skipif(NODE is None or not MODULES.is_dir(), reason="needs node, and npm when the environment is made")
@pytest.mark.parametrize("kind", ["proto", "http"])
def test_javascripts_exporters(local_athina: LocalAthina, kind: str) -> None:
    package = f"@opentelemetry/exporter-trace-otlp-{kind}"  # protobuf, and JSON
    check(log_of([str(NODE), "-e", JAVASCRIPT, package], local_athina, NODE_PATH=str(MODULES)))
