"""Options that several commands share: the outbox, filters for logs, and the types of their values."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from athina_trace._delivery.database import is_corrupt
from athina_trace._delivery.sqlite import Connection, sqlite3
from athina_trace.cli.extras import require_packages
from athina_trace.cli.terminal import CommandError, NothingLoggedError, Terminal
from athina_trace.settings import MEMORY, Settings
from athina_trace.viewer import queries
from athina_trace.viewer.filters import FEEDBACK, KINDS, STATES, Filters, parse_duration, parse_moment, parse_time
from athina_trace.viewer.indexed_outbox import IndexedOutbox

RELAY = "relay:"
"""The value of --relay, in place of an outbox's path."""
_FILTERS = {
    "session": "of this session",
    "customer": "of this customer",
    "user": "of this user",
    "environment": "of this environment, such as production",
    "slug": "of this prompt slug",
    "model": "answered by this model",
    "tool": "in which the model called this tool",
    "attribute": "with this custom attribute: NAME or NAME=VALUE",
}


def add_outbox(command: argparse.ArgumentParser, *, relay: bool = False) -> None:
    """Add the option --outbox and, for refused logs that a relay keeps, --relay."""
    chosen = command.add_mutually_exclusive_group()
    if relay:
        chosen.add_argument(
            "--relay",
            dest="outbox",
            action="store_const",
            const=RELAY,
            help="use the refused logs that the relay in ATHINA_RELAY keeps, instead of an outbox",
        )
    chosen.add_argument(
        "--outbox", metavar="PATH", help="the outbox file (default: according to the environment's settings)"
    )


def add_filters(command: argparse.ArgumentParser) -> None:
    """Add the options that choose logs."""
    group = command.add_argument_group("which logs")
    # Filters have the same names as in a page's address.
    group.add_argument("--text", dest="q", metavar="WORDS", help='that contain these words; "a phrase" in quotes')
    for name, description in _FILTERS.items():
        group.add_argument(f"--{name}", metavar=name.upper(), help=description)
    group.add_argument(
        "--since", type=_time, help="made since: 90m, 24h, 7d ago, today, yesterday, or a date such as 2025-06-30T12:00"
    )
    group.add_argument("--until", type=_time, help="made until, in the same form")
    group.add_argument("--state", choices=STATES, help="in this state")
    group.add_argument("--kind", choices=KINDS, help="turns, or steps made inside a call (default: both)")
    group.add_argument("--slower", type=_duration, metavar="TIME", help="that took longer: 10s, 800ms or 2min")
    group.add_argument("--errors", action="store_const", const="1", help="that failed")
    group.add_argument("--tool-errors", action="store_const", const="1", help="in which a tool failed")
    group.add_argument("--feedback", choices=FEEDBACK, help="that users liked, disliked, or gave any feedback on")


def filters_of(options: argparse.Namespace) -> Filters:
    """Return the filters in the options."""
    return Filters.of(vars(options))


def _time(text: str) -> str:
    """Check a time, and return it as written, since each query interprets it, with `parse_moment`."""
    if parse_moment(text) is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time: write 90m, 24h, 7d, today, yesterday, or a date such as 2025-06-30T12:00"
        )
    return text


def _duration(text: str) -> str:
    if parse_duration(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration: write 10s, 800ms or 2min")
    return text


def age(text: str) -> float:
    """Parse an age, such as 7d, or a date; returns seconds since the epoch."""
    when = parse_time(text)
    if when is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an age: write 90m, 24h or 7d")
    return when


def positive(text: str) -> int:
    """Parse a number of rows."""
    # Nine digits are more rows than anyone reads, and fit SQLite's LIMIT.
    if not (text.isascii() and text.isdigit() and int(text[:9]) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, 1 or more")
    return int(text[:9])


def between(least: float, most: float) -> Callable[[str], float]:
    """Return a parser for a number within limits."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan  # outside all limits
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} must be a number from {least} to {most}")
        return value

    return parse


def whole_between(least: int, most: int) -> Callable[[str], int]:
    """Return a parser for a whole number within limits."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from {least} to {most}")
        return int(text)

    return parse


def outbox_path(chosen: str | None) -> str:
    """Return the path of the chosen outbox file, or of the one that the settings name."""
    path = chosen or Settings.build().outbox_path()
    if path == MEMORY:
        raise CommandError("ATHINA_OUTBOX is :memory:, which no other program can read: name a file with --outbox")
    return str(Path(path).expanduser())


def existing_outbox(chosen: str | None) -> str:
    """Return the path as `outbox_path` does. Raises `NothingLoggedError` if nothing was ever logged there."""
    path = Path(outbox_path(chosen))
    # Until an engine or a command collects them, the first logs are only in the journal.
    if not path.exists() and not path.with_suffix(".journal").exists():
        others = sorted(str(each) for each in path.parent.glob("*.db"))
        hint = f"; there are others: --outbox {' or '.join(others)}" if others else ""
        raise NothingLoggedError(f"nothing was logged yet to {path}{hint}")
    return str(path)


def explain_nothing(db: Connection, filters: Filters, terminal: Terminal) -> None:
    """Print why a list is empty, and what to do, on standard error."""
    status = queries.outbox_status(db)
    if filters.active():
        terminal.complain("no log matches these options")
    elif status.delivered:
        terminal.complain(
            f"no logs here: {status.delivered} entries were delivered and are no longer kept; "
            "ATHINA_KEEP_DELIVERED=48 keeps new ones for two days instead of one"
        )
    else:
        terminal.complain("no logs here yet")


DAMAGED = "the next program that logs there renames the damaged outbox, and starts a new one"


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Turn SQLite's errors into a message that names the file and the remedy."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise CommandError(f"{path}: {error}{f'; {DAMAGED}' if is_corrupt(error) else ''}") from None


@contextmanager
def open_outbox(chosen: str | None, terminal: Terminal) -> Iterator[IndexedOutbox]:
    """Open an outbox, with its index up to date."""
    with ExitStack() as stack:
        path = existing_outbox(chosen) if chosen != RELAY else _copy_of_refused(stack)
        yield stack.enter_context(open_file(path, terminal))


@contextmanager
def open_file(path: str, terminal: Terminal) -> Iterator[IndexedOutbox]:
    """Open the outbox file at `path`, created if missing, with its index up to date."""
    with _naming(path), closing(IndexedOutbox(path)) as outbox:
        # The first look at a large outbox reads every log in it.
        while not outbox.refresh(chunks=20):
            terminal.progress(f"reading the outbox, {outbox.backlog} entries to go")
        terminal.progress("")
        yield outbox


def _copy_of_refused(stack: ExitStack) -> str:
    """Copy the refused logs of a relay into an outbox that lives as long as `stack`; return its path."""
    require_packages("nats", "the relay")
    from athina_trace.cli.relay_connection import ask_relay  # noqa: PLC0415 - an optional extra
    from athina_trace.relay.refused import copy  # noqa: PLC0415 - an optional extra

    path = str(Path(stack.enter_context(TemporaryDirectory(prefix="athina_trace-"))) / "refused.db")
    ask_relay(lambda client, names: copy(client, names, path))
    return path
