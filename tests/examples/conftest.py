"""The stand-in for these tests, one server, which answers without a pause; and the examples, each in a process."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from standin_openai import StandIn
from tests.support.forked import IMPORT_OPENAI, ForkedPrograms

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def stand_in() -> Iterator[StandIn]:
    with StandIn(latency=0) as server:
        yield server


@pytest.fixture
def client(stand_in: StandIn) -> Iterator[OpenAI]:
    with OpenAI(base_url=stand_in.base_url, api_key="any", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def programs() -> Iterator[ForkedPrograms]:
    with ForkedPrograms(os.environ, IMPORT_OPENAI) as made:
        yield made


@pytest.fixture
def run_demo(programs: ForkedPrograms, tmp_path: Path) -> Callable[..., str]:
    """Run the demo, or another example, with only these environment variables; return its output."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ATHINA", "OPENAI"))}

    def run(name: str = "support_chat.py", **settings: str) -> str:
        environment = inherited | {"XDG_STATE_HOME": str(tmp_path)} | settings
        program = "import runpy, sys; sys.path.insert(0, 'examples'); runpy.run_path(sys.argv[2], run_name='__main__')"
        done = programs.run(program, f"examples/{name}", environment=environment, folder=str(ROOT))
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run
