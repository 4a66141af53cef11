"""The public names: pinned, documented, each with an example that is executed."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

import athina_trace
from athina_trace.testing import captured_logs

PUBLIC = [
    "AthinaTraceError",
    "ContextThreadPoolExecutor",
    "Delivered",
    "FlushReport",
    "InferenceLog",
    "LogDraft",
    "OutboxError",
    "OutboxFullError",
    "Refused",
    "Settings",
    "SettingsError",
    "Status",
    "aflush",
    "athina_private",
    "athina_session",
    "athina_trace",
    "configure",
    "current_log",
    "extract",
    "flush",
    "inject",
    "instrument",
    "instrument_openai",
    "log_feedback",
    "log_inference",
    "metrics",
    "recent_logs",
    "set_customer",
    "set_session",
    "shutdown",
    "status",
    "uninstrument",
    "uninstrument_openai",
    "update_log",
    "wrap",
]
ROOMS = {
    "athina_trace.log_context": ["LogContextFilter", "add_log_context", "log_context"],
    "athina_trace.testing": ["CapturedLogs", "captured_logs"],
    "athina_trace.web": ["ASGIMiddleware", "Identify", "Request", "WSGIMiddleware"],
}
EXAMPLES = [
    *(("athina_trace", name) for name in PUBLIC),
    *((room, name) for room, names in ROOMS.items() for name in names if name not in ("Identify", "Request")),
]


def test_the_public_names_are_exactly_these() -> None:
    assert athina_trace.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(athina_trace))
    for room, names in ROOMS.items():
        assert importlib.import_module(room).__all__ == names


def test_all_other_names_are_modules_or_private() -> None:
    modules = {path.stem for path in Path(str(athina_trace.__file__)).parent.iterdir()}
    others = {name for name in vars(athina_trace) if name.isidentifier() and not name.startswith("_")} - set(PUBLIC)
    assert others <= modules


@pytest.mark.parametrize(("room", "name"), EXAMPLES, ids=[name for _, name in EXAMPLES])
def test_each_public_name_has_an_example_that_runs(room: str, name: str) -> None:
    module = importlib.import_module(room)
    subject = getattr(module, name)
    names: dict[str, Any] = {**{each: getattr(athina_trace, each) for each in PUBLIC}, **vars(module)}
    (example,) = doctest.DocTestFinder(recurse=False).find(subject, name, module=False, globs=names)
    assert example.examples
    said: list[str] = []
    with captured_logs():
        doctest.DocTestRunner().run(example, out=said.append)
    assert "".join(said) == ""


def test_the_changelog_states_what_a_version_may_change() -> None:
    changelog = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()
    assert re.search(r"^## Deprecation policy$", changelog, re.MULTILINE)
