"""The pytest plugin, found by its entry point: the fixture `athina_logs`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from athina_trace.testing import CapturedLogs


@pytest.fixture
def athina_logs() -> Iterator[CapturedLogs]:
    """The logs that the test makes; nothing is written to disk or sent. See `athina_trace.testing`."""
    # Imported on first use: other test runs pay nothing, and their coverage includes our import.
    from athina_trace.testing import captured_logs  # noqa: PLC0415

    with captured_logs() as logs:
        yield logs
