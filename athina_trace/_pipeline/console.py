"""Output for developers on standard error: each log as it is made, or a note about where the first one is kept.

Both wrap the function that commits entries, so that programs without them pay nothing.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any, NamedTuple

from pydantic_core import from_json

from athina_trace import _guard
from athina_trace._delivery.entry import Entry
from athina_trace._serialization import printable
from athina_trace.settings import MEMORY, Settings

_MAX_SHOWN = 1000
"""Maximum number of characters shown of a text."""
_HEADING, _PLAIN = "1", "2"
_COLOURS = {"user": "36", "tool": "33", "assistant": "32", "error": "31"}
_FEEDBACK = {1: "good", -1: "bad", 0: "taken back"}
_notes = count()
"""Counts first logs of this process, since `configure` may be called again."""


class Console:
    """Commits each entry, then shows it."""

    def __init__(self, put: Callable[[Entry], None]) -> None:
        self._put = put

    def __call__(self, entry: Entry) -> None:
        self._put(entry)
        with _guard.shield("showing a log on the console"):
            fields = from_json(entry.body)
            _write(_log_lines(fields) if entry.kind == "log" else _change_lines(entry, fields))


class FirstNote:
    """Commits each entry; after the process's first one, prints where logs are kept and how to see them."""

    def __init__(self, put: Callable[[Entry], None], path: str) -> None:
        self._put = put
        self._path = path

    def __call__(self, entry: Entry) -> None:
        self._put(entry)
        if next(_notes) > 0:
            return
        with _guard.shield("noting where logs are kept"):
            if self._path == MEMORY:
                where, see = "in memory", "athina_trace.recent_logs()"
            else:
                is_usual = Settings.build().outbox_path() == self._path
                where = f"in {self._path}"
                see = "athina-trace logs" if is_usual else f"athina-trace logs --outbox {shlex.quote(self._path)}"
            _write(
                (
                    _Line(_HEADING, f"athina_trace: logs are kept {where}; none is sent without ATHINA_API_KEY."),
                    _Line(
                        _PLAIN, f"  See them: {see}; as they are made: ATHINA_CONSOLE=1; hide this note: ATHINA_QUIET=1"
                    ),
                )
            )


def is_read() -> bool:
    """Return whether a person reads standard error."""
    # pytest gives the terminal to tests that run with `-s`.
    return sys.stderr is not None and sys.stderr.isatty() and "PYTEST_CURRENT_TEST" not in os.environ


class _Line(NamedTuple):
    """A line, or several under one title. `style`: parameters of ECMA-48's escape sequence SGR."""

    style: str
    text: str


def _log_lines(fields: dict[str, Any]) -> Iterator[_Line]:
    attributes = fields.get("custom_attributes") or {}
    facts = [str(fields[name]) for name in ("session_id", "customer_id", "language_model_id") if name in fields]
    if "prompt_tokens" in fields or "completion_tokens" in fields:
        facts.append(f"{fields.get('prompt_tokens', '?')} + {fields.get('completion_tokens', '?')} tokens")
    if "response_time" in fields:
        facts.append(f"{fields['response_time']} ms")
    if "outcome" in attributes:
        facts.append(attributes["outcome"])
    if "parent_reference" in attributes:
        facts.append(f"step of {attributes['parent_reference']}")
    yield _Line(_HEADING, "log  " + " · ".join([*facts, fields["external_reference_id"]]))
    texts = [
        ("user", fields.get("user_query")),
        *(("tool", _tool_text(call)) for call in fields.get("tool_calls") or ()),
        ("assistant", fields.get("response")),
        ("error", fields.get("error")),
    ]
    for title, text in texts:
        if text:
            yield _Line(_COLOURS[title], _titled(title, text))


def _tool_text(call: Any) -> str:
    """Return a tool call on one line, in whatever form the program logged it."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or "name" not in function:
        return str(call)
    output = f" → {call['output']}" if call.get("output") is not None else ""
    return f"{function['name']}({function.get('arguments', '')}){output}"


def _change_lines(entry: Entry, fields: dict[str, Any]) -> Iterator[_Line]:
    feedback = f" · {_FEEDBACK[fields['user_feedback']]}" if entry.kind == "feedback" else ""
    yield _Line(_HEADING, f"{entry.kind}  {entry.reference}{feedback}")
    for name, value in fields.items():
        if name not in ("external_reference_id", "user_feedback"):
            yield _Line(_PLAIN, _titled(name.removeprefix("user_feedback_"), value))


def _titled(title: str, value: object) -> str:
    text = str(value)
    if len(text) > _MAX_SHOWN:
        text = f"{text[:_MAX_SHOWN]}… ({len(text) - _MAX_SHOWN:,} more characters)"
    return f"  {title:<10} " + "\n             ".join(text.splitlines())


def _write(lines: Iterable[_Line]) -> None:
    stream = sys.stderr
    if stream is None:  # as under pythonw
        return
    coloured = stream.isatty() and not os.environ.get("NO_COLOR")  # https://no-color.org
    texts = [(line.style, printable(line.text)) for line in lines]
    shown = "".join(f"\x1b[{style}m{text}\x1b[0m\n" if coloured else f"{text}\n" for style, text in texts)
    # In one call, since several threads may log; characters that the terminal's encoding lacks are escaped.
    encoding = stream.encoding or "utf-8"
    stream.write(shown.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()
