"""Tables of figures, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .peers import CONTESTANTS, IMPORTS, YARDSTICK

Results = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Scenario → contestant → figure."""

US = "athina_trace"


class Column(NamedTuple):
    """A figure of a scenario; `ratio` adds its ratio to ours."""

    title: str
    scenario: str
    figure: str
    digits: int = 0
    ratio: bool = False


class Table(NamedTuple):
    title: str
    rows: tuple[str, ...]
    columns: tuple[Column, ...]


TABLES = (
    Table(
        "Added at the call, microseconds (and how many times ours)",
        CONTESTANTS,
        (
            Column("burst, median", "burst", "median", ratio=True),
            Column("burst, 99 %", "burst", "p99", ratio=True),
            Column("1 ms apart", "paced", "median", ratio=True),
            Column("1,000 asyncio calls, each", "asyncio", "median", ratio=True),
            Column("three nested", "nested", "median", ratio=True),
            Column("stream of 200 chunks", "stream", "median", ratio=True),
            Column("server slow", "slow", "median", ratio=True),
            Column("server down", "down", "median", ratio=True),
            Column("disabled", "disabled", "median", digits=2),
        ),
    ),
    Table(
        "Delivery",
        (*CONTESTANTS, YARDSTICK),
        (
            Column("delivered of the burst", "burst", "delivered"),
            Column("seconds until the last", "burst", "last", digits=2),
            Column("CPU for each log, µs", "burst", "cpu", ratio=True),
            Column("memory, MB", "burst", "memory", digits=1),
            Column("delivered after kill -9 and a restart", "killed", "delivered"),
            Column("delivered after an outage and a restart", "down", "delivered"),
            Column("seconds to exit while the server is down", "down", "exit", digits=1),
        ),
    ),
    Table("Import", tuple(IMPORTS), (Column("milliseconds", "import", "import", ratio=True),)),
)


def cell(results: Results, row: str, column: Column) -> str:
    measured = results.get(column.scenario, {})
    value = measured.get(row, {}).get(column.figure)
    if value is None:
        return "—"
    ours = measured.get(US, {}).get(column.figure)
    text = f"{value:,.{column.digits}f}"
    return f"{text} ({value / ours:.1f}x)" if column.ratio and ours and row != US else text


def grid(table: Table, results: Results) -> list[list[str]]:
    head = ["", *(column.title for column in table.columns)]
    return [head, *([row, *(cell(results, row, column) for column in table.columns)] for row in table.rows)]


def turned(rows: list[list[str]]) -> list[list[str]]:
    """Transpose a table."""
    return [list(column) for column in zip(*rows, strict=True)]


def terminal(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in turned(rows)]
    return "\n".join("  ".join(each.rjust(width) for each, width in zip(row, widths, strict=True)) for row in rows)


def markdown(rows: list[list[str]]) -> str:
    head, *body = rows
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))
