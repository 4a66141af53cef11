"""Any text, such as lone surrogates and NUL, from a server or from the program, stops no delivery."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import athina_trace
from athina_trace import _guard
from athina_trace._delivery.entry import Entry, Stored
from athina_trace._delivery.response import _IGNORED, Outcome, bounded
from athina_trace._delivery.sqlite_outbox import SqliteOutbox
from tests.conftest import KEY
from tests.delivery.test_engine import Athina, Stepped
from tests.support.athina_server import AthinaServer, answer
from tests.support.waiting import until

Logs = Callable[[], list[dict[str, Any]]]

TEXTS = st.text(st.one_of(st.characters(codec="utf-8"), st.characters(categories=["Cs"]), st.sampled_from("\0\\u0")))
PER_TEST = settings(max_examples=40, suppress_health_check=list(HealthCheck))


def as_sent(text: str) -> str:
    """Return `text` as Athina receives it: surrogate pairs as their character, lone surrogates and NUL as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")


def is_storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def with_words(text: str) -> bytes:
    """Return the body of an answer; JSON can write any text, even lone surrogates, in ASCII."""
    return json.dumps({"error": text, "data": {"prompt_run_id": text}}).encode()


@PER_TEST
@given(words=TEXTS, status=st.sampled_from([200, 400, 403, 500]))
@example(words="cut \ud83d", status=200)
@example(words="cut \ud83d", status=400)
@example(words="cut \ud83d", status=403)
@example(words="cut \ud83d", status=500)
def test_whatever_text_a_server_answers_other_logs_are_delivered(words: str, status: int) -> None:
    stepped = Stepped(athina := Athina(), keep=3600)
    athina.answer = lambda reference, _: Outcome(status if reference == "one" else 200, None, words, words)
    stepped.put("one", "one")
    stepped.put("another", "another")
    stepped.wait(1)
    assert stepped.engine.paused is None or is_storable(stepped.engine.paused)
    athina.answer = lambda reference, body: Outcome(200, prompt_run_id=words)
    stepped.wait(400)
    counts = stepped.outbox.counts()
    stepped.engine.finish(5)
    assert (counts.made, counts.delivered + counts.refused, counts.refused) == (2, 2, status in (400, 403))


@pytest.mark.parametrize("status", [200, 400, 403, 500])
@pytest.mark.parametrize("words", ["cut \ud83d", "nul \0", "both \udc00\0"])
def test_any_text_from_a_server_is_readable_in_the_program(status: int, words: str, athina: AthinaServer) -> None:
    runs, reasons = list[str | None](), list[str]()
    athina_trace.configure(
        api_key=KEY,
        base_url=athina.url,
        keep_delivered=1,
        on_delivered=lambda event: runs.append(event.prompt_run_id),
        on_refused=lambda event: reasons.append(event.reason),
    )
    athina.when(lambda request: request.json["response"] == "bad", answer(status, with_words(words)))
    for response in ("first", "bad", "last"):
        athina_trace.log_inference(response=response, session_id=response)
    expected = {
        200: (3, 0, 0),
        400: (2, 0, 1),
        403: (2, 0, 1),  # Athina accepted other logs with this key, so this log is at fault
        500: (2, 1, 0),
    }[status]

    def is_as_expected() -> bool:
        now = athina_trace.status()
        return (now.delivered, now.waiting, now.refused) == expected

    athina_trace.flush(0)
    until(is_as_expected)
    assert not athina_trace.status().paused
    athina.clear()
    athina_trace.shutdown(2)
    assert all(map(is_storable, [*filter(None, runs), *reasons]))


