"""Output: tables and colour on a terminal, lines with tabs elsewhere; never a control character from a log."""

from __future__ import annotations

import io
import json
import os
import select
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from athina_trace._serialization import printable

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
_STATE_STYLES = {"waiting": "yellow", "refused": "red", "delivered": "green", "received": "green"}
_PROGRESS_SECONDS = 5.0


class CommandError(Exception):
    """A command failed (exit code 1); the message says why, and what to do."""


class NothingLoggedError(CommandError):
    """The outbox of a command does not exist yet."""


class UsageError(CommandError):
    """A command was called with wrong options (exit code 2)."""


class Column(NamedTuple):
    """One column of a table.

    Attributes:
        title: its heading.
        width: maximum width on a terminal; None: an equal share of the remaining space.
        right: whether values are aligned to the right.
        shown_from: minimum width of a terminal that shows it; None: never shown on a terminal.
        plain: whether it is printed without a terminal.
    """

    title: str
    width: int | None = None
    right: bool = False
    shown_from: int | None = 0
    plain: bool = True


class Terminal:
    """Standard output and standard error of one command."""

    def __init__(self) -> None:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None:  # closed by the shell, as by `>&-`
                setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", closefd=False))
            # A log may contain characters that the terminal's encoding lacks: they must not stop a command.
            elif isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        self._last_progress = time.monotonic()
        self._shows_progress = False

    @property
    def is_terminal(self) -> bool:
        """Whether a person reads the output."""
        return sys.stdout.isatty()

    @property
    def can_ask(self) -> bool:
        """Whether a person could answer."""
        return self.is_terminal and sys.stdin.isatty()

    def say(self, text: str = "", *, style: str = "") -> None:
        """Print a line."""
        sys.stdout.write(self._styled(printable(text), style) + "\n")

    def complain(self, text: str) -> None:
        """Print a line on standard error."""
        sys.stderr.write(f"athina-trace: {printable(text)}\n")

    def progress(self, text: str) -> None:
        """Show progress on standard error: in place on a terminal, elsewhere a line every five seconds.

        An empty text clears the line.
        """
        if sys.stderr.isatty():
            if text or self._shows_progress:
                sys.stderr.write(f"\r{printable(text)}\x1b[K" + ("" if text else "\r"))
                sys.stderr.flush()
            self._shows_progress = bool(text)
        elif text and time.monotonic() - self._last_progress > _PROGRESS_SECONDS:
            self._last_progress = time.monotonic()
            self.complain(text)

    def json(self, value: Any, *, indent: int | None = None) -> None:
        """Print one JSON value, on one line unless `indent` is given."""
        sys.stdout.write(safe_json(value, indent=indent) + "\n")

    def flush(self) -> None:
        """Flush standard output."""
        sys.stdout.flush()

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> None:
        """Print rows under headings; without a terminal, a line for each row, with tabs between values."""
        if not self.is_terminal:
            # No headings: a program that reads these lines would take them for a row.
            for row in rows:
                values = (_one_line(value) for value, column in zip(row, columns, strict=True) if column.plain)
                sys.stdout.write("\t".join(values) + "\n")
            return
        total = shutil.get_terminal_size().columns
        places = [
            place
            for place, column in enumerate(columns)
            if column.shown_from is not None and column.shown_from <= total
        ]
        # Columns are as wide as their content, up to their width; those without a width share the remaining space.
        lines = [[_one_line(row[place]) for place in places] for row in rows]
        shown = [columns[place] for place in places]
        widths = [
            min(column.width or 0, max(map(display_width, (column.title, *(line[place] for line in lines)))))
            for place, column in enumerate(shown)
        ]
        shares = sum(column.width is None for column in shown)
        share = max(4, (total - sum(widths) - 2 * (len(shown) - 1)) // max(1, shares))
        widths = [share if column.width is None else width for column, width in zip(shown, widths, strict=True)]
        headings = [column.title for column in shown]
        for line in (headings, *lines):
            cells = [
                fit(value, width, right=column.right) for value, width, column in zip(line, widths, shown, strict=True)
            ]
            styles = ["dim" if line is headings else _STATE_STYLES.get(value) for value in line]
            sys.stdout.write("  ".join(map(self._styled, cells, styles)).rstrip() + "\n")

    def raise_where_unread(self) -> None:
        """Raise `BrokenPipeError` if the reader of a pipe has ended, without waiting for the next line to fail."""
        poll = select.poll()
        poll.register(sys.stdout, 0)
        if any(event & select.POLLERR for _, event in poll.poll(0)):
            raise BrokenPipeError

    def ask(self, question: str) -> bool:
        """Ask, and return whether the answer begins with y."""
        try:
            return input(f"{printable(question)} [y/N] ").strip().lower().startswith("y")
        except EOFError:
            return False

    def _styled(self, text: str, style: str | None) -> str:
        # https://no-color.org
        if not style or not self.is_terminal or os.environ.get("NO_COLOR"):
            return text
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def safe_json(value: Any, *, indent: int | None = None) -> str:
    """Encode a value as equivalent JSON without control characters."""
    text = json.dumps(value, ensure_ascii=False, default=str, indent=indent)
    # json escapes those below a space; the others occur only inside strings, where an escape is equivalent.
    return printable(text, escaped=True)


def display_width(text: str) -> int:
    """Return how many columns of a terminal a text takes: two for East Asian wide characters, none for marks."""
    if text.isascii():
        return len(text)
    return sum(_character_width(character) for character in text)


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Cut or pad a text to a width in columns of a terminal."""
    if display_width(text) > width:
        kept, used = "", 0
        # The last column is for the ellipsis; before a wide character, another one may stay empty.
        for character in text:
            used += _character_width(character)
            if used > width - 1:
                break
            kept += character
        text = f"{kept}…"
    padding = " " * (width - display_width(text))
    return padding + text if right else text + padding


def _character_width(character: str) -> int:
    # Combining and format characters take no column: they modify the character before them.
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _one_line(value: object) -> str:
    return "-" if value is None else " ".join(printable(str(value)).split())
