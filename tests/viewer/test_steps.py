"""Calls made inside a call are steps of its turn, in whatever order and pieces their logs arrive."""

import json
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from athina_trace._delivery.entry import Entry
from athina_trace.viewer import queries
from athina_trace.viewer.conversation import Step, steps_of
from athina_trace.viewer.filters import Filters
from athina_trace.viewer.indexed_outbox import IndexedOutbox
from tests.viewer.outboxes import NOON, feedback, log, opened, put, settle


def call(reference: str, parent: str | None = None, session: str | None = "s", **fields: Any) -> Entry:
    attributes = {"function": reference, **({"parent_reference": parent} if parent else {})}
    return log(session, external_reference_id=reference, custom_attributes=attributes, **fields)


def shape(path: Path) -> dict[str, str | None]:
    """Return, for each log's reference, that of its turn, or None if it is a turn."""
    with opened(path) as source, source.open() as db:
        rows = db.execute(
            "SELECT l.reference, t.reference FROM log AS l LEFT JOIN log AS t ON t.id = l.root ORDER BY l.id"
        )
        return {row[0]: row[1] for row in rows}


def test_calls_that_end_before_their_turn_become_its_steps(path: Path) -> None:
    put(path, call("deep", "inner"), call("inner", "outer"), call("other", "outer"), call("outer"))
    assert shape(path) == {"deep": "outer", "inner": "outer", "other": "outer", "outer": None}


def test_a_conversation_counts_turns_and_is_named_after_its_first_question(path: Path) -> None:
    put(
        path,
        call("empty", user_query="", prompt=[]),
        call("inner", "outer", user_query="classify: Where is it?", total_tokens=5, error="boom"),
        call("outer", user_query="Where is it?", total_tokens=7),
        call("second", user_query="And now?"),
    )
    with opened(path) as source, source.open() as db:
        session = queries.session(db, "s")
        assert session is not None
        assert session["question"] == "Where is it?"
        assert [session[name] for name in ("turns", "steps", "tokens", "errors")] == [3, 1, 12, 0]
        turns, _ = queries.turns(db, "s")
        assert [turn.row["reference"] for turn in turns] == ["empty", "outer", "second"]
        totals = dict(db.execute("SELECT step, sum(calls) FROM totals WHERE level = 60 AND by = 'all' GROUP BY step"))
        assert totals == {0: 3, 1: 1}
        assert queries.outbox_status(db).steps == 1


def test_the_steps_of_a_turn_are_a_tree(path: Path) -> None:
    put(path, call("deep", "inner"), call("inner", "outer", error="boom"), call("lost", "gone"), call("outer"))
    with opened(path) as source, source.open() as db:
        turn = next(turn.row for turn in queries.turns(db, "s")[0] if turn.row["reference"] == "outer")
        steps = steps_of(queries.steps(db, turn["id"]), turn)

    def names(branch: list[Step]) -> list[Any]:
        return [[step.name, names(step.steps)] for step in branch]

    assert names(steps.steps) == [["inner", [["deep", []]]]]
    assert (len(steps.ids), steps.failed) == (2, 1)


def test_steps_without_a_session_belong_to_their_turns_session(path: Path) -> None:
    put(path, call("deep", "inner", None), call("inner", "outer", None), call("outer", None, None))
    assert shape(path) == {"deep": "outer", "inner": "outer", "outer": None}
    with opened(path) as source, source.open() as db:
        assert [(row["name"], row["turns"], row["steps"]) for row in queries.sessions(db, Filters()).rows] == [
            ("outer", 1, 2)
        ]


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([call("a", "gone")], {"a": None}),
        ([call("a", "a")], {"a": None}),
        ([call("a", "b"), call("b", "a")], {"a": "b", "b": None}),
        ([call("a", "b", "one"), call("b", None, "two")], {"a": None, "b": None}),
        ([call("b"), call("a", "b")], {"b": None, "a": "b"}),
    ],
    ids=["no parent", "itself", "a circle", "another session", "later than its turn"],
)
def test_logs_without_a_valid_parent_are_turns(
    path: Path, entries: list[Entry], expected: dict[str, str | None]
) -> None:
    put(path, *entries)
    assert shape(path) == expected