@PER_TEST
@given(text=TEXTS.filter(bool))
@example(text="\0")
@example(text="\ud83d")
@example(text="\\\0\\\\\0\\u0000\0\0")
def test_any_text_of_the_program_arrives(text: str, delivered: Logs, athina: AthinaServer) -> None:
    start = len(athina.accepted)
    log: dict[str, Any] = {"response": text, "user_query": text, "session_id": text, "custom_attributes": {text: text}}
    reference = athina_trace.log_inference(**log, external_reference_id=f"log {start} {text}")
    athina_trace.log_feedback(reference, 1, comment=text)
    athina_trace.update_log(external_reference_id=reference, user_query=text)
    athina_trace.update_log(prompt_run_id=f"run {text}", expected_response=text)
    delivered()
    sent = {request.path: request.json for request in athina.accepted[start:]}
    assert len(sent) == 4
    assert athina_trace.status().faults == 0
    clean = as_sent(text)
    made = next(body for body in sent.values() if "response" in body)
    assert (made["response"], made["user_query"], made["session_id"]) == (clean, clean, clean)
    assert made["custom_attributes"][clean] == clean
    assert made["external_reference_id"] == as_sent(reference)
    feedback = next(body for body in sent.values() if "user_feedback" in body)
    assert feedback["user_feedback_comment"] == clean
    assert feedback["external_reference_id"] == made["external_reference_id"]
    assert [body for body in sent.values() if body.get("expected_response") == clean]


@pytest.mark.parametrize(
    "words", ["<", "<script", "<script>", "<style ", "</script ", "<script></script ", "<a ", " ", "<>"]
)
def test_any_message_of_a_server_is_read_quickly(words: str) -> None:
    """The program waits meanwhile, since the interpreter is not released: 5 ms for a text that took 5 s."""
    began = time.thread_time()
    _IGNORED.sub(" ", words * (100_000 // len(words)))
    assert time.thread_time() - began < 0.5


def test_markup_is_removed_from_a_servers_message() -> None:
    page = "<html><style>b{}</style><p>too <b>busy</b></p>\n<script>if (a < b) alert()</script><script>and never"
    assert bounded(page) == "too busy"


def test_a_file_whose_name_is_not_text_is_not_a_segment(tmp_path: Path) -> None:
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"))
    outbox.put(Entry("lane", "log", "1", 0.0, b"{}"))
    segment = tmp_path / "outbox.journal" / "00000001.journal"
    (segment.parent / "\udcff.journal").write_bytes(segment.read_bytes())
    assert outbox.collect() == 1
    outbox.close()


@pytest.mark.parametrize(
    "error",
    [
        UnicodeEncodeError("utf-8", "\ud83d", 0, 1, "surrogates not allowed"),
        OverflowError("int too large"),
        TypeError(),
        AttributeError(),
        sqlite3.ProgrammingError("type 'list' is not supported"),
        sqlite3.InterfaceError("unsupported type"),
        sqlite3.DataError("string or blob too big"),
        sqlite3.IntegrityError("NOT NULL constraint failed"),
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_an_answer_that_cannot_be_stored_does_not_block_others(
    error: Exception, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_guard, "strict", False)
    outbox = SqliteOutbox(str(tmp_path / "outbox.db"))
    stepped = Stepped(athina := Athina(), outbox=outbox, keep=3600)
    athina.answer = lambda reference, _: Outcome(status, None, reference, reference)
    store = outbox.store
    delivered, refused = store.delivered, store.refused

    def takes(entries: Sequence[tuple[Stored, str | None]], now: float, *, keep: bool) -> None:
        if any(name == "poison" for _, name in entries):
            raise error
        delivered(entries, now, keep=keep)

    def refuses(entry: Stored, now: float, *, status: int | None, reason: str) -> None:
        if reason == "poison":
            raise error
        refused(entry, now, status=status, reason=reason)

    monkeypatch.setattr(store, "delivered", takes)
    monkeypatch.setattr(store, "refused", refuses)
    stepped.put("one", "before", "poison", "behind")
    stepped.put("two", "other")
    stepped.settle()
    counts = outbox.counts()
    assert (counts.made, counts.waiting) == (4, 0)
    assert (counts.delivered, counts.refused) == ((4, 0) if status == 200 else (0, 4))
    assert _guard.faults == 1
    assert (
        len([record for record in caplog.records if "storing an answer from Athina failed" in record.getMessage()]) == 1
    )
    assert athina.tries.count("poison") == 1
    reasons = [row[0] for row in store._db.execute("SELECT reason FROM entry WHERE reference = 'poison'")]
    assert reasons == [None if status == 200 else f"its answer cannot be stored: {error!a}"]
    stepped.engine.finish(5)
