"""What a developer sees on standard error while a program logs: each log as it is made, or where the first one is.

Both wrap the function that commits entries, so that a program which shows nothing pays nothing.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, NamedTuple

from pydantic_core import from_json

from athina_trace import _guard
from athina_trace._delivery.entry import Entry
from athina_trace._serialization import printable
from athina_trace.settings import MEMORY, Settings

Put = Callable[[Entry], None]

_MAX_SHOWN = 1000
"""Characters of one text."""
_STYLES = {"bold": "1", "dim": "2", "error": "31", "user": "36", "assistant": "32", "tool": "33"}
_THUMBS = {1: "good", -1: "bad", 0: "taken back"}
_notes = count()
"""One for the process: however often it is configured, it has one first log."""


class Console:
    """Commits each entry, then shows it."""

    def __init__(self, put: Put) -> None:
        self._put = put

    def __call__(self, entry: Entry) -> None:
        self._put(entry)
        with _guard.shield("showing a log on the console"):
            fields = from_json(entry.body)
            _write(_log_lines(fields) if entry.kind == "log" else _change_lines(entry, fields))


class FirstNote:
    """Commits each entry; after the first one of the process says where logs are, and how to see them."""

    def __init__(self, put: Put, path: str) -> None:
        self._put = put
        self._path = path

    def __call__(self, entry: Entry) -> None:
        self._put(entry)
        if next(_notes) > 0:
            return
        with _guard.shield("saying where the first log is"):
            if self._path == MEMORY:
                where, see = "kept in memory", "athina_trace.recent_logs()"
            else:
                is_usual = Settings.build().outbox_path() == self._path
                see = "athina-trace logs" if is_usual else f"athina-trace logs --outbox {shlex.quote(self._path)}"
                where = f"kept in {self._path}"
            _write(
                [
                    _Line("bold", f"athina_trace: logs are {where}; none is sent without ATHINA_API_KEY."),
                    _Line("dim", f"  See them: {see}   as they are made: ATHINA_CONSOLE=1   no such note: ATHINA_QUIET=1"),
                ]
            )


class _Line(NamedTuple):
    style: str
    text: str


def is_read() -> bool:
    """Whether a person reads standard error, which is no test's."""
    # pytest gives the terminal to tests that run with `-s`.
    return sys.stderr is not None and sys.stderr.isatty() and "PYTEST_CURRENT_TEST" not in os.environ


def _log_lines(fields: dict[str, Any]) -> Iterator[_Line]:
    attributes = fields.get("custom_attributes") or {}
    tokens = [fields.get(name) for name in ("prompt_tokens", "completion_tokens")]
    facts = [
        fields.get("session_id"),
        fields.get("customer_id"),
        fields["language_model_id"],
        None if tokens == [None, None] else "{} + {} tokens".format(*("?" if each is None else each for each in tokens)),
        None if fields.get("response_time") is None else f"{fields['response_time']} ms",
        attributes.get("outcome"),
        f"step of {attributes['parent_reference']}" if "parent_reference" in attributes else None,
        fields["external_reference_id"],
    ]
    yield _Line("bold", "log  " + " · ".join(str(fact) for fact in facts if fact is not None))
    if fields.get("user_query"):
        yield _Line("user", _indented("user", fields["user_query"]))
    for call in fields.get("tool_calls") or ():
        yield _Line("tool", _indented("tool", _tool_text(call)))
    if fields.get("response"):
        yield _Line("assistant", _indented("assistant", fields["response"]))
    if fields.get("error"):
        yield _Line("error", _indented("error", fields["error"]))


def _tool_text(call: Any) -> str:
    """The call of a tool in one line, whatever a program logged as one."""
    function = call.get("function", call) if isinstance(call, dict) else {}
    if not isinstance(function, dict) or "name" not in function:
        return str(call)
    output = f" → {call['output']}" if call.get("output") is not None else ""
    return f"{function['name']}({function.get('arguments', '')}){output}"


def _change_lines(entry: Entry, fields: dict[str, Any]) -> Iterator[_Line]:
    feedback = fields.get("user_feedback")
    yield _Line("bold", f"{entry.kind}  {entry.reference}" + (f" · {_THUMBS[feedback]}" if feedback in _THUMBS else ""))
    for name, value in fields.items():
        if name not in ("external_reference_id", "user_feedback"):
            yield _Line("dim", _indented(name.removeprefix("user_feedback_"), value))


def _indented(title: str, value: object) -> str:
    text = str(value)
    if len(text) > _MAX_SHOWN:
        text = f"{text[:_MAX_SHOWN]}… ({len(text) - _MAX_SHOWN:,} more characters)"
    return f"  {title:<10} " + "\n             ".join(text.splitlines())


def _write(lines: Iterator[_Line] | list[_Line]) -> None:
    stream = sys.stderr
    if stream is None:  # a program without a console, such as one under pythonw
        return
    # https://no-color.org
    coloured = stream.isatty() and not os.environ.get("NO_COLOR")
    text = "".join(
        f"\x1b[{_STYLES[line.style]}m{printable(line.text)}\x1b[0m\n"
        if coloured and line.style in _STYLES
        else f"{printable(line.text)}\n"
        for line in lines
    )
    # One write, since threads log at once; of what the terminal's encoding has no letters for, escapes are shown.
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()
