"""Logs made beside another tool that instruments OpenAI's client: `python -m tests.openai.beside TOOL ORDER`.

One process for each tool and order, since most tools cannot be undone. Plays all scripts and writes what became of each
as one JSON object on its last line of output: the exception that ended it, and the logs.

ORDER is `ours` (without theirs), `ours-first`, or `theirs-first`, which also says what became of each without ours.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

from openai import AsyncOpenAI, OpenAI

from athina_trace import _periodic, configure, instrument_openai, recent_logs, uninstrument_openai
from athina_trace.integrations.openai.instrument import _is_patch

from .conftest import play, play_async
from .scripts import ASYNC_SCRIPTS, SCRIPTS
from .server import Server

CLOSED = "http://127.0.0.1:9"  # where each tool would send its data
os.environ.update(
    DD_INSTRUMENTATION_TELEMETRY_ENABLED="false",
    DD_REMOTE_CONFIGURATION_ENABLED="false",
    DD_TRACE_AGENT_URL=CLOSED,
    DD_TRACE_STARTUP_LOGS="false",
    BRAINTRUST_API_URL=CLOSED,
    BRAINTRUST_APP_URL=CLOSED,
    LANGFUSE_BASE_URL=CLOSED,
    LANGFUSE_HOST=CLOSED,
    LANGFUSE_PUBLIC_KEY="any",
    LANGFUSE_SECRET_KEY="any",
    LANGSMITH_API_KEY="any",
    LANGSMITH_ENDPOINT=CLOSED,
    LANGSMITH_TRACING="true",
    LOGFIRE_SEND_TO_LOGFIRE="false",
    OPIK_URL_OVERRIDE=CLOSED,
    OPIK_API_KEY="any",
    OPIK_WORKSPACE="default",
    TRACELOOP_TELEMETRY="false",
)

Wrap = Callable[[Any], Any]


def as_it_is(client: Any) -> Any:
    return client


def openinference() -> Wrap:
    provider = import_module("opentelemetry.sdk.trace").TracerProvider()
    import_module("openinference.instrumentation.openai").OpenAIInstrumentor().instrument(tracer_provider=provider)
    return as_it_is


def logfire() -> Wrap:
    tool = import_module("logfire")
    tool.configure(send_to_logfire=False, console=False)
    tool.instrument_openai()
    return as_it_is


def openllmetry() -> Wrap:
    import_module("opentelemetry.instrumentation.openai").OpenAIInstrumentor().instrument()
    return as_it_is


def langfuse() -> Wrap:
    import_module("langfuse.openai")  # which patches when it is imported
    return as_it_is


def langsmith() -> Wrap:
    wrap: Wrap = import_module("langsmith.wrappers").wrap_openai
    return wrap


def sentry() -> Wrap:
    integration = import_module("sentry_sdk.integrations.openai").OpenAIIntegration()
    address = f"{CLOSED.replace('//', '//any@')}/1"
    import_module("sentry_sdk").init(dsn=address, traces_sample_rate=1.0, integrations=[integration])
    return as_it_is


def braintrust() -> Wrap:
    wrap: Wrap = import_module("braintrust").wrap_openai
    return wrap


def datadog() -> Wrap:
    import_module("ddtrace").patch(openai=True)
    return as_it_is


def opik() -> Wrap:
    wrap: Wrap = import_module("opik.integrations.openai").track_openai
    return wrap


TOOLS: dict[str, tuple[str, Callable[[], Wrap]]] = {
    "openinference": ("openinference-instrumentation-openai", openinference),
    "logfire": ("logfire", logfire),
    "openllmetry": ("opentelemetry-instrumentation-openai", openllmetry),
    "langfuse": ("langfuse", langfuse),
    "langsmith": ("langsmith", langsmith),
    "sentry": ("sentry-sdk", sentry),
    "braintrust": ("braintrust", braintrust),
    "datadog": ("ddtrace", datadog),
    "opik": ("opik", opik),
}
"""Each tool: its distribution, and a function that enables it and returns a wrapper of clients."""
VARYING = ("response_time", "external_reference_id")
VARYING_ATTRIBUTES = ("time_to_first_chunk_ms", "trace_id", "span_id")


def methods() -> dict[tuple[str, str], Any]:
    """Return all callables of all the client's classes, which tools patch."""
    classes = {
        value
        for name, module in list(sys.modules.items())
        if name.startswith("openai.")
        for value in list(vars(module).values())
        if isinstance(value, type) and value.__module__.startswith("openai.")
    }
    return {
        (f"{cls.__module__}.{cls.__qualname__}", name): value for cls in classes for name, value in vars(cls).items()
    }


def played(wrap: Wrap, *, most: int | None = None) -> dict[str, dict[str, Any]]:
    """Return what becomes of each script, or of the first ones, sync and async."""

    def sync(script: Any, server: Server) -> list[Any]:
        with OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            return play(script, server, wrap(client))

    def asynchronous(script: Any, server: Server) -> list[Any]:
        return play_async(script, server, lambda **given: wrap(AsyncOpenAI(**given)))

    found = {}
    for script in (*SCRIPTS[:most], *ASYNC_SCRIPTS[:most]):
        configure(outbox=":memory:")
        with Server() as server:
            try:
                seen = (sync if script in SCRIPTS else asynchronous)(script, server)
            except Exception as error:  # noqa: BLE001 - some tools fail in some of the client's methods
                seen = [error]
        last = type(seen.pop()).__name__ if seen and isinstance(seen[-1], BaseException) else None
        del seen
        gc.collect()
        _periodic.finish(ending=True)
        logs = recent_logs(100)
        for log in logs:
            for name in VARYING:
                del log[name]
            for name in VARYING_ATTRIBUTES:
                log["custom_attributes"].pop(name, None)
        found[script.__name__] = {"ended by": last, "logs": logs}
    return found


def main(tool: str, order: str) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    found: dict[str, Any] = {}
    wrap: Wrap = as_it_is
    if order == "theirs-first":
        wrap = TOOLS[tool][1]()
        found["without ours"] = played(wrap)
    instrument_openai()
    if order == "ours-first":
        wrap = TOOLS[tool][1]()
    found["scripts"] = played(wrap)
    both = methods()
    uninstrument_openai()
    replaced = {name: both[name] for name, method in methods().items() if both.get(name, method) is not method}
    changed = [name for name, method in replaced.items() if not _is_patch(method)]
    after = played(wrap, most=1)
    left = {name: each["logs"] for name, each in after.items() if each["logs"]}
    found |= {"theirs changed": changed, "logged when removed": left}
    sys.stdout.write(f"{json.dumps(found)}\n")
    sys.stdout.flush()
    os._exit(0)  # some tools would wait for an unreachable server


if __name__ == "__main__":
    main(*sys.argv[1:])
