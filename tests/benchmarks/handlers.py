"""Measure the cost of LangChain's and LiteLLM's callbacks with each contestant's handler, in a burst of calls.

    python -m tests.benchmarks.handlers [rounds]

The models answer at once, without a network, so that only the framework and the handler are measured; the line
`nothing` is the framework alone. Each contestant runs in its own process, in turn, against one sink on loopback.
LangChain calls its handlers while the program waits, so the time of a call includes them. LiteLLM calls them on the
event loop after its calls have returned: their arguments are kept, and passed to them again in a burst. By then,
athina_trace's logs are on disk, those of the peers in memory, and one peer has not processed its arguments yet.

So the whole burst is timed, too, until the process can no longer lose any of its logs: ours are on disk when the last
call returns, those of the peers are in the sink when their `flush` returns. The CPU time of the process is measured
until each contestant has done everything for its logs but sending: ours has no key to send with, and what the peers
send is answered at once.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module
from itertools import product
from typing import Any, NamedTuple

from . import runs
from .tables import terminal

TITLE = "Handlers of LangChain and LiteLLM: what each adds, microseconds"
_CALLS, _UNCOUNTED = 2000, 50
_FRAMEWORKS = {"langchain": "LangChain", "litellm": "LiteLLM"}
_CONTESTANTS = ("nothing", "athina_trace", "langfuse", "langsmith")
_FIGURES = {"median": "median", "p99": "99 %", "safe": "until safe", "cpu": "CPU in all"}
_QUESTION = "Where is my parcel PX-48213, and when will it arrive at my neighbour's? " * 4
_ANSWER = "It is on its way, last seen at the Leipzig hub, and should reach you tomorrow by 14:00. " * 4
_NOWHERE = "nowhere"
"""In place of the sink's address: nothing is sent."""


class _Burst(NamedTuple):
    """One framework with one contestant's handler."""

    prepare: Callable[[int], Awaitable[None]]
    """Do for so many calls what is not measured."""
    call: Callable[[], Awaitable[object]]
    """Make a call, or have one handled."""
    rest: Callable[[], Awaitable[object]]
    """Wait for what is done later."""


def _settings(url: str) -> None:
    """Return the contestants' settings: where to send. Ours has no key if nothing is to be sent."""
    os.environ |= {} if url == _NOWHERE else {"ATHINA_API_KEY": "key"}
    url = "http://127.0.0.1:9" if url == _NOWHERE else url
    os.environ |= {
        "ATHINA_BASE_URL": url,
        "LANGFUSE_PUBLIC_KEY": "pk-lf-x",
        "LANGFUSE_SECRET_KEY": "sk-lf-x",
        "LANGFUSE_HOST": url,
        "LANGFUSE_OTEL_HOST": url,
        "LANGSMITH_API_KEY": "key",
        "LANGSMITH_ENDPOINT": url,
        "LANGSMITH_BASE_URL": url,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }


def _answer_at_once() -> None:
    """Answer whatever a peer sends before it is sent."""
    httpx, requests = import_module("httpx"), import_module("requests")

    def by_requests(_session: object, request: Any, **_: object) -> Any:
        answer = requests.Response()
        answer.status_code, answer._content, answer.request = 200, b"{}", request
        return answer

    async def by_httpx(_client: object, request: Any, **_: object) -> Any:
        return httpx.Response(200, json={}, request=request)

    requests.Session.send = by_requests
    httpx.AsyncClient.send = by_httpx
    httpx.Client.send = lambda _client, request, **_: httpx.Response(200, json={}, request=request)


def _langchain(contestant: str) -> _Burst:
    language_models, messages, outputs = (
        import_module(f"langchain_core.{name}") for name in ("language_models", "messages", "outputs")
    )
    usage = {"input_tokens": 60, "output_tokens": 70, "total_tokens": 130}
    answer = messages.AIMessage(_ANSWER, usage_metadata=usage, response_metadata={"model_name": "gpt-4o"})

    class Instant(language_models.BaseChatModel):  # type: ignore[misc, name-defined]
        @property
        def _llm_type(self) -> str:
            return "instant"

        def _generate(self, *_: Any, **__: Any) -> Any:
            return outputs.ChatResult(generations=[outputs.ChatGeneration(message=answer.model_copy())])

    handlers: list[Any] = []
    flush: Callable[[], object] = int
    if contestant == "athina_trace":
        handlers = [import_module("athina_trace.integrations.langchain").AthinaCallbackHandler()]
    elif contestant == "langfuse":
        flush = import_module("langfuse").get_client().flush
        handlers = [import_module("langfuse.langchain").CallbackHandler()]
    elif contestant == "langsmith":
        client = import_module("langsmith").Client()
        flush = client.flush
        handlers = [import_module("langchain_core.tracers").LangChainTracer(client=client)]
    model, config = Instant(), {"callbacks": handlers}
    asked = [messages.SystemMessage("Be kind."), messages.HumanMessage(_QUESTION)]

    async def nothing(_: int) -> None: ...

    async def call() -> None:
        model.invoke(asked, config)

    async def rest() -> None:
        flush()

    return _Burst(nothing, call, rest)


