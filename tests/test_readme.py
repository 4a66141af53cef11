"""What the README says is true: its code runs, its settings are all there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from athina_trace import Settings, configure, recent_logs
from athina_trace.settings import VARIABLES

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_readmes_code_runs(capsys: pytest.CaptureFixture[str]) -> None:
    configure(outbox=":memory:")
    names = {"__name__": "readme"}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), names)  # noqa: S102 - it is ours
    first, *_ = recent_logs()
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
    return "" if value in (None, {}) else f"`{value}`"


def test_every_setting_is_documented() -> None:
    assert settings_table() in README, f"put this into the README:\n{settings_table()}"