def test_steps_become_turns_when_their_turn_is_deleted(path: Path) -> None:
    put(path, call("deep", "inner"), call("inner", "outer"), outer := call("outer"), call("second"))
    with opened(path):
        settle(path, forgotten=[outer.reference])
    assert shape(path) == {"deep": "inner", "inner": None, "second": None}
    with opened(path) as source, source.open() as db:
        (session,) = queries.sessions(db, Filters()).rows
        assert (session["turns"], session["steps"]) == (2, 1)


def test_an_update_leaves_a_step_where_it_is(path: Path) -> None:
    inner = call("inner", "outer", None)
    put(path, inner, call("outer", None, None), feedback(inner, 1))
    assert shape(path) == {"inner": "outer", "outer": None}


def test_feedback_counts_a_tool_and_an_attribute_once(path: Path) -> None:
    entry = call("a", tool_calls=[{"name": "t", "output": "Error: no"}, {"name": "t"}])
    put(path, entry, feedback(entry, 1), feedback(entry, -1))
    with opened(path) as source, source.open() as db:
        assert [tuple(row) for row in db.execute("SELECT name, calls, failures FROM tool")] == [("t", 2, 1)]
        assert db.execute("SELECT count(*) FROM attribute").fetchone()[0] == 1
        (total,) = db.execute("SELECT calls, errors FROM totals WHERE level = 60 AND by = 'tool'").fetchall()
        assert tuple(total) == (2, 1)


def test_the_cost_of_a_turn_is_that_of_its_steps(path: Path) -> None:
    spent: dict[str, Any] = {"language_model_id": "a-model-without-price", "prompt_tokens": 1, "completion_tokens": 1}
    put(
        path,
        call("inner", "outer", cost=0.5),
        call("outer"),
        call("apart", session="t", **spent),
    )
    with opened(path) as source, source.open() as db:
        sessions = {row["name"]: (row["cost"], row["unpriced"]) for row in queries.sessions(db, Filters()).rows}
    assert sessions == {"s": (0.5, 0), "t": (None, 1)}


REFERENCES = "abcdef"
CALLS = st.lists(
    st.tuples(
        st.sampled_from(REFERENCES),
        st.none() | st.sampled_from(REFERENCES),
        st.sampled_from([None, "s", "t"]),
        st.booleans(),
    ),
    max_size=9,
    unique_by=lambda each: each[0],
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    calls=CALLS, chunk=st.integers(1, 9), liked=st.sampled_from(REFERENCES), gone=st.sets(st.sampled_from(REFERENCES))
)
def test_all_sums_are_right_whatever_the_calls_and_their_batches(
    tmp_path_factory: pytest.TempPathFactory,
    calls: list[tuple[str, str | None, str | None, bool]],
    chunk: int,
    liked: str,
    gone: set[str],
) -> None:
    """With any references, each log is a turn or a step of one, and every sum equals that of its logs."""
    path = tmp_path_factory.mktemp("any") / "outbox.db"
    entries = [
        call(name, parent, session, made=NOON, total_tokens=1, response_time=10, **({"error": "x"} if failed else {}))
        for name, parent, session, failed in calls
    ]
    put(path, *entries, *(feedback(entry, 1) for entry in entries if entry.reference == liked))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("athina_trace.viewer.index.CHUNK", chunk)
        with opened(path):
            settle(path, forgotten=gone)
        with opened(path) as source, source.open() as db:
            logs = db.execute("SELECT * FROM log").fetchall()
            turns = {row["id"]: row for row in logs if row["root"] is None}
            for row in logs:
                assert row["root"] is None or turns[row["root"]]["session"] == row["session"]
            sums = {
                row["name"]: (row["turns"], row["steps"], row["tokens"], row["errors"], row["liked"])
                for row in db.execute("SELECT * FROM session")
            }
            expected = {
                name: (
                    sum(row["root"] is None for row in own),
                    sum(row["root"] is not None for row in own),
                    len(own),
                    sum(row["root"] is None and row["error"] is not None for row in own),
                    sum(row["feedback"] == 1 for row in own),
                )
                for name in {row["session"] for row in logs}
                if (own := [row for row in logs if row["session"] == name])
            }
            assert sums == expected
            totals = {
                row["step"]: (row["calls"], row["errors"])
                for row in db.execute("SELECT * FROM totals WHERE level = 60 AND by = 'all'")
            }
            counted = Counter(int(row["root"] is not None) for row in logs)
            failed = Counter(int(row["root"] is not None) for row in logs if row["error"] is not None)
            assert totals == {step: (number, failed[step]) for step, number in counted.items()}


