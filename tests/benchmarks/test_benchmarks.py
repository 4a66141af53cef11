"""The benchmark itself: its sink counts, its workers measure, its tables are consistent. Peers are not run."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.benchmarks import handlers, runs, servers
from tests.benchmarks.peers import CONTESTANTS, IMPORTS, PACKAGES, SETUPS
from tests.benchmarks.scenarios import scenarios, summary
from tests.benchmarks.tables import TABLES, grid, markdown, terminal, turned
from tests.benchmarks.worker import added

work = partial(runs.work, longest=150.0)  # a busy machine must not fail the test


@pytest.fixture(scope="module")
def sink() -> Iterator[str]:
    with runs.sink() as url:
        yield url


def post(url: str, body: bytes, **headers: str) -> None:
    with urlopen(Request(url, body, headers)) as answer:  # noqa: S310 - our own sink
        assert answer.status == 200


def test_the_sink_counts_each_call_once_in_any_format(sink: str) -> None:
    runs.ask(sink, "start")
    post(f"{sink}/anything", b"\x00call-000001-\x01 call-000002-")
    post(f"{sink}/v1/traces", gzip.compress(b'{"q": "call-000002- call-000003-"}'), **{"Content-Encoding": "gzip"})
    post(f"{sink}/warming", b"call-900000-")
    report = runs.ask(sink, "report")
    assert (report["delivered"], report["requests"]) == (3, 3)


@pytest.mark.parametrize("scenario", ["burst", "asyncio", "nested", "stream", "disabled"])
def test_a_worker_prints_what_it_measured(sink: str, scenario: str, tmp_path: Path) -> None:
    runs.ask(sink, "start")
    figures = work("worker", "athina_trace", scenario, sink, 20, at=tmp_path)
    assert {"median", "p99"} <= figures.keys()
    if scenario == "burst":
        assert runs.ask(sink, "report")["delivered"] == 20


def test_logs_of_a_killed_worker_arrive_after_the_next_start(sink: str, tmp_path: Path) -> None:
    runs.ask(sink, "start")
    for scenario in ("killed", "restarted"):
        work("worker", "athina_trace", scenario, sink, 20, at=tmp_path)
    assert runs.ask(sink, "report")["delivered"] == 20


@pytest.mark.parametrize("measurement", [("waiting", 10, 20), ("threads", 2, 20), ("payload", 1000, 20)])
def test_growth_is_measured(measurement: tuple[object, ...], tmp_path: Path) -> None:
    assert work("growth_worker", *measurement, at=tmp_path)


def test_times_are_those_added_by_the_decorator() -> None:
    bare, decorated = [1000] * 100, [5000] * 98 + [900_000] * 2
    assert added(bare, decorated) == {"median": 4.0, "p99": 899.0}


def test_several_rounds_give_medians_and_the_worst_delivery() -> None:
    rounds = [{"median": value, "delivered": value} for value in (3.0, 1.0, 2.0)]
    assert summary(rounds) == {"median": 2.0, "delivered": 1.0}


def test_tables_show_ratios_and_dashes_for_missing_figures() -> None:
    results = {"burst": {"athina_trace": {"median": 20.0}, "Langfuse": {"median": 130.0}}}
    rows = grid(TABLES[0], results)
    assert [row[1] for row in rows if row[0] in ("athina_trace", "Langfuse", "Logfire")] == ["20", "130 (6.5x)", "—"]
    assert markdown(rows).count("\n") == len(rows)
    assert len(terminal(turned(rows)).splitlines()) == len(rows[0])


def test_every_contestant_can_be_set_up_named_and_imported() -> None:
    assert set(PACKAGES) == set(SETUPS)
    assert set(CONTESTANTS) <= set(IMPORTS)
    assert {column.scenario for table in TABLES for column in table.columns} <= set(scenarios(quick=True))


def test_a_server_that_fails_at_random_is_measured_until_it_has_accepted_all() -> None:
    title, goal, delivered, *_ = servers.measure("unreliable")
    assert title.startswith("a third fails")
    assert goal == "600 within 10 s"
    assert delivered.startswith("600 of 600 in ")


@pytest.mark.parametrize(("framework", "needs"), [("langchain", "langchain_core"), ("litellm", "litellm")])
def test_a_handler_is_measured_or_the_missing_package_is_named(framework: str, needs: str, tmp_path: Path) -> None:
    figures = work("handlers", framework, "athina_trace", "nowhere", at=tmp_path)
    assert "cpu" in figures if find_spec(needs) else figures["missing"] == needs


def test_the_table_of_handlers_names_missing_packages(sink: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(_module: str, framework: str, contestant: str, to: str, **_: object) -> dict[str, object]:
        if framework == "litellm":
            return {} if contestant == "langfuse" else {"missing": "litellm"}
        took = 10.0 if contestant == "nothing" else 40.0
        return {"cpu": took} if to == "nowhere" else dict.fromkeys(("median", "p99", "safe"), took)

    monkeypatch.setattr(runs, "work", work)
    _, nothing, ours, langfuse, _ = handlers.measure(sink, rounds=1)
    assert nothing == ["nothing", *["10"] * 4, *["— (no litellm)"] * 4]
    assert ours[:5] == ["athina_trace", *["+30"] * 4]
    assert langfuse[5:] == ["— (no litellm)"] * 4


def test_the_end_of_a_span_is_measured(tmp_path: Path) -> None:
    assert work("spans", 1, "as-json", at=tmp_path).keys() == {"alone", "added"}


def test_a_gateway_is_measured() -> None:
    options = ["--warm-up", "50", "--rate", "50", "--seconds", "1", "--processes", "2"]
    command = [sys.executable, "-m", "tests.benchmarks.gateway", *options]
    printed = subprocess.run(command, cwd=runs.ROOT, capture_output=True, text=True, timeout=150, check=True).stdout
    assert "0 of 50 not with 200" in printed
    assert "delivered    100 of 100, exit codes [0, 0]" in printed
