"""What the README says is true: its code runs, its settings are all there."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from athina_trace import Settings, uninstrument_openai
from athina_trace.settings import VARIABLES
from athina_trace.testing import captured_logs
from standin_openai import StandIn

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def _openai(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stand-in in OpenAI's place, and its client as it was once the test is over."""
    with StandIn(latency=0) as server, warnings.catch_warnings():
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        # OpenAI has shut its Assistants API down; Azure and compatible servers go on.
        warnings.filterwarnings("ignore", "(The Assistants API is )?deprecated", DeprecationWarning)
        yield
        uninstrument_openai()


@pytest.mark.usefixtures("_openai")
def test_the_readmes_code_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names = {"__name__": "readme"}
    with captured_logs() as logs:
        for block in BLOCKS:
            exec(compile(block, "README.md", "exec"), names)  # noqa: S102 - it is ours
    first = logs.wire[0]
    assert first["user_query"] == "Where is my parcel?"
    assert first["response"] == "It reaches you tomorrow by 14:00."
    assert (first["session_id"], first["customer_id"]) == ("thread-17", "disney-usa-2314832")


def settings_table() -> str:
    """The table of settings as the README must show it."""
    defaults = Settings()
    return "\n".join(
        f"| `{VARIABLES[name]}` | `{name}` | {_shown(getattr(defaults, name))} | {info.description} |"
        for name, info in Settings.model_fields.items()
    )


def _shown(value: object) -> str:
    return "" if value in (None, {}, (), frozenset()) else f"`{value}`"


def test_every_setting_is_documented() -> None:
    assert settings_table() in README, f"put this into the README:\n{settings_table()}"
