"""How the examples print what was logged, and what became of it."""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from shlex import quote
from textwrap import fill
from typing import Any

from athina_trace import FlushReport, Status

Log = dict[str, Any]


def show_conversation(logs: Sequence[Log]) -> None:
    """Print each log of a conversation: what was said, and what Athina will know about it."""
    for number, log in enumerate(logs, 1):
        print(f"\n[{number}] {log['user_query']}\n{_indented(log['response'])}\n")
        for name, value in _rows(log):
            print(f"    {name:<9} {value}")


def show_delivery(report: FlushReport, now: Status) -> None:
    """Print how many logs the outbox was given since it was made, and what became of them."""
    counts = f"{now.delivered} delivered, {now.waiting} waiting, {now.refused} refused"
    print(f"\n{now.made} logs made so far: {counts} (flushed in {report.elapsed:.2f} s)")
    if now.paused:
        print(now.paused)
    print(f"Outbox: {now.outbox}")


def offer_viewer(now: Status) -> None:
    """Say how to look at the outbox in a browser; ask whether to do it at once where somebody is there to answer."""
    # Beside the interpreter, since a demo's environment need not be on the PATH.
    command = os.path.relpath(Path(sys.executable).with_name("athina-trace"))
    print(f"See it in a browser: {command} ui --outbox {quote(now.outbox)}")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return
    with suppress(KeyboardInterrupt, EOFError):  # an answer, too; and how the viewer ends
        if input("Open it now? [y/N] ").lower().startswith("y"):
            viewer = [sys.executable, "-m", "athina_trace", "ui", "--outbox", now.outbox]
            subprocess.run(viewer, check=False)  # noqa: S603 - our own interpreter and module


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
