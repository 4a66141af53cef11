"""What the search compares: texts folded to their letters, split into words, and found again in what a page shows.

FTS5's index of words finds words and their beginnings. Two things it cannot find by itself: a piece in the middle of a
word, and anything in Chinese, Japanese or Korean, which put no spaces between words. The first is looked up in a
vocabulary of all words (`vocabulary`, an FTS5 table of trigrams, far smaller than trigrams of all texts would be); for
the second, each such character is made a word of its own, so that a text in them is a phrase.
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
# What the index takes for a mark: of Latin, Greek and Cyrillic letters, and the vowel signs of Arabic and Hebrew.
_MARKS = re.compile("[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670]")
_WORD = re.compile(r"[^\W_]+")
_LONG_WORD = re.compile(r"[^\W_]{3,}")
_TERM = re.compile(r'"([^"]*)"|([^\s"]+)')
MIN_PIECE = 3
"""Letters of a piece of a word that is looked for inside words; a shorter one finds beginnings of words alone."""
_MAX_WORDS = 200
"""Words of the vocabulary that one piece may mean."""
_MAX_TERMS = 20
_WORDS_WITH_PIECE = f"""coalesce((
    SELECT ' OR "' || group_concat(word, '" OR "') || '"'
    FROM (SELECT word FROM vocabulary WHERE word LIKE ? LIMIT {_MAX_WORDS})
), '')"""


class Term(NamedTuple):
    """One thing that a search asks for: a phrase whose last word may be the beginning of a longer one."""

    text: str
    is_phrase: bool

    @property
    def piece(self) -> str:
        """The folded text, where it may also be a piece in the middle of a word; else empty."""
        folded = fold(self.text)
        is_word = not self.is_phrase and _WORD.fullmatch(folded) and not _UNSPACED.search(folded)
        return folded if is_word and len(folded) >= MIN_PIECE else ""

    def fts(self) -> str:
        """Return the term in the language of FTS5; everything is quoted, so that no word becomes an operator."""
        text = spaced(self.text)
        # A single letter would be the beginning of too much, and a character of Chinese is a whole word.
        open_end = not self.is_phrase and len(self.text) > 1 and not _UNSPACED.search(self.text[-1])
        return f'"{text}"' + "*" * open_end


def terms(search: str) -> list[Term]:
    """Split a search as a person types it: words, and phrases in double quotes."""
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
    # Composed again: of a Korean syllable the decomposition takes apart more than marks.
    bare = _MARKS.sub("", unicodedata.normalize("NFKD", letter))
    return unicodedata.normalize("NFC", bare).lower()


def spaced(text: str) -> str:
    """Return `text` as it is indexed: each character of a script without spaces is a word of its own.

    The index would take the vowel signs of Arabic for the ends of words, so that marks are left out.
    """
    return text if text.isascii() else _UNSPACED.sub(r" \1 ", _MARKS.sub("", text))


def words(text: str) -> set[str]:
    """Return the folded words of `text` in which a search may look for a piece."""
    folded = fold(text)
    return set(_LONG_WORD.findall(folded if folded.isascii() else _UNSPACED.sub(" ", folded)))


def match_sql(search: str) -> tuple[str, list[str]]:
    """Return an SQL expression that yields the FTS5 query of `search`, and its parameters; empty where it asks nothing.

    Every term must occur, in any order. The words that hold a piece are looked up by the statement itself.
    """
    expressions: list[str] = []
    values: list[str] = []
    for term in terms(search):
        expressions.append("'(' || ?" + f" || {_WORDS_WITH_PIECE}" * bool(term.piece) + " || ')'")
        values += [term.fts(), f"%{term.piece}%"] if term.piece else [term.fts()]
    return " || ' AND ' || ".join(expressions), values


def positions(text: str, search: str) -> list[tuple[int, int]]:
    """Return where the terms of `search` are in `text`, as pairs of first and last+1 position, in order, apart."""
    wanted = sorted({fold(" ".join(term.text.split())) for term in terms(search)}, key=len, reverse=True)
    if not wanted:
        return []
    places: list[int] | None = None
    folded = fold(text)
    if len(folded) != len(text):
        # Some letters fold to none or to two: each folded letter remembers where it came from.
        parts = [_fold_letter(letter) for letter in text]
        places = [place for place, part in enumerate(parts) for _ in part]
        folded = "".join(parts)
    found = (match.span() for match in re.finditer("|".join(map(_pattern, wanted)), folded))
    if places is None:
        return list(found)
    return [(places[start], places[end - 1] + 1) for start, end in found]


def _pattern(text: str) -> str:
    # A short word was found as the beginning of one, so that only beginnings are marked.
    begins = len(text) < MIN_PIECE and not _UNSPACED.search(text)
    return r"(?<![^\W_])" * begins + r"\s+".join(map(re.escape, text.split(" ")))


def pieces(text: str, search: str) -> Iterator[tuple[str, bool]]:
    """Yield `text` in pieces, each with whether `search` found it."""
    done = 0
    for start, end in positions(text, search) if search else ():
        if start >= done:
            yield text[done:start], False
            yield text[start:end], True
            done = end
    yield text[done:], False


def snippet(text: str, search: str, *, length: int) -> str:
    """Return the part of `text` around the first match, about `length` characters; empty where there is none."""
    found = positions(text, search)
    if not found:
        return ""
    start = max(0, found[0][0] - 24)  # a list shows the beginning of it
    end = start + length
    return ("…" if start else "") + " ".join(text[start:end].split()) + ("…" if end < len(text) else "")
