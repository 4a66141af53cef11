"""Lists the integrations that understand objects which a program records itself or decorated functions return."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Iterable

    from athina_trace._answers.records import Record

__all__ = ["ObjectReader", "Source", "sources"]

_MODULES = ("athina_trace.integrations.openai.objects",)
"""Modules that are a `Source`, in the order in which they are tried; by name, since they import this package."""


class ObjectReader(Protocol):
    """Reads the objects of one log, and assembles streams from their chunks."""

    def read(self, subject: Any, /) -> Iterable[Record] | None:
        """Return the object's records; None for an object that this source does not know. Never raises."""
        ...

    def streamed(self) -> Iterable[Record]:
        """Return the records of the streams so far. Never raises."""
        ...


class Source(Protocol):
    """A module of an integration that reads objects."""

    Reader: type[ObjectReader]

    def may_be_known(self, subject: object, /) -> bool:
        """Return False quickly for what this source does not know, as most results of functions."""
        ...


sources: tuple[Source, ...] = tuple(cast("Source", import_module(name)) for name in _MODULES)
