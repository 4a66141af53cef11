"""The examples that need the packages of other sources, as a reader runs them: against the stand-in, without a key."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = {
    "pydantic_ai_agent.py": {
        "questions": ["Hello, where is my parcel PX-48213?", "What if I do not like it, can I send it back?"],
        "shown": ['track_parcel({"parcel_id": "PX-48213"}) -> ', "session   conversation-17", "311 in + 37 out = 348"],
    },
    "langgraph_agent.py": {
        "questions": ["Hello, where is my parcel PX-48213?", "What if I do not like it, can I send it back?"],
        "shown": ['track_parcel({"parcel_id":"PX-48213"}) -> ', "session   thread-7", "295 in + 37 out = 332"],
    },
    "agents_triage.py": {
        # The triage agent, the agent that it hands over to, and that one again after a tool call.
        "questions": [
            *["Hello, where is my parcel PX-48213?"] * 3,
            *["What if I do not like it, can I send it back?"] * 2,
        ],
        "shown": ["transfer_to_tracking({})", "transfer_to_returns({})", "session   conversation-17"],
    },
    "litellm_router.py": {
        # Each request goes to a missing model, and then to another one.
        "questions": [
            *["Can a neighbour take my parcel?"] * 2,
            *["What if I do not like it, can I send it back?"] * 2,
        ],
        "shown": ["session   conversation-17", "Of course: choose", "model     gpt-4.1-mini-2025-04-14"],
    },
}


@pytest.mark.timeout(500)  # some packages take half a minute to import on a busy machine
@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_logs_its_conversation(name: str, tmp_path: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ATHINA", "OPENAI"))}
    environment = inherited | {"XDG_STATE_HOME": str(tmp_path), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, f"examples/{name}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=480, check=False)
    assert done.returncode == 0, done.stderr
    questions, shown = EXAMPLES[name]["questions"], EXAMPLES[name]["shown"]
    assert re.findall(r"^\[\d+\] (.*)$", done.stdout, flags=re.MULTILINE) == questions
    assert [text for text in shown if text not in done.stdout] == []
    made = re.search(r"^(\d+) made", done.stdout, flags=re.MULTILINE)
    # Updates of logs, such as tool outputs, are counted, too.
    assert made is not None
    assert int(made[1]) >= len(questions)


def test_examples_stay_short() -> None:
    assert [name for name in EXAMPLES if len((ROOT / "examples" / name).read_text().splitlines()) >= 60] == []
