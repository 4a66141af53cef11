"""The contestants: how each one is set up against the sink, decorates a function, and flushes.

Each is used as documented, with its own defaults. Those without a decorator get the shortest possible one. Packages are
imported by name, since they are in a separate environment, which type checkers do not see.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

PATIENCE = 20.0
"""Seconds that a flush may take."""


@dataclass(frozen=True)
class Peer:
    """A contestant, ready to be used in this process."""

    decorate: Callable[[Any], Any]
    flush: Callable[[], object]


def _athina_trace(url: str, *, enabled: bool) -> Peer:
    api = import_module("athina_trace")
    api.configure(api_key="key", base_url=url, enabled=enabled, exit_timeout=2.0)
    return Peer(api.athina_trace, lambda: api.flush(PATIENCE))


def _athina_logger(url: str, *, enabled: bool) -> Peer:
    os.environ["API_BASE_URL"] = url
    logger = import_module("athina_logger.inference_logger").InferenceLogger
    logger.set_api_key("key")

    def ended(args: Any, result: object) -> None:
        messages, question, context, session = args
        documents = {"documents": context}
        logger.log_inference(
            prompt=messages, response=result, user_query=question, context=documents, session_id=session
        )

    def flush() -> None:
        for thread in threading.enumerate():
            if thread is not threading.main_thread() and not thread.daemon:
                thread.join(PATIENCE)

    return Peer(lambda function: _observed(function, _Nothing, ended), flush)


def _langfuse(url: str, *, enabled: bool) -> Peer:
    langfuse = import_module("langfuse")
    client = langfuse.Langfuse(public_key="pk-lf-x", secret_key="sk-lf-x", base_url=url, tracing_enabled=enabled)
    return Peer(langfuse.observe(), client.flush)


def _langsmith(url: str, *, enabled: bool) -> Peer:
    os.environ.update(LANGSMITH_TRACING=str(enabled).lower(), LANGSMITH_ENDPOINT=url, LANGSMITH_API_KEY="key")
    client = import_module("langsmith").Client()
    return Peer(import_module("langsmith").traceable(client=client), client.flush)


def _logfire(url: str, *, enabled: bool) -> Peer:
    logfire = import_module("logfire")
    logfire.configure(
        token="key",
        send_to_logfire=enabled,
        console=False,
        metrics=False,
        data_dir=tempfile.mkdtemp(),
        advanced=logfire.AdvancedOptions(base_url=url),
    )
    decorate = functools.partial(_logfire_decorated, logfire)
    return Peer(decorate, lambda: logfire.force_flush(int(PATIENCE * 1000)))


def _logfire_decorated(logfire: Any, function: Any) -> Any:
    return logfire.instrument(record_return=True, allow_generator=inspect.isgeneratorfunction(function))(function)


def _opentelemetry(url: str, *, enabled: bool) -> Peer:
    os.environ["OTEL_SDK_DISABLED"] = str(not enabled).lower()
    exporter = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter").OTLPSpanExporter
    provider = import_module("opentelemetry.sdk.trace").TracerProvider()
    batch = import_module("opentelemetry.sdk.trace.export").BatchSpanProcessor
    provider.add_span_processor(batch(exporter(endpoint=f"{url}/v1/traces")))
    tracer = provider.get_tracer("benchmark")
    trace = import_module("opentelemetry.trace")

    def ended(args: Any, result: object) -> None:
        span = trace.get_current_span()
        span.set_attribute("input", json.dumps(args))
        span.set_attribute("output", json.dumps(result))

    opened = functools.partial(tracer.start_as_current_span, "handler")
    return Peer(lambda function: _observed(function, opened, ended), provider.force_flush)


class _Nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _observed(function: Any, opened: Callable[[], Any], ended: Callable[[Any, object], None]) -> Any:
    """Return the decorator that a user would write: `opened` is entered around the call, `ended` called at its end."""
    if inspect.iscoroutinefunction(function):

        async def coroutine(*args: Any) -> Any:
            with opened():
                result = await function(*args)
                ended(args, result)
            return result

        return coroutine
    if inspect.isgeneratorfunction(function):

        def generator(*args: Any) -> Any:
            with opened():
                chunks = []
                for chunk in function(*args):
                    chunks.append(chunk)
                    yield chunk
                ended(args, "".join(chunks))

        return generator

    def plain(*args: Any) -> Any:
        with opened():
            result = function(*args)
            ended(args, result)
        return result

    return plain


def _httpx(url: str, *, enabled: bool) -> Peer:
    """Make the baseline of deliveries, which is no contestant: one client, one thread, one POST after the other."""
    client = import_module("httpx").Client()
    bodies: list[bytes] = []

    def ended(args: Any, result: object) -> None:
        messages, question, context, session = args
        log = {"prompt": messages, "user_query": question, "context": context, "session_id": session}
        bodies.append(json.dumps({**log, "response": result}).encode())

    def flush() -> None:
        headers = {"athina-api-key": "key", "content-type": "application/json"}
        while bodies:
            client.post(f"{url}/api/v1/log/inference", content=bodies.pop(), headers=headers)

    return Peer(lambda function: _observed(function, _Nothing, ended), flush)


YARDSTICK = "httpx loop"
SETUPS: dict[str, Callable[..., Peer]] = {
    "athina_trace": _athina_trace,
    "OpenTelemetry": _opentelemetry,
    "Langfuse": _langfuse,
    "LangSmith": _langsmith,
    "Logfire": _logfire,
    "athina-logger": _athina_logger,
    YARDSTICK: _httpx,
}
CONTESTANTS = tuple(name for name in SETUPS if name != YARDSTICK)
CANNOT_BE_DISABLED = {"athina-logger"}
IMPORTS = {
    "athina_trace": "import athina_trace",
    "OpenTelemetry": "import opentelemetry.sdk.trace.export, opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "Langfuse": "import langfuse; langfuse.Langfuse",
    "LangSmith": "import langsmith; langsmith.Client; langsmith.traceable",
    "Logfire": "import logfire",
    "athina-logger": "import athina_logger.inference_logger",
    "wrapt + pydantic": "import wrapt, pydantic",
    "the same and a model": "import wrapt, pydantic; type('Model', (pydantic.BaseModel,), {})",
    "athina_trace and its first log": (
        "import athina_trace, os; athina_trace.athina_trace(lambda question: question)('Where is it?'); os._exit(0)"
    ),
}
PACKAGES = {
    "athina_trace": "athina-trace",
    "OpenTelemetry": "opentelemetry-sdk",
    "Langfuse": "langfuse",
    "LangSmith": "langsmith",
    "Logfire": "logfire",
    "athina-logger": "athina-logger",
    YARDSTICK: "httpx",
}
