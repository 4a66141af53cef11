from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from athina_trace.local_athina import LocalAthina
from athina_trace.local_athina.plugin import local_athina

__all__ = ["direct", "local_athina"]

collect_ignore_glob = [] if find_spec("litellm") is not None else ["test_*.py"]


@pytest.fixture
def direct() -> Iterator[LocalAthina]:
    """A second Athina, which clients log to without a gateway."""
    with LocalAthina() as athina:
        yield athina
