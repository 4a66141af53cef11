"""Render Markdown in answers safely: no HTML of the text's own, no images, no referrer in links."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

MAX_LENGTH = 8_000
"""Characters. A longer text is shown unrendered: the time to parse Markdown grows faster than its length."""

_parser = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"]).disable("image")


@lru_cache(maxsize=2_000)
def render(text: str) -> Markup:
    """Render `text` to HTML in which nothing is executable and nothing is loaded from elsewhere."""
    if len(text) <= MAX_LENGTH:
        # A parser meets any text here; what it cannot parse is still worth showing.
        try:
            tokens = _parser.parse(text)
            return Markup(_parser.renderer.render(_adapt(tokens), _parser.options, {}))  # noqa: S704 - escaped parts
        except (RecursionError, ValueError, IndexError):
            pass
    return Markup('<p class="plain">{}</p>').format(text)


def _adapt(tokens: Sequence[Token]) -> Sequence[Token]:
    """Shrink headings, align cells by class, make code scrollable by keyboard, open links without a referrer."""
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = "h4"
        if token.type in ("th_open", "td_open") and (style := str(token.attrs.pop("style", ""))):
            # The content policy forbids inline styles: browsers would drop the alignment and complain.
            token.attrSet("class", style.replace("text-align:", "align-"))
        if token.type in ("fence", "code_block"):
            token.attrSet("tabindex", "0")
        if token.type == "link_open":
            token.attrSet("rel", "noopener noreferrer nofollow")
            token.attrSet("target", "_blank")
        _adapt(token.children or [])
    return tokens
