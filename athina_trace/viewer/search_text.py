"""Text for the search: folds texts, splits them into words, and finds matches in the text of a page.

FTS5's index of words finds words and their beginnings. It cannot find parts in the middle of a word, nor Chinese,
Japanese or Korean text, which has no spaces between words. Parts of words are looked up in a vocabulary of all words
(`vocabulary`, an FTS5 table of trigrams, far smaller than trigrams of all texts would be). Each Chinese, Japanese or
Korean character is indexed as a word, so that a text in these scripts is a phrase.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

# Kana, the ideographs with their extensions, Hangul syllables and jamo, half-width forms.
_UNSPACED = re.compile(
    "([\u1100-\u11ff\u3040-\u30ff\u3130-\u318f\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uffdc\U00020000-\U0003ffff])"
)
# Marks that the index ignores: those of Latin, Greek and Cyrillic letters, and vowel signs of Arabic and Hebrew.
_MARKS = re.compile("[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670]")
_WORD = re.compile(r"[^\W_]+")
_LONG_WORD = re.compile(r"[^\W_]{3,}")
_TERM = re.compile(r'"([^"]*)"|([^\s"]+)')
MIN_PIECE = 3
"""Minimum letters of a part that is searched inside words; shorter ones only match beginnings of words."""
_MAX_WORDS = 200
"""Maximum number of words that a part may match."""
_MAX_TERMS = 20
_WORDS_WITH_PIECE = f"""coalesce((
    SELECT ' OR "' || group_concat(word, '" OR "') || '"'
    FROM (SELECT word FROM vocabulary WHERE word LIKE ? LIMIT {_MAX_WORDS})
), '')"""


class Term(NamedTuple):
    """A term of a search: a phrase whose last word may be the beginning of a longer one."""

    text: str
    is_phrase: bool

    @property
    def piece(self) -> str:
        """The folded text, if it may also be a part in the middle of a word; else empty."""
        folded = fold(self.text)
        is_word = not self.is_phrase and _WORD.fullmatch(folded) and not _UNSPACED.search(folded)
        return folded if is_word and len(folded) >= MIN_PIECE else ""

    def fts(self) -> str:
        """Return the term in the language of FTS5; everything is quoted, so that no word becomes an operator."""
        text = spaced(self.text)
        # A single letter would match the beginning of too many words, and a Chinese character is a whole word.
        open_end = not self.is_phrase and len(self.text) > 1 and not _UNSPACED.search(self.text[-1])
        return f'"{text}"' + "*" * open_end


def terms(search: str) -> list[Term]:
    """Split a search into words, and phrases in double quotes."""
    # FTS5 reads its query as a C string, which a NUL would end inside a quote.
    found = _TERM.findall(search.replace("\0", " "))
    texts = [Term(phrase or word, bool(phrase)) for phrase, word in found]
    return [term for term in texts if any(map(str.isalnum, term.text))][:_MAX_TERMS]


def fold(text: str) -> str:
    """Return `text` in lower case, without marks on its letters."""
    if text.isascii():
        return text.lower()
    return "".join(map(_fold_letter, text))


@lru_cache(maxsize=50_000)
def _fold_letter(letter: str) -> str:
    # Composed again, since decomposition also splits Korean syllables.
    bare = _MARKS.sub("", unicodedata.normalize("NFKD", letter))
    return unicodedata.normalize("NFC", bare).lower()


def spaced(text: str) -> str:
    """Return `text` as it is indexed: each character of a script without spaces is a word.

    Marks are removed, since the index would take the vowel signs of Arabic for the ends of words.
    """
    return text if text.isascii() else _UNSPACED.sub(r" \1 ", _MARKS.sub("", text))


def words(text: str) -> set[str]:
    """Return the folded words of `text` in which a search may find a part."""
    folded = fold(text)
    return set(_LONG_WORD.findall(folded if folded.isascii() else _UNSPACED.sub(" ", folded)))


def match_sql(search: str) -> tuple[str, list[str]]:
    """Return an SQL expression that yields the FTS5 query for `search`, and its parameters; empty for an empty search.

    Every term must occur, in any order. The statement itself looks up the words that contain a part.
    """
    expressions: list[str] = []
    values: list[str] = []
    for term in terms(search):
        expressions.append("'(' || ?" + f" || {_WORDS_WITH_PIECE}" * bool(term.piece) + " || ')'")
        values += [term.fts(), f"%{term.piece}%"] if term.piece else [term.fts()]
    return " || ' AND ' || ".join(expressions), values


def positions(text: str, search: str) -> list[tuple[int, int]]:
    """Return where the terms of `search` are in `text`, as pairs of start and end, in order, without overlaps."""
    wanted = sorted({fold(" ".join(term.text.split())) for term in terms(search)}, key=len, reverse=True)
    if not wanted:
        return []
    places: list[int] | None = None
    folded = fold(text)
    if len(folded) != len(text):
        # Some letters fold to none or to two, so each folded letter remembers its origin.
        parts = [_fold_letter(letter) for letter in text]
        places = [place for place, part in enumerate(parts) for _ in part]
        folded = "".join(parts)
    found = (match.span() for match in re.finditer("|".join(map(_pattern, wanted)), folded))
    if places is None:
        return list(found)
    return [(places[start], places[end - 1] + 1) for start, end in found]


def _pattern(text: str) -> str:
    # A short term matched the beginning of a word, so only beginnings are highlighted.
    begins = len(text) < MIN_PIECE and not _UNSPACED.search(text)
    return r"(?<![^\W_])" * begins + r"\s+".join(map(re.escape, text.split(" ")))


def pieces(text: str, search: str) -> Iterator[tuple[str, bool]]:
    """Yield `text` in pieces, each with whether it matches `search`."""
    done = 0
    for start, end in positions(text, search) if search else ():
        if start >= done:
            yield text[done:start], False
            yield text[start:end], True
            done = end
    yield text[done:], False


def snippet(text: str, search: str, *, length: int) -> str:
    """Return the part of `text` around the first match, about `length` characters; empty if there is none."""
    found = positions(text, search)
    if not found:
        return ""
    start = max(0, found[0][0] - 24)  # a list shows the beginning of it
    end = start + length
    return ("…" if start else "") + " ".join(text[start:end].split()) + ("…" if end < len(text) else "")
