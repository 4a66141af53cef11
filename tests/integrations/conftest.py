"""These tests need the packages of `requirements.txt`, which `make test-integrations` installs."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from athina_trace._capture import answered
from athina_trace.integrations.openai.standalone_logs import standalone_logs

if find_spec("openinference") is None:
    collect_ignore_glob = ["test_*.py"]

# Read by the instrumentations when they are switched on.
os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "SPAN_ONLY"
os.environ["LOGFIRE_SEND_TO_LOGFIRE"] = "false"


# Of the packages, which warn of each other.
logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    with warnings.catch_warnings():
        # What the packages deprecate among themselves is not ours.
        warnings.simplefilter("ignore")
        yield
    answered.reset()
    standalone_logs.reset()
