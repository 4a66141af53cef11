"""Which integrations understand objects that a program records itself or returns from a decorated function."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Iterable

    from athina_trace._answers.records import Record

__all__ = ["ObjectReader", "Source", "sources"]

_MODULES = ("athina_trace.integrations.openai.objects",)
"""Modules that are a `Source`, asked in this order; by name, since they are built on the records of this package."""


class ObjectReader(Protocol):
    """Reads the objects of one log, and puts together streams whose chunks it is given."""

    def read(self, subject: Any, /) -> Iterable[Record] | None:
        """Return what the object says; None for an object that this source does not know. Never raises."""
        ...

    def streamed(self) -> Iterable[Record]:
        """Return what the streams have given so far. Never raises."""
        ...


class Source(Protocol):
    """A module of an integration."""

    Reader: type[ObjectReader]

    def may_be_known(self, subject: object, /) -> bool:
        """Return False at once for what this source does not know. Asked about most results of functions."""
        ...


sources: tuple[Source, ...] = tuple(cast("Source", import_module(name)) for name in _MODULES)
