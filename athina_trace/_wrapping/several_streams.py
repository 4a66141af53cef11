"""Calls that return several streams at once: a call ends with the last of them, and their texts are kept apart."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any, Final

from athina_trace._serialization.introspection import type_placeholder
from athina_trace._wrapping.calls import Call, DeferredWork, attempt, run_now
from athina_trace._wrapping.generators import Follow

_MOST_APART: Final = 100_000
"""Maximum number of texts of one stream that wait for the streams before it."""


class SeveralStreams:
    """A call and its streams, in the order in which they were returned."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.parts: list[OneStream] = []
        self.error: BaseException | None = None
        """The first error that ended a stream; a failure rather than that another one was closed or cancelled."""
        self._ended = count(1)

    def followed(self, streams: Mapping[Any, Any], follow: Follow) -> dict[Any, Any]:
        """Follow the streams; return by name what the program gets, or None for a stream that is not followed."""
        given: dict[Any, Any] = {}
        for name, stream in streams.items():
            part = OneStream(self)
            given[name] = attempt(follow, stream, part)
            if given[name] is not None:
                self.parts.append(part)
        return given

    def end_one(self, value: object) -> DeferredWork:
        """Note that a stream has ended, in any thread; end the call with the last one."""
        if next(self._ended) < len(self.parts):
            return None
        for part in self.parts:
            part.hand_over()
        return self.call.done(value) if self.error is None else self.call.failed(self.error)


class OneStream(Call):
    """Stands for the call in one of its streams."""

    __slots__ = ("_begun", "_ended", "_streams", "_texts")

    def __init__(self, streams: SeveralStreams) -> None:
        self._streams = streams
        self._begun = self._ended = False
        self._texts: list[Any] = []

    def enter(self) -> None:
        self._streams.call.enter()

    def leave(self) -> None:
        self._streams.call.leave()

    def begun(self) -> None:
        self._begun = True
        self._streams.call.begun()

    def chunks(self, values: list[Any]) -> None:
        self._begun = True
        self._texts += values
        is_first = self is self._streams.parts[0]
        # Objects other than texts may be changed later, so they are read now.
        if is_first or type(values[-1]) is not str or len(self._texts) > _MOST_APART:
            self.hand_over()

    def hand_over(self) -> None:
        """Pass the texts that were kept apart to the call."""
        if self._texts:
            attempt(self._streams.call.chunks, self._texts)
            self._texts.clear()

    def done(self, value: object) -> DeferredWork:
        if self._ended:
            return None
        self._ended = True
        return self._streams.end_one(value)

    def failed(self, error: BaseException) -> DeferredWork:
        if not isinstance(known := self._streams.error, Exception):
            self._streams.error = error if known is None or isinstance(error, Exception) else known
        return self.done(None)

    def collected(self, stream: object) -> None:
        if not self._ended:
            run_now(self.failed(GeneratorExit()) if self._begun else self.done(type_placeholder(stream)))
