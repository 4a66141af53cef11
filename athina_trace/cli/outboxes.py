"""Which outbox a command means, and its logs brought up to date."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from athina_trace.cli.terminal import Failure
from athina_trace.settings import MEMORY, Settings
from athina_trace.viewer.filters import STATES, Filters, moment
from athina_trace.viewer.source import Source

_FILTERS = {
    "session": "of this session",
    "customer": "of this customer",
    "environment": "of this environment, such as production",
    "slug": "of this prompt slug",
    "model": "answered by this model",
    "since": "made since: 90m, 24h, 7d, or a date such as 2025-06-30T12:00",
    "until": "made until, in the same words",
}


def add_outbox(command: argparse.ArgumentParser) -> None:
    """The option that every command has."""
    command.add_argument(
        "--outbox", metavar="PATH", help="the outbox file (default: the one that the environment's settings name)"
    )


def add_filters(command: argparse.ArgumentParser) -> None:
    """The options that choose logs."""
    group = command.add_argument_group("which logs")
    group.add_argument("--text", dest="q", metavar="WORDS", help='that hold these words; "a phrase" in double quotes')
    for name, what in _FILTERS.items():
        group.add_argument(f"--{name}", metavar=name.upper(), help=what)
    group.add_argument("--state", choices=STATES, help="in this state")
    group.add_argument("--errors", action="store_const", const="1", help="that failed")


def filters_of(given: argparse.Namespace) -> Filters:
    """What the options ask for. Raises `Failure` where a time is none."""
    filters = Filters.of(vars(given))
    for name in ("since", "until"):
        text = getattr(filters, name)
        if text and moment(text) is None:
            raise Failure(f"--{name} {text!r} is no time: say 90m, 24h, 7d, or a date such as 2025-06-30T12:00")
    return filters


def path_of(given: argparse.Namespace) -> str:
    """The outbox file that is meant."""
    chosen: str = given.outbox or Settings.build().outbox_path()
    if chosen == MEMORY:
        raise Failure("ATHINA_OUTBOX is :memory:, which lives inside one program: name a file with --outbox")
    return str(Path(chosen).expanduser())


def existing(given: argparse.Namespace) -> str:
    """The outbox file that is meant. Raises `Failure` where nothing was ever logged there."""
    path = path_of(given)
    if not Path(path).exists() and not Path(path).with_suffix(".journal").exists():
        others = sorted(str(each) for each in Path(path).parent.glob("*.db"))
        hint = f"; there are others: --outbox {' or '.join(others)}" if others else ""
        raise Failure(f"nothing was logged yet to {path}{hint}")
    return path


@contextmanager
def opened(given: argparse.Namespace) -> Iterator[Source]:
    """The outbox, read up to its end."""
    source = Source(existing(given))
    try:
        while not source.refresh(chunks=20):
            _say_how_far(source)
        yield source
    finally:
        source.close()


def _say_how_far(source: Source) -> None:
    """The first look at a large outbox takes a while; who sits in front of it is told."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\rreading the outbox, {source.behind} entries to go \x1b[K")


def told(row: Any) -> dict[str, Any]:
    """A log's delivery, as JSON lines tell it."""
    return {name: row[name] for name in ("state", "status", "reason", "prompt_run_id") if row[name] is not None}
