"""The search: parts of words, scripts without spaces, marks around what was found, and SQLite without trigrams."""

from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athina_trace.viewer import index, queries
from athina_trace.viewer.filters import Filters
from athina_trace.viewer.markdown import mark, render
from athina_trace.viewer.search_text import fold, pieces, positions, snippet
from tests.viewer.outboxes import feedback, log, opened, put

TEXTS = {
    "de": "Die Paketverfolgung von Köln nach Straßburg",
    "zh": "我想要退款。谢谢",
    "ja": "荷物はどこですか。カタカナ",
    "ko": "택배가 아직 안 왔어요",
    "ar": "أين طَرْدي؟",
    "th": "order PX-48213 (urgent)",
}


def found(path: Path, search: str) -> set[str]:
    with opened(path) as source, source.open() as db:
        return {row["session"] for row in queries.logs(db, Filters(q=search)).rows}


@pytest.fixture
def languages(path: Path) -> Path:
    put(path, *(log(name, user_query="?", prompt=[], response=text) for name, text in TEXTS.items()))
    return path


SEARCHES = [
    ("verfolg", {"de"}),
    ("PAKET", {"de"}),
    ("koln", {"de"}),
    ("traßb", {"de"}),
    ("lgung kö", {"de"}),
    ("退款", {"zh"}),
    ("谢谢", {"zh"}),  # the end of the text
    ("款", {"zh"}),
    ("要款", set()),
    ("どこ", {"ja"}),
    ("タカ", {"ja"}),
    ("아직", {"ko"}),
    ("배가", {"ko"}),
    ("طردي", {"ar"}),
    ("8213", {"th"}),
    ("PX-48213", {"th"}),
    ('"px 48213"', {"th"}),
    ("urg", {"de", "th"}),
    ("lin", set()),
]


@pytest.mark.parametrize(("search", "expected"), SEARCHES)
def test_a_search_finds_parts_of_words_in_any_script(languages: Path, search: str, expected: set[str]) -> None:
    assert found(languages, search) == expected


def test_without_trigrams_the_same_is_found(languages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_VOCABULARY", index._VOCABULARY.replace("trigram", "unicode61"))
    assert "unicode61" in index._VOCABULARY
    assert [found(languages, search) for search, _ in SEARCHES] == [expected for _, expected in SEARCHES]


def test_parts_of_feedback_comments_are_found(path: Path) -> None:
    entry = log("a")
    put(path, entry, feedback(entry, -1, "Völlig unbrauchbar, 垃圾"))
    assert found(path, "brauch") == found(path, "垃圾") == {"a"}


@pytest.mark.parametrize(
    ("text", "search", "marked"),
    [
        ("Where is my parcel?", "PARC", ["parc"]),
        ("Grüße aus Köln", "koln gruße", ["Grüße", "Köln"]),
        ("ﬁne Straße", "fine strasse", ["ﬁne"]),
        ("我想要退款", "退款", ["退款"]),
        ("طَرْدي هنا", "طردي", ["طَرْدي"]),
        ("a cat, a category", "a", ["a", "a"]),
        ("is this his?", "is", ["is"]),
        ("one  two", '"one two"', ["one  two"]),
        ("nothing", "else", []),
        ("(a+b)*", "(a+b)*", ["(a+b)*"]),
        ("", "x", []),
    ],
)
def test_matches_are_marked(text: str, search: str, marked: list[str]) -> None:
    assert [part.lower() for part, hit in pieces(text, search) if hit] == [each.lower() for each in marked]


@given(st.text(max_size=80), st.text(max_size=20))
def test_marks_do_not_change_the_text(text: str, search: str) -> None:
    assert "".join(part for part, _ in pieces(text, search)) == text
    assert all(0 <= start < end <= len(text) for start, end in positions(text, search))
    assert str(mark(text, "")) == str(mark(text, search)).replace("<mark>", "").replace("</mark>", "")


@given(st.text(max_size=30))
def test_folding_is_idempotent(text: str) -> None:
    assert fold(fold(text)) == fold(text)


def test_matches_are_marked_in_markdown_text_and_not_in_tags() -> None:
    html = str(render("**bold strong** [link strong](https://a.example/strong) `strong`", "strong"))
    assert html.count("<mark>strong</mark>") == 2
    assert 'href="https://a.example/strong"' in html


def test_a_snippet_is_the_text_around_the_first_match() -> None:
    text = "word " * 100 + "needle in a haystack " + "word " * 100
    assert snippet(text, "needle", length=60) == "…ord word word word word needle in a haystack word word word…"
    assert snippet(text, "absent", length=60) == ""


def test_lists_and_conversations_mark_matches(path: Path, shown: httpx.Client) -> None:
    put(path, log("a", response="x " * 400 + "the needle", context=["a needle in the document"]))
    assert "the <mark>needle</mark>" in shown.get("/logs?q=needle").text
    page = shown.get("/session?id=a&q=needle&list=logs").text
    assert page.count("<mark>needle</mark>") == 2