def test_a_page_shows_folded_steps_and_opens_the_requested_one(path: Path, shown: httpx.Client) -> None:
    put(path, inner := call("inner", "outer", response="a thought", total_tokens=321), call("outer"))
    page = shown.get("/session?id=s").text
    assert page.count('<article class="turn') == 1
    assert '<details class="fold steps" id="steps-2"><summary>1 step</summary>' in page
    assert "a thought" in page
    assert "321 tokens" in page
    found = shown.get("/logs?kind=steps").text
    assert f"/session?id=s&amp;at={1}&amp;kind=steps&amp;list=logs#log-1" in found
    opened_page = shown.get(f"/session?id=s&at={quote(inner.reference)}").text
    assert '<details class="fold steps" id="steps-2" open>' in opened_page
    assert "1 session, 2 logs, of which 1 are steps" in " ".join(shown.get("/").text.split())


def test_the_charts_count_turns_or_all_calls(path: Path, shown: httpx.Client) -> None:
    put(path, call("inner", "outer", total_tokens=3), call("outer", total_tokens=4))

    def data(address: str) -> Any:
        text = shown.get(address).text
        return json.loads(text.partition('id="chart-data">')[2].partition("</script>")[0])["lines"][0]

    assert [sum(data("/charts")[name]) for name in ("calls", "tokens")] == [1, 7]
    assert [sum(data("/charts?calls=all")[name]) for name in ("calls", "tokens")] == [2, 7]


def test_a_step_logged_later_by_another_process_joins_its_turn(path: Path) -> None:
    put(path, call("outer"))
    with opened(path) as source:
        put(path, call("inner", "outer"))
        source.refresh()
        with source.open() as db:
            (session,) = queries.sessions(db, Filters()).rows
            assert (session["turns"], session["steps"]) == (1, 1)


def test_an_index_without_prices_is_rebuilt_once_prices_are_available(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(path, call("a", language_model_id="gpt-4o-mini", prompt_tokens=1000, completion_tokens=100))
    for known, expected in ((False, None), (True, pytest.approx(0.00021))):
        monkeypatch.setattr("athina_trace._prices.AVAILABLE", known)
        source = IndexedOutbox(str(path))
        source.refresh()
        with source.open() as db:
            assert db.execute("SELECT cost FROM log").fetchone()[0] == expected
        source.close()


def test_the_link_of_a_turn_opens_the_page_that_shows_it(path: Path, shown: httpx.Client) -> None:
    put(path, *(log("long", response="x" * 700_000) for _ in range(5)), *(log("many") for _ in range(120)))
    for number in (5, 60, 125):
        name = "long" if number == 5 else "many"
        page = shown.get(f"/session?id={name}&at={number}").text
        assert f'<article class="turn chosen" id="log-{number}"' in page


def test_a_turn_with_very_many_steps_says_that_there_may_be_more(path: Path, shown: httpx.Client) -> None:
    put(path, *(call(f"inner{number}", "outer") for number in range(220)), call("outer"))
    page = shown.get("/session?id=s").text
    assert "There may be more" in page
    assert page.count('class="step"') == 200
