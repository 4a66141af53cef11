"""What the callbacks of LangChain and of LiteLLM cost with each contestant's handler, in a burst of calls.

    python -m tests.benchmarks.handlers [rounds]

The models answer at once, without a network, so that all that is measured is the framework and the handler; the line
`nothing` is the framework alone. Each contestant works in a process of its own, in turn, against one sink on loopback.
LangChain calls its handlers while the program waits, so that the call's own time shows what they take. LiteLLM calls
them on the event loop after its calls have returned: the time of the handler itself is taken. athina_trace's logs are
on disk by then, the peers' are in memory.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from . import runs
from .tables import terminal

_CALLS, _UNCOUNTED = 400, 50
_FRAMEWORKS = ("langchain", "litellm")
_CONTESTANTS = ("nothing", "athina_trace", "langfuse", "langsmith")
_QUESTION = "Where is my parcel PX-48213, and when will it arrive at my neighbour's? " * 4
_ANSWER = "It is on its way, last seen at the Leipzig hub, and should reach you tomorrow by 14:00. " * 4


def _settings(url: str) -> None:
    """What the contestants read: whom to send to."""
    os.environ |= {
        "ATHINA_API_KEY": "key",
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


def _langchain(contestant: str) -> Callable[[], object]:
    """Return one call of a chat model with the contestant's handler."""
    language_models, messages = (
        import_module("langchain_core.language_models"),
        import_module("langchain_core.messages"),
    )
    outputs = import_module("langchain_core.outputs")
    usage = {"input_tokens": 60, "output_tokens": 70, "total_tokens": 130}
    answer = messages.AIMessage(_ANSWER, usage_metadata=usage, response_metadata={"model_name": "gpt-4o"})

    class Instant(language_models.BaseChatModel):  # type: ignore[misc, name-defined]
        @property
        def _llm_type(self) -> str:
            return "instant"

        def _generate(self, *_: Any, **__: Any) -> Any:
            return outputs.ChatResult(generations=[outputs.ChatGeneration(message=answer.model_copy())])

    handlers: list[Any] = []
    if contestant == "athina_trace":
        handlers = [import_module("athina_trace.integrations.langchain").AthinaCallbackHandler()]
    elif contestant == "langfuse":
        import_module("langfuse").get_client()
        handlers = [import_module("langfuse.langchain").CallbackHandler()]
    elif contestant == "langsmith":
        client = import_module("langsmith").Client()
        handlers = [import_module("langchain_core.tracers").LangChainTracer(client=client)]
    model, config = Instant(), {"callbacks": handlers}
    asked = [messages.SystemMessage("Be kind."), messages.HumanMessage(_QUESTION)]
    return lambda: model.invoke(asked, config)


def work(framework: str, contestant: str, url: str) -> dict[str, float]:
    """Make the calls in this process; microseconds for each."""
    _settings(url)
    return asyncio.run(_litellm_calls(contestant)) if framework == "litellm" else _langchain_calls(contestant)


def _langchain_calls(contestant: str) -> dict[str, float]:
    call = _langchain(contestant)
    for _ in range(_UNCOUNTED):
        call()
    took = []
    for _ in range(_CALLS):
        at = time.perf_counter()
        call()
        took.append((time.perf_counter() - at) * 1e6)
    return {"median": statistics.median(took), "p99": sorted(took)[int(_CALLS * 0.99)]}


async def _litellm_calls(contestant: str) -> dict[str, float]:
    litellm: Any = import_module("litellm")
    worker = import_module("litellm.litellm_core_utils.logging_worker").GLOBAL_LOGGING_WORKER
    if contestant == "athina_trace":
        litellm.callbacks = [import_module("athina_trace.integrations.litellm").AthinaLogger()]
    elif contestant != "nothing":
        litellm.callbacks = [{"langfuse": "langfuse_otel", "langsmith": "langsmith"}[contestant]]
    asked = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": _QUESTION}]

    async def calls(count: int) -> None:
        for _ in range(count):
            await litellm.acompletion(model="gpt-4o", messages=asked, mock_response=_ANSWER)
        await worker.flush()

    await calls(_UNCOUNTED)
    took: list[float] = []
    for logger in {id(each): each for each in [*litellm.callbacks, *litellm._async_success_callback]}.values():
        if hasattr(logger, "async_log_success_event"):
            logger.async_log_success_event = _timed(logger.async_log_success_event, took)
    await calls(_CALLS)
    return {"median": statistics.median(took or [0]), "p99": sorted(took or [0])[int(len(took) * 0.99)]}


def _timed(handler: Any, took: list[float]) -> Any:
    async def timed(*given: Any, **named: Any) -> None:
        began = time.perf_counter()
        await handler(*given, **named)
        took.append((time.perf_counter() - began) * 1e6)

    return timed


def main() -> None:
    """Measure all in turn, and print what each adds to `nothing`."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    rows = [["", "LangChain, median", "p99", "LiteLLM, median", "p99"]]
    taken: dict[tuple[str, str], list[dict[str, float]]] = {}
    with runs.sink() as url:
        for _ in range(rounds):
            for framework in _FRAMEWORKS:
                for contestant in _CONTESTANTS:
                    with runs.state() as folder:
                        runs.ask(url, "start?0")
                        figures = runs.work("handlers", framework, contestant, url, at=folder, longest=240)
                        taken.setdefault((framework, contestant), []).append(figures)
    columns = [(framework, name) for framework in _FRAMEWORKS for name in ("median", "p99")]
    for contestant in _CONTESTANTS:
        row = [contestant]
        for framework, name in columns:
            each, alone = (
                statistics.median(figures[name] for figures in taken[framework, who]) for who in (contestant, "nothing")
            )
            row.append(f"{each:,.0f} µs" if contestant == "nothing" else f"+{each - alone:,.0f} µs")
        rows.append(row)
    print(terminal(rows))


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in _FRAMEWORKS:
        print(json.dumps(work(*sys.argv[1:4])), flush=True)
        os._exit(0)  # what a contestant still has to send is not in these figures
    main()
