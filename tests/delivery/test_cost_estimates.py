"""`estimate_cost`: logs without a cost get an estimate when they are sent."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import athina_trace as at
from athina_trace import _prices
from athina_trace._delivery.cost_estimates import with_estimate
from athina_trace.viewer.log_fields import log_row
from tests.support.athina_server import AthinaServer, busy

SPENT: dict[str, Any] = {"language_model_id": "gpt-4o-mini", "prompt_tokens": 1000, "completion_tokens": 100}
PRICE = 0.00021


def sent(athina: AthinaServer, **fields: Any) -> dict[str, Any]:
    """Log these fields; return the log that arrives."""
    at.log_inference(**{"prompt": "Where is it?", "response": "In Leipzig.", **fields})
    assert at.flush(60).waiting == 0
    log: dict[str, Any] = athina.accepted[-1].json
    return log


def configure(athina: AthinaServer, **settings: Any) -> None:
    at.configure(**{"api_key": "key", "base_url": athina.url, "estimate_cost": True, **settings})


def test_an_estimated_cost_is_sent_and_marked(athina: AthinaServer) -> None:
    configure(athina)
    log = sent(athina, **SPENT, custom_attributes={"team": "parcels"})
    assert log["cost"] == pytest.approx(PRICE)
    assert log["custom_attributes"].items() >= {"team": "parcels", "cost_estimated": True}.items()
    assert sent(athina, **SPENT, custom_attributes={"cached_tokens": 1000})["cost"] < PRICE
    (kept, _) = at.recent_logs()
    assert "cost" not in kept
    del log["cost"], log["custom_attributes"]["cost_estimated"]
    assert log == kept


@pytest.mark.parametrize(
    ("fields", "cost"),
    [
        ({**SPENT, "cost": 7.5}, 7.5),
        ({**SPENT, "cost": 0}, 0),
        ({**SPENT, "language_model_id": "nobody-knows-it"}, None),
        ({"language_model_id": "gpt-4o-mini"}, None),
        ({"prompt_tokens": 1, "completion_tokens": 1}, None),
    ],
)
def test_a_given_cost_is_kept_and_nothing_is_guessed(
    athina: AthinaServer, fields: dict[str, Any], cost: float | None
) -> None:
    configure(athina)
    log = sent(athina, **fields)
    assert log.get("cost") == cost
    assert "cost_estimated" not in log.get("custom_attributes", {})


def test_without_the_setting_no_cost_is_sent(athina: AthinaServer) -> None:
    configure(athina, estimate_cost=False)
    assert "cost" not in sent(athina, **SPENT)


def test_changes_and_feedback_get_no_cost(athina: AthinaServer) -> None:
    configure(athina)
    reference = at.log_inference(prompt="", response="", **SPENT)
    at.update_log(external_reference_id=reference, **SPENT)
    at.log_feedback(reference, 1)
    assert at.flush(60).waiting == 0
    assert ["cost" in request.json for request in athina.accepted] == [True, False, False]


def test_hooks_and_masks_come_first(athina: AthinaServer) -> None:
    def before_emit(log: at.InferenceLog) -> at.InferenceLog:
        assert log.cost is None
        return log.model_copy(update={"prompt_tokens": None} if log.user_query == "hidden" else {"cost": 3.0})

    configure(athina, before_emit=before_emit, hook_timeout=60, mask_patterns=[r"\d+"])
    assert "cost" not in sent(athina, **SPENT, user_query="hidden")
    assert sent(athina, **SPENT)["cost"] == 3.0


def test_the_price_is_looked_up_by_a_sender_before_the_request(
    athina: AthinaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def estimate(*_: object, **__: object) -> float:
        threads.append(threading.current_thread().name)
        assert not athina.requests
        return 1.0

    monkeypatch.setattr(_prices, "estimate", estimate)
    configure(athina)
    assert sent(athina, **SPENT)["cost"] == 1.0
    assert [name.startswith("athina-trace-sender") for name in threads] == [True]


def test_a_program_without_the_setting_loads_nothing_for_it() -> None:
    code = (
        "import sys, athina_trace as at; at.configure(api_key='key', base_url='http://127.0.0.1:9', outbox=':memory:', "
        "exit_timeout=0); at.log_inference(prompt='', response=''); at.flush(0.2); "
        "print([name for name in sys.modules if 'price' in name or name.endswith('.costs')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.strip() == "[]"


def test_without_the_price_table_one_warning_says_what_to_install(
    athina: AthinaServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_prices, "AVAILABLE", False)
    with caplog.at_level(logging.WARNING, "athina_trace"):
        configure(athina)
        assert "cost" not in sent(athina, **SPENT)
        assert "cost" not in sent(athina, **SPENT)
    (warning,) = [record.getMessage() for record in caplog.records if "COST" in record.getMessage()]
    assert "pip install genai-prices" in warning


def test_a_log_with_an_estimate_is_no_larger_than_any_log(athina: AthinaServer) -> None:
    configure(athina, max_log_bytes=3000)
    for size in (2600, 2700, 2800, 10_000):
        log = sent(athina, **{**SPENT, "response": "x" * size})
        assert len(athina.accepted[-1].body) <= 3000
        assert log["cost"] == pytest.approx(PRICE)


def test_a_retried_log_has_the_same_cost(athina: AthinaServer) -> None:
    configure(athina)
    athina.script(busy(0), busy(0))
    assert sent(athina, **SPENT)["cost"] == pytest.approx(PRICE)
    assert len({request.body for request in athina.requests}) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "language_model_id": st.sampled_from(["gpt-4o-mini", "gpt-4o", "x", ""]) | JSON,
            "prompt_tokens": st.integers() | JSON,
            "completion_tokens": st.integers() | JSON,
            "cost": JSON,
            "custom_attributes": st.dictionaries(st.sampled_from(["cached_tokens", "a"]), JSON) | st.none(),
            "response": st.text(),
        },
    )
)
def test_whatever_a_log_holds_nothing_else_of_it_changes(log: dict[str, Any]) -> None:
    found = json.loads(with_estimate(json.dumps(log).encode()))
    if found == log:
        return
    assert found.pop("cost") >= 0
    assert not isinstance(log.pop("cost", None), (int, float))
    assert found.pop("custom_attributes") == {**(log.pop("custom_attributes", None) or {}), "cost_estimated": True}
    assert found == log


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b'{"cost":', b'{"response":"\\ud800"}', b"\xff"])
def test_a_body_that_is_not_a_log_is_sent_unchanged(body: bytes) -> None:
    assert with_estimate(body) == body


def test_the_viewer_marks_a_cost_that_was_sent_as_an_estimate() -> None:
    fields = {**SPENT, "cost": 0.5, "custom_attributes": {"cost_estimated": True}}
    row = log_row(1, time.time(), "r", fields, size=1)
    assert (row.cost, row.is_estimate) == (0.5, True)
