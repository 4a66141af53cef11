"""These tests need the packages of `requirements.txt`, which `make test-integrations` installs."""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from athina_trace._capture import answer_logs
from athina_trace.integrations.openai.request_record import memory
from athina_trace.integrations.openai.standalone_logs import standalone_logs
from athina_trace.testing import captured_logs
from tests.openai.server import Server
from tests.support.changed import as_changed

if find_spec("openinference") is None:
    collect_ignore_glob = ["test_*.py"]

# Read by the instrumentations when they are enabled.
os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "SPAN_ONLY"
os.environ["LOGFIRE_SEND_TO_LOGFIRE"] = "false"
# Read on import: LiteLLM would fetch prices from the network.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"


# Warnings of the packages about each other.
logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

Logs = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True, scope="session")
def _imported() -> None:
    """Freeze what the packages made on import: it stays, and need not be collected at the end of each test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _forgotten(_imported: None) -> Iterator[None]:
    with warnings.catch_warnings():
        # The packages' own deprecations and unclosed resources are not this project's.
        warnings.simplefilter("ignore")
        yield
        gc.collect()
    answer_logs.reset()
    standalone_logs.reset()
    memory.reset()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        yield made


@pytest.fixture
def logs() -> Iterator[Logs]:
    """Return a function that gives the logs so far, with later updates applied."""
    with captured_logs() as captured:
        yield lambda: as_changed(captured)
