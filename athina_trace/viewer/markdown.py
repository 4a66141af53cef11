"""Markdown in answers, shown safely: no HTML of the text's own, no images, links that tell nobody where they were."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

LONGEST = 8_000
"""Characters. A longer text is shown as it is: reading Markdown takes time that grows with it."""

_HEADINGS = {"heading_open", "heading_close"}
_parser = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"]).disable("image")


@lru_cache(maxsize=2_000)
def render(text: str) -> Markup:
    """HTML of `text`, in which nothing is executable and nothing is loaded from elsewhere."""
    if len(text) > LONGEST:
        return Markup('<p class="plain">{}</p>').format(text)
    try:
        tokens = _parser.parse(text)
        return Markup(_parser.renderer.render(_tamed(tokens), _parser.options, {}))  # noqa: S704 - made of escaped parts
    except (RecursionError, ValueError, IndexError):
        return Markup('<p class="plain">{}</p>').format(escape(text))


def _tamed(tokens: Sequence[Token]) -> Sequence[Token]:
    """Headings as small as a message's are, links that open elsewhere and say nothing about here."""
    for token in tokens:
        if token.type in _HEADINGS:
            token.tag = "h4"
        if token.type in ("fence", "code_block"):
            token.attrSet("tabindex", "0")
        if token.type == "link_open":
            _leave(token)
        _tamed(token.children or [])
    return tokens


def _leave(token: Any) -> None:
    token.attrSet("rel", "noopener noreferrer nofollow")
    token.attrSet("target", "_blank")
