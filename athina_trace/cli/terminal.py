"""How commands speak: tables and colour on a terminal, plain lines with tabs everywhere else."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What could move a terminal's cursor, change its title, or turn its text around."""
_STYLES = {"waiting": "yellow", "refused": "red", "delivered": "green", "received": "green"}


class Failure(Exception):  # noqa: N818 - a sentence for the user, with the exit code 1
    """A command could not do what it was asked; the message says why and what helps."""


class Terminal:
    """Standard output and standard error of one command."""

    def __init__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        self._out = Console(highlight=False, soft_wrap=True)
        self._err = Console(highlight=False, soft_wrap=True, stderr=True)

    @property
    def is_terminal(self) -> bool:
        """Whether a person reads along."""
        return sys.stdout.isatty()

    @property
    def can_ask(self) -> bool:
        """Whether a person could answer."""
        return self.is_terminal and sys.stdin.isatty()

    @property
    def console(self) -> Console:
        """For progress bars."""
        return self._out

    def say(self, text: str = "", *, style: str = "") -> None:
        """A line."""
        self._out.print(Text(tame(text), style=style if self.is_terminal else ""))

    def complain(self, text: str) -> None:
        """A line on standard error."""
        self._err.print(Text(f"athina-trace: {tame(text)}"))

    def json(self, value: Any) -> None:
        """One JSON value on one line."""
        sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")

    def flush(self) -> None:
        """Nothing stays in a buffer."""
        sys.stdout.flush()

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
        """Rows under headings; without a terminal one row a line, values apart by tabs."""
        if not self.is_terminal:
            for row in rows:
                sys.stdout.write("\t".join(_flat(value) for value in row) + "\n")
            return
        table = Table(box=None, header_style="dim", pad_edge=False, expand=True)
        for place, column in enumerate(columns):
            justify: Any = "right" if column in right else "left"
            table.add_column(column, justify=justify, no_wrap=True, overflow="ellipsis", ratio=None if place else 1)
        for row in rows:
            table.add_row(*(_cell(value) for value in row))
        self._out.print(table, soft_wrap=False)

    def ask(self, question: str) -> bool:
        """Whether the answer begins with y."""
        try:
            return input(f"{tame(question)} [y/N] ").strip().lower().startswith("y")
        except EOFError:
            return False


def tame(text: str) -> str:
    """Text that a terminal shows and does not obey."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _flat(value: object) -> str:
    return " ".join(tame(_text(value)).split())


def _cell(value: object) -> Text:
    text = _flat(value)
    return Text(text, style=_STYLES.get(text, ""))


def _text(value: object) -> str:
    return "-" if value is None else str(value)
