"""The small parts: Markdown, percentiles, charts, formatting."""

import json
import random
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athina_trace.viewer import charts, formatting
from athina_trace.viewer.aggregates import bin_of, latency_of, percentile
from athina_trace.viewer.markdown import render
from athina_trace.viewer.sorting import in_order
from tests.viewer.outboxes import NOON, log, opened, put


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("**bold** and `code`", "<p><strong>bold</strong> and <code>code</code></p>"),
        ("# Title", "<h4>Title</h4>"),
        ("a\nb", "<p>a<br />\nb</p>"),
        ("<script>x</script>", "<p>&lt;script&gt;x&lt;/script&gt;</p>"),
        ("![x](http://evil.example/p.png)", None),
        ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>"),
        ("[x](data:text/html,y)", "<p>[x](data:text/html,y)</p>"),
    ],
)
def test_markdown_is_rendered_and_never_executed(text: str, html: str | None) -> None:
    made = str(render(text)).strip()
    assert "<img" not in made
    if html is not None:
        assert made == html


def test_aligned_cells_have_a_class_instead_of_a_style() -> None:
    made = str(render("|a|b|c|\n|-:|:-:|---|\n|1|2|3|"))
    assert "style" not in made
    assert (made.count("align-right"), made.count("align-center"), made.count("class=")) == (2, 2, 4)


def test_links_open_in_a_new_tab_without_a_referrer() -> None:
    made = str(render("[x](https://a.example/?q=1&r=2)"))
    assert 'rel="noopener noreferrer nofollow"' in made
    assert 'target="_blank"' in made


@given(st.text(max_size=300))
def test_any_text_becomes_harmless_html(text: str) -> None:
    tags = set(re.findall(r"<\s*/?\s*(\w+)", str(render(text))))
    assert tags <= {"p", "em", "strong", "code", "pre", "a", "br", "ul", "ol", "li", "h4", "hr", "blockquote", "s",
                    "table", "thead", "tbody", "tr", "th", "td", "input", "figure", "figcaption", "button"}  # fmt: skip


@given(st.lists(st.integers(1, 3_600_000), min_size=1, max_size=200))
def test_percentiles_are_within_five_per_cent(latencies: list[int]) -> None:
    bins: dict[int, int] = {}
    for each in latencies:
        bins[bin_of(each)] = bins.get(bin_of(each), 0) + 1
    ordered = sorted(latencies)
    for share in (0.5, 0.95):
        exact = ordered[max(0, -(-len(ordered) * int(share * 100) // 100) - 1)]
        found = percentile(bins, share)
        assert found is not None
        assert exact * 0.95 <= found <= exact * 1.05


def test_without_calls_there_is_no_percentile() -> None:
    assert percentile({}, 0.5) is None
    assert latency_of(bin_of(0)) == 0


def test_charts_sum_up_the_logs(path: Path) -> None:
    chance = random.Random(3)
    entries = [
        log(
            made=NOON + chance.uniform(0, 86_400 * 5),
            customer_id=f"c{chance.randrange(10)}",
            total_tokens=chance.randrange(500),
            response_time=chance.randrange(1, 5000),
            **({"error": "boom"} if chance.random() < 0.1 else {}),
        )
        for _ in range(400)
    ]
    put(path, *entries)
    bodies = [json.loads(entry.body) for entry in entries]
    with opened(path) as source, source.open() as db:
        by_customer = charts.load_charts(db, by="customer", now=NOON + 86_400 * 5)
        for drawn in (by_customer, charts.load_charts(db, now=NOON + 86_400 * 5)):
            assert sum(line.total.calls for line in drawn.lines) == 400
            assert sum(line.total.errors for line in drawn.lines) == sum("error" in body for body in bodies)
            assert sum(line.total.tokens for line in drawn.lines) == sum(body["total_tokens"] for body in bodies)
            assert len(drawn.starts) <= charts.MAX_COLUMNS
        assert by_customer.lines[-1].name == charts.OTHERS
        whole = charts.load_charts(db, now=NOON + 86_400 * 5).lines[0]
        median = statistics.median(body["response_time"] for body in bodies)
        assert whole.total_latencies.p50 == pytest.approx(median, rel=0.1)
        day = charts.load_charts(db, period="24h", now=NOON + 86_400 * 5)
        assert 0 < day.lines[0].total.calls < 400


def test_charts_without_logs_are_empty(path: Path) -> None:
    with opened(path) as source, source.open() as db:
        drawn = charts.load_charts(db, by="model", period="7d")
        assert drawn.lines == []
        assert set(drawn.column(0)) == {0}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "just now"),
        (42, "42 s ago"),
        (600, "10 min ago"),
        (7200, "2 h ago"),
        (86_400 * 3, "3 d ago"),
        (-5, "just now"),
    ],
)
def test_ages_are_readable(seconds: float, words: str) -> None:
    assert formatting.time_ago(NOON - seconds, now=NOON) == words


def test_amounts_are_readable() -> None:
    assert formatting.integer(1234567) == "1\u202f234\u202f567"
    assert formatting.duration(950) == "950 ms"
    assert formatting.duration(1500) == "1.5 s"
    assert formatting.money(0.0042) == "$0.0042"
    assert formatting.money(12.5) == "$12.50"
    assert formatting.price(0.5, estimate=0.5, partial=1) == "≈ $0.5000 +"
    assert formatting.price(0.0) == "$0.0000"
    assert formatting.price(0.0, partial=1) == formatting.NO_VALUE
    assert formatting.byte_size(999) == "999 bytes"
    assert formatting.byte_size(2_500_000) == "2.5 MB"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("Parcel **PX-1** arrives *tomorrow* by `14:00`.", "Parcel PX-1 arrives tomorrow by 14:00."),
        ("See [returns](https://a.example/r).", "See returns."),
        ("2 * 3 * 4 = 24, [1] and a ** b", "2 * 3 * 4 = 24, [1] and a ** b"),
        ("***Both*** and **cut o", "Both and **cut o"),
    ],
)
def test_list_lines_have_no_markdown_markup(line: str, text: str) -> None:
    assert formatting.unmarked(line) == text


@given(st.lists(st.none() | st.integers()) | st.lists(st.none() | st.text(max_size=3)), st.sampled_from(["", "-"]))
def test_rows_are_sorted_with_missing_values_last(values: list[Any], minus: str) -> None:
    rows = list(enumerate(values))
    found = in_order(rows, f"{minus}value", {"value": lambda row: row[1]})
    known = [value for value in values if value is not None]
    is_text = any(isinstance(value, str) for value in known)
    assert sorted(found, key=lambda row: row[0]) == rows
    assert [row[1] for row in found] == [
        *sorted(known, reverse=is_text == bool(minus)), *[None] * (len(values) - len(known))
    ]  # fmt: skip
    assert in_order(rows, "other", {"value": lambda row: row[1]}) == rows
