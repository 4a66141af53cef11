"""Sorts tables whose rows are in memory; rows in the database are sorted in `queries.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

_Row = TypeVar("_Row")


def in_order(rows: Iterable[_Row], text: str, columns: Mapping[str, Callable[[_Row], Any]]) -> list[_Row]:
    """Sort rows by a column: texts from A to Z, numbers with the largest first; rows without a value come last.

    Args:
        rows: the rows, which keep their order if `text` does not name a column.
        text: the column's name in an address; with a minus before the name, the order is reversed.
        columns: name → a function that returns a row's value, or None.
    """
    rows, read = list(rows), columns.get(text.removeprefix("-"))
    if read is None:
        return rows
    known = [(value, row) for row in rows if (value := read(row)) is not None]
    is_text = any(isinstance(value, str) for value, _ in known)
    known.sort(key=lambda pair: pair[0], reverse=is_text == text.startswith("-"))
    return [*(row for _, row in known), *(row for row in rows if read(row) is None)]
