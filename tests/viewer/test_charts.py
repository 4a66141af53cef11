"""The charts' numbers: each is the sum or percentile of the logs that a click on it shows."""

import json
import random
import re
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from athina_trace.viewer import charts, queries
from athina_trace.viewer.charts import Totals, load_charts, load_line, sorted_lines
from athina_trace.viewer.filters import Filters
from athina_trace.viewer.sorting import in_order
from tests.viewer.outboxes import NOON, log, opened, put

DAY = 86_400
CHANCE = random.Random(11)


def entry(number: int) -> Any:
    tools = [{"name": CHANCE.choice(["track", "book"]), "output": CHANCE.choice(["ok", "Error: no"])}]
    return log(
        f"s{number}",
        made=NOON - CHANCE.uniform(0, 3 * DAY),
        customer_id=CHANCE.choice(["a", "b", "c"]),
        prompt_slug=CHANCE.choice(["v1", "v2"]),
        environment=CHANCE.choice(["production", "staging"]),
        language_model_id=CHANCE.choice(["m1", "m2"]),
        total_tokens=CHANCE.randrange(500),
        response_time=CHANCE.randrange(1, 5000),
        cost=CHANCE.random(),
        custom_attributes={"time_to_first_chunk_ms": CHANCE.randrange(1, 900)},
        user_feedback=CHANCE.choice([0, 1, -1]),
        tool_calls=CHANCE.choice([[], tools, tools * 2]),
        **({"error": "boom"} if CHANCE.random() < 0.2 else {}),
    )


LOGS = [entry(number) for number in range(200)]
BODIES = [json.loads(each.body) for each in LOGS]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("charts") / "outbox.db"
    put(path, *LOGS)
    return path


@pytest.mark.parametrize("by", ["all", "customer", "slug", "model", "environment"])
def test_every_figure_is_the_sum_of_its_logs(filled: Path, by: str) -> None:
    with opened(filled) as source, source.open() as db:
        drawn = load_charts(db, by=by, now=NOON)
        for line in drawn.lines:
            filters = {by: line.name} if by != "all" else {}
            own = queries.logs(db, Filters(**filters), limit=1000).rows
            assert line.total._replace(cost=0.0) == Totals(
                calls=len(own),
                errors=sum(row["error"] is not None for row in own),
                tokens=sum(row["tokens"] for row in own),
                liked=sum(row["feedback"] > 0 for row in own),
                disliked=sum(row["feedback"] < 0 for row in own),
            )
            assert line.total.cost == pytest.approx(sum(row["cost"] for row in own))
            assert load_line(db, by=by, value=line.name, period="all", now=NOON).total[:3] == line.total[:3]
            for name, p50 in (("latency", line.total_latencies.p50), ("first_chunk", line.total_latencies.chunk_p50)):
                exact = sorted(row[name] for row in own)[len(own) // 2]
                assert p50 == pytest.approx(exact, rel=0.15)


def test_the_link_of_a_column_leads_to_the_logs_that_it_counts(filled: Path) -> None:
    with opened(filled) as source, source.open() as db:
        drawn = load_charts(db, by="customer", now=NOON)
        for line in drawn.lines:
            for place, column in enumerate(line.columns):
                behind = queries.logs(db, Filters(customer=line.name, **drawn.address_of(place)), limit=1000).rows
                assert len(behind) == column.calls
        assert [drawn.column(place).calls for place in range(len(drawn.starts))] == [
            sum(line.columns[place].calls for line in drawn.lines) for place in range(len(drawn.starts))
        ]


def test_tool_calls_and_failures_are_counted(filled: Path) -> None:
    calls = [call for body in BODIES for call in body["tool_calls"]]
    with opened(filled) as source, source.open() as db:
        lines = {line.name: line.total for line in load_charts(db, by="tool", now=NOON).lines}
    assert set(lines) == {"track", "book"}
    for name, total in lines.items():
        own = [call for call in calls if call["name"] == name]
        assert (total.calls, total.errors) == (len(own), sum(call["output"] != "ok" for call in own))


@pytest.mark.parametrize("period", charts.PERIODS)
def test_a_period_contains_exactly_its_logs(filled: Path, period: str) -> None:
    with opened(filled) as source, source.open() as db:
        drawn = load_charts(db, period=period, now=NOON)
        assert len(drawn.starts) <= charts.MAX_COLUMNS
        counted = sum(line.total.calls for line in drawn.lines)
        behind = queries.logs(db, Filters(**drawn.span), limit=1000).rows
        assert counted == len(behind)
        lengths = {"1h": 3600, "24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY}
        if period in lengths:
            assert 0 <= NOON - lengths[period] - drawn.starts[0] < drawn.width
        if period in ("today", "yesterday"):
            assert len(drawn.starts) * drawn.width <= 25 * 3600
            assert counted < len(LOGS)


def test_the_table_can_be_sorted_by_any_column(filled: Path) -> None:
    with opened(filled) as source, source.open() as db:
        lines = load_charts(db, by="customer", now=NOON).lines
    names = [line.name for line in lines]
    assert [line.name for line in sorted_lines(lines, "name")] == sorted(names)
    assert [line.name for line in sorted_lines(lines, "-name")] == sorted(names, reverse=True)
    for name, read in list(charts.LINE_COLUMNS.items())[1:]:
        down, up = ([float(read(line) or 0) for line in sorted_lines(lines, minus + name)] for minus in ("", "-"))
        assert down == sorted(down, key=lambda value: -(value or 0))
        assert up == sorted(up, key=lambda value: value or 0)
    assert sorted_lines(lines, "nonsense") == lines


def test_the_table_by_time_can_be_sorted_by_any_column(filled: Path) -> None:
    with opened(filled) as source, source.open() as db:
        columns = load_charts(db, now=NOON).busy_columns()
    assert len(columns) > 2
    for name, read in charts.TIME_COLUMNS.items():
        down, up = (
            [read(each) for each in in_order(columns, minus + name, charts.TIME_COLUMNS)] for minus in ("", "-")
        )
        assert down == sorted(down, reverse=True)
        assert up == sorted(up)
    assert in_order(columns, "nonsense", charts.TIME_COLUMNS) == columns


def test_small_groups_share_the_last_line(path: Path, shown: httpx.Client) -> None:
    put(path, *(log("s", customer_id=f"c{number % 9}", total_tokens=1) for number in range(30)))
    with opened(path) as source, source.open() as db:
        drawn = load_charts(db, by="customer", now=NOON + DAY)
    assert [line.name for line in drawn.lines][-1] == charts.OTHERS
    assert sum(line.total.calls for line in drawn.lines) == 30
    assert sorted_lines(drawn.lines, "-calls")[-1].name == charts.OTHERS
    page = unescape(shown.get("/charts?by=customer&sort=-calls").text)
    assert re.search(r'<th scope="row" class="main">others</th>', page)


def test_names_cannot_break_out_of_the_pages_json(path: Path, shown: httpx.Client) -> None:
    nasty = "</script><script>alert(1)</script>"
    put(path, log("a", customer_id=nasty))
    text = shown.get("/charts?by=customer").text
    data = json.loads(text.partition('id="chart-data">')[2].partition("</script>")[0])
    assert data["lines"][0]["name"] == nasty
    assert "<script>alert" not in text


def test_the_library_is_served_with_its_licence(shown: httpx.Client) -> None:
    assert "uPlot" in shown.get("/static/uplot/uPlot.iife.min.js").text[:200]
    assert "MIT License" in shown.get("/static/uplot/LICENSE").text
