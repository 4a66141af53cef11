"""Prints the logs of the examples, and whether they were delivered."""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from textwrap import fill, indent
from typing import Any
from urllib.parse import quote

from athina_trace import FlushReport, Status, status
from athina_trace.local_athina import LocalAthina

Log = dict[str, Any]


def show_conversation(logs: Sequence[Log]) -> None:
    """Print each log of a conversation: question, answer, and further fields."""
    for number, log in enumerate(logs, 1):
        print(f"\n[{number}] {log['user_query']}\n{_indented(log['response'])}\n")
        for name, value in _rows(log):
            print(f"    {name:<9} {value}")


def show_body(log: Log) -> None:
    """Print a log as it is sent."""
    body = {name: _short(value) if isinstance(value, str) else value for name, value in log.items()}
    print("\nThe first of them, as it is sent: POST /api/v1/log/inference")
    print(indent(json.dumps(body, indent=2, ensure_ascii=False), "    "))


def show_delivery(report: FlushReport, now: Status) -> None:
    """Print the counts of the outbox, which include earlier runs."""
    others = [f", {count} {name}" for name, count in (("waiting", now.waiting), ("refused", now.refused)) if count]
    print(f"\n{now.made} made, {now.delivered} delivered{''.join(others)} (flushed in {report.elapsed:.2f} s)")
    if now.paused:
        print(now.paused)
    print(f"Outbox, whose counts include earlier runs: {now.outbox}")


def offer_viewer(athina: LocalAthina | None, session: str) -> None:
    """Print how to see a conversation in a browser; if a person may look, wait."""
    if athina is not None and sys.stdin.isatty() and sys.stdout.isatty():
        print(f"\nSee the conversation in a browser: {athina.url}session?id={quote(session)}")
        with suppress(KeyboardInterrupt, EOFError):  # an answer, too
            input("Press Enter to end. ")
        return
    # Beside the interpreter, since the demo's environment may not be on the PATH.
    command = os.path.relpath(Path(sys.executable).with_name("athina-trace"))
    outbox = status().outbox if athina is None else athina.path
    print(f"See it in a browser: {command} ui --outbox {shlex.quote(outbox)}")


def _rows(log: Log) -> list[tuple[str, str]]:
    tokens = [log.get(name, "?") for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
    calls = [_called(call) for call in log.get("tool_calls") or []]
    return [
        ("model", log["language_model_id"]),
        ("tokens", "{} in + {} out = {}".format(*tokens)),
        ("latency", f"{log['response_time']} ms"),
        *(("tool call", call) for call in calls),
        *(("context", _short(text)) for text in [log.get("context")] if text),
        ("session", log.get("session_id", "none")),
        *(("customer", _customer(log)) for known in [log.get("customer_id")] if known),
    ]


def _called(call: Log) -> str:
    function = call["function"]
    output = f" -> {call['output']}" if "output" in call else ""
    return f"{function['name']}({function['arguments']}){output}"


def _customer(log: Log) -> str:
    return ", ".join(log[name] for name in ("customer_id", "customer_user_id") if log.get(name))


def _indented(text: str) -> str:
    return fill(text, width=100, initial_indent="    ", subsequent_indent="    ")


def _short(text: str, *, width: int = 72) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
