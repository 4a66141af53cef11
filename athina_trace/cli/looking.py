"""Commands that only look: logs, show, sessions, status."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from athina_trace.cli.outboxes import add_filters, add_outbox, filters_of, opened, told
from athina_trace.cli.terminal import Failure, Terminal
from athina_trace.viewer import forms, queries
from athina_trace.viewer.conversation import Shown, shown
from athina_trace.viewer.filters import Filters
from athina_trace.viewer.source import Source

_FOLLOW_SECONDS = 0.5
_COLUMNS = ("Question", "Answer", "Customer", "Model", "Tokens", "Latency", "State", "Made", "Reference")
_NARROW = ("Question", "State", "Made", "Reference")
_NARROW_BELOW = 150
"""Columns of a terminal below which the rest would not be readable."""


def add(commands: Any) -> None:
    """Name the commands and their options."""
    for name, run, what in (
        ("logs", logs, "list logs, the newest last"),
        ("sessions", sessions, "list conversations, the newest first"),
    ):
        command = commands.add_parser(name, help=what, description=f"{what.capitalize()}.")
        add_outbox(command)
        add_filters(command)
        command.add_argument("--limit", type=int, default=20, help="at most so many (default: %(default)s)")
        command.add_argument("--json", action="store_true", help="JSON lines")
        command.set_defaults(run=run)
        if name == "logs":
            command.add_argument("--follow", action="store_true", help="go on with new ones until Ctrl-C")
    _add_single(commands)


def _add_single(commands: Any) -> None:
    command = commands.add_parser("show", help="show one log", description="Show one log, whole.")
    command.add_argument("reference", help="its external_reference_id, prompt_run_id or number")
    command.add_argument("--json", action="store_true", help="the JSON as it is sent")
    add_outbox(command)
    command.set_defaults(run=show)
    command = commands.add_parser("status", help="how the outbox stands", description="How the outbox stands.")
    command.add_argument("--json", action="store_true", help="one JSON object")
    add_outbox(command)
    command.set_defaults(run=status)


def logs(given: argparse.Namespace, terminal: Terminal) -> int:
    """List logs; with --follow, for as long as it takes."""
    filters = filters_of(given)
    with opened(given) as source:
        with source.open() as db:
            rows = queries.logs(db, filters, limit=max(1, given.limit)).rows[::-1]
            _print_logs(db, rows, given, terminal)
        last = rows[-1]["id"] if rows else 0
        while given.follow:
            terminal.flush()
            time.sleep(_FOLLOW_SECONDS)
            last = _follow(source, filters, last, given, terminal)
    return 0


def _follow(source: Source, filters: Filters, last: int, given: argparse.Namespace, terminal: Terminal) -> int:
    source.refresh()
    with source.open() as db:
        rows = queries.logs_after(db, filters, after=last)
        _print_logs(db, rows, given, terminal)
    return rows[-1]["id"] if rows else last


def _print_logs(db: Any, rows: list[Any], given: argparse.Namespace, terminal: Terminal) -> None:
    if given.json:
        for row in rows:
            terminal.json({**_line(row), **told(row), "log": queries.turn(db, row).fields})
    elif rows:
        chosen = _NARROW if terminal.is_terminal and terminal.console.width < _NARROW_BELOW else _COLUMNS
        places = [_COLUMNS.index(name) for name in chosen]
        cells = (_cells(row) for row in rows)
        terminal.table(chosen, ([row[place] for place in places] for row in cells), right=("Tokens", "Latency"))


def _line(row: Any) -> dict[str, Any]:
    return {"id": row["id"], "made": forms.iso(row["made"]), "reference": row["reference"]}


def _cells(row: Any) -> tuple[object, ...]:
    return (
        row["question"],
        row["error"] or row["answer"],
        row["customer"],
        row["model"],
        row["tokens"],
        forms.duration(row["latency"]),
        row["state"],
        forms.iso(row["made"]),
        row["reference"],
    )


def sessions(given: argparse.Namespace, terminal: Terminal) -> int:
    """List conversations."""
    with opened(given) as source, source.open() as db:
        rows = queries.sessions(db, filters_of(given), limit=max(1, given.limit)).rows
        if given.json:
            for row in rows:
                terminal.json({name: row[name] for name in row.keys() if name not in ("cursor", "last_id")})  # noqa: SIM118 - a row has no other way
            return 0
        columns = ("First question", "Customer", "Turns", "Tokens", "Errors", "Last activity", "Session")
        lines = (
            (
                row["question"],
                row["customer"],
                row["turns"],
                row["tokens"],
                row["errors"],
                forms.iso(row["last"]),
                row["name"],
            )
            for row in rows
        )
        terminal.table(columns, lines, right=("Turns", "Tokens", "Errors"))
    return 0


def show(given: argparse.Namespace, terminal: Terminal) -> int:
    """Show one log."""
    with opened(given) as source, source.open() as db:
        found = queries.log(db, given.reference)
        if found is None:
            raise Failure(f"there is no log {given.reference!r} in {source.path}; `athina-trace logs` lists them")
        if given.json:
            terminal.say(json.dumps(found.fields, ensure_ascii=False, indent=2))
        else:
            _tell(shown(found), terminal)
    return 0


def _tell(it: Shown, terminal: Terminal) -> None:
    row = it.turn.row
    parts = [
        *(("System", each.shown) for each in it.system),
        ("User", it.question.shown),
        *(("Context", each.shown) for each in it.context),
        *((f"Tool {each.name}", f"{each.arguments.shown}\n→ {each.output.shown}") for each in it.tools),
        ("Assistant", it.answer.shown),
        ("Expected", it.expected.shown),
        ("Error", it.error.shown),
    ]
    for name, text in parts:
        if text:
            terminal.say(name, style="bold")
            terminal.say(text + "\n")
    for name in ("model", "tokens", "session", "customer", "user", "environment", "slug", "state", "reason"):
        if row[name] is not None:
            terminal.say(f"{name:<12} {row[name]}")
    terminal.say(f"{'latency':<12} {forms.duration(row['latency'])}")
    terminal.say(f"{'made':<12} {forms.day(row['made'])}")
    terminal.say(f"{'reference':<12} {row['reference']}")


def status(given: argparse.Namespace, terminal: Terminal) -> int:
    """Tell how many wait, were refused, were delivered."""
    with opened(given) as source, source.open() as db:
        standing = queries.standing(db)
        if given.json:
            terminal.json({**standing._asdict(), "outbox": source.path})
            return 0
        figures = ("waiting", "refused", "delivered", "received", "dropped", "logs", "sessions")
        for name in figures:
            terminal.say(f"{name:<12} {forms.amount(getattr(standing, name))}")
        terminal.say(f"{'on disk':<12} {forms.bytes_of(standing.bytes)}")
        if standing.oldest_waiting is not None:
            terminal.say(f"{'oldest waits':<12} since {forms.day(standing.oldest_waiting)}")
        if standing.paused is not None:
            terminal.say(f"{'paused':<12} {standing.paused} (since {forms.day(standing.paused_since)})")
        if standing.next_try is not None:
            terminal.say(f"{'next try':<12} {forms.day(standing.next_try)}, attempt {standing.attempts + 1}")
        terminal.say(f"{'outbox':<12} {source.path}")
    return 0
