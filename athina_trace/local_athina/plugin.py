"""The pytest fixture `local_athina`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from athina_trace.local_athina.local_server import LocalAthina


@pytest.fixture
def local_athina() -> Iterator[LocalAthina]:
    """An empty local Athina on a free port; needs the extra `ui`."""
    from athina_trace.local_athina.local_server import LocalAthina  # noqa: PLC0415 - an optional extra

    with LocalAthina() as athina:
        yield athina