def _litellm(contestant: str) -> _Burst:
    litellm: Any = import_module("litellm")
    worker = import_module("litellm.litellm_core_utils.logging_worker").GLOBAL_LOGGING_WORKER
    if contestant == "athina_trace":
        litellm.callbacks = [import_module("athina_trace.integrations.litellm").AthinaLogger()]
    elif contestant != "nothing":
        litellm.callbacks = [{"langfuse": "langfuse_otel", "langsmith": "langsmith"}[contestant]]
    logger_class = import_module("litellm.integrations.custom_logger").CustomLogger
    asked = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": _QUESTION}]
    loggers: list[Any] = []
    kept: list[Callable[[], Awaitable[object]]] = []

    async def prepare(count: int) -> None:
        for _ in range(count):
            await litellm.acompletion(model="gpt-4o", messages=asked, mock_response=_ANSWER)
            # LiteLLM makes the logger of a contestant's name at the first call.
            for logger in (*litellm.callbacks, *litellm._async_success_callback):
                if isinstance(logger, logger_class) and logger not in loggers:
                    loggers.append(logger)
                    logger.async_log_success_event = _keeping(logger.async_log_success_event, kept)
        await worker.flush()

    async def call() -> None:
        if kept:
            await kept.pop()()

    return _Burst(prepare, call, partial(_flush, contestant, loggers))


async def _flush(contestant: str, loggers: list[Any]) -> None:
    for logger in loggers:
        if contestant == "langsmith":
            await logger.flush_queue()
        elif contestant == "langfuse":
            logger._tracer_provider.force_flush()


def _keeping(handler: Any, kept: list[Callable[[], Awaitable[object]]]) -> Any:
    async def keep(*given: Any, **named: Any) -> None:
        kept.append(partial(handler, *given, **named))

    return keep


async def work(framework: str, contestant: str, url: str) -> dict[str, Any]:
    """Make the calls in this process.

    Returns:
        Microseconds: of CPU per log if nothing is sent; otherwise of each call or handler, and of the burst per log
        until it is safe; or which package is `missing`.
    """
    is_sent = url != _NOWHERE
    _settings(url)
    try:
        burst = {"langchain": _langchain, "litellm": _litellm}[framework](contestant)
        if not is_sent:
            _answer_at_once()
    except ModuleNotFoundError as error:
        return {"missing": error.name}
    await burst.prepare(_UNCOUNTED + _CALLS)
    for _ in range(_UNCOUNTED):
        await burst.call()
    await burst.rest()
    if not is_sent:
        await asyncio.sleep(1)  # for threads that have just started and are importing
    gc.collect()
    took: list[float] = []
    before, started = time.process_time(), time.perf_counter()
    for _ in range(_CALLS):
        began = time.perf_counter()
        await burst.call()
        took.append((time.perf_counter() - began) * 1e6)
    await burst.rest()
    safe = (time.perf_counter() - started) / _CALLS * 1e6
    if not is_sent:
        await asyncio.sleep(1)  # for threads that are still working
        return {"cpu": (time.process_time() - before) / _CALLS * 1e6}
    return {"median": statistics.median(took), "p99": sorted(took)[int(len(took) * 0.99)], "safe": safe}


def measure(url: str, rounds: int) -> list[list[str]]:
    """Measure all in turn; return a table of what each adds to `nothing`, and of missing packages."""
    taken: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _ in range(rounds):
        for place in product(_FRAMEWORKS, _CONTESTANTS):
            for to in (url, _NOWHERE):
                with runs.state() as folder:
                    runs.ask(url, "start?0")
                    taken.setdefault(place, []).append(runs.work("handlers", *place, to, at=folder, longest=240))

    def cell(framework: str, contestant: str, name: str) -> str:
        rounds_of = {who: taken[framework, who] for who in (contestant, "nothing")}
        missing = [str(figures["missing"]) for of in rounds_of.values() for figures in of if "missing" in figures]
        values = [[figures[name] for figures in of if name in figures] for of in rounds_of.values()]
        if missing or not all(values):
            return f"— (no {missing[0]})" if missing else "— (failed)"
        each = statistics.median(values[0])
        return f"{each:,.0f}" if contestant == "nothing" else f"{each - statistics.median(values[-1]):+,.0f}"

    titles = [f"{title}, {name}" for title in _FRAMEWORKS.values() for name in _FIGURES.values()]
    return [["µs", *titles]] + [
        [contestant, *(cell(framework, contestant, name) for framework, name in product(_FRAMEWORKS, _FIGURES))]
        for contestant in _CONTESTANTS
    ]


def main() -> None:
    """Measure and print."""
    with runs.sink() as url:
        print(terminal(measure(url, int(sys.argv[1]) if len(sys.argv) > 1 else 5)))


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in _FRAMEWORKS:
        print(json.dumps(asyncio.run(work(*sys.argv[1:4]))), flush=True)
        os._exit(0)  # these figures do not include what a contestant still has to send
    main()
