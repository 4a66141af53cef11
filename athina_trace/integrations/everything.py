"""`instrument()`: instruments every source of answers in this process.

It imports none of them: imported packages are instrumented at once, installed ones when the program imports them.
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
    """A source of answers, and how to switch it on and off."""

    host: str
    """The module whose import shows that the program uses the source."""
    module: str
    """Our module in this package, which may import the host."""
    function: str
    """Its function that switches it on; the one that switches it off has the same name, after `un`."""


INTEGRATIONS = (
    Integration("openai", "openai.instrument", "instrument_openai"),
    Integration("opentelemetry.sdk.trace", "opentelemetry.instrument", "instrument_opentelemetry"),
    Integration("agents.tracing", "openai_agents", "instrument_openai_agents"),
    Integration("langchain_core", "langchain", "instrument_langchain"),
    Integration("litellm", "litellm", "instrument_litellm"),
)

_logger = logging.getLogger("athina_trace")
_switched_on: set[str] = set()
"""Hosts that are instrumented, or will be when they are imported."""


def instrument() -> None:
    """Log the answers that all known clients and frameworks of this process get, each once, even if several see it.

    These are OpenAI's client and its Agents SDK, LangChain and LangGraph, LiteLLM, and OpenTelemetry's spans. Imported
    packages are instrumented at once, installed ones when they are imported. A log message of level INFO names them.
    May be called again; `uninstrument` undoes it.

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
            # Called at once if the module is already imported.
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
            module = sys.modules.get(f"{__package__}.{each.module}")
            if module is not None:
                getattr(module, f"un{each.function}")()


def _imported(integration: Integration, _module: Any) -> None:
    """Switch on an integration, unless `uninstrument` was called meanwhile."""
    if integration.host in _switched_on:
        # Runs inside the program's import statement, which must not fail because of us.
        with _guard.shield(f"instrumenting {integration.host}"):
            getattr(import_module(f"{__package__}.{integration.module}"), integration.function)()


def _is_installed(host: str) -> bool:
    """Return whether a module could be imported, as far as can be known without importing its parent package."""
    try:
        return find_spec(host.rpartition(".")[0] or host) is not None
    except (ImportError, AttributeError, ValueError):
        return False
