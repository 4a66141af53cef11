"""The order of tables whose rows are in memory; that of rows in the database is in `queries.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

_Row = TypeVar("_Row")


def in_order(rows: Iterable[_Row], text: str, columns: Mapping[str, Callable[[_Row], Any]]) -> list[_Row]:
    """Sort rows by a column: texts from A to Z, numbers with the largest first; what has no value comes last.

    Args:
        rows: the rows, which keep their order where `text` names no column.
        text: the column as an address names it; with a minus before its name, the order is turned round.
        columns: name → what returns a row's value, or None.
    """
    rows, read = list(rows), columns.get(text.removeprefix("-"))
    if read is None:
        return rows
    known = [(value, row) for row in rows if (value := read(row)) is not None]
    is_text = any(isinstance(value, str) for value, _ in known)
    known.sort(key=lambda pair: pair[0], reverse=is_text == text.startswith("-"))
    return [*(row for _, row in known), *(row for row in rows if read(row) is None)]
