"""A call that returned several streams at once: it ends with the last of them, and their texts stay apart."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any, Final

from athina_trace._serialization.introspection import type_placeholder
from athina_trace._wrapping.calls import Call, DeferredWork, attempt, run_now
from athina_trace._wrapping.generators import Follow

_MOST_APART: Final = 100_000
"""Texts of one stream that wait for those of the streams before it."""


class Several:
    """The call, and its streams in the order in which they were returned."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.parts: list[Part] = []
        self.error: BaseException | None = None
        """The first one that ended a stream early."""
        self._ended = count(1)

    def followed(self, streams: Mapping[Any, Any], follow: Follow) -> dict[Any, Any]:
        """Follow the streams; gives by name what the program is to get, None for what is not followed after all."""
        given: dict[Any, Any] = {}
        for name, stream in streams.items():
            part = Part(self)
            given[name] = attempt(follow, stream, part)
            if given[name] is not None:
                self.parts.append(part)
        return given

    def end_one(self, value: object) -> DeferredWork:
        """End the call if all of its streams have ended, which several threads may read."""
        if next(self._ended) < len(self.parts):
            return None
        for part in self.parts:
            part.hand_over()
        return self.call.done(value) if self.error is None else self.call.failed(self.error)


class Part(Call):
    """What the call is for one of its streams."""

    __slots__ = ("_begun", "_ended", "_several", "_texts")

    def __init__(self, several: Several) -> None:
        self._several = several
        self._begun = self._ended = False
        self._texts: list[Any] = []

    def enter(self) -> None:
        self._several.call.enter()

    def leave(self) -> None:
        self._several.call.leave()

    def begun(self) -> None:
        self._begun = True
        self._several.call.begun()

    def chunks(self, values: list[Any]) -> None:
        self._begun = True
        self._texts += values
        is_first = self is self._several.parts[0]
        # An object may be changed later, and is read now.
        if is_first or type(values[-1]) is not str or len(self._texts) > _MOST_APART:
            self.hand_over()

    def hand_over(self) -> None:
        """Let the call read what was kept apart."""
        if self._texts:
            attempt(self._several.call.chunks, self._texts)
            self._texts.clear()

    def done(self, value: object) -> DeferredWork:
        if self._ended:
            return None
        self._ended = True
        return self._several.end_one(value)

    def failed(self, error: BaseException) -> DeferredWork:
        self._several.error = self._several.error or error
        return self.done(None)

    def collected(self, stream: object) -> None:
        if not self._ended:
            run_now(self.failed(GeneratorExit()) if self._begun else self.done(type_placeholder(stream)))
