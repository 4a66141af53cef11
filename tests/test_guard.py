"""The guard between our errors and the program, and the callbacks behind it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import pytest

from athina_trace import _guard, _periodic


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Swallow our own errors, as outside of tests."""
    monkeypatch.setattr(_guard, "strict", False)


def with_shield(error: BaseException) -> None:
    with _guard.shield("doing something"):
        raise error


def with_swallow(error: BaseException) -> None:
    try:
        raise error  # noqa: TRY301 - as our own code does
    except Exception:  # noqa: BLE001 - the guard decides
        _guard.swallow("doing something")


FORMS = pytest.mark.parametrize("form", [with_shield, with_swallow])
Form = Callable[[BaseException], None]


@FORMS
@pytest.mark.usefixtures("lenient")
def test_a_fault_is_counted_and_logged_once_a_minute(form: Form, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3):
        form(LookupError(number))
    assert _guard.faults == 3
    assert caplog.messages == ["athina_trace: doing something failed; your call is unaffected: LookupError(0)"]
    assert caplog.records[0].levelno == logging.WARNING


@FORMS
def test_in_tests_a_fault_is_raised(form: Form) -> None:
    with pytest.raises(LookupError) as caught:
        form(LookupError())
    assert caught.value.__context__ is None
    assert _guard.faults == 1


@FORMS
@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
def test_exceptions_that_end_the_program_or_a_stream_pass(form: Form, error: BaseException) -> None:
    with pytest.raises(type(error)):
        form(error)
    assert _guard.faults == 0


@pytest.mark.usefixtures("lenient")
def test_a_shield_reports_the_error_that_it_swallowed() -> None:
    with _guard.shield("doing something") as whole:
        pass
    with _guard.shield("doing something") as broken:
        raise LookupError
    assert whole.error is None
    assert isinstance(broken.error, LookupError)


@pytest.mark.usefixtures("lenient")
def test_a_callback_that_fails_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_periodic, "_callbacks", [])
    calls: list[tuple[float, bool]] = []

    def fails(_now: float, _ending: bool) -> float:
        raise LookupError

    def waits(now: float, ending: bool) -> float:
        calls.append((now, ending))
        return 5.0

    for callback in (fails, waits, waits):
        _periodic.register(callback)
    assert _periodic.tick(7.0) == 5.0
    _periodic.finish(ending=True)
    assert calls == [(7.0, False), (math.inf, True)]
    assert _guard.faults == 2
