"""For the tests of programs that log: captures logs without disk, network or thread.

    from athina_trace.testing import captured_logs

    with captured_logs() as logs:
        answer("Where is my parcel?")
    logs.assert_logged(user_query="Where is my parcel?", customer_id="disney")

In pytest, use the fixture `athina_logs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, overload

from pydantic_core import from_json

from athina_trace import _runtime
from athina_trace._delivery.routes import Kind
from athina_trace._pipeline.recorder import Recorder
from athina_trace.inference_log import InferenceLog
from athina_trace.schema import ALIASES, nearest
from athina_trace.settings import Settings

__all__ = ["CapturedLogs", "captured_logs"]

_LONGEST_SHOWN = 200


class CapturedLogs(Sequence[InferenceLog]):
    """The logs made so far, oldest first, as they would be sent.

    >>> with captured_logs() as logs:
    ...     reference = log_inference(user_query="Where is it?", response="On its way.")
    >>> logs[0].response, len(logs), logs.assert_logged(user_query="Where is it?").response
    ('On its way.', 1, 'On its way.')
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    @overload
    def __getitem__(self, index: int) -> InferenceLog: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[InferenceLog]: ...

    def __getitem__(self, index: int | slice) -> InferenceLog | Sequence[InferenceLog]:
        return [InferenceLog.of(fields) for fields in self.wire][index]

    def __len__(self) -> int:
        return len(self.wire)

    def __repr__(self) -> str:
        return f"<{len(self)} captured logs>"

    @property
    def wire(self) -> list[dict[str, Any]]:
        """The logs as the JSON objects that would be sent to Athina."""
        return self._bodies("log")

    @property
    def updates(self) -> list[dict[str, Any]]:
        """The changes made by `update_log`, each with the id of its log."""
        named = {"update": "external_reference_id", "update_by_id": "prompt_run_id"}
        return [
            {named[entry.kind]: entry.reference, **from_json(entry.body)}
            for entry in self._recorder.entries
            if entry.kind in named
        ]

    @property
    def feedback(self) -> list[dict[str, Any]]:
        """The feedback given to `log_feedback`."""
        return self._bodies("feedback")

    def clear(self) -> None:
        """Forget all logs made so far."""
        self._recorder.entries.clear()

    def assert_logged(self, **expected: Any) -> InferenceLog:
        """Return the first log that has these fields. Raises `AssertionError`, showing how the nearest one differs.

        Only the given `custom_attributes` are compared.
        """
        for name in expected:
            if ALIASES.get(name, name) not in InferenceLog.model_fields:
                raise TypeError(f"unknown field {name!r}{nearest(name)}")
        logs = list(self)
        differences = [_differences(log, expected) for log in logs]
        if not logs:
            raise AssertionError("expected a log, but nothing was logged")
        # The nearest log is the one with the fewest differences; of several, the oldest.
        place = min(range(len(logs)), key=lambda number: len(differences[number]))
        if not differences[place]:
            return logs[place]
        lines = [f"none of {len(logs)} logs has the expected fields; the nearest is number {place + 1}:"]
        for name, value, actual in differences[place]:
            lines += [f"  {name}", f"    expected: {_shown(value)}", f"    logged:   {_shown(actual)}"]
        raise AssertionError("\n".join(lines))

    def assert_one(self, **expected: Any) -> InferenceLog:
        """Return the only log, and check its fields. Raises `AssertionError` for any other number of logs."""
        if len(self) != 1:
            raise AssertionError(f"expected one log, got {len(self)}{_listed(list(self))}")
        return self.assert_logged(**expected)

    def assert_none(self) -> None:
        """Raise `AssertionError` if anything was logged."""
        if len(self):
            raise AssertionError(f"expected no log, got {len(self)}{_listed(list(self))}")

    def _bodies(self, kind: Kind) -> list[dict[str, Any]]:
        return [from_json(entry.body) for entry in self._recorder.entries if entry.kind == kind]


@contextmanager
def captured_logs(**settings: Any) -> Iterator[CapturedLogs]:
    """Capture the logs made inside instead of delivering them; the environment's settings are ignored.

    Each context (thread, task) has its own: tests that run in parallel do not see each other's logs. Logs from other
    threads go to the only open `captured_logs()`; if several are open, pass the context on with `athina_trace.wrap` or
    `ContextThreadPoolExecutor`.

    Args:
        settings: fields of `Settings`, such as `sample_rate` or `mask`.

    >>> with captured_logs(maskers=["email"]) as logs:
    ...     reference = log_inference(response="Write to m.mouse@disney.example")
    >>> logs.assert_one(response="Write to [email]").external_reference_id == reference
    True
    """
    # Not from the environment, so that a developer's settings do not affect tests.
    recorder = Recorder(Settings.build({}, **settings))
    token = _runtime.record_into(recorder)
    try:
        yield CapturedLogs(recorder)
    finally:
        _runtime.stop_recording(recorder, token)


def _differences(log: InferenceLog, expected: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (field, expected, actual) for each field that differs."""
    pairs: list[tuple[str, Any, Any]] = []
    for name, value in expected.items():
        actual = getattr(log, ALIASES.get(name, name))
        if name == "custom_attributes" and isinstance(value, Mapping):
            known = actual or {}
            pairs += [(f"custom_attributes[{key!r}]", each, known.get(key)) for key, each in value.items()]
        else:
            pairs.append((name, value, actual))
    return [(name, value, actual) for name, value, actual in pairs if actual != value]


def _listed(logs: list[InferenceLog]) -> str:
    lines = [f"\n  {number}. {_shown(log.user_query)} -> {_shown(log.response)}" for number, log in enumerate(logs, 1)]
    return ":" + "".join(lines) if lines else ""


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}… ({len(shown)} characters)"
