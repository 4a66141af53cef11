"""Lists the integrations that understand objects which a program records itself or decorated functions return."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Iterable

    from athina_trace._answers.records import Record

__all__ = ["ObjectReader", "Source", "may_be_known", "sources"]

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


@cache
def sources() -> tuple[Source, ...]:
    """Return the sources, which are imported with the first log."""
    return tuple(cast("Source", import_module(name)) for name in _MODULES)


def may_be_known(subject: object) -> bool:
    """Return False quickly for objects that no source understands, as most results of decorated functions."""
    # Without a generator, which takes long to create and to end, or an import, which looks the module up each time.
    for source in sources():  # noqa: SIM110
        if source.may_be_known(subject):
            return True
    return False
