"""`instrument`: every source of answers that this process has, with one call.

Nothing is imported for it: what the program has imported is instrumented at once, what is installed once it is.
"""

from __future__ import annotations

import logging
import sys
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import wrapt

from athina_trace import _guard

__all__ = ["INTEGRATIONS", "Integration", "instrument", "uninstrument"]


class Integration(NamedTuple):
    """A source of answers, by what switches it on and off."""

    host: str
    """The module whose import shows that the program uses it."""
    module: str
    """The module of ours; it may import its host."""
    on: str
    off: str


INTEGRATIONS = (
    Integration(
        "openai",
        "athina_trace.integrations.openai.instrument",
        "instrument_openai",
        "uninstrument_openai",
    ),
    Integration(
        "opentelemetry.sdk.trace",
        "athina_trace.integrations.opentelemetry.instrument",
        "instrument_opentelemetry",
        "uninstrument_opentelemetry",
    ),
    Integration(
        "agents.tracing",
        "athina_trace.integrations.openai_agents",
        "instrument_openai_agents",
        "uninstrument_openai_agents",
    ),
    Integration(
        "langchain_core",
        "athina_trace.integrations.langchain",
        "instrument_langchain",
        "uninstrument_langchain",
    ),
    Integration(
        "litellm",
        "athina_trace.integrations.litellm",
        "instrument_litellm",
        "uninstrument_litellm",
    ),
)

_logger = logging.getLogger("athina_trace")
_switched_on: set[str] = set()
"""The hosts that are instrumented, or will be when they are imported."""


def instrument() -> None:
    """Log the answers that any known client or framework of this process gets, each once, whatever sees it.

    Those that the program has imported are instrumented at once, those that are installed when they are imported:
    OpenAI's client and its Agents SDK, LangChain and LangGraph, LiteLLM, and the spans of OpenTelemetry. A log message
    of the level INFO names them. May be called again; `uninstrument` undoes it.

    >>> instrument()
    """
    found: list[str] = []
    for each in INTEGRATIONS:
        if each.host in sys.modules:
            found.append(each.host)
        elif _is_installed(each.host):
            found.append(f"{each.host} (when it is imported)")
        else:
            continue
        if each.host not in _switched_on:
            _switched_on.add(each.host)
            # Called at once where the module is imported already.
            wrapt.register_post_import_hook(partial(_imported, each), each.host)
    _logger.info(
        "athina_trace instruments %s", ", ".join(found) or "nothing: no known client or framework is installed"
    )


def uninstrument() -> None:
    """Undo `instrument`.

    >>> uninstrument()
    """
    for each in INTEGRATIONS:
        if each.host in _switched_on:
            _switched_on.discard(each.host)
            if each.module in sys.modules:
                getattr(sys.modules[each.module], each.off)()


def _imported(integration: Integration, _module: Any) -> None:
    """Switch an integration on, unless `uninstrument` was called meanwhile."""
    if integration.host in _switched_on:
        # In the program's own import statement, which must not fail for our sake.
        with _guard.shield(f"instrumenting {integration.host}"):
            getattr(import_module(integration.module), integration.on)()


def _is_installed(host: str) -> bool:
    """Return whether a module could be imported, as far as that is known without importing its own package."""
    try:
        return find_spec(host.rpartition(".")[0] or host) is not None
    except (ImportError, AttributeError, ValueError):
        return False
